# SPDX-License-Identifier: Apache-2.0
"""The launch files, wherever launch_ros is (ROS from apt); the wheels of the registries do not have it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import share_directory
from binvpr_ros.installation import site_packages

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "binvpr.launch.py"
CAMERAS_FILE = LAUNCH_FILE.with_name("binvpr_cameras.launch.py")
SLAM_FILE = LAUNCH_FILE.with_name("binvpr_slam.launch.py")


def test_it_names_the_arguments_of_the_contract() -> None:
    text = LAUNCH_FILE.read_text(encoding="utf-8")
    for name in ("image_topic", "odometry_topic", "depth_topic", "compressed", "namespace", "params_file", "model",
                 "database", "enclave", "log_level", "use_sim_time", "venv", "fastdds_profile", "rviz"):  # fmt: skip
        assert f'    "{name}": (' in text


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed (it comes with ROS from apt)")
    index = pytest.importorskip("ament_index_python.packages")
    try:
        index.get_package_share_directory("binvpr_ros")
    except index.PackageNotFoundError:
        pytest.skip("the package is not built with colcon here")
    module = load(LAUNCH_FILE)
    monkeypatch.setattr(module, "get_package_share_directory", lambda _: str(share_directory()))
    return module


def load(file: Path) -> Any:
    """Return a launch file as a module."""
    spec = importlib.util.spec_from_file_location("launch_file", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(launch_file: Any, **arguments: str) -> tuple[list[Any], Any]:
    """Return what the launch file would do with these arguments, and the context in which."""
    actions: Any = pytest.importorskip("launch.actions")
    context = pytest.importorskip("launch").LaunchContext()
    context.launch_configurations.update(arguments)
    for entity in launch_file.generate_launch_description().entities:
        if isinstance(entity, actions.DeclareLaunchArgument):
            entity.execute(context)
    return launch_file.start_node(context), context


def expand(launch_file: Any, **arguments: str) -> tuple[Any, dict[str, str]]:
    """Return the node that the launch file would start, its names filled in, and the environment."""
    (*environment, node), context = started(launch_file, **arguments)
    for action in environment:
        action.execute(context)
    node._perform_substitutions(context)
    return node, context.environment


def test_by_default_it_reads_the_camera_in_a_namespace(launch_file: Any) -> None:
    node, _ = expand(launch_file)
    assert node.node_name == "/binvpr/binvpr"
    assert node.expanded_remapping_rules == [
        ("image", "/camera/image_raw"),
        ("camera_info", "/camera/camera_info"),
        ("odometry", "/odom"),
    ]


def test_compressed_images_are_read_from_the_sibling_topic(launch_file: Any) -> None:
    node, _ = expand(launch_file, compressed="true", image_topic="/front/image_raw", namespace="front")
    assert node.node_name == "/front/binvpr"
    assert node.expanded_remapping_rules == [
        ("image", "/front/image_raw/compressed"),
        ("camera_info", "/front/camera_info"),
        ("odometry", "/odom"),
    ]


def test_a_params_file_may_ask_for_compressed_images(launch_file: Any, tmp_path: Path) -> None:
    params_file = tmp_path / "mine.yaml"
    params_file.write_text("/**:\n  ros__parameters:\n    compressed: true\n")
    node, _ = expand(launch_file, params_file=str(params_file))
    assert node.expanded_remapping_rules == [
        ("image", "/camera/image_raw/compressed"),
        ("camera_info", "/camera/camera_info"),
        ("odometry", "/odom"),
    ]


def test_every_parameter_is_an_argument_of_its_own_type(launch_file: Any) -> None:
    utilities = pytest.importorskip("launch_ros.utilities")
    asked = {"database": "/data/run #1.db", "model": "20240501", "maps": "20240430,tuesday.db", "thumbnails": "true",
             "min_score": "1e-1", "max_candidates": "7"}  # fmt: skip
    actions, context = started(launch_file, **asked)
    overrides = utilities.evaluate_parameters(context, actions[-1]._Node__parameters)[-1]
    assert overrides == {
        "database": "/data/run #1.db", "model": "20240501", "maps": ["20240430", "tuesday.db"], "thumbnails": True,
        "min_score": 0.1, "max_candidates": 7,
    }  # fmt: skip
    with pytest.raises(ValueError, match="max_candidates must be of type int, not 'a few'"):
        started(launch_file, max_candidates="a few")


def test_a_camera_topic_without_a_namespace_of_its_own(launch_file: Any) -> None:
    (rviz, _), context = started(launch_file, rviz="true", namespace="front", image_topic="image_raw")
    rviz._perform_substitutions(context)
    assert rviz.expanded_remapping_rules[-1] == ("/camera/image_raw", "/front/image_raw")
    node, _ = expand(launch_file, namespace="front", image_topic="image_raw")
    assert node.expanded_remapping_rules[:2] == [("image", "image_raw"), ("camera_info", "camera_info")]


def test_the_enclave_of_the_node_is_given_to_it(launch_file: Any) -> None:
    (node,), _ = started(launch_file, enclave="/binvpr/binvpr", log_level="debug")
    assert node._Node__ros_arguments == ["--log-level", "debug", "--enclave", "/binvpr/binvpr"]


def test_a_params_file_that_is_not_there(launch_file: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"params_file /nowhere\.yaml is not a file"):
        expand(launch_file, params_file="/nowhere.yaml")


def test_a_truth_value_that_is_none(launch_file: Any) -> None:
    with pytest.raises(ValueError, match="compressed must be true or false, not 'maybe'"):
        expand(launch_file, compressed="maybe")


def test_the_graph_is_drawn_with_the_odometry_that_is_named(launch_file: Any) -> None:
    node, _ = expand(launch_file, odometry_topic="/visual/odometry")
    assert node.expanded_remapping_rules[-1] == ("odometry", "/visual/odometry")


def test_depth_is_taken_from_the_topic_that_is_named(launch_file: Any) -> None:
    node, _ = expand(launch_file, depth_topic="/camera/depth")
    assert node.expanded_remapping_rules[-1] == ("depth", "/camera/depth")


def test_rviz_shows_the_topics_of_the_namespace(launch_file: Any) -> None:
    (rviz, _), context = started(launch_file, rviz="true", namespace="front", image_topic="/front/image_raw")
    rviz._perform_substitutions(context)
    assert rviz.node_package == "rviz2"
    assert rviz.expanded_remapping_rules == [
        ("/binvpr/binvpr/graph", "/front/binvpr/graph"),
        ("/binvpr/binvpr/match_image", "/front/binvpr/match_image"),
        ("/camera/image_raw", "/front/image_raw"),
    ]
    assert len(started(launch_file, rviz="false")[0]) == 1


def test_the_profile_does_not_replace_the_users(launch_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "mine.xml")
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    ours = str(share_directory() / "config" / "fastdds_large_images.xml")
    _, environment = expand(launch_file, fastdds_profile=ours)
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == "mine.xml"
    assert environment["FASTDDS_DEFAULT_PROFILES_FILE"] == ours


def test_the_node_has_the_packages_of_the_venv_that_is_named(launch_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/opt/ros/packages")
    (node,), context = started(launch_file, venv=sys.prefix)
    node._perform_substitutions(context)
    environment = {
        "".join(part.perform(context) for part in name): "".join(part.perform(context) for part in value)
        for name, value in node.process_description.additional_env
    }
    assert environment == {"PYTHONPATH": f"{site_packages(Path(sys.prefix))}:/opt/ros/packages"}
    with pytest.raises(ValueError, match=r"/nowhere is no virtual environment of Python"):
        started(launch_file, venv="/nowhere")


@pytest.mark.usefixtures("launch_file")
@pytest.mark.parametrize("cameras", ["", "front,", "front,front", "front, /front/"])
def test_cameras_that_cannot_be_told_apart(cameras: str) -> None:
    context = pytest.importorskip("launch").LaunchContext()
    context.launch_configurations.update(cameras=cameras, image_topic="image_raw", databases="")
    with pytest.raises(ValueError, match="cameras must be different names, separated by commas"):
        load(CAMERAS_FILE).start_nodes(context)


@pytest.mark.usefixtures("launch_file")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"database": "office.db", "databases": ""}, "database:=office.db names one map, and each camera has its own"),
        ({"databases": "/dev/null"}, r"databases must name a folder, or a new one, not /dev/null \(File exists\)"),
    ],
)
def test_maps_that_would_not_be_kept(arguments: dict[str, str], sentence: str) -> None:
    context = pytest.importorskip("launch").LaunchContext()
    context.launch_configurations.update(cameras="front,rear", image_topic="image_raw", **arguments)
    with pytest.raises(ValueError, match=sentence):
        load(CAMERAS_FILE).start_nodes(context)


@pytest.mark.parametrize("file", [LAUNCH_FILE, CAMERAS_FILE], ids=["one", "cameras"])
def test_an_argument_that_is_misspelt_is_named(launch_file: Any, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("launch.logging").get_logger(file.name).propagate = True
    if file == LAUNCH_FILE:
        started(launch_file, databases="maps", minscore="3")
        assert "databases:=maps is not a launch argument and is ignored; did you mean database?" in caplog.text
    else:
        context = pytest.importorskip("launch").LaunchContext()
        context.launch_configurations.update(cameras="front", image_topic="image_raw", databases="", databse="maps",
                                             minscore="3")  # fmt: skip
        load(file).start_nodes(context)
        assert "databse:=maps is not a launch argument and is ignored; did you mean databases?" in caplog.text
    assert "minscore:=3 is not a launch argument and is ignored; did you mean min_score?" in caplog.text


def test_a_params_file_of_another_node(launch_file: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    params_file = tmp_path / "mine.yaml"
    params_file.write_text("/front/driver:\n  ros__parameters: {min_score: 0.5}\n")
    pytest.importorskip("launch.logging").get_logger("binvpr.launch.py").propagate = True
    started(launch_file, params_file=str(params_file))
    assert f"{params_file} says nothing of /binvpr/binvpr; let it begin with /**:" in caplog.text


@pytest.mark.usefixtures("ros", "launch_file")
def test_each_camera_has_a_node_a_map_and_diagnostics_of_its_own(
    tmp_path: Path, world_images: list[NDArray[np.uint8]]
) -> None:
    from robot import CAMERA
    from sensor_msgs.msg import CompressedImage

    from binvpr_ros.ros.live import Listener
    from binvpr_ros.ros.messages import message_from_array, to_nanoseconds
    from binvpr_ros.ros.replay import wait_for_subscriber
    from binvpr_ros.ros.sources import as_type

    cameras = ("front", "robot2/rear")
    command = ["ros2", "launch", str(CAMERAS_FILE), f"cameras:={','.join(cameras)}", "image_topic:=color/image_raw",
               "compressed:=true", f"databases:={tmp_path}"]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True)
    listeners = [Listener(f"/{camera}") for camera in cameras]
    try:
        for second, (camera, listener) in enumerate(zip(cameras, listeners, strict=True), 1):
            publisher = listener.node.create_publisher(CompressedImage, f"/{camera}/color/image_raw/compressed", CAMERA)
            assert wait_for_subscriber(publisher, 30.0)
            message = as_type(message_from_array(world_images[0], "rgb8"), compressed=True)
            message.header.stamp.sec, message.header.frame_id = second, camera
            publisher.publish(message)
            assert listener.wait_until_settled()
        for second, (camera, listener) in enumerate(zip(cameras, listeners, strict=True), 1):
            assert [to_nanoseconds(header.stamp) for header in listener.keyframes] == [second * 10**9]
            assert listener.hardware_id == camera
            assert listener.diagnostics["images_received"] == "1"
        assert {path.name for path in tmp_path.glob("*.db")} == {"front.db", "robot2_rear.db"}
    finally:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
        for listener in listeners:
            listener.close()


@pytest.mark.usefixtures("ros", "launch_file")
def test_a_launched_node_has_the_users_parameters_and_the_rest_by_default(tmp_path: Path) -> None:
    import rclpy
    from rcl_interfaces.srv import GetParameters

    params_file = tmp_path / "mine.yaml"
    params_file.write_text("/**:\n  ros__parameters:\n    min_score: 0.5\n    max_candidates: 7\n")
    database = tmp_path / "map.db"
    command = ["ros2", "launch", str(LAUNCH_FILE), f"params_file:={params_file}", f"database:={database}"]
    process = subprocess.Popen(command, start_new_session=True)
    node = rclpy.create_node("asker")
    try:
        client = node.create_client(GetParameters, "/binvpr/binvpr/get_parameters")
        assert client.wait_for_service(30.0)
        names = ["min_score", "max_candidates", "database", "exclusion_time"]
        future = client.call_async(GetParameters.Request(names=names))
        rclpy.spin_until_future_complete(node, future, timeout_sec=20.0)
        values = future.result().values
        assert (values[0].double_value, values[1].integer_value) == (0.5, 7)
        assert (values[2].string_value, values[3].double_value) == (str(database), 10.0)
        assert len(node.get_subscriptions_info_by_topic("/camera/image_raw")) == 1
    finally:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
        node.destroy_node()


def test_the_graph_is_started_beside_the_node(launch_file: Any, tmp_path: Path) -> None:
    slam, context = load(SLAM_FILE), started(launch_file, namespace="robot", odometry_topic="/wheels")[1]
    slam.get_package_share_directory = launch_file.get_package_share_directory
    context.launch_configurations.update({"graph": str(tmp_path / "graph.db"), "camera_pose": "0 0 0 0 0 0 1"})
    context.launch_configurations["graph_enclave"] = "/robot/pose_graph"
    (node,) = slam.start_graph(context)
    assert node._Node__ros_arguments == ["--enclave", "/robot/pose_graph"]
    node._perform_substitutions(context)
    assert node.node_name == "/robot/pose_graph"
    assert node.expanded_remapping_rules == [("odometry", "/wheels")]
    context.launch_configurations["graph_params_file"] = str(tmp_path / "missing.yaml")
    with pytest.raises(FileNotFoundError, match=r"graph_params_file .*missing.yaml is not a file"):
        slam.start_graph(context)
