# SPDX-License-Identifier: Apache-2.0
"""Images without ROS: files and raw pixels -> uint8 arrays; the image files of a folder, and their order."""

from __future__ import annotations

import array
import contextlib
import math
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros import lce_delegate

Buffer: TypeAlias = "bytes | bytearray | memoryview | array.array[int] | NDArray[np.uint8]"

Image = NDArray[np.uint8]
"""uint8, [H,W,3] RGB or [H,W] grey."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
SHRINKS_MUCH = 8
"""Times in width from which on `resize` takes two steps."""


THUMBNAIL_SIDE = 120
"""Pixels of its longer side."""
THUMBNAIL_QUALITY = 50
"""Of JPEG, 0 to 100: with it and THUMBNAIL_SIDE the map grows by an eighth at most, and a place is still known."""


class ImageError(ValueError):
    """An image cannot be used; the message says why, in a sentence that begins with "it" or "its"."""


class Layout(NamedTuple):
    """How an encoding lays out an image in rows of bytes."""

    depth: int  # bytes per value: 1 or 2
    channels: int  # values per pixel
    to_rgb: int | None  # OpenCV's conversion; None: the pixels are RGB or grey already
    even: bool = False  # two pixels of a row share their colour
    two_planes: bool = False  # so do two rows: after the image come half as many rows of colour


# OpenCV names a Bayer pattern by the second and third pixel of its second row, ROS by its first two rows.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_PLAIN = {
    "mono": (1, None),
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    **{f"bayer_{order}": (1, code) for order, code in _BAYER.items()},
}
_GENERIC = {"C1": "mono", "C3": "bgr", "C4": "bgra"}
"""OpenCV's names of types, which do not say the order of colours -> what they hold in practice."""

ENCODINGS: dict[str, Layout] = {
    **{f"{name}{8 * depth}": Layout(depth, *_PLAIN[name]) for depth in (1, 2) for name in _PLAIN},
    **{f"{8 * depth}U{kind}": Layout(depth, *_PLAIN[name]) for depth in (1, 2) for kind, name in _GENERIC.items()},
    **dict.fromkeys(("yuv422", "uyvy"), Layout(1, 2, cv2.COLOR_YUV2RGB_UYVY, even=True)),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), Layout(1, 2, cv2.COLOR_YUV2RGB_YUY2, even=True)),
    "nv12": Layout(1, 1, cv2.COLOR_YUV2RGB_NV12, even=True, two_planes=True),
    "nv21": Layout(1, 1, cv2.COLOR_YUV2RGB_NV21, even=True, two_planes=True),
}
"""The encodings of sensor_msgs/Image that `decode_pixels` takes."""


class Stretch:
    """Stretches the 16-bit grey images of one stream to 8 bits, between two percentiles that follow the images slowly.

    A camera of 10 to 14 bits uses a small part of 16. Make one object per stream.
    """

    PERCENTILES = (1, 99)
    WEIGHT = 0.2
    """Of an image against those before it: noise does not show, and a jump of exposure settles within ten images."""
    LEAST_RANGE = 64
    """Values between the percentiles; a smaller range is mostly noise, and is not stretched further."""
    SAMPLES = 65536
    """Pixels from which the percentiles are taken, about: all of them would take longer than the decoding."""

    def __init__(self) -> None:
        self._range: NDArray[np.float64] | None = None  # the percentiles [2]

    def apply(self, values: NDArray[np.uint16]) -> Image:
        """Return 16-bit values [H,W] as 8-bit ones [H,W], after the percentiles have followed them."""
        every = max(1, math.isqrt(values.size // self.SAMPLES))
        now = np.percentile(values[::every, ::every], self.PERCENTILES)
        self._range = now if self._range is None else self._range + self.WEIGHT * (now - self._range)
        low, high = self._range.tolist()
        scale = 255 / max(high - low, self.LEAST_RANGE)
        return cv2.addWeighted(values, scale, values, 0, -low * scale, dtype=cv2.CV_8U)


def decode_file(data: Buffer, stretch: Stretch | None = None) -> Image:
    """Return the bytes of an image file as uint8, [H,W,3] RGB or [H,W] grey; raises ImageError.

    The pixels stay as the camera gave them: the rotation that EXIF asks of a viewer is not the robot's. Transparency is
    dropped. Of 16-bit values the higher byte is taken, or for grey what `stretch` makes of them.
    """
    buffer = np.frombuffer(data, np.uint8)
    if _is_cut_jpeg(buffer.data):
        raise ImageError(f"its {buffer.size} bytes are a JPEG that is cut off: its end is missing")
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(buffer, flags) if buffer.size else None
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(f"its {buffer.size} bytes cannot be decoded as an image")
    if image.dtype == np.uint16:
        image = stretch.apply(image) if stretch is not None and image.ndim == 2 else (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ImageError(f"its pixels are of type {image.dtype}; use 8 or 16 bits")
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_compressed(data: Buffer, kind: str, stretch: Stretch | None = None) -> Image:
    """Return the fields of a sensor_msgs/CompressedImage as uint8, [H,W,3] RGB or [H,W] grey; raises ImageError.

    `kind` is its format. Where that says that a Bayer mosaic was compressed as it is, its colours are made.
    """
    if "compressedDepth" in kind:
        raise ImageError("it holds depth (compressedDepth); use the colour or grey image")
    try:
        image = decode_file(data, stretch)
    except ImageError as error:
        raise ImageError(f"{error} (its format is {kind[:40]!r})") from None
    # image_transport writes "bayer_rggb8; jpeg compressed ", then the encoding that was compressed if it converted.
    encoding, _, compression = kind.partition(";")
    compressed = compression.partition("compressed")[2].strip()
    mosaic = ENCODINGS.get(encoding) if encoding.startswith("bayer_") and image.ndim == 2 else None
    if mosaic is None or mosaic.to_rgb is None or not (compressed == "" or compressed.startswith("bayer_")):
        return image
    return cv2.cvtColor(image, mosaic.to_rgb)


def decode_pixels(
    height: int,
    width: int,
    encoding: str,
    step: int,
    data: Buffer,
    is_bigendian: bool = False,
    stretch: Stretch | None = None,
) -> Image:
    """Return the fields of a sensor_msgs/Image as uint8, [H,W,3] RGB or [H,W] grey; raises ImageError.

    Plain 8-bit encodings are viewed in place, the padding of rows (`step`, in bytes) included. Of 16-bit values the
    higher byte is taken, or for grey and Bayer images what `stretch` makes of them.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise ImageError(f"its encoding {encoding[:40]!r} is not one of {', '.join(ENCODINGS)}")
    if height == 0 or width == 0:
        raise ImageError(f"its size is {width}x{height}")
    if (layout.even and width % 2) or (layout.two_planes and height % 2):
        raise ImageError(f"its size {width}x{height} is odd, which {encoding} cannot have")
    row = width * layout.channels * layout.depth
    if step < row:
        raise ImageError(f"its step of {step} bytes is less than the {row} of a row of {width} {encoding} pixels")
    rows = height * 3 // 2 if layout.two_planes else height
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size != step * rows:
        raise ImageError(f"it has {buffer.size} bytes of data instead of {step * rows} ({rows} rows of {step})")
    pixels: NDArray[np.uint8] = buffer.reshape(rows, step)[:, :row]
    if layout.depth == 2:
        pixels = _shallow(pixels, is_bigendian, stretch if layout.channels == 1 else None)
    if layout.channels > 1:
        pixels = pixels.reshape(rows, width, layout.channels)
    if layout.to_rgb is None:
        return pixels
    return cv2.cvtColor(pixels, layout.to_rgb)


def _shallow(rows: NDArray[np.uint8], is_bigendian: bool, stretch: Stretch | None) -> NDArray[np.uint8]:
    """Return rows [R,2N] of 16-bit values as 8-bit ones [R,N]."""
    if stretch is None:
        return np.ascontiguousarray(rows[:, 0 if is_bigendian else 1 :: 2])
    return stretch.apply(np.ascontiguousarray(rows).view(">u2" if is_bigendian else "<u2").astype(np.uint16))


# A JPEG's markers, except those within its compressed data: a stuffed zero, and restarts.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_START, _JPEG_END, _JPEG_LONE = 0xD8, 0xD9, 0x01


def _is_cut_jpeg(data: memoryview) -> bool:
    """Tell whether this is a JPEG file without its end marker; a thumbnail's does not count, and more may follow it.

    OpenCV 4.6, for one, returns such a file as an image that is grey from there on.
    """
    if bytes(data[:3]) != b"\xff\xd8\xff":
        return False
    at = 2
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        at, marker = found.end(), data[found.end() - 1]
        if marker in (_JPEG_START, _JPEG_END):  # where another file starts, this one has been cut
            return marker == _JPEG_START
        if marker != _JPEG_LONE:
            at += int.from_bytes(data[at : at + 2], "big")
    return True


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Return `image` in another size (width, height): by area where it shrinks, else linearly."""
    shrinks = image.shape[1] >= size[0] and image.shape[0] >= size[1]
    if not shrinks:
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if image.shape[1] > SHRINKS_MUCH * size[0]:
        # The width first: OpenCV is twice as fast then, and the values are the same to within 1.
        image = _shrunk(image, (size[0], image.shape[0]))
    return _shrunk(image, size)


def _shrunk(image: Image, size: tuple[int, int]) -> Image:
    """Return `image` in a size that is no larger, by area; the library is faster but where factors are whole."""
    whole = image.shape[1] % size[0] == image.shape[0] % size[1] == 0
    if image.ndim == 3 and image.shape[1] > 1 and not whole:
        with contextlib.suppress(lce_delegate.DelegateError):  # where it was not compiled
            return lce_delegate.shrink(image, size)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def as_rgb(image: Image) -> Image:
    """Return `image`, where it is grey with its values in three channels, [H,W,3]."""
    rgb: Image = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return rgb


def image_paths(folder: Path) -> list[Path]:
    """Return the image files of `folder`, in file-name order; none where it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir()
        # macOS and others keep notes about an image in a file of its name after a dot.
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )  # fmt: skip


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Return the image files of a folder in order: numeric if only the numbers in their names differ, else by name.

    If the two orders differ, print to standard error which of them was used.
    """
    by_name = sorted(paths, key=lambda path: path.name)
    by_number = sorted(paths, key=lambda path: (_parts(path), path.name))
    if by_name == by_number:
        return by_name
    numeric = len({tuple(_parts(path)[::2]) for path in paths}) == 1
    chosen, kind = (by_number, "numeric") if numeric else (by_name, "file-name")
    first, other = next((one, two) for one, two in zip(by_name, by_number, strict=True) if one != two)
    before, after = (other, first) if numeric else (first, other)
    print(
        f"{first.parent}: images are read in {kind} order, {before.name} before {after.name}; "
        "pad the numbers in the names with zeros to make both orders the same",
        file=sys.stderr,
    )
    return chosen


def _parts(path: Path) -> list[str | Decimal]:
    """Split a file's name into texts and the numbers between them, in turn; a stamp in seconds is one number.

    The case of the suffix does not count.
    """
    # Seconds since 1970 have nine or ten digits; in other names, such as cam1.10, the dot separates two numbers.
    parts = re.split(r"((?<![0-9])[1-9][0-9]{8,9}\.[0-9]+|[0-9]+)", path.stem + path.suffix.lower())
    return [Decimal(part) if at % 2 else part for at, part in enumerate(parts)]


def thumbnail(image: Image, side: int = THUMBNAIL_SIDE, quality: int = THUMBNAIL_QUALITY) -> bytes:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, as a jpeg file of `side` pixels at most; none is enlarged."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        image = resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # Optimized coding takes 300 bytes less of the same pixels.
    parameters = (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    return cv2.imencode(".jpg", bgr, parameters)[1].tobytes()


def from_thumbnail(data: bytes | None) -> Image | None:
    """Return the image, uint8 [H,W,3] RGB or [H,W] grey, of a thumbnail; None where there is none, or it is damaged."""
    try:
        return None if data is None else decode_file(data)
    except ImageError:
        return None
