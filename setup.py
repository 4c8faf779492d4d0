# SPDX-License-Identifier: Apache-2.0
"""Package description for colcon (ament_python) and pip alike."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "binvpr_ros"
SHARE = f"share/{PACKAGE}"


def files(folder: str, *patterns: str) -> list[str]:
    """Return the files of `folder` that match, as paths relative to this one."""
    return sorted(str(path) for pattern in patterns for path in Path(folder).glob(pattern))


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Visual place recognition for ROS 2: loop-closure candidates from a binary network on the CPU",
    license="Apache-2.0",
    author="binvpr_ros maintainers",
    maintainer="binvpr_ros maintainers",
    maintainer_email="maintainers@users.noreply.r-seed-cd54d5ab.example",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", files("launch", "*.launch.py")),
        (f"{SHARE}/config", files("config", "*.yaml", "*.xml")),
        (f"{SHARE}/models", files("models", "*.tflite", "*.json")),
    ],
    zip_safe=False,
    python_requires=">=3.10",
    # The interpreter of the Larq Compute Engine does not work with NumPy 2; opencv-python 4.12 needs NumPy 2.
    install_requires=[
        "setuptools",
        "numpy>=1.21,<2",
        "opencv-python>=4.5,<4.12",
        "rosbags-image>=0.10",
        "tflite-runtime>=2.13; python_version < '3.12'",
        "ai-edge-litert>=2.1; python_version >= '3.12'",
        "larq-compute-engine>=0.16; platform_machine == 'x86_64' and python_version < '3.13'",
    ],
    extras_require={
        "ros": [
            "ros-jazzy-rclpy[fastrtps]",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-std-msgs",
            "ros-jazzy-std-srvs",
            "ros-jazzy-diagnostic-msgs",
        ],
        "tools": ["rosbags>=0.10", "tqdm>=4.60", "matplotlib>=3.5"],
        "training": ["keras>=3.15,<4", "tensorflow-cpu>=2.21,<2.22", "tqdm>=4.60"],
        "test": ["pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100", "ruff>=0.14", "mypy>=1.18", "pyyaml>=6"],
    },
    entry_points={
        "console_scripts": [
            "binvpr_node = binvpr_ros.node:main",
            "replay = binvpr_ros.tools.replay:main",
            "benchmark = binvpr_ros.tools.benchmark:main",
            "train_offline = binvpr_ros.training.train:main",
        ]
    },
)
