# SPDX-License-Identifier: Apache-2.0
"""Start the place-recognition node: `ros2 launch binvpr_ros binvpr.launch.py image_topic:=/camera/image_raw`."""

import os
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from binvpr_ros.config import Config, truth_value, with_home
from binvpr_ros.ros.dds import PROFILE_VARIABLES
from binvpr_ros.ros.launch_files import misspelt, parameters_of, python_path
from launch import LaunchContext, LaunchDescription, logging

# Every parameter of the node is an argument too. What is left empty overrides nothing: the params file and the node's
# defaults hold.
ARGUMENTS = {
    "image_topic": (
        "/camera/image_raw",
        "Camera topic, with camera_info next to it; compressed:=true reads <topic>/compressed instead.",
    ),
    "odometry_topic": (
        "/odom",
        "Odometry topic (nav_msgs/Odometry), optional; odometry tells similar places apart.",
    ),
    "depth_topic": (
        "",
        "Depth image of the same view (sensor_msgs/Image, 16UC1 or 32FC1); gives relative poses their scale.",
    ),
    "compressed": ("", "true: subscribe to sensor_msgs/CompressedImage."),
    "namespace": ("binvpr", "Namespace of the node and its topics."),
    "params_file": ("", "YAML file of parameters; empty: the package's config/binvpr.yaml."),
    "model": ("", "Model file (.tflite)."),
    "database": ("", "Map file (SQLite) for the keyframes; empty: memory only."),
    "enclave": ("", "Security enclave of the node under SROS 2."),
    "log_level": ("", "debug, info, warn, error or fatal."),
    "use_sim_time": ("", "true: take the time from /clock."),
    "venv": ("", "Virtual environment with the network's runtime, such as ~/binvpr_venv."),
    "fastdds_profile": ("", "XML profile for Fast DDS, such as the package's config/fastdds_large_images.xml."),
    "rviz": ("", "true: also start RViz 2, with the package's config/binvpr.rviz."),
}
PARAMETERS = {parameter.name: parameter for parameter in Config.parameters()}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the node is made when their values are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value="", description=parameter.metadata["sentence"])
        for name, parameter in PARAMETERS.items()
        if name not in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])


def start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node, with what the arguments ask for."""
    values = {name: context.launch_configurations[name] for name in (*ARGUMENTS, *PARAMETERS)}
    overrides = {name: value_of(name, values[name]) for name in PARAMETERS if values[name]}
    if values["use_sim_time"]:
        overrides["use_sim_time"] = truth_value("use_sim_time", values["use_sim_time"])
    config = Path(get_package_share_directory("binvpr_ros"), "config")
    params_file = with_home(values["params_file"]) or str(config / "binvpr.yaml")
    profile = with_home(values["fastdds_profile"])
    for name, path in (("params_file", params_file), ("fastdds_profile", profile)):
        if path and not Path(path).is_file():
            raise FileNotFoundError(f"{name} {path} is not a file; give the path of one")
    full_name = in_namespace("binvpr", values["namespace"])
    parameters = parameters_of(Path(params_file), full_name)
    compressed = overrides.get("compressed", parameters.get("compressed") is True)
    doubts = []
    if "cameras" not in context.launch_configurations:  # binvpr_cameras.launch.py sees to those that it is given
        known = dict.fromkeys(PARAMETERS, "") | {name: default for name, (default, _) in ARGUMENTS.items()}
        doubts += misspelt(context.launch_configurations, known)
    if not parameters:
        doubts.append(f"{params_file} says nothing of {full_name}; let it begin with /**: and ros__parameters:")
    for doubt in doubts:
        logging.get_logger("binvpr.launch.py").warning(doubt)
    camera = values["image_topic"].rstrip("/")
    topic = camera + ("/compressed" if compressed else "")
    beside, slash, _ = camera.rpartition("/")
    camera_info = f"{beside}{slash}camera_info"  # as image_transport has it
    depth = [("depth", values["depth_topic"])] if values["depth_topic"] else []
    given = {"--log-level": values["log_level"], "--enclave": values["enclave"]}

    actions: list[LaunchDescriptionEntity] = []
    if profile:
        # A profile that the user's shell has set already is the user's choice.
        actions += [SetEnvironmentVariable(name, profile) for name in PROFILE_VARIABLES if name not in os.environ]
    if values["rviz"] and truth_value("rviz", values["rviz"]):
        # Its file names the topics of the default arguments.
        topics = {f"/binvpr/binvpr/{name}": f"{full_name}/{name}" for name in ("graph", "match_image")}
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", str(config / "binvpr.rviz")],
                remappings=[*topics.items(), ("/camera/image_raw", in_namespace(camera, values["namespace"]))],
            )
        )
    node = Node(
        package="binvpr_ros",
        executable="binvpr_node",
        name="binvpr",
        namespace=values["namespace"],
        parameters=[params_file, overrides],
        remappings=[
            ("image", topic),
            ("camera_info", camera_info),
            ("odometry", values["odometry_topic"]),
            *depth,
        ],
        additional_env=python_path(values["venv"]),
        ros_arguments=[word for option, value in given.items() if value for word in (option, value)],
        output="screen",
    )
    return [*actions, node]


def in_namespace(name: str, namespace: str) -> str:
    """Return the full name of a topic, or of a node, in that namespace."""
    return name if name.startswith("/") else f"/{namespace.strip('/')}/{name}".replace("//", "/")


def value_of(name: str, text: str) -> Any:
    """Return the value of a parameter of the node as its type has it; raises ValueError."""
    value = Config.value_of(name, text)
    # With their types given: else launch would take a file 20240501 for a number, and what follows a # for a comment.
    if isinstance(value, str):
        return ParameterValue(value, value_type=str)
    if isinstance(value, tuple):
        return ParameterValue(list(value), value_type=list[str])
    return value
