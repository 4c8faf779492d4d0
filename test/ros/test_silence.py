# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from binvpr_ros.ros.silence import MOST_TOPICS, why_nothing_comes

pytestmark = pytest.mark.usefixtures("ros")

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
DOMAINS = 101
"""Of ROS, those that any system has."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    """A domain of its own: nodes that other tests killed are in the graph of theirs for a while."""
    context = Context()
    rclpy.init(context=context, domain_id=int(os.environ["ROS_DOMAIN_ID"]) % DOMAINS + 1)
    yield context
    context.try_shutdown()


@pytest.fixture
def node(context: Context, request: pytest.FixtureRequest) -> Iterator[Node]:
    """The node, with the remappings that the test is called with."""
    remappings = [word for one in getattr(request, "param", []) for word in ("-r", one)]
    arguments = ["--ros-args", *remappings] if remappings else None
    node = rclpy.create_node("binvpr", namespace="/silence", context=context, cli_args=arguments)
    yield node
    node.destroy_node()


@pytest.fixture
def publish(context: Context, node: Node) -> Iterator[Callable[..., None]]:
    """Have a robot publish on topics, and wait until the node knows; the robot is gone from the graph at the end."""
    robot = rclpy.create_node("robot", context=context)
    published: set[str] = set()

    def publish(kind: Any, *topics: str, quality: QoSProfile = SENSOR) -> None:
        before = {topic: node.count_publishers(topic) for topic in topics}
        published.update(topics)
        for topic in topics:
            robot.create_publisher(kind, topic, quality)
        deadline = time.monotonic() + 20
        while any(node.count_publishers(topic) == count for topic, count in before.items()):
            assert time.monotonic() < deadline, f"{topics} are not discovered"
            time.sleep(0.05)

    yield publish
    robot.destroy_node()
    deadline = time.monotonic() + 20
    while any(map(node.count_publishers, published)):
        assert time.monotonic() < deadline, f"{published} stay"
        time.sleep(0.05)


def test_a_topic_that_nobody_publishes(node: Node, publish: Callable[..., None]) -> None:
    node.create_publisher(Image, "~/match_image", 1)  # the node's own, no camera
    node.create_subscription(Image, "/image", print, SENSOR)
    publish(CameraInfo, "/front/camera_info")
    silence = why_nothing_comes(node, "/image", False)
    assert silence.kind == "no_camera"
    assert silence.text == (
        "nothing publishes there; no other image topic is published either; start the camera, and check that "
        "ROS_DOMAIN_ID is the same there"
    )
    publish(Image, "/front/image_raw")
    publish(CompressedImage, "/front/image_raw/compressed")
    silence = why_nothing_comes(node, "/image", False)
    assert silence.kind == "remap"
    assert silence.text == (
        "nothing publishes there; remap image (with launch: image_topic) to one of /front/image_raw (Image), "
        "/front/image_raw/compressed (CompressedImage); CompressedImage needs compressed:=true"
    )


def test_the_match_images_of_other_nodes_are_no_cameras(node: Node, publish: Callable[..., None]) -> None:
    publish(Image, "/rear/binvpr/match_image")
    assert why_nothing_comes(node, "/image", False).kind == "no_camera"


@pytest.mark.parametrize("node", [["image:=/camera", "~/match_image:=/shown"]], indirect=True)
def test_a_camera_on_a_topic_that_the_node_remaps_is_named(node: Node, publish: Callable[..., None]) -> None:
    node.create_publisher(Image, "~/match_image", 1)  # the node's own under another name
    publish(Image, "/silence/image")
    topic = node.resolve_topic_name("image")
    assert topic == "/camera"
    assert why_nothing_comes(node, topic, False).text == (
        "nothing publishes there; remap image (with launch: image_topic) to one of /silence/image (Image); "
        "CompressedImage needs compressed:=true"
    )


def test_only_some_of_many_topics_are_named(node: Node, publish: Callable[..., None]) -> None:
    publish(Image, *(f"/camera{number}/image_raw" for number in range(MOST_TOPICS + 3)))
    sentence = why_nothing_comes(node, "/image", False).text
    assert sentence.count("/image_raw (Image)") == MOST_TOPICS
    assert " and 3 more; " in sentence


SENDS_NOTHING = 'but nothing arrives; check that images are still sent{}, and see "Lost images" in docs/robot.md'


@pytest.mark.parametrize(
    ("kind", "count", "quality", "compressed", "text"),
    [
        (CompressedImage, 1, LATCHED, False, "{} (reliable, transient local); set the parameter compressed to true"),
        (Image, 1, LATCHED, True, "{} (reliable, transient local); set the parameter compressed to false"),
        (
            CameraInfo, 1, SENSOR, False,
            "{} (best effort, volatile), which are not images; no other image topic is published either; start the "
            "camera, and check that ROS_DOMAIN_ID is the same there",
        ),
        (Image, 2, SENSOR, False, f"{{}} (best effort, volatile), {SENDS_NOTHING.format('')}"),
    ],
)  # fmt: skip
def test_publishers_from_which_nothing_is_received(
    node: Node, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    kind: Any, count: int, quality: QoSProfile, compressed: bool, text: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", "")  # in which there is no ros2
    for _ in range(count):
        publish(kind, "/front", quality=quality)
    publishers = f"it has {count} publisher{'s' * (count > 1)} of sensor_msgs/msg/{kind.__name__}"
    assert why_nothing_comes(node, "/front", compressed).text == text.format(publishers)


def test_where_there_is_ros2cli_it_measures_the_rate(
    node: Node, publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ros2").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    publish(Image, "/front")
    assert why_nothing_comes(node, "/front", False).text.endswith(SENDS_NOTHING.format(" (`ros2 topic hz /front`)"))
