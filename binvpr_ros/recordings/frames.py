# SPDX-License-Identifier: Apache-2.0
"""What all recordings consist of: frames, whose images stay as they were recorded until they are converted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import ENCODINGS, Image, Stretch, decode_compressed, decode_pixels
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.recordings.bags import Calibration

DEFAULT_RATE = 15.0
"""Images a second, where none is recorded."""
LONGEST_PAUSE = 2.0
"""Seconds to which a pause in a recording is cut."""
SHORTEST_INTERVAL = 0.001
"""Seconds; times that are nearer to each other say nothing about the camera."""


class RawImage(NamedTuple):
    """Rows of pixels: the fields of a sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    step: int  # bytes of a row
    data: NDArray[np.uint8]  # [height * step]
    is_bigendian: bool = False

    @classmethod
    def of_array(cls, image: NDArray[Any], encoding: str) -> RawImage:
        """Return pixels [H,W] or [H,W,C] with the encoding that they have."""
        data = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
        return cls(image.shape[0], image.shape[1], encoding, data.size // image.shape[0], data)

    def decode(self, stretch: Stretch | None = None) -> Image:
        """Return the image as uint8 [H,W,3] RGB or [H,W] grey; raises ImageError."""
        return decode_pixels(self.height, self.width, self.encoding, self.step, self.data, self.is_bigendian, stretch)

    @property
    def is_deep_grey(self) -> bool:
        """Whether this is a 16-bit grey or Bayer image."""
        layout = ENCODINGS.get(self.encoding)
        return layout is not None and (layout.depth, layout.channels) == (2, 1)


class EncodedImage(NamedTuple):
    """The bytes of an image file: the fields of a sensor_msgs/CompressedImage."""

    format: str
    data: NDArray[np.uint8]

    def decode(self, stretch: Stretch | None = None) -> Image:
        """Return the image as uint8 [H,W,3] RGB or [H,W] grey; raises ImageError."""
        return decode_compressed(self.data, self.format, stretch)

    @property
    def is_deep_grey(self) -> bool:
        """Whether this is a 16-bit grey PNG file."""
        # The file states its bit depth in byte 24 and its colour type, 0 for grey, in byte 25.
        head = self.data[:26].tobytes()
        return head.startswith(b"\x89PNG") and head[24:] == bytes((16, 0))


RecordedImage: TypeAlias = RawImage | EncodedImage


class Frame(NamedTuple):
    """One image of a recording."""

    name: str  # for people
    interval: float  # seconds since the frame before
    image: RecordedImage
    stamp: int = 0  # nanoseconds; 0 where none is recorded
    frame_id: str = ""


class LeftOut(NamedTuple):
    """Images of a recording that cannot be used."""

    reason: str  # in a word, to be counted by
    sentence: str
    images: int = 1


class Recording(Protocol):
    """Frames in order. Another kind of recording is a class that has this, and a line in kinds.py."""

    has_stamps: bool
    calibration: Calibration | None
    """Of the camera; None where it is not recorded."""

    def __len__(self) -> int:
        """Return the number of images, or an estimate."""

    def read(self) -> Iterator[Frame | LeftOut]:
        """Yield all frames in order, and what is left out; raises RecordingError where nothing can be read."""


def image_of(message: Any) -> RecordedImage:
    """Return the fields of an image message of ROS or of the rosbags library.

    A bag says itself what types its fields have: raises any exception where they are not those of an image.
    """
    data = np.frombuffer(message.data, np.uint8)
    if hasattr(message, "format"):
        return EncodedImage(str(message.format), data)
    height, width, step = (_uint32(value) for value in (message.height, message.width, message.step))
    return RawImage(height, width, str(message.encoding), step, data, bool(message.is_bigendian))


def stamp_of(message: Any) -> int:
    """Return the stamp of a message of ROS or of the rosbags library, in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def _uint32(value: Any) -> int:
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{value} does not fit into 32 bits")
    return int(value)


def convert(image: RecordedImage, compressed: bool, stretch: Stretch | None = None) -> RecordedImage:
    """Return the image encoded (as JPEG) or raw, itself where it is so already; raises ImageError.

    With `stretch`, 16-bit grey and Bayer images become 8-bit ones, stretched. Otherwise 16-bit grey files become
    mono16, and a JPEG gets the higher byte.
    """
    if isinstance(image, EncodedImage) == compressed and not (stretch is not None and image.is_deep_grey):
        return image
    original = _Original()
    pixels = image.decode(stretch or original)
    if compressed:
        return EncodedImage("jpeg", encode_jpeg(pixels))
    if original.values is not None and pixels.ndim == 2:
        return RawImage.of_array(original.values, "mono16")
    return RawImage.of_array(pixels, "mono8" if pixels.ndim == 2 else "rgb8")


class _Original(Stretch):
    """Stretches nothing, and keeps the 16-bit values of an image."""

    values: NDArray[Any] | None = None
    """Little-endian uint16 [H,W]; None if the image is not 16-bit grey."""

    def apply(self, values: NDArray[np.uint16]) -> Image:
        self.values = values.astype("<u2")
        return (values >> 8).astype(np.uint8)


def encode_jpeg(image: Image) -> NDArray[np.uint8]:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, as the bytes of a jpeg file."""
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr)[1].reshape(-1)
