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
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tqdm import tqdm

from binvpr_ros.images import ImageError, Stretch
from binvpr_ros.recordings.bags import camera_info_topic
from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.recordings.frames import DEFAULT_RATE, LONGEST_PAUSE
from binvpr_ros.recordings.image_files import ImageFolder
from binvpr_ros.recordings.image_topic import ImageTopic
from binvpr_ros.recordings.kinds import open_recording
from binvpr_ros.ros.dds import make_room_for_large_images
from binvpr_ros.ros.messages import to_nanoseconds
from binvpr_ros.ros.sources import DepthsBeside, ImageMessage, Source, in_time

LIKE_A_CAMERA = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
WARNING_INTERVAL = 5.0
"""Least time in seconds between two warnings of images that are left out."""
RELIABLY = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)


def publish(
    node: Node,
    topic: str,
    messages: Iterable[ImageMessage],
    rate: float = math.inf,
    *,
    compressed: bool = False,
    keep_stamps: bool = False,
    frame_id: str = "",
    wait: float = 10.0,
    before: Callable[[ImageMessage], None] | None = None,
    camera_info: CameraInfo | None = None,
    depths: DepthsBeside | None = None,
    depth_topic: str = "depth",
) -> int:
    """Publish `messages` on `topic`, `rate` a second at most, and return their number.

    The messages are CompressedImages where `compressed`, else Images. Publishing begins when a subscriber is there, or
    after `wait` seconds. Unless `keep_stamps`, each image is stamped with the node's time at its publication.
    `camera_info` goes out before each image, with its header, on the topic beside, and its depth image of `depths` on
    `depth_topic`, with its stamp. `before` is called with each message
    just before it goes out; where it raises ImageError the message is left out.
    """
    publisher = node.create_publisher(CompressedImage if compressed else Image, topic, LIKE_A_CAMERA)
    beside = camera_info_topic(topic)
    calibrations = None if camera_info is None else node.create_publisher(CameraInfo, beside, RELIABLY)
    depth_publisher = None if depths is None else node.create_publisher(Image, depth_topic, LIKE_A_CAMERA)
    heard = wait_for_subscriber(publisher, wait)
    if not heard:
        node.get_logger().warning(f"nobody subscribes to {publisher.topic_name}; publishing anyway")
    published = 0
    due = time.monotonic()
    for number, message in enumerate(messages):
        try:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + 1 / rate, time.monotonic())  # after a delay no burst, in which images would get lost
            if not node.context.ok():
                break
            depth = depths.at(to_nanoseconds(message.header.stamp)) if depths is not None else None
            if not keep_stamps:
                message.header.stamp = node.get_clock().now().to_msg()
            message.header.frame_id = frame_id or message.header.frame_id
            if before is not None:
                before(message)
        except ImageError as error:
            node.get_logger().warning(f"left out image {number}: {error}", throttle_duration_sec=WARNING_INTERVAL)
            continue
        if camera_info is not None and calibrations is not None:
            camera_info.header = message.header
            calibrations.publish(camera_info)
        if depth is not None and depth_publisher is not None:
            depth.header.stamp = message.header.stamp
            depth_publisher.publish(depth)
        publisher.publish(message)
        published += 1
        heard = heard or publisher.get_subscription_count() > 0
    if published and not heard:
        node.get_logger().warning(
            f"nobody subscribed to {publisher.topic_name}, so nobody received the {published} images; start the node "
            "first, and give it this topic"
        )
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
        "--rate",
        type=float,
        help=f"images per second (default: as recorded, pauses cut to {LONGEST_PAUSE:g} s; folders: {DEFAULT_RATE:g})",
    )
    parser.add_argument("--compressed", action="store_true", help="publish CompressedImage on TOPIC/compressed")
    parser.add_argument("--keep-stamps", action="store_true", help="keep the stamps of the recording")
    parser.add_argument("--backwards", action="store_true", help="publish from the last image to the first (folders)")
    parser.add_argument(
        "--stretch-16-bit",
        action="store_true",
        help="publish 16-bit grey images as 8 bits, stretched like the node's stretch_16_bit",
    )
    parser.add_argument("--frame-id", default="", help="frame_id of the images (default: as recorded)")
    parser.add_argument(
        "--image-topic", "--source-topic", default="", metavar="TOPIC", help="image topic, if a bag has several"
    )
    parser.add_argument(
        "--depth-topic",
        default="",
        metavar="TOPIC",
        help="also publish a bag's depth images, on their own topic",
    )
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
        recording = open_recording(choices.source, choices.image_topic)
        if choices.backwards:
            if not isinstance(recording, ImageFolder):
                raise RecordingError("--backwards works only for folders of images")
            recording = recording.backwards()
        if choices.keep_stamps and not recording.has_stamps:
            raise RecordingError("--keep-stamps works only for bags and videos: a folder of images has no stamps")
        if choices.depth_topic and not isinstance(recording, ImageTopic):
            raise RecordingError("--depth-topic works only for bags")
        depths = DepthsBeside(ImageTopic(choices.source, choices.depth_topic)) if choices.depth_topic else None
        source = Source(recording)
        paced = source.read(
            choices.compressed, ascending=choices.keep_stamps, stretch=Stretch() if choices.stretch_16_bit else None
        )
        messages = (message for _, message in paced) if choices.rate else in_time(paced)
        make_room_for_large_images()
        rclpy.init()
        node = rclpy.create_node("replay")
        published = publish(
            node,
            choices.topic + ("/compressed" if choices.compressed else ""),
            tqdm(messages, total=len(source), desc="replay", unit="image", file=sys.stderr),
            choices.rate or math.inf,
            compressed=choices.compressed,
            keep_stamps=choices.keep_stamps,
            frame_id=choices.frame_id,
            wait=choices.wait,
            camera_info=source.camera_info,
            depths=depths,
            depth_topic=choices.depth_topic,
        )
        print(", ".join(filter(None, (f"replay: {published} images", source.describe_left_out()))))
        if not published and rclpy.ok():
            raise RecordingError(f"no image of {choices.source} can be published; name another recording")
    except (RecordingError, InvalidTopicNameException) as error:
        print(f"replay: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
