# SPDX-License-Identifier: Apache-2.0
"""A folder of images, a video, or a ROS 1 or ROS 2 bag as a stream of image messages."""

from __future__ import annotations

import array
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header
from tqdm import tqdm

from binvpr_ros.images import ENCODINGS, IMAGE_SUFFIXES, ImageError, Stretch, image_paths, in_order
from binvpr_ros.images import Image as Pixels
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.recordings.bags import (
    BAG_SUFFIXES,
    Calibration,
    choose_topic,
    describe_bags,
    is_bag,
    open_bag,
    read_calibration,
    read_messages,
)
from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.ros.messages import decode, from_nanoseconds, message_from_array, to_nanoseconds

JPEG_AND_PNG = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
DEFAULT_RATE = 15.0
"""Images a second, where none is recorded."""
LONGEST_PAUSE = 2.0
"""Seconds to which a pause in a recording is cut."""
SHORTEST_INTERVAL = 0.001
"""Seconds; times that are nearer to each other say nothing about the camera."""

ImageMessage: TypeAlias = Image | CompressedImage
Paced: TypeAlias = tuple[float, ImageMessage]
"""A message, and the seconds from the message before it."""


class SourceError(ValueError):
    """The images cannot be read; the message says why and what to do."""


class Source(ABC):
    """Images in order, as messages; their headers hold the recorded stamps where `has_stamps`."""

    has_stamps = True
    camera_info: CameraInfo | None = None
    """Calibration of the camera, without a header; None where it is not recorded."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        """How many images the last `read` has left out so far, by the reason."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images, or an estimate."""

    @abstractmethod
    def _read(self) -> Iterator[tuple[str, float, ImageMessage]]:
        """Yield each image's name for people, the seconds since the one before, and its message."""

    def read(
        self, compressed: bool = False, ascending: bool = False, stretch: Stretch | None = None
    ) -> Iterator[Paced]:
        """Yield the messages in order, as Image or as CompressedImage, with the seconds between them.

        With `stretch`, 16-bit grey images become 8-bit ones, stretched as in the node.

        Images that cannot be used are named on standard error and counted in `left_out`; with `ascending`, so are those
        with a repeated or late stamp. Raises SourceError if a bag cannot be read at all.
        """
        self.left_out.clear()
        pause, last = 0.0, None
        for name, interval, original in self._read():
            pause += interval
            try:
                message = as_type(original, compressed, stretch)
            except ImageError as error:
                self._leave_out("undecodable", f"{name}: {error}")
                continue
            stamp = to_nanoseconds(message.header.stamp)
            # A greater leap back is the recording's own: the node begins a new session there.
            if ascending and last is not None and 0 <= last - stamp <= LONGEST_PAUSE * NANOSECONDS:
                self._leave_out("with a stamp that does not advance", f"{name}: its stamp does not advance")
                continue
            yield min(pause, LONGEST_PAUSE), message
            pause, last = 0.0, stamp

    def _leave_out(self, reason: str, sentence: str, count: int = 1) -> None:
        self.left_out[reason] += count
        tqdm.write(f"left out {sentence}", file=sys.stderr)

    def describe_left_out(self) -> str:
        """Return how many images were left out and why, for people; "" for none."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return f"{self.left_out.total()} left out: {reasons}" if reasons else ""


def in_time(messages: Iterable[Paced]) -> Iterator[ImageMessage]:
    """Yield each message when it is due after the one before it."""
    due = time.monotonic()
    for interval, message in messages:
        due += interval
        time.sleep(max(0.0, due - time.monotonic()))
        yield message


def open_source(path: Path, topic: str = "") -> Source:
    """Open a folder of images, a video file or a bag (`topic` chooses among several); raises SourceError."""
    if is_bag(path):
        return Bag(path, topic)
    if path.is_dir():
        if files := image_paths(path):
            return Folder(in_order(files))
        bags = sorted(below for below in path.iterdir() if is_bag(below))
        if len(bags) == 1:
            return Bag(bags[0], topic)
        if bags:
            raise SourceError(describe_bags(path, bags))
        raise SourceError(
            f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}) and no bag ({', '.join(BAG_SUFFIXES)}); name a "
            "folder that does"
        )
    if not path.exists():
        raise SourceError(f"{path} does not exist; give a folder of images, a video, or a ROS bag")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Video(path)
    raise SourceError(
        f"{path} is neither a folder of images nor a video ({', '.join(VIDEO_SUFFIXES)}) nor a bag "
        f"({', '.join(BAG_SUFFIXES)}); name one of these"
    )


class Folder(Source):
    """Image files, at the default rate."""

    has_stamps = False

    def __init__(self, files: list[Path]) -> None:
        super().__init__()
        self._files = files

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._files)

    def backwards(self) -> Folder:
        """Return the files from the last to the first."""
        return Folder(self._files[::-1])

    def _read(self) -> Iterator[tuple[str, float, ImageMessage]]:
        for file in self._files:
            try:
                message = self._message(file)
            except OSError as error:
                self._leave_out("unreadable", f"{file}: it cannot be read ({error.strerror})")
            except ImageError as error:
                self._leave_out("undecodable", f"{file}: {error}")
            else:
                yield str(file), 1 / DEFAULT_RATE, message

    @staticmethod
    def _message(file: Path) -> ImageMessage:
        """Return a JPEG or PNG file as it is, and any other file decoded; raises OSError and ImageError."""
        suffix = file.suffix.lower()
        kind = JPEG_AND_PNG.get(suffix)
        message = CompressedImage(format=kind or suffix[1:], data=array.array("B", file.read_bytes()))
        return as_type(message, compressed=False) if kind is None else message


class Video(Source):
    """A video file, as OpenCV reads it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        self._interval = 1 / (rate if 0 < rate < 1 / SHORTEST_INTERVAL else DEFAULT_RATE)
        self._count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()

    def __len__(self) -> int:
        """Return the number of frames that the file claims to hold."""
        return self._count

    def _read(self) -> Iterator[tuple[str, float, ImageMessage]]:
        capture = self._open()
        try:
            number = 0
            while True:
                success, frame = capture.read()
                if not success:
                    return
                message = message_from_array(frame)
                message.header.stamp = from_nanoseconds(round(number * self._interval * NANOSECONDS))
                yield f"frame {number} of {self._path}", self._interval, message
                number += 1
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(
                f"{self._path} cannot be opened as a video; convert it to mp4 (h264) or, if it was cut, copy or record "
                "it again"
            )
        return capture


class Bag(Source):
    """One image topic of a ROS 1 or ROS 2 bag, at its recorded pace, read without a ROS installation."""

    def __init__(self, path: Path, topic: str) -> None:
        super().__init__()
        self._path = path
        try:
            with open_bag(path) as reader:
                connections = choose_topic(reader, path, "image", topic)
                self._topic = connections[0].topic
                self._count = sum(c.msgcount for c in connections)
                calibration = read_calibration(reader, self._topic)
        except RecordingError as error:
            raise SourceError(str(error)) from None
        if calibration is not None:
            self.camera_info = _camera_info(calibration)

    def __len__(self) -> int:
        """Return the number of images."""
        return self._count

    def _read(self) -> Iterator[tuple[str, float, ImageMessage]]:
        count = 0
        last: tuple[int, int] | None = None  # when the image before was recorded, and its stamp
        try:
            with open_bag(self._path) as reader:
                connections = choose_topic(reader, self._path, "image", self._topic)
                for recorded, message in read_messages(reader, connections, _from_rosbags):
                    name = f"image {count} on {self._topic}"
                    count += 1
                    if message is None:
                        self._leave_out("unreadable", f"{name}: its message is damaged")
                        continue
                    stamp = to_nanoseconds(message.header.stamp)
                    interval = interval_between(recorded - last[0], stamp - last[1]) if last else 0.0
                    last = recorded, stamp
                    yield name, interval, message
        except RecordingError as error:
            if not count:
                raise SourceError(str(error)) from None
            rest = max(self._count - count, 1)
            self._leave_out("beyond damage to the bag", f"the last {rest} images: {error}", rest)


def interval_between(recorded: int, stamped: int) -> float:
    """Return the seconds from one image to the next, from the nanoseconds between their recording and their stamps.

    The stamps are the camera's own, but they may stand still, leap, or be missing. Then the times of recording count,
    which may be those of a disk or a converter.
    """
    if SHORTEST_INTERVAL <= stamped / NANOSECONDS <= LONGEST_PAUSE:
        return stamped / NANOSECONDS
    if recorded / NANOSECONDS >= SHORTEST_INTERVAL:
        return min(recorded / NANOSECONDS, LONGEST_PAUSE)
    return 1 / DEFAULT_RATE


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


def _camera_info(calibration: Calibration) -> CameraInfo:
    """Return a recorded calibration as a message."""
    x, y, width, height = calibration.region
    return CameraInfo(
        width=calibration.size[0], height=calibration.size[1], distortion_model=calibration.model, d=calibration.d,
        k=calibration.k, r=calibration.r, p=calibration.p, binning_x=calibration.binning[0],
        binning_y=calibration.binning[1],
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
    )  # fmt: skip


def as_type(message: ImageMessage, compressed: bool, stretch: Stretch | None = None) -> ImageMessage:
    """Return the message as CompressedImage (JPEG) or as Image, with the same header; raises ImageError.

    With `stretch`, 16-bit grey and Bayer images become 8-bit ones, stretched. Otherwise 16-bit grey files become
    mono16, and a JPEG gets the higher byte.
    """
    if isinstance(message, CompressedImage) == compressed and not (stretch is not None and _is_deep_grey(message)):
        return message
    original = _Original()
    image = decode(message, stretch or original)
    converted: ImageMessage
    if compressed:
        converted = CompressedImage(format="jpeg", data=array.array("B", encode_jpeg(image).tobytes()))
    elif original.values is not None and image.ndim == 2:
        converted = message_from_array(original.values, "mono16")
    else:
        converted = message_from_array(image, "mono8" if image.ndim == 2 else "rgb8")
    converted.header = message.header
    return converted


class _Original(Stretch):
    """Stretches nothing, and keeps the 16-bit values of an image."""

    values: NDArray[Any] | None = None
    """Little-endian uint16 [H,W]; None if the image is not 16-bit grey."""

    def apply(self, values: NDArray[np.uint16]) -> Pixels:
        self.values = values.astype("<u2")
        return (values >> 8).astype(np.uint8)


def _is_deep_grey(message: ImageMessage) -> bool:
    """Return whether the message is a 16-bit grey or Bayer image."""
    if isinstance(message, CompressedImage):
        # A PNG file states its bit depth in byte 24 and its colour type, 0 for grey, in byte 25.
        head = bytes(message.data[:26])
        return head.startswith(b"\x89PNG") and head[24:] == bytes((16, 0))
    layout = ENCODINGS.get(message.encoding)
    return layout is not None and (layout.depth, layout.channels) == (2, 1)


def encode_jpeg(image: Pixels) -> NDArray[Any]:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, as the bytes of a jpeg file."""
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr)[1]
