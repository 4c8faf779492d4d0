# SPDX-License-Identifier: Apache-2.0
# ROS 2 Jazzy with the node, for x86-64 and ARM64; docs/install.md says how to run it.

FROM ros:jazzy-ros-base AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
# Without their dependencies, which would bring a second NumPy beside apt's 1.26: OpenCV from 4.12 on asks for NumPy 2.
RUN pip install --no-cache-dir --no-deps --target /opt/packages \
    'ai-edge-litert>=2.1,<2.4' 'opencv-python-headless>=4.6,<4.12'
WORKDIR /ws
COPY . src/binvpr_ros
RUN . /opt/ros/jazzy/setup.sh \
    && colcon build --packages-select binvpr_ros --merge-install --install-base /opt/binvpr

FROM ros:jazzy-ros-core
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-numpy python3-rich python3-tqdm \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/packages /opt/packages
COPY --from=build /opt/binvpr /opt/binvpr
# Logs go where every user may write: shared memory needs the user of the camera driver (docker run --user).
ENV PYTHONPATH=/opt/packages ROS_HOME=/tmp/ros
# The user "ubuntu" of the image.
USER 1000
# ros2 launch stops its nodes cleanly for this signal only.
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/bash", "-c", "source /opt/binvpr/setup.bash && exec \"$@\"", "binvpr"]
CMD ["ros2", "launch", "binvpr_ros", "binvpr.launch.py"]
