# SPDX-License-Identifier: Apache-2.0
"""`replay`: publish a folder of images, a video, or a ROS 1 or ROS 2 bag, at a given rate, with stamps."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import rclpy
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from binvpr_ros.messages import ImageMessageError
from binvpr_ros.tools.dds import make_room_for_large_images
from binvpr_ros.tools.sources import Folder, ImageMessage, SourceError, as_type, open_source

DEFAULT_RATE = 15.0  # images a second, for a folder
LIKE_A_CAMERA = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def publish(
    node: Node,
    topic: str,
    messages: Iterable[ImageMessage],
    rate: float,
    *,
    compressed: bool = False,
    keep_stamps: bool = False,
    frame_id: str = "",
    wait: float = 10.0,
    before: Callable[[ImageMessage], None] | None = None,
) -> int:
    """Publish `messages` on `topic` at `rate` (1/s) and return their number.

    Begins when a subscriber is there, or after `wait` seconds. Unless `keep_stamps`, each image is stamped with the
    node's time at its publication. `before` is called with each message just before it goes out. Where it raises
    ImageMessageError the message is left out, as is one that cannot be compressed.
    """
    publisher = node.create_publisher(CompressedImage if compressed else Image, topic, LIKE_A_CAMERA)
    if not wait_for_subscriber(publisher, wait):
        node.get_logger().warning(f"nobody subscribes to {publisher.topic_name}; publishing all the same")
    published = 0
    start = time.monotonic()
    for number, original in enumerate(messages):
        try:
            message = as_type(original, compressed)
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            if not node.context.ok():
                break
            if not keep_stamps:
                message.header.stamp = node.get_clock().now().to_msg()
            if frame_id:
                message.header.frame_id = frame_id
            if before is not None:
                before(message)
        except ImageMessageError as error:
            node.get_logger().warning(f"left out image {number}: {error}")
            continue
        publisher.publish(message)
        published += 1
    time.sleep(0.5)  # The last image is on its way.
    return published


def wait_for_subscriber(publisher: Publisher, seconds: float) -> bool:
    """Wait until somebody subscribes, at most `seconds`; return whether somebody does."""
    deadline = time.monotonic() + seconds
    while publisher.get_subscription_count() == 0:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    time.sleep(0.5)  # The subscriber may still have to discover this side; until then best-effort messages are lost.
    return True


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="replay", description=__doc__)
    parser.add_argument("source", type=Path, help="folder of images, video file, or ROS 1 or ROS 2 bag")
    parser.add_argument("--topic", default="/camera/image_raw", help="topic to publish on (default %(default)s)")
    parser.add_argument(
        "--rate", type=float, help=f"images a second (default: as recorded, {DEFAULT_RATE:g} for a folder)"
    )
    parser.add_argument("--compressed", action="store_true", help="publish CompressedImage on TOPIC/compressed")
    parser.add_argument("--keep-stamps", action="store_true", help="keep the stamps of the recording")
    parser.add_argument("--backwards", action="store_true", help="from the last image to the first (folders)")
    parser.add_argument("--frame-id", default="", help="frame_id of the images (default: as recorded)")
    parser.add_argument("--source-topic", default="", help="which image topic of a bag")
    parser.add_argument(
        "--wait", type=float, default=10.0, help="seconds to wait for a subscriber (default %(default)s)"
    )
    choices = parser.parse_args(arguments)
    if choices.rate is not None and not 0 < choices.rate < math.inf:
        parser.error(f"--rate must be a number above 0, not {choices.rate}")
    return choices


def main() -> int:
    """Replay what the command line names; the exit status is 1 where it cannot be read."""
    choices = parse(remove_ros_args(sys.argv)[1:])
    try:
        source = open_source(choices.source, choices.source_topic)
        messages: Iterable[ImageMessage] = source
        if choices.backwards:
            if not isinstance(source, Folder):
                raise SourceError("--backwards works for folders of images alone")
            messages = reversed(source)
        if choices.keep_stamps and not source.has_stamps:
            raise SourceError("--keep-stamps works for bags and videos alone: a folder of images has no stamps")
        make_room_for_large_images()
        rclpy.init()
        node = rclpy.create_node("replay")
        published = publish(
            node,
            choices.topic + ("/compressed" if choices.compressed else ""),
            tqdm(messages, total=len(source), desc="replay", unit="image", file=sys.stderr),
            choices.rate or source.rate or DEFAULT_RATE,
            compressed=choices.compressed,
            keep_stamps=choices.keep_stamps,
            frame_id=choices.frame_id,
            wait=choices.wait,
        )
        print(f"replay: {published} images")
        if not published and rclpy.ok():
            raise SourceError(f"none of the images of {choices.source} can be published; give others")
    except (SourceError, InvalidTopicNameException) as error:
        print(f"replay: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
