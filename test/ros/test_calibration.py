# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from binvpr_ros.ros.calibration import CalibrationSubscriber, calibration_in

pytestmark = pytest.mark.usefixtures("ros")

QUALITIES = {
    f"{reliability.name} {durability.name}": QoSProfile(depth=5, reliability=reliability, durability=durability)
    for reliability in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
    for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
}
LATCHED = QUALITIES["RELIABLE TRANSIENT_LOCAL"]
LIVE = QUALITIES["BEST_EFFORT VOLATILE"]


class Side:
    """The node's side and the camera's, each a node."""

    def __init__(self, *arguments: str) -> None:
        self.node = rclpy.create_node("binvpr", cli_args=["--ros-args", *arguments] if arguments else None)
        self.camera = rclpy.create_node("camera")
        self.widths: list[int] = []
        self.calibration = CalibrationSubscriber(self.node, "/front/image_raw", self._on_camera_info)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.widths.append(message.width)

    def spin_until(self, condition: Callable[[], bool], seconds: float = 20.0, do: Callable[[], Any] = int) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.widths
            do()
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.spin_until(lambda: time.monotonic() > end)

    def subscribed(self) -> set[str]:
        return {subscription.topic_name for subscription in self.node.subscriptions} & {
            "/camera_info",
            "/front/camera_info",
            "/k",
        }

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.camera.destroy_node()


@pytest.fixture
def sides() -> Iterator[Callable[..., Side]]:
    made: list[Side] = []

    def make(*arguments: str) -> Side:
        made.append(Side(*arguments))
        return made[-1]

    yield make
    for side in made:
        side.close()


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_calibration_of_any_quality_of_service_comes(
    sides: Callable[..., Side], quality: str, capfd: pytest.CaptureFixture[str]
) -> None:
    side = sides()
    publisher = side.camera.create_publisher(CameraInfo, "/camera_info", QUALITIES[quality])
    side.executor.add_node(side.camera)  # which would warn of a subscriber that asks for more

    def publish() -> None:
        side.calibration.look_around()
        publisher.publish(CameraInfo(width=640))

    side.spin_until(lambda: side.widths != [], do=publish)
    side.spin(1.0)
    assert set(side.widths) == {640}
    assert "incompatible" not in "".join(capfd.readouterr())


def test_a_calibration_that_was_published_once_before_the_node_came_is_received(sides: Callable[..., Side]) -> None:
    camera = rclpy.create_node("driver")
    camera.create_publisher(CameraInfo, "/camera_info", LATCHED).publish(CameraInfo(width=640))
    side = sides()
    side.spin_until(lambda: side.widths == [640], do=side.calibration.look_around)
    camera.destroy_node()


def test_without_a_publisher_the_calibration_beside_the_images_is_taken(sides: Callable[..., Side]) -> None:
    side = sides()
    side.calibration.look_around()
    assert side.subscribed() == {"/camera_info"}
    assert side.calibration.topics == "/camera_info and /front/camera_info"
    beside = side.camera.create_publisher(CameraInfo, "/front/camera_info", LATCHED)
    beside.publish(CameraInfo(width=640))
    side.spin_until(lambda: side.widths == [640], do=side.calibration.look_around)

    plain = side.camera.create_publisher(CameraInfo, "/camera_info", LIVE)  # which is what the user means
    side.spin_until(lambda: side.subscribed() == {"/camera_info"}, do=side.calibration.look_around)
    beside.publish(CameraInfo(width=641))
    side.spin_until(lambda: 320 in side.widths, do=lambda: plain.publish(CameraInfo(width=320)))
    assert 641 not in side.widths

    side.camera.destroy_publisher(plain)
    side.spin_until(lambda: 641 in side.widths, do=side.calibration.look_around)


def test_who_remapped_the_calibration_gets_no_other(sides: Callable[..., Side]) -> None:
    side = sides("-r", "camera_info:=/k")
    assert side.calibration.topics == "/k"
    beside = side.camera.create_publisher(CameraInfo, "/front/camera_info", LATCHED)
    beside.publish(CameraInfo(width=640))
    side.spin_until(lambda: side.node.count_publishers("/front/camera_info") > 0)
    side.calibration.look_around()
    assert side.subscribed() == {"/k"}
    publisher = side.camera.create_publisher(CameraInfo, "/k", LIVE)
    side.spin_until(lambda: side.widths != [], do=lambda: publisher.publish(CameraInfo(width=320)))
    assert set(side.widths) == {320}


def test_a_calibration_is_the_same_where_all_that_is_used_of_it_is() -> None:
    def info(**changes: Any) -> CameraInfo:
        facts = {"width": 640, "height": 480, "k": [400.0] * 9, "d": [math.nan] * 5, "p": [math.nan] * 12}
        return CameraInfo(**{**facts, "distortion_model": "plumb_bob", **changes})

    later = info()
    later.header.stamp.sec = 7
    for rectified in (False, True):
        assert calibration_in(info(), rectified) == calibration_in(later, rectified)
        others: tuple[dict[str, Any], ...] = (
            {"width": 641}, {"height": 481}, {"k": [401.0] * 9}, {"d": [0.0] * 5}, {"d": []},
            {"distortion_model": "fisheye"}, {"roi": RegionOfInterest(x_offset=8)},
        )  # fmt: skip
        for changes in others:
            assert calibration_in(info(), rectified) != calibration_in(info(**changes), rectified), changes
    projected = info(p=[400.0] * 12)
    assert calibration_in(info(), rectified=False) == calibration_in(projected, rectified=False)
    assert calibration_in(info(), rectified=True) != calibration_in(projected, rectified=True)
