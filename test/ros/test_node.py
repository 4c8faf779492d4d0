# SPDX-License-Identifier: Apache-2.0
"""The node as a process of its own: real messages over DDS in, real messages out."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import DescribeParameters, GetParameters
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from robot import CAMERA, Robot
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from binvpr_ros.config import Config, share_directory
from binvpr_ros.loop_closure import Refusal
from binvpr_ros.maps.command import problems
from binvpr_ros.pictures import ACCEPTED, GAP, LABEL_HEIGHT, PANEL, REFUSED, TITLE_HEIGHT
from binvpr_ros.recordings.world import Pose, World, drive
from binvpr_ros.ros.calibration import LATCHED
from binvpr_ros.ros.constraints import read_loop_constraints
from binvpr_ros.ros.messages import (
    MATCH_ROW,
    from_nanoseconds,
    image_from_message,
    message_from_array,
    message_from_depth,
    rows_from_message,
    to_nanoseconds,
)
from binvpr_ros.ros.node import EVERY_RESULT, LATEST_FOR_ALL, status_name
from binvpr_ros.ros.recent_images import MOST_BYTES
from binvpr_ros.ros.replay import wait_for_subscriber
from binvpr_ros.ros.voice import CLOSURE_INTERVAL

pytestmark = pytest.mark.usefixtures("ros")

EAGER = ("-p", "keyframe_distance:=0.0", "-p", "keyframe_min_interval:=0.0")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Robot]]:
    robots: list[Robot] = []

    def start_robot(*arguments: str, **options: Any) -> Robot:
        robots.append(Robot(tmp_path, *arguments, **options))
        return robots[-1]

    yield start_robot
    for robot in robots:
        robot.close()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_revisit_is_published(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], compressed: bool
) -> None:
    robot = start(*EAGER, "-p", f"compressed:={str(compressed).lower()}", compressed=compressed)
    first = robot.show(world_images[:20], start=100)
    robot.show(world_images[30:36], start=112)
    again = robot.show(world_images[4:12], start=122)
    robot.wait(lambda: len(robot.listener.keyframes) == 34, "all keyframes are announced")
    tables = robot.listener.closures
    assert tables
    for table in tables:
        assert table.header.frame_id == "camera_link"
        number = again.index(to_nanoseconds(table.header.stamp))
        best = rows_from_message(table)[0]
        assert int(best["match_sec"]) * 10**9 + int(best["match_nanosec"]) == first[4 + number]
        assert (best["query_id"], best["match_id"]) == (26 + number, 4 + number)
        assert best["hamming"] <= 64
        assert best["inliers"] >= Config().min_inliers
    assert [to_nanoseconds(header.stamp) for header in robot.listener.keyframes][:20] == first


def test_a_place_of_an_earlier_map_is_recognised(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    old, new = tmp_path / "monday.db", tmp_path / "tuesday.db"
    monday = start(*EAGER, "-p", f"database:={old}")
    stamps = monday.show(world_images[:20], start=100)
    monday.close()
    tuesday = start(*EAGER, "-p", f"database:={new}", "-p", f"maps:=[{old}]", "-p", "max_keyframes:=1000")
    tuesday.show(world_images[4:12], start=9000)
    tuesday.wait(lambda: bool(tuesday.listener.closures), "closures are published")
    best = rows_from_message(tuesday.listener.closures[0])[0]
    assert int(best["match_sec"]) * 10**9 + int(best["match_nanosec"]) in stamps
    assert (best["query_session"], best["match_session"]) == (1, 0)
    assert best["query_id"] >= 20 > best["match_id"]
    assert not tuesday.set("maps", [""]).successful
    assert tuesday.set("max_keyframes", 9).successful
    with sqlite3.connect(new) as connection:
        assert connection.execute("SELECT MIN(id), MAX(session) FROM keyframes").fetchone() == (0, 0)
    connection.close()
    tuesday.close()

    copy = shutil.copy(old, tmp_path / "copy.db")
    wednesday = start("-p", f"maps:=[{old}, {copy}]")
    assert f"the maps hold 20 keyframes twice, the first of them in {copy}" in wednesday.log.read_text()


def test_constraints_are_published_and_right(start: Callable[..., Robot]) -> None:
    world, rng = World(), np.random.default_rng(3)
    path = [pose for pose, _, _ in drive()]
    there, elsewhere = path[:60:3], path[300:318:3]
    again = [Pose(pose.x + 0.1, pose.y - 0.05, pose.heading + 0.05) for pose in there[4:10]]
    robot = start(*EAGER)
    calibration = robot.node.create_publisher(CameraInfo, "/camera_info", CAMERA)
    depth = robot.node.create_publisher(Image, "/depth", CAMERA)
    constraints: list[PointCloud2] = []
    matches: list[PointCloud2] = []
    robot.node.create_subscription(PointCloud2, "loop_constraints", constraints.append, EVERY_RESULT)
    robot.node.create_subscription(PointCloud2, "binvpr/matches", matches.append, EVERY_RESULT)
    assert wait_for_subscriber(calibration, 30.0)
    assert wait_for_subscriber(depth, 30.0)
    assert robot.listener.diagnostics == {} or "no calibration" in robot.listener.diagnostics["relative_poses"]
    focal = world.width / 2 / np.tan(world.field_of_view / 2)
    calibration.publish(CameraInfo(width=320, height=240, k=[focal, 0.0, 159.5, 0.0, focal, 119.5, 0.0, 0.0, 1.0]))
    robot.wait(lambda: "is calibrated" in robot.log.read_text(), "the calibration has come")
    truth = {}
    for second, poses in ((100, there), (112, elsewhere), (122, again)):
        for number, pose in enumerate(poses):
            stamp = round((second + number / 5) * 1e9)
            truth[stamp] = pose
            measured = message_from_depth(world.depth(pose, rng))
            # Of every second image the depth comes first, and it is off by a few milliseconds.
            measured.header.stamp = from_nanoseconds(stamp + 3_000_000 * (number % 2))
            image = message_from_array(world.render(pose), "rgb8")
            if number % 2:
                robot.send(image, stamp)
                depth.publish(measured)
            else:
                depth.publish(measured)
                robot.send(image, stamp)
            robot.wait(lambda: robot.newest_keyframe() == stamp, "the image is a keyframe")  # noqa: B023 - called at once
    # A depth image that is none harms nothing.
    depth.publish(message_from_array(np.zeros((240, 320, 3), np.uint8), "rgb8"))
    robot.settle()
    robot.wait(lambda: len(constraints) == len(robot.listener.closures) >= 4, "a constraint for each closure")
    robot.wait(lambda: len(matches) == len(constraints), "the matches too")
    for message, closures, pixels in zip(constraints, robot.listener.closures, matches, strict=True):
        found = read_loop_constraints(message)
        assert message.header == closures.header == pixels.header
        assert [one.match_id for one in found] == rows_from_message(closures)["match_id"].tolist()
        for one in found:
            rotation, translation = between(truth[one.query_stamp], truth[one.match_stamp])
            assert one.pose.scale_known
            assert np.linalg.norm(one.pose.translation - translation) < 0.06
            turn = np.trace(one.pose.rotation @ rotation.T)
            assert np.rad2deg(np.arccos(np.clip((turn - 1) / 2, -1, 1))) < 1.5
        rows = np.frombuffer(pixels.data, MATCH_ROW)
        assert set(rows["match_id"]) == {one.match_id for one in found}
        assert np.count_nonzero(rows["match_id"] == found[0].match_id) == rows_from_message(closures)[0]["inliers"]
        for name, most in (("x", 320), ("y", 240)):
            assert ((rows[f"query_{name}"] >= 0) & (rows[f"query_{name}"] < most)).all()
    robot.wait(lambda: robot.count("constraints_with_scale") >= len(constraints), "diagnostics count them")
    assert robot.count("constraints_without_scale") == 0
    assert robot.listener.diagnostics["relative_poses"] == "with scale, where depth is known"


def between(query: Pose, match: Pose) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rotation [3,3] and translation [3] from the camera of a query to that of its match, optical frames."""
    frames = []
    for pose in (query, match):
        sine, cosine = np.sin(pose.heading), np.cos(pose.heading)
        frames.append(np.array([[-sine, 0, cosine], [cosine, 0, sine], [0, 1, 0]]))
    shift = np.array([query.x - match.x, query.y - match.y, 0])
    return frames[1].T @ frames[0], frames[1].T @ shift


def test_a_calibrated_camera_is_used_and_another_one_is_not(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER)
    publisher = robot.node.create_publisher(CameraInfo, "/camera_info", CAMERA)
    assert wait_for_subscriber(publisher, 30.0)
    focal = 160 / np.tan(np.deg2rad(37.5))
    calibrated = CameraInfo(width=320, height=240, k=[focal, 0.0, 160.0, 0.0, focal, 120.0, 0.0, 0.0, 1.0])
    for info, sentence in (
        (CameraInfo(), "camera_info is not used: it holds no calibration; calibrate the camera, or go on without"),
        (calibrated, "the camera of /camera is calibrated: loops are verified without the distortion of its lens"),
    ):
        for second in range(3):  # said once
            info.header.stamp.sec = second
            publisher.publish(info)
            time.sleep(0.05)
        robot.wait(lambda: sentence in robot.log.read_text(), "it says so")  # noqa: B023 - called at once
        assert robot.log.read_text().count(sentence) == 1
    robot.show(world_images[:20], start=100)
    robot.show(world_images[30:36], start=112)
    robot.show(world_images[4:12], start=122)
    robot.wait(lambda: bool(robot.listener.closures), "closures are published")
    assert rows_from_message(robot.listener.closures[0])[0]["inliers"] >= Config().min_inliers
    robot.wait(lambda: robot.listener.diagnostics["verification"] == "calibrated", "diagnostics say so")
    publisher.publish(CameraInfo())
    refused = "uncalibrated: camera_info is not used: it holds no calibration; calibrate the camera, or go on without"
    robot.wait(lambda: robot.listener.diagnostics["verification"] == refused, "diagnostics say why it is not")
    assert robot.set("verify", False).successful
    unverified = "none, because verify is false"
    robot.wait(lambda: robot.listener.diagnostics["verification"] == unverified, "diagnostics say that nothing is")


def test_calibrations_that_take_turns_are_no_flood(start: Callable[..., Robot]) -> None:
    robot = start(*EAGER)
    publisher = robot.node.create_publisher(CameraInfo, "/camera_info", 50)
    assert wait_for_subscriber(publisher, 30.0)
    turns = "different calibrations take turns on /camera_info, and the latest is used"
    calibrated = "the camera of /camera is calibrated"
    infos = [
        CameraInfo(width=320, height=240, k=[focal, 0.0, 160.0, 0.0, focal, 120.0, 0.0, 0.0, 1.0], p=[np.nan] * 12)
        for focal in (200.0, 210.0, 0.0)
    ]
    for _ in range(30):
        publisher.publish(infos[0])
        time.sleep(0.02)
    robot.wait(lambda: calibrated in robot.log.read_text(), "it is calibrated")
    assert robot.log.read_text().count(calibrated) == 1
    assert turns not in robot.log.read_text()
    for number in range(90):
        publisher.publish(infos[number % 3])
        time.sleep(0.02)
    robot.wait(lambda: turns in robot.log.read_text(), "it says that they take turns")
    robot.wait(lambda: robot.listener.diagnostics["verification"].startswith("uncalibrated"), "the last one is used")
    log = robot.log.read_text()
    assert log.count(turns) == log.count("camera_info is not used") == 1
    assert log.count(calibrated) <= 2  # once of each of the two


def test_a_calibration_that_was_latched_beside_the_images_is_found(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    driver = rclpy.create_node("driver")
    focal = 160 / np.tan(np.deg2rad(37.5))
    k = [focal, 0.0, 160.0, 0.0, focal, 120.0, 0.0, 0.0, 1.0]
    driver.create_publisher(CameraInfo, "/front/camera_info", LATCHED).publish(CameraInfo(width=320, height=240, k=k))
    try:
        robot = start(*EAGER, topic="/front/image_raw")
        robot.show(world_images[:2], start=100)
        robot.wait(lambda: robot.listener.diagnostics["verification"] == "calibrated", "it is found")
        assert "the camera of /front/image_raw is calibrated" in robot.log.read_text()
        assert "incompatible" not in robot.log.read_text()
    finally:
        driver.destroy_node()


def test_a_calibration_that_does_not_come_is_missed_once(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER)
    robot.show(world_images[:2], start=100)
    missing = "no calibration has arrived on /camera_info"
    robot.wait(lambda: robot.listener.diagnostics["verification"] == f"uncalibrated: {missing}", "diagnostics say so")
    robot.wait(lambda: missing in robot.log.read_text(), "the log says so")
    time.sleep(2)
    assert robot.log.read_text().count(missing) == 1


def test_what_is_recognised_is_logged_and_summed_up(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    arguments = (*EAGER, "-p", f"database:={tmp_path / 'map.db'}")
    first = start(*arguments)
    first.show(world_images[:20], start=100)
    first.show(world_images[30:36], start=112)
    begin = time.monotonic()
    first.show(world_images[4:12], start=122)
    first.close()
    log = first.log.read_text()
    closures = [line for line in log.splitlines() if "loop closure: " in line]
    assert 1 <= len(closures) <= 1 + (time.monotonic() - begin) // CLOSURE_INTERVAL  # of at least five
    assert re.search(
        r"keyframe 2\d shows the place of keyframe \d+, 21\.\d s ago \(score [01]\.\d\d, \d+ inliers\)", log
    )
    assert re.search(r"summary of all .*: 34 images, 34 keyframes \(\d closed a loop; the others: 20 no_history, ", log)
    assert "rosout" not in log
    assert "DEBUG" not in log

    second = start(*arguments, "--log-level", "binvpr:=debug")
    second.show(world_images[5:10], start=500)
    second.close()
    log = second.log.read_text()
    assert log.count("relocalisation: ") == 1
    assert f" in session 0 of {tmp_path / 'map.db'}, 6." in log  # minutes
    assert log.count("[DEBUG]") >= 5


@pytest.mark.parametrize("compressed", [False, True])
def test_an_image_topic_of_the_other_kind_is_named_with_what_to_set(
    start: Callable[..., Robot], compressed: bool
) -> None:
    kinds = [Image, CompressedImage]
    robot = start("-p", f"compressed:={str(compressed).lower()}", compressed=not compressed, wait=False)
    sentence = (
        f"no usable image from /camera yet: it has 1 publisher of sensor_msgs/msg/{kinds[not compressed].__name__} "
        f"(best effort, volatile); set the parameter compressed to {str(not compressed).lower()}"
    )
    robot.wait(lambda: sentence in robot.log.read_text(), "the log says so")
    assert robot.listener.message == sentence
    assert robot.log.read_text().count(sentence) == 1  # perhaps after another cause, until the camera was discovered


def test_where_no_image_comes_the_image_topics_are_named_and_images_end_that(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start("-r", "image:=/typo", wait=False)
    sentence = (
        "no usable image from /typo yet: nothing publishes there; remap image (with launch: image_topic) to one of "
        "/camera (Image);"
    )
    robot.wait(lambda: sentence in robot.log.read_text(), "the log says so")
    camera = robot.node.create_publisher(Image, "/typo", CAMERA)

    def recovered() -> bool:
        message = message_from_array(world_images[0], "rgb8")
        message.header.stamp = from_nanoseconds(time.time_ns())
        camera.publish(message)
        return "all is well" in robot.log.read_text()

    robot.wait(recovered, "the log says that images come")


@pytest.mark.parametrize("what", ["stamps", "encoding"])
def test_why_all_images_are_skipped_is_told(start: Callable[..., Robot], what: str) -> None:
    robot = start(*EAGER)
    picture = np.full((24, 32, 3), 3, np.uint8)
    message = message_from_array(picture, "rgb8")
    yet, cause = (
        "",
        "its stamp (7.000 s) is not later than the last image's; check that the camera's driver stamps its images",
    )
    if what == "encoding":
        message.encoding, yet, cause = "sepia", " yet", "its encoding 'sepia' is not one of "

    def told() -> bool:
        robot.send(message, 7 * 10**9)
        return f"no usable image from /camera{yet}: every image is skipped, because {cause}" in robot.log.read_text()

    robot.wait(told, "the log says so")


QUALITIES = [
    QoSProfile(depth=5, reliability=reliability, durability=durability, deadline=Duration(seconds=1), **more)
    for reliability in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
    for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
    for more in ({}, {"liveliness": LivelinessPolicy.MANUAL_BY_TOPIC, "lifespan": Duration(seconds=1)})
]


def test_images_of_any_quality_of_service_are_received(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER)
    for number, quality in enumerate(QUALITIES):
        publisher = robot.node.create_publisher(Image, "/camera", quality)
        assert wait_for_subscriber(publisher, 30.0)
        message = message_from_array(world_images[number], "rgb8")
        message.header.stamp = from_nanoseconds((10 + number) * 10**9)
        publisher.publish(message)
        robot.wait(lambda: len(robot.listener.keyframes) == number + 1, f"an image of {quality} comes")  # noqa: B023
    assert "quality of service" not in robot.log.read_text()


def test_stamps_of_a_back_end_that_do_not_fit_are_named(start: Callable[..., Robot]) -> None:
    robot = start("-p", "keyframe_source:=topic")
    robot.node.create_publisher(Header, "keyframe_stamps", CAMERA)
    sentence = (
        "no messages arrive from a publisher of /keyframe_stamps, because its reliability is weaker than this node "
        "requires; publish with ROS's default quality of service"
    )
    robot.wait(lambda: sentence in robot.log.read_text(), "the log says so")


def test_diagnostics_say_what_happened(start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]) -> None:
    robot = start(*EAGER)
    robot.show(world_images[:6], start=time.time())
    robot.wait(lambda: robot.count("keyframes") == 6, "diagnostics count six keyframes")
    values = robot.listener.diagnostics
    assert robot.listener.hardware_id == "camera_link"
    assert values["backend"] == "delegate"
    assert values["images_received"] == values["images_processed"] == "6"
    assert values["refused_no_history"] == "6"
    assert {f"refused_{reason.value}" for reason in Refusal} <= set(values)
    assert float(values["processing_ms_p95"]) >= float(values["processing_ms_median"]) > 0
    assert float(values["latency_ms_p99"]) >= float(values["latency_ms_p95"]) >= float(values["latency_ms_median"])
    robot.wait(lambda: robot.listener.level == DiagnosticStatus.WARN, "a camera that stops is noticed")
    assert "no usable image from /camera: it has 1 publisher of sensor_msgs/msg/Image" in robot.listener.message


def test_the_latency_of_old_stamps_is_unknown(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER)
    robot.show(world_images[:2], start=10)
    robot.wait(lambda: robot.count("keyframes") == 2, "diagnostics count two keyframes")
    latency = robot.listener.diagnostics["latency_ms_median"]
    assert re.fullmatch(r"unknown: the stamps are \d\d\.\d years old; use `ros2 bag play --clock`, .*", latency)


def test_darkness_is_noticed(start: Callable[..., Robot]) -> None:
    robot = start(*EAGER)
    dark = np.full((240, 320, 3), 3, np.uint8)
    second = iter(range(1000))

    def noticed() -> bool:
        robot.send(message_from_array(dark, "rgb8"), next(second) * 10**8)
        return "too dark" in robot.listener.message

    robot.wait(noticed, "darkness is noticed")
    assert robot.listener.level == DiagnosticStatus.WARN
    assert robot.count("keyframes") == 0
    assert robot.count("refused_featureless") == robot.count("images_processed") > 0


def test_places_are_recognised_in_12_bits_where_these_are_stretched(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER, "-p", "thumbnails:=true", "-p", "stretch_16_bit:=true")
    shown: list[Image] = []
    robot.node.create_subscription(Image, "/binvpr/match_image", shown.append, EVERY_RESULT)
    stamp = 0
    for second, images in ((100, world_images[:20]), (112, world_images[30:36]), (122, world_images[4:12])):
        for number, image in enumerate(images):
            stamp = second * 10**9 + number * 200_000_000
            height, width = image.shape[:2]
            values = image[..., 1].astype("<u2") * 16
            robot.send(
                Image(height=height, width=width, encoding="mono16", step=2 * width, data=values.tobytes()), stamp
            )
            robot.wait(lambda: robot.newest_keyframe() == stamp, "the image is a keyframe")  # noqa: B023 - called at once
    robot.wait(lambda: bool(shown) and to_nanoseconds(shown[-1].header.stamp) == stamp, "the last one is shown")
    assert robot.listener.closures
    rows = image_from_message(shown[-1])[TITLE_HEIGHT:-LABEL_HEIGHT].astype(int)
    assert np.median(np.abs(rows[:, : PANEL[0]] - rows[:, PANEL[0] + GAP :])) < 10
    assert not robot.set("stretch_16_bit", False).successful


def test_unusable_images_are_skipped_with_one_warning_and_harm_nothing(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER)
    robot.show(world_images[:2], start=10)
    for number in range(20):
        robot.send(Image(height=4, width=4, encoding="rgb8", step=12, data=b"short"), round((20 + number) * 1e9))
    robot.send(Image(height=4, width=4, encoding="sepia", step=4, data=bytes(16)), round(50e9))
    robot.settle()
    robot.show(world_images[2:4], start=12)
    robot.wait(lambda: robot.count("images_unusable") == 21, "the images are counted")
    assert robot.count("unusable_image") == 21
    assert robot.count("keyframes") == 4
    warnings = [line for line in robot.log.read_text().splitlines() if "WARN" in line and "[binvpr]" in line]
    assert len(warnings) == 1
    assert "skipped an image: it has 5 bytes of data instead of 48" in warnings[0]


def test_stamps_that_do_not_advance_are_skipped(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER)
    for _ in range(3):
        robot.send(message_from_array(world_images[0], "rgb8"), 0)
        robot.settle()  # so that none is dropped
    assert robot.count("unusable_stamp") == 2
    assert "is not later than the last image's" in robot.log.read_text()


def test_it_goes_on_when_simulated_time_stops(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER, "-p", "use_sim_time:=true")
    clock = robot.node.create_publisher(Clock, "/clock", 10)
    assert wait_for_subscriber(clock, 30.0)

    def show_at(second: int) -> None:
        clock.publish(Clock(clock=from_nanoseconds(second * 10**9)))
        robot.send(message_from_array(world_images[second], "rgb8"), second * 10**9)
        robot.settle()

    show_at(10)
    for _ in range(4):
        show_at(11)
    robot.wait(lambda: robot.count("unusable_stamp") == 3, "stamps that stand still are counted")
    robot.wait(lambda: robot.listener.level == DiagnosticStatus.WARN, "diagnostics go on, and warn")
    assert robot.call(Trigger, "reload_database", Trigger.Request()).message == "2 keyframes are matched"
    show_at(12)
    robot.wait(lambda: robot.count("keyframes") == 3, "it goes on with the time")


def test_a_bag_that_starts_again_begins_a_session(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER)
    robot.show(world_images[:2], start=100)
    robot.send(message_from_array(world_images[0], "rgb8"), round(9.8e9))
    robot.show(world_images[:2], start=10)
    robot.wait(lambda: robot.listener.diagnostics.get("session") == "1", "a session begins")
    assert "the stamps jumped back: session 1 begins" in robot.log.read_text()


def test_a_back_end_names_its_keyframes(start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]) -> None:
    robot = start("-p", "keyframe_source:=topic", "-p", "recent_images:=8")
    stamps = robot.node.create_publisher(Header, "keyframe_stamps", EVERY_RESULT)
    assert wait_for_subscriber(stamps, 30.0)

    def name(second: int) -> None:
        stamps.publish(Header(stamp=from_nanoseconds(second * 10**9)))

    for second in range(10, 22):
        robot.send(message_from_array(world_images[second], "rgb8"), second * 10**9)
    robot.wait(lambda: robot.count("images_received") == 12, "all images have come")
    name(16)
    name(17)  # hardly differs from the one before, and is a keyframe all the same
    name(10)  # of the latest eight no more
    name(23)  # whose image comes later
    name(22)  # whose image never comes
    robot.send(message_from_array(world_images[23], "rgb8"), 23 * 10**9)
    robot.wait(lambda: robot.count("images_processed") == 3, "three images are described")
    robot.wait(lambda: robot.count("stamps_without_image") == 2, "two stamps are reported")
    assert [header.stamp.sec for header in robot.listener.keyframes] == [16, 17, 23]
    assert robot.count("stamps_received") == 5
    assert robot.count("images_dropped") == 0
    assert "there is no image for the keyframe at 10.000 s: lost, or too old" in robot.log.read_text()


def test_large_images_are_kept_for_a_back_end_as_far_as_there_is_room(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start("-p", "keyframe_source:=topic")
    stamps = robot.node.create_publisher(Header, "keyframe_stamps", EVERY_RESULT)
    assert wait_for_subscriber(stamps, 30.0)
    large = message_from_array(np.tile(world_images[0], (8, 8, 1)), "rgb8")
    fit = MOST_BYTES // len(large.data)
    assert 1 < fit < 10
    for number in range(fit + 2):
        robot.send(large, (10 + number) * 10**9)
        robot.wait(lambda: robot.count("images_received") == robot.sent, "the image has come")
    for second in (10, 13):
        stamps.publish(Header(stamp=from_nanoseconds(second * 10**9)))
    robot.wait(lambda: robot.count("images_processed") == 1, "an image is described")
    robot.wait(lambda: robot.count("stamps_without_image") == 1, "a stamp is reported")
    reason = f"lost, or too old; only the latest {fit} images of this size are kept (64 MiB), send smaller ones"
    assert f"there is no image for the keyframe at 10.000 s: {reason}" in robot.log.read_text()


def test_a_burst_of_stamps_is_accounted_for(start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]) -> None:
    robot = start("-p", "keyframe_source:=topic", "-p", "recent_images:=200")
    stamps = robot.node.create_publisher(Header, "keyframe_stamps", QoSProfile(depth=200))
    assert wait_for_subscriber(stamps, 30.0)
    for number in range(90):
        robot.send(message_from_array(world_images[number % 60], "rgb8"), (100 + number) * 10**8)
    for number in range(90):
        stamps.publish(Header(stamp=from_nanoseconds((100 + number) * 10**8)))
    names = ("images_processed", "stamps_without_image")
    robot.wait(lambda: sum(map(robot.count, names)) == 90, "every stamp has its answer")
    assert robot.count("stamps_received") == 90
    assert len(robot.listener.keyframes) == robot.count("keyframes") == robot.count("images_processed") > 60


def test_frames_are_dropped_not_queued(start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]) -> None:
    robot = start(*EAGER)
    large = message_from_array(np.tile(world_images[0], (4, 4, 1)), "rgb8")
    stamp = time.time_ns()
    for number in range(60):
        large.header.stamp = from_nanoseconds(stamp + number * 10**6)
        robot.camera.publish(large)
        time.sleep(0.002)

    def counts() -> tuple[int, ...]:
        return tuple(robot.count(f"images_{name}") for name in ("received", "processed", "dropped"))

    def over() -> bool:
        """Whether no image is in work, and none came in the latest seconds."""
        received, processed, dropped = counts()
        return received == processed + dropped > 0 and robot.listener.diagnostics["rate_hz"] == "0.0"

    robot.wait(over, "every image is processed or dropped")
    _, processed, dropped = counts()
    assert dropped > 0
    assert len(robot.listener.keyframes) == processed


def test_parameters_are_those_of_config(start: Callable[..., Robot]) -> None:
    robot = start()
    names = [parameter.name for parameter in Config.parameters()]
    values = robot.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
    assert [rclpy.parameter.parameter_value_to_python(value) for value in values] == [
        list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for parameter in Config.parameters()
    ]
    described = robot.call(DescribeParameters, "describe_parameters", DescribeParameters.Request(names=names))
    for parameter, descriptor in zip(Config.parameters(), described.descriptors, strict=True):
        assert descriptor.description.startswith(parameter.metadata["sentence"])
        assert descriptor.read_only != parameter.metadata["live"]
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        assert len(ranges) == (parameter.metadata["low"] is not None)


def test_parameters_change_while_running_within_their_range(start: Callable[..., Robot]) -> None:
    robot = start()
    assert robot.set("min_score", 0.7).successful
    assert robot.set("exclusion_time", 20).successful
    for name, value, reason in [
        ("min_score", 1.5, "range"),
        ("max_candidates", 0, "range"),
        ("min_score", "high", "must be of type float"),
        ("confirmation_window", True, "must be of type float"),
        ("model", "other.tflite", "read-only"),
    ]:
        result = robot.set(name, value)
        assert not result.successful
        assert reason in result.reason


def test_services_save_reset_and_reload(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = tmp_path / "map.db"
    robot = start(*EAGER, "-p", f"database:={path}")
    robot.show(world_images[:3], start=10)
    saved = robot.call(Trigger, "save_database", Trigger.Request())
    assert saved.success
    assert saved.message == f"3 keyframes in {path}"
    assert "session 1 begins" in robot.call(Trigger, "reset_database", Trigger.Request()).message
    robot.show(world_images[3:5], start=20)
    assert robot.call(Trigger, "reload_database", Trigger.Request()).message == "5 keyframes are matched"
    robot.close()
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT session, stamp FROM keyframes ORDER BY id").fetchall()
    assert rows == [
        (0, 10_000_000_000),
        (0, 10_200_000_000),
        (0, 10_400_000_000),
        (1, 20_000_000_000),
        (1, 20_200_000_000),
    ]


def keyframes(file: Path) -> dict[int, int]:
    """Return how many keyframes of each session a map holds."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT session, COUNT(*) FROM keyframes GROUP BY session").fetchall())


def test_services_do_what_they_say_while_images_arrive(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = tmp_path / "map.db"
    # The same few images in a circle: what one round closes is one place with the round before.
    circle = ["confirmations:=0", "verify:=false"]
    arguments = [word for one in [*circle, f"database:={path}", "exclusion_time:=1.0"] for word in ("-p", one)]
    robot = start(*EAGER, *arguments)
    levels: list[bytes] = []
    robot.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: levels.extend(status.level for status in message.status), 10
    )
    stop = threading.Event()
    # Each session is in a room of its own: where it has been before, its own images would always be the best match.
    # A prime number of images: else a node that takes, say, every second one never sees the others.
    rooms = [[message_from_array(image, "rgb8") for image in world_images[19 * room :][:19]] for room in range(3)]
    room = 0

    def stream() -> None:
        while not stop.wait(0.005):
            message = rooms[room][robot.sent % 19]
            message.header.stamp = from_nanoseconds(time.time_ns())
            robot.camera.publish(message)
            robot.sent += 1

    def matched() -> set[tuple[int, int]]:
        """Return the sessions of all that was published: of the query, of the match."""
        rows = [row for table in list(robot.listener.closures) for row in rows_from_message(table)]
        return {(int(row["query_session"]), int(row["match_session"])) for row in rows}

    def call(service: str) -> str:
        answer = robot.call(Trigger, service, Trigger.Request())
        assert answer.success
        return str(answer.message)

    streaming = threading.Thread(target=stream)
    streaming.start()
    try:
        robot.wait(lambda: (0, 0) in matched(), "places are recognised")
        for session in (1, 2):
            assert f"session {session} begins" in call("reset_database")
            room = session
            before = {earlier: count for earlier, count in keyframes(path).items() if earlier < session}
            robot.wait(lambda: (session, session) in matched(), "the new session is matched")  # noqa: B023
            assert all(match == session for query, match in matched() if query == session)

            copy = tmp_path / f"copy{session}.db"
            assert str(path) in (saved := call("save_database"))
            shutil.copyfile(path, copy)
            assert problems(copy) == []
            assert sum(keyframes(copy).values()) >= int(saved.split()[0])
            for held in (keyframes(copy), keyframes(path)):  # the rows from before the reset are there
                assert held.items() >= before.items()

            assert int(call("reload_database").split()[0]) >= sum(keyframes(copy).values())
            room = session - 1
            robot.wait(lambda: (session, session - 1) in matched(), "the session before is matched again")  # noqa: B023
        for _ in range(5):
            for service in ("save_database", "reset_database", "reload_database"):
                call(service)
    finally:
        stop.set()
        streaming.join()
    robot.wait(lambda: robot.listener.diagnostics["rate_hz"] == "0.0", "no image is in work")
    assert robot.count("images_received") == robot.count("images_processed") + robot.count("images_dropped")
    assert DiagnosticStatus.ERROR not in levels
    assert not re.search("WARN(?!.*no usable image)", robot.log.read_text())  # of which there is none at the end
    assert len(keyframes(path)) >= 3
    assert sum(keyframes(path).values()) == robot.count("keyframes")


def test_saving_without_a_file_says_what_to_do(start: Callable[..., Robot]) -> None:
    answer = start().call(Trigger, "save_database", Trigger.Request())
    assert not answer.success
    assert answer.message == "there is no file to save to; start the node with the parameter database"


def test_an_earlier_session_is_recognised(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    arguments = (*EAGER, "-p", f"database:={tmp_path / 'map.db'}")
    first = start(*arguments)
    stamps = first.show(world_images[:20], start=1000)
    first.close()
    second = start(*arguments)
    second.show(world_images[5:10], start=5)
    second.wait(lambda: bool(second.listener.closures), "closures are published")
    best = rows_from_message(second.listener.closures[0])[0]
    assert (best["query_session"], best["match_session"]) == (1, 0)
    assert int(best["match_sec"]) * 10**9 + int(best["match_nanosec"]) in stamps


def test_a_query_is_shown_beside_its_best_match(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER, "-p", "thumbnails:=true")
    shown: list[Image] = []
    robot.node.create_subscription(Image, "/binvpr/match_image", shown.append, EVERY_RESULT)
    robot.show(world_images[:20], start=100)
    robot.show(world_images[30:36], start=112)
    again = robot.show(world_images[4:12], start=122)
    robot.wait(lambda: bool(shown) and to_nanoseconds(shown[-1].header.stamp) == again[-1], "the last one is shown")
    closures = {to_nanoseconds(table.header.stamp) for table in robot.listener.closures}
    assert closures
    titles = {True: ACCEPTED, False: REFUSED}
    for message in shown:
        stamp = to_nanoseconds(message.header.stamp)
        assert message.header.frame_id == "camera_link"
        assert message.encoding == "rgb8"
        picture = image_from_message(message)
        for closed, colour in titles.items():
            title = (picture[:TITLE_HEIGHT] == colour).all(axis=2)
            assert title.any() == (closed == (stamp in closures))
        if stamp in again:  # the two images are one and the same
            rows = picture[TITLE_HEIGHT:-LABEL_HEIGHT].astype(int)
            assert np.median(np.abs(rows[:, : PANEL[0]] - rows[:, PANEL[0] + GAP :])) < 10
    assert closures <= {to_nanoseconds(message.header.stamp) for message in shown}
    assert len(shown) > len(closures)


def test_the_graph_shows_keyframes_and_closures_where_the_odometry_has_them(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    # The odometry goes straight on, where the images come back.
    robot = start(*EAGER, "-p", "odometry_drift:=0.0")
    odometry = robot.node.create_publisher(Odometry, "/odometry", EVERY_RESULT)
    assert wait_for_subscriber(odometry, 30.0)
    for second in range(100, 125):
        message = Odometry()
        message.header.stamp, message.header.frame_id = from_nanoseconds(second * 10**9), "odom"
        message.pose.pose.position.x = float(second)
        odometry.publish(message)
        time.sleep(0.01)
    stamps = robot.show(world_images[:20], start=100)
    stamps += robot.show(world_images[30:36], start=112)
    stamps += robot.show(world_images[4:12], start=122)

    def newest_of(graphs: list[MarkerArray]) -> dict[str, list[float]]:
        """Return the x of the points of each marker, by its name."""
        markers = graphs[-1].markers[1:] if graphs else []
        return {marker.ns: [point.x for point in marker.points] for marker in markers}

    graphs: list[MarkerArray] = []
    robot.node.create_subscription(MarkerArray, "/binvpr/graph", graphs.append, LATEST_FOR_ALL)
    robot.wait(lambda: len(newest_of(graphs).get("keyframes", [])) == 34, "all keyframes are drawn for a late viewer")
    markers = newest_of(graphs)
    assert {marker.header.frame_id for marker in graphs[-1].markers} == {"odom"}
    np.testing.assert_allclose(markers["keyframes"], np.array(stamps) * 1e-9)
    assert markers["route"] == markers["keyframes"]
    rows = [(table.header.stamp, row) for table in robot.listener.closures for row in rows_from_message(table)]
    ends = [(to_nanoseconds(stamp) * 1e-9, row["match_sec"] + row["match_nanosec"] * 1e-9) for stamp, row in rows]
    assert ends
    np.testing.assert_allclose(np.reshape(markers["closures"], (-1, 2)), ends)

    later: list[MarkerArray] = []
    robot.node.create_subscription(MarkerArray, "/binvpr/graph", later.append, LATEST_FOR_ALL)
    robot.wait(lambda: later == graphs[-1:], "a later viewer sees the same")
    robot.call(Trigger, "reset_database", Trigger.Request())
    robot.wait(lambda: len(graphs) > 0 and not newest_of(graphs), "a reset clears the graph")


def test_rviz_shows_what_the_node_publishes(start: Callable[..., Robot]) -> None:
    robot = start(namespace="/binvpr")
    settings = yaml.safe_load((share_directory() / "config" / "binvpr.rviz").read_text(encoding="utf-8"))
    displays = [display for display in settings["Visualization Manager"]["Displays"] if "Topic" in display]
    assert [(display["Class"].rpartition("/")[2], display["Topic"]["Value"]) for display in displays] == [
        ("MarkerArray", "/binvpr/binvpr/graph"),
        ("Image", "/binvpr/binvpr/match_image"),
        ("Image", "/camera/image_raw"),  # of the launch file, where it is not told another one
    ]
    for display, kind in zip(displays, ("visualization_msgs/msg/MarkerArray", "sensor_msgs/msg/Image"), strict=False):
        (publisher,) = robot.node.get_publishers_info_by_topic(display["Topic"]["Value"])
        assert publisher.topic_type == kind
        quality = publisher.qos_profile
        assert quality.reliability.name == display["Topic"]["Reliability Policy"].upper()
        assert quality.durability.name == display["Topic"]["Durability Policy"].upper().replace(" ", "_")


def test_foxglove_shows_what_the_node_publishes(start: Callable[..., Robot]) -> None:
    robot = start(namespace="/binvpr")
    settings = json.loads((share_directory() / "config" / "binvpr.foxglove.json").read_text(encoding="utf-8"))
    panels = settings["configById"]
    shown = {
        topic
        for panel in panels.values()
        for topic in (
            panel.get("imageMode", {}).get("imageTopic"),
            panel.get("topicToRender"),
            *panel.get("topics", ()),
        )
        if topic is not None
    }
    assert shown == {
        "/binvpr/binvpr/graph",
        "/binvpr/binvpr/match_image",
        "/camera/image_raw",  # of the launch file, where it is not told another one
        "/diagnostics",
    }
    published = {
        name for name, _ in robot.node.get_topic_names_and_types() if robot.node.get_publishers_info_by_topic(name)
    }
    assert shown - published == {"/camera/image_raw"}

    robot.wait(lambda: bool(robot.listener.diagnostics), "diagnostics")
    path = r'/diagnostics\.status\[:\]\{name=="(.*)"\}\.values\[:\]\{key=="(.*)"\}\.value'
    plotted = [re.fullmatch(path, line["value"]) for panel in panels.values() for line in panel.get("paths", ())]
    assert len(plotted) >= 5
    for match in plotted:
        assert match is not None
        assert match[1] == status_name("binvpr", "/binvpr")
        assert robot.listener.diagnostics[match[2]].isdecimal()

    def leaves(part: Any) -> list[str]:
        return [part] if isinstance(part, str) else leaves(part["first"]) + leaves(part["second"])

    assert sorted(leaves(settings["layout"])) == sorted(panels)


def test_names_follow_the_namespace(start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]) -> None:
    robot = start(*EAGER, namespace="/binvpr")
    robot.show(world_images[:2], start=10)
    robot.wait(lambda: len(robot.listener.keyframes) == 2, "/binvpr/keyframes carries the keyframes")
    topics = dict(robot.node.get_topic_names_and_types())
    assert topics["/binvpr/loop_closures"] == ["sensor_msgs/msg/PointCloud2"]
    assert topics["/binvpr/keyframes"] == ["std_msgs/msg/Header"]
    services = dict(robot.node.get_service_names_and_types())
    for name in ("save", "reset", "reload"):
        assert services[f"/binvpr/binvpr/{name}_database"] == ["std_srvs/srv/Trigger"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], how: signal.Signals
) -> None:
    robot = start(*EAGER)
    robot.show(world_images[:1], start=10)
    robot.camera.publish(message_from_array(world_images[1], "rgb8"))  # in work while it stops
    assert robot.process.stop(how) == 0
    assert "Traceback" not in robot.log.read_text()


@pytest.mark.parametrize("pause", [0.0, 0.003, 0.03])
def test_it_stops_cleanly_when_told_twice_as_by_ctrl_c_under_launch(start: Callable[..., Robot], pause: float) -> None:
    robot = start()
    robot.process.process.send_signal(signal.SIGINT)
    time.sleep(pause)
    assert robot.process.stop(signal.SIGINT) == 0
    assert "Traceback" not in robot.log.read_text()


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("model:=/nowhere/x.tflite", "there is no model file /nowhere/x.tflite; check the parameter model"),
        ("database:=/nowhere/map.db", "/nowhere/map.db cannot be opened as a map"),
        ("min_score:=7.0", "min_score"),
        ("min_score:=high", "min_score must be of type float, not 'high'"),
        ("backend:=abacus", "backend must be one of auto, delegate, litert, not 'abacus'"),
        ("min score:=1", "Couldn't parse"),
        ("maps:=[/a.db, /a.db]", "/a.db is named twice among maps and database; name it once"),
    ],
)
def test_what_prevents_a_start_is_said_in_one_sentence(argument: str, sentence: str) -> None:
    command = [sys.executable, "-m", "binvpr_ros.ros.node", "--ros-args", "-p", argument]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 1, output
    assert f"cannot start: {sentence}" in output or ("cannot start: " in output and sentence in output)
    assert "Traceback" not in output


def test_a_misspelt_parameter_is_named_and_where_the_map_is(start: Callable[..., Robot]) -> None:
    robot = start("-p", "databse:=/nowhere/map.db", "-p", "use_sim_time:=false", "-p", "plugins:=[]", "-p", "maps:=[]")
    log = robot.log.read_text()
    assert "plugins is not a parameter of this node and is ignored\n" in log
    assert "databse is not a parameter of this node and is ignored; did you mean database?" in log
    assert "use_sim_time" not in log
    robot.wait(
        lambda: "the map is kept in memory only, because database is not set" in robot.log.read_text(), "it says so"
    )


@pytest.mark.parametrize(
    ("argument", "status", "text"), [("--help", 0, "usage: binvpr_node"), ("/camera", 2, "/camera")]
)
def test_the_command_line_is_that_of_ros(argument: str, status: int, text: str) -> None:
    command = [sys.executable, "-m", "binvpr_ros.ros.node", argument]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == status
    assert text in result.stdout + result.stderr


REVISIT = [(slice(20), 100), (slice(30, 36), 112), (slice(4, 12), 122)]
REFUSALS: dict[Refusal, tuple[list[str], Sequence[tuple[slice, float]]]] = {
    Refusal.NO_HISTORY: ([], [(slice(2), 100)]),
    Refusal.LOW_SCORE: (["min_score:=1.0"], REVISIT),
    Refusal.NOT_CONFIRMED: (["verify:=false"], [(slice(20), 100), (slice(3, 4), 112)]),
    Refusal.NOT_AMONG_BEST: (
        ["max_candidates:=1", "verify:=false", "exclusion_keyframes:=0"],
        [(slice(8), 100), (slice(8), 111), (slice(8), 122)],
    ),
    Refusal.NEVER_LEFT: (["exclusion_time:=1.0"], [(slice(0, 1), 100 + 0.2 * number) for number in range(20)]),
    # The second visit is within the window, so nothing has joined it to the first when the third comes; nor does the
    # camera's motion, since it was elsewhere meanwhile.
    Refusal.AMBIGUOUS: (
        ["exclusion_time:=20.0"],
        [(slice(8), 100), (slice(30, 38), 105), (slice(8), 110), (slice(30, 38), 115), (slice(8), 121)],
    ),
    Refusal.FEW_INLIERS: (["min_inliers:=500"], REVISIT),
    Refusal.NOT_VERIFIED: (["verification_time:=0.0"], REVISIT),
}  # fmt: skip


def test_every_refusal_is_tested() -> None:
    # Which test_darkness_is_noticed has, and the test after the next one.
    assert set(REFUSALS) == set(Refusal) - {Refusal.FEATURELESS, Refusal.ODOMETRY}


@pytest.mark.parametrize("reason", REFUSALS)
def test_each_refusal_is_counted_in_diagnostics(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], reason: Refusal
) -> None:
    parameters, visits = REFUSALS[reason]
    robot = start(*EAGER, *(word for parameter in parameters for word in ("-p", parameter)))
    for chosen, second in visits:
        robot.show(world_images[chosen], start=second)
    robot.wait(lambda: robot.count(f"refused_{reason.value}") > 0, "the refusal is counted")
    assert robot.count("refused_featureless") == 0


def test_where_the_odometry_says_that_the_robot_is_elsewhere_no_loop_is_closed(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(*EAGER)
    odometry = robot.node.create_publisher(Odometry, "/odometry", EVERY_RESULT)
    assert wait_for_subscriber(odometry, 30.0)
    for chosen, second in REVISIT:
        for number, image in enumerate(world_images[chosen]):
            message = Odometry()
            stamp = second + number / 5
            message.header.stamp, message.header.frame_id = from_nanoseconds(round(stamp * 1e9)), "odom"
            message.pose.pose.position.x = stamp
            odometry.publish(message)
            time.sleep(0.05)
            robot.show([image], start=stamp)
    robot.wait(lambda: robot.count("refused_odometry") > 0, "the refusal is counted")
    assert not robot.listener.closures
