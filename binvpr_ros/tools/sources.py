# SPDX-License-Identifier: Apache-2.0
"""A folder of images, a video, or a ROS 1 or ROS 2 bag as a stream of image messages."""

from __future__ import annotations

import array
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from tqdm import tqdm

from binvpr_ros.evaluation.datasets.bag import BAG_SUFFIXES, choose_topic, open_bag
from binvpr_ros.evaluation.datasets.dataset import IMAGE_SUFFIXES, DatasetError, image_paths
from binvpr_ros.messages import decode, from_nanoseconds, message_from_array

JPEG_AND_PNG = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")

ImageMessage: TypeAlias = Image | CompressedImage


class SourceError(ValueError):
    """The images cannot be read; the message says why and what to do."""


class Source(ABC):
    """Images in order, as messages; their headers hold the recorded stamps where `has_stamps`."""

    rate: float
    """Images a second, as recorded; 0 where it is not known."""
    has_stamps = True

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images, or an estimate."""

    @abstractmethod
    def __iter__(self) -> Iterator[ImageMessage]:
        """Yield the messages in order."""


def open_source(path: Path, topic: str = "") -> Source:
    """Open a folder of images, a video file or a bag (`topic` chooses among several); raises SourceError."""
    if path.is_dir():
        if (path / "metadata.yaml").is_file():
            return Bag(path, topic)
        return Folder(path)
    if not path.exists():
        raise SourceError(f"{path} does not exist; give a folder of images, a video, or a ROS bag")
    suffix = path.suffix.lower()
    if suffix in BAG_SUFFIXES:
        return Bag(path, topic)
    if suffix in VIDEO_SUFFIXES:
        return Video(path)
    raise SourceError(f"{path} is neither a folder of images nor a video ({', '.join(VIDEO_SUFFIXES)}) nor a bag")


class Folder(Source):
    """A folder of image files, in file-name order."""

    rate = 0.0
    has_stamps = False

    def __init__(self, path: Path) -> None:
        self._files = image_paths(path)
        if not self._files:
            raise SourceError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}) and is no ROS 2 bag")

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._files)

    def __iter__(self) -> Iterator[ImageMessage]:
        """Yield the images in file-name order."""
        return self.read(self._files)

    def __reversed__(self) -> Iterator[ImageMessage]:
        """Yield the images from the last to the first."""
        return self.read(self._files[::-1])

    @staticmethod
    def read(files: list[Path]) -> Iterator[ImageMessage]:
        """Yield jpeg and png files as they are, other kinds decoded; what cannot be read is named and left out."""
        for file in files:
            suffix = file.suffix.lower()
            try:
                data = file.read_bytes()
            except OSError as error:
                _leave_out(file, f"it cannot be read ({error.strerror})")
                continue
            if suffix in JPEG_AND_PNG:
                yield CompressedImage(format=JPEG_AND_PNG[suffix], data=array.array("B", data))
                continue
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR) if data else None
            if image is None:
                _leave_out(file, "it cannot be decoded")
            else:
                yield message_from_array(image)


def _leave_out(file: Path, reason: str) -> None:
    tqdm.write(f"left out {file}: {reason}", file=sys.stderr)


class Video(Source):
    """A video file, as OpenCV reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        capture = self._open()
        self.rate = float(capture.get(cv2.CAP_PROP_FPS))
        self._count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()

    def __len__(self) -> int:
        """Return the number of frames that the file claims to hold."""
        return self._count

    def __iter__(self) -> Iterator[ImageMessage]:
        """Yield the frames."""
        capture = self._open()
        try:
            number = 0
            while True:
                success, frame = capture.read()
                if not success:
                    return
                message = message_from_array(frame)
                if self.rate > 0:
                    message.header.stamp = from_nanoseconds(round(number / self.rate * 1e9))
                number += 1
                yield message
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(f"{self._path} cannot be opened as a video; convert it to mp4 (h264)")
        return capture


class Bag(Source):
    """One image topic of a ROS 1 or ROS 2 bag, read without a ROS installation."""

    def __init__(self, path: Path, topic: str) -> None:
        self._path = path
        try:
            with open_bag(path) as reader:
                connections = choose_topic(reader, path, "image", topic)
                self._topic = connections[0].topic
                self._count = sum(c.msgcount for c in connections)
                self.rate = self._count / max(reader.duration / 1e9, 1e-9)
        except DatasetError as error:
            raise SourceError(str(error)) from None

    def __len__(self) -> int:
        """Return the number of images."""
        return self._count

    def __iter__(self) -> Iterator[ImageMessage]:
        """Yield the images with their recorded stamps."""
        try:
            with open_bag(self._path) as reader:
                for connection, _, raw in reader.messages(choose_topic(reader, self._path, "image", self._topic)):
                    yield _from_rosbags(reader.deserialize(raw, connection.msgtype))
        except DatasetError as error:
            raise SourceError(str(error)) from None


def _from_rosbags(message: Any) -> ImageMessage:
    """Return a message of the rosbags library as one of rclpy."""
    stamp = Time(sec=message.header.stamp.sec, nanosec=message.header.stamp.nanosec)
    header = Header(stamp=stamp, frame_id=message.header.frame_id)
    data = array.array("B", message.data.tobytes())
    if hasattr(message, "format"):
        return CompressedImage(header=header, format=message.format, data=data)
    return Image(
        header=header, height=message.height, width=message.width, encoding=message.encoding,
        is_bigendian=message.is_bigendian, step=message.step, data=data,
    )  # fmt: skip


def as_type(message: ImageMessage, compressed: bool) -> ImageMessage:
    """Return the message as CompressedImage (jpeg) or as Image, its header kept; raises ImageMessageError."""
    if isinstance(message, CompressedImage) == compressed:
        return message
    image = decode(message)
    converted: ImageMessage
    if compressed:
        converted = CompressedImage(format="jpeg", data=array.array("B", encode_jpeg(image).tobytes()))
    else:
        converted = message_from_array(image, "mono8" if image.ndim == 2 else "rgb8")
    converted.header = message.header
    return converted


def encode_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, as the bytes of a jpeg file."""
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr)[1]
