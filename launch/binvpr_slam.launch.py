# SPDX-License-Identifier: Apache-2.0
"""Close the loops of an odometry: `ros2 launch binvpr_ros binvpr_slam.launch.py image_topic:=... odometry_topic:=...`.

Starts the place-recognition node, with all that binvpr.launch.py takes, and pose_graph beside it, in one namespace.
With `depth_topic` the closures have a scale.
"""

from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.utilities import perform_substitutions
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from binvpr_ros.config import PoseGraphConfig, truth_value, with_home
from binvpr_ros.ros.launch_files import misspelt, python_path
from launch import LaunchContext, LaunchDescription, logging

ARGUMENTS = {
    "graph_params_file": ("", "YAML file of pose_graph's parameters; empty: the package's config/pose_graph.yaml."),
    "graph_enclave": ("", "Security enclave of pose_graph under SROS 2."),
}
# Of these binvpr.launch.py has its own with another meaning: by how much odometry must be off to rule a match out.
NOT_ARGUMENTS = ("odometry_drift",)
PARAMETERS = {
    parameter.name: parameter for parameter in PoseGraphConfig.parameters() if parameter.name not in NOT_ARGUMENTS
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes are made when their values are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value="", description=parameter.metadata["sentence"])
        for name, parameter in PARAMETERS.items()
    ]
    one_node = str(Path(__file__).with_name("binvpr.launch.py"))
    return LaunchDescription([*arguments, IncludeLaunchDescription(one_node), OpaqueFunction(function=start_graph)])


def start_graph(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node pose_graph; binvpr.launch.py was included before, so its arguments have their values."""
    given = context.launch_configurations
    one_node = str(Path(__file__).with_name("binvpr.launch.py"))
    passed_on = PythonLaunchDescriptionSource(one_node).get_launch_description(context).get_launch_arguments()
    known = {one.name: perform_substitutions(context, one.default_value) for one in passed_on}
    known |= {name: default for name, (default, _) in ARGUMENTS.items()} | dict.fromkeys(PARAMETERS, "")
    for doubt in misspelt(given, known):
        logging.get_logger("binvpr_slam.launch.py").warning(doubt)
    values = known | {name: given[name] for name in known if name in given}
    overrides: dict[str, Any] = {name: _value_of(name, values[name]) for name in PARAMETERS if values[name]}
    if values["use_sim_time"]:
        overrides["use_sim_time"] = truth_value("use_sim_time", values["use_sim_time"])
    package = Path(get_package_share_directory("binvpr_ros"))
    params_file = with_home(values["graph_params_file"]) or str(package / "config" / "pose_graph.yaml")
    if not Path(params_file).is_file():
        raise FileNotFoundError(f"graph_params_file {params_file} is not a file; give the path of one")
    given_to_ros = {"--log-level": values["log_level"], "--enclave": values["graph_enclave"]}
    return [
        Node(
            package="binvpr_ros",
            executable="pose_graph",
            name="pose_graph",
            namespace=values["namespace"],
            parameters=[params_file, overrides],
            remappings=[("odometry", values["odometry_topic"])],
            additional_env=python_path(values["venv"]),
            ros_arguments=[word for option, value in given_to_ros.items() if value for word in (option, value)],
            output="screen",
        )
    ]


def _value_of(name: str, text: str) -> Any:
    """Return the value of a parameter as its type has it; raises ConfigError."""
    value = PoseGraphConfig.value_of(name, text)
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value
