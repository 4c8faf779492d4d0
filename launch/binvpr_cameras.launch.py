# SPDX-License-Identifier: Apache-2.0
"""Start a node for each camera or robot: `ros2 launch binvpr_ros binvpr_cameras.launch.py cameras:=front,rear`.

Each is in the namespace of its camera and has a map of its own. What binvpr.launch.py takes beside that holds for all
of them; with rviz:=true each has an RViz of its own.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.utilities import perform_substitutions

from binvpr_ros.config import with_home
from binvpr_ros.ros.launch_files import misspelt
from launch import LaunchContext, LaunchDescription, logging

ARGUMENTS = {
    "cameras": (
        None,
        "Namespaces of the cameras, separated by commas, such as front,rear or robot1/camera,robot2/camera.",
    ),
    "image_topic": (
        "image_raw",
        "Camera topic in each namespace, such as /front/image_raw, with camera_info next to it.",
    ),
    "databases": (
        "",
        "Folder for the map files (front.db, robot1_camera.db), created if missing; empty: memory only.",
    ),
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes are made when their values are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])


def start_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the launch file of one node, included for each camera."""
    given, topic, folder = (context.launch_configurations[name] for name in ARGUMENTS)
    cameras = [camera.strip(" /") for camera in given.split(",")]
    if not all(cameras) or len(set(cameras)) < len(cameras):
        raise ValueError(f"cameras must be different names, separated by commas, such as front,rear, not {given!r}")
    database = context.launch_configurations.get("database")
    if database and not folder:
        raise ValueError(
            f"database:={database} names one map, and each camera has its own; name their folder: databases:="
        )
    if folder:
        folder = with_home(folder)
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"databases must name a folder, or a new one, not {folder} ({error.strerror})") from None
    one_node = str(Path(__file__).with_name("binvpr.launch.py"))
    passed_on = PythonLaunchDescriptionSource(one_node).get_launch_description(context).get_launch_arguments()
    known = {one.name: perform_substitutions(context, one.default_value) for one in passed_on}
    known = {name: value for name, value in known.items() if name not in ("namespace", "database")}
    for sentence in misspelt(
        context.launch_configurations, known | {name: str(of) for name, (of, _) in ARGUMENTS.items()}
    ):
        logging.get_logger("binvpr_cameras.launch.py").warning(sentence)
    return [
        IncludeLaunchDescription(
            one_node,
            launch_arguments={
                "namespace": camera,
                "image_topic": f"/{camera}/{topic.strip('/')}",
                "database": str(Path(folder, camera.replace("/", "_") + ".db")) if folder else "",
            }.items(),
        )
        for camera in cameras
    ]
