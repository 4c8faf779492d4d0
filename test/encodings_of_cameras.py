# SPDX-License-Identifier: Apache-2.0
"""What cameras send: a picture in any encoding of sensor_msgs/Image, with rows of any padding."""

from __future__ import annotations

import re
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

GENERIC = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC1": "mono16", "16UC3": "bgr16", "16UC4": "bgra16"}
VIDEO = {"yuv422": "uyvy", "yuv422_yuy2": "yuyv"}


class Encoded(NamedTuple):
    """The fields of a sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    step: int
    data: bytes
    is_bigendian: bool = False


def scene() -> NDArray[np.uint8]:
    """Return a smooth colourful picture [48,64,3]: what colour filters and chroma planes lose of it is little."""
    y, x = np.mgrid[0:48, 0:64].astype(np.float32)
    return np.dstack([x * 3.5, y * 4.5, 255 - (x + y) * 2]).astype(np.uint8)


def grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture [H,W,3] as grey [H,W]."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def encode(rgb: NDArray[np.uint8], encoding: str, padding: int = 0, is_bigendian: bool = False) -> Encoded:
    """Return a picture [H,W,3] in `encoding`; the padding of its rows, and the lower byte of 16 bits, are rubbish."""
    name = GENERIC.get(encoding, VIDEO.get(encoding, encoding))
    if plain := re.fullmatch(r"(mono|rgba?|bgra?|bayer_(?P<order>\w{4}))(8|16)", name):
        pixels = mosaic(rgb, plain["order"]) if plain["order"] else in_channels(rgb, plain[1])
        if plain[3] == "16":
            low = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint16)
            pixels = (pixels.astype(np.uint16) * 256 + low).astype(">u2" if is_bigendian else "<u2")
    else:
        pixels = video(rgb, name)
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    padded = np.full((rows.shape[0], rows.shape[1] + padding), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    height, width = rgb.shape[:2]
    return Encoded(height, width, encoding, padded.shape[1], padded.tobytes(), is_bigendian)


def in_channels(rgb: NDArray[np.uint8], order: str) -> NDArray[np.uint8]:
    """Return a picture with its channels in this order; that of transparency is rubbish."""
    if order == "mono":
        return grey(rgb)
    alpha = np.random.default_rng(1).integers(0, 256, rgb.shape[:2], np.uint8)
    return np.dstack([alpha if colour == "a" else rgb[..., "rgb".index(colour)] for colour in order])


def mosaic(rgb: NDArray[np.uint8], order: str) -> NDArray[np.uint8]:
    """Return what a sensor [H,W] behind a filter sees; `order` are the colours of its first four pixels, by rows."""
    seen = np.empty(rgb.shape[:2], np.uint8)
    for position, colour in enumerate(order):
        row, column = divmod(position, 2)
        seen[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
    return seen


def video(rgb: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Return a picture as uyvy or yuyv [H,W,2], or as nv12 or nv21 [H*3/2,W]: YUV of limited range (BT.601)."""
    red, green, blue = (rgb[..., channel].astype(float) for channel in range(3))
    planes = (
        16 + 0.257 * red + 0.504 * green + 0.098 * blue,
        128 - 0.148 * red - 0.291 * green + 0.439 * blue,
        128 + 0.439 * red - 0.368 * green - 0.071 * blue,
    )
    y, u, v = (np.clip(plane.round(), 0, 255).astype(np.uint8) for plane in planes)
    height, width = y.shape
    if name in ("nv12", "nv21"):
        colour = np.empty((height // 2, width), np.uint8)
        first, second = (u, v) if name == "nv12" else (v, u)
        colour[:, 0::2], colour[:, 1::2] = first[::2, ::2], second[::2, ::2]
        return np.vstack([y, colour])
    colour = np.empty((height, width), np.uint8)
    colour[:, 0::2], colour[:, 1::2] = u[:, 0::2], v[:, 1::2]
    return np.dstack({"uyvy": (colour, y), "yuyv": (y, colour)}[name])


def assert_shows(image: NDArray[np.uint8], rgb: NDArray[np.uint8], encoding: str) -> None:
    """Check that `image` is the picture [H,W,3], as nearly as the encoding keeps it."""
    assert image.dtype == np.uint8
    if encoding.startswith("mono") or encoding.endswith("C1"):
        np.testing.assert_array_equal(image, grey(rgb))
    elif encoding.startswith("bayer"):
        inside = np.s_[4:-4, 4:-4]
        np.testing.assert_allclose(image[inside].astype(int), rgb[inside].astype(int), atol=8)
    elif encoding.startswith(("yuv", "yuyv", "uyvy", "nv")):
        np.testing.assert_allclose(image.astype(int), rgb.astype(int), atol=12)
    else:
        np.testing.assert_array_equal(image, rgb)
