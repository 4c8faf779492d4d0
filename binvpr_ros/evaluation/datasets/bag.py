# SPDX-License-Identifier: Apache-2.0
"""ROS 1 and ROS 2 bags, read without a ROS installation: opening them, and one with images and poses as a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.descriptor import Image, decode_image
from binvpr_ros.evaluation.datasets.dataset import (
    DatasetError,
    Images,
    Options,
    PosedSequence,
    poses_of_images,
)
from binvpr_ros.keyframes import NANOSECONDS

BAG_SUFFIXES = (".bag", ".db3", ".mcap")
TOPIC_TYPES = {
    "image": ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
    "pose": (
        "geometry_msgs/msg/PoseStamped",
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        "geometry_msgs/msg/TransformStamped",
        "nav_msgs/msg/Odometry",
    ),
}
POSE_TOLERANCE = 0.05
"""Seconds: odometry often comes at 20 Hz or less."""
# Names of OpenCV's types -> what they hold in practice.
GENERIC_ENCODINGS = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC1": "mono16"}


def is_bag(path: Path) -> bool:
    """Tell whether this is a bag, by its name or by the description in its folder."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file()
    return path.suffix.lower() in BAG_SUFFIXES and path.is_file()


@contextmanager
def open_bag(path: Path) -> Iterator[Any]:
    """Open a bag as a rosbags AnyReader; raises DatasetError where it, or what is read from it later, is damaged."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise DatasetError("reading bags needs rosbags; run: pip install rosbags") from None
    try:
        # A ROS 2 bag before Iron does not say what its types are; those of Humble are then taken.
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            yield reader
    except DatasetError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged bag makes the reader raise anything
        reason = str(error).partition("\n")[0]
        raise DatasetError(f"{path} cannot be read as a bag ({reason}); check it with `ros2 bag info`") from None


def choose_topic(reader: Any, path: Path, kind: Literal["image", "pose"], topic: str = "") -> list[Any]:
    """Return the connections of the one topic of this kind, or of `topic` among several; raises DatasetError.

    The connections hold one message or more.
    """
    found = [c for c in reader.connections if c.msgtype in TOPIC_TYPES[kind] and topic in ("", c.topic)]
    topics = sorted({c.topic for c in found})
    if not topics:
        asked = f"the {kind} topic {topic}" if topic else f"{'an' if kind == 'image' else 'a'} {kind} topic"
        raise DatasetError(f"{path} does not hold {asked}; list its topics with `ros2 bag info`")
    if len(topics) > 1:
        options = (
            "evaluate --image-topic, replay --source-topic, make demo TOPIC=" if kind == "image" else "--pose-topic"
        )
        raise DatasetError(f"{path} holds several {kind} topics, name one of them ({options}): {', '.join(topics)}")
    if not sum(c.msgcount for c in found):
        raise DatasetError(f"{path} holds no {kind}s on {topics[0]}; list its topics with `ros2 bag info`")
    return found


class PosedBag(PosedSequence):
    """A bag with a topic of images (raw or compressed) and a topic of poses (a pose, a transform, or odometry).

    An image takes the pose whose header stamp is nearest to its own, within 0.05 s; images without one are left out.
    The pose is taken for the camera's: the one of a robot's body will do where the camera is fixed to it.
    """

    layout = "a ROS bag with images and poses"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether this is a bag; its topics are looked at when it is read."""
        return is_bag(path)

    @classmethod
    def read(cls, path: Path, options: Options) -> PosedBag:
        """Read the stamps and the poses of the bag; images follow when they are wanted. Raises DatasetError."""
        with open_bag(path) as reader:
            image_connections = choose_topic(reader, path, "image", options.image_topic)
            pose_connections = choose_topic(reader, path, "pose", options.pose_topic)
            entries: list[_Entry] = []
            stamps = []
            for connection, time, raw in reader.messages(image_connections):
                # Several messages may share a time: the number tells them apart.
                number = entries[-1].number + 1 if entries and entries[-1].time == time else 0
                entries.append(_Entry(time, number))
                stamps.append(_stamp(reader.deserialize(raw, connection.msgtype)))
            # What fields a message has the bag itself says, so that they may be missing.
            messages = [
                reader.deserialize(raw, connection.msgtype)
                for connection, _, raw in reader.messages(pose_connections)
            ]  # fmt: skip
            image_stamps = np.array(stamps, np.int64)
            pose_stamps = np.array([_stamp(message) for message in messages], np.int64)
            poses = np.array([_pose(message) for message in messages])
        name = path.absolute().stem if path.is_file() else path.absolute().name
        found, positions, rotations = poses_of_images(name, image_stamps, pose_stamps, poses, POSE_TOLERANCE)
        images = BagImages(path, image_connections[0].topic, [entries[at] for at in found])
        left_out = len(entries) - len(found)
        return cls.from_poses(name, images, image_stamps[found], positions, rotations, options, left_out)


@dataclass(frozen=True)
class _Entry:
    """Where an image is in its bag: when it was recorded (nanoseconds), and which of those of that time it is."""

    time: int
    number: int


@dataclass(frozen=True)
class BagImages(Images):
    """Images of one topic of a bag; none is kept in memory. In order they come in one pass through the bag."""

    path: Path
    topic: str
    entries: list[_Entry]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.entries)

    def __getitem__(self, index: int, /) -> Image:
        """Return one image, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError."""
        for image in self._read([self.entries[index]]):
            return image
        raise DatasetError(f"{self.path} has changed since it was opened; read it again")

    def __iter__(self) -> Iterator[Image]:
        """Yield all images in order; raises DatasetError."""
        return self._read(self.entries)

    def _read(self, entries: list[_Entry]) -> Iterator[Image]:
        wanted = set(entries)
        with open_bag(self.path) as reader:
            connections = choose_topic(reader, self.path, "image", self.topic)
            previous = _Entry(-1, 0)
            # One nanosecond early: rosbags before 0.11 leaves out the last message of an mcap chunk otherwise.
            for connection, time, raw in reader.messages(connections, entries[0].time - 1, entries[-1].time + 1):
                previous = _Entry(time, previous.number + 1 if previous.time == time else 0)
                if previous in wanted:
                    yield self._decode(reader.deserialize(raw, connection.msgtype))

    def _decode(self, message: Any) -> Image:
        if hasattr(message, "format"):
            image = decode_image(np.frombuffer(message.data, np.uint8))
            if image is None:
                raise DatasetError(
                    f"an image on {self.topic} of {self.path} (format {message.format[:40]!r}) cannot be decoded; "
                    "name another image topic"
                )
            return image
        try:
            from rosbags.image import ImageError, message_to_cvimage
        except ImportError:
            raise DatasetError("reading raw images needs rosbags-image; run: pip install rosbags-image") from None
        try:
            pixels: NDArray[Any] = np.asarray(message_to_cvimage(message))
            message = _without_padding(message, pixels.nbytes // message.height)
            return np.asarray(message_to_cvimage(message, _target(message.encoding)), np.uint8)
        except (ImageError, cv2.error, ValueError, TypeError, ArithmeticError) as error:
            raise DatasetError(
                f"an image on {self.topic} of {self.path} (encoding {message.encoding[:40]!r}) cannot be decoded "
                f"({str(error).partition(chr(10))[0]}); name another image topic"
            ) from None


def _without_padding(message: Any, row: int) -> Any:
    """Return an Image message with rows of `row` bytes, as rosbags-image takes all to be."""
    data = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, :row]
    encoding = GENERIC_ENCODINGS.get(message.encoding, message.encoding)
    return dataclasses.replace(message, step=row, data=np.ascontiguousarray(data).reshape(-1), encoding=encoding)


def _target(encoding: str) -> str:
    return "mono8" if encoding.startswith("mono") else "rgb8"


def _stamp(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def _pose(message: Any) -> NDArray[np.float64]:
    """Return x, y, z and the quaternion x, y, z, w of a message of any of the pose types."""
    if hasattr(message, "transform"):
        position, rotation = message.transform.translation, message.transform.rotation
    else:
        pose = getattr(message.pose, "pose", message.pose)  # with a covariance there is one more level
        position, rotation = pose.position, pose.orientation
    return np.array([position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w])
