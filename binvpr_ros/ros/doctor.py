# SPDX-License-Identifier: Apache-2.0
"""What `binvpr doctor` asks of ROS: its packages, the middleware, the cameras that publish."""

from __future__ import annotations

import importlib
import time

import rclpy

INTERFACES = ("diagnostic_msgs.msg", "geometry_msgs.msg", "nav_msgs.msg", "rcl_interfaces.msg", "sensor_msgs.msg",
              "std_msgs.msg", "std_srvs.srv", "visualization_msgs.msg")  # fmt: skip
"""What the node needs of ROS beside rclpy."""
CALIBRATION = "sensor_msgs/msg/CameraInfo"


def import_interfaces() -> None:
    """Import the messages and services of the node; raises ModuleNotFoundError where one is missing."""
    for name in INTERFACES:
        importlib.import_module(name)


def middleware() -> str:
    """Start a node, and return the name of the middleware that carries its messages."""
    rclpy.init()
    try:
        rclpy.create_node("doctor").destroy_node()
        return str(rclpy.get_rmw_implementation_identifier())
    finally:
        rclpy.try_shutdown()


def camera_topics(seconds: float) -> list[str]:
    """Return the topics on which images are published, each with what is beside it, after looking for `seconds`."""
    # These need OpenCV, and the rest here does not.
    from binvpr_ros.recordings.bags import camera_info_topic
    from binvpr_ros.ros.silence import IMAGE_TYPES, MATCH_IMAGE

    rclpy.init()
    try:
        node = rclpy.create_node("doctor")
        time.sleep(seconds)  # others are discovered meanwhile
        types = dict(node.get_topic_names_and_types())
        published = {topic for topic in types if node.count_publishers(topic) and not topic.endswith(MATCH_IMAGE)}
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    found = []
    for topic in sorted(published):
        for compressed, kind in IMAGE_TYPES.items():
            if kind in types[topic]:
                beside = camera_info_topic(topic)
                known = beside in published and CALIBRATION in types[beside]
                found.append(f"{topic}{' (compressed)' * compressed}, {'with' if known else 'without'} camera_info")
    return found
