# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/Image <-> array; CameraInfo -> Camera; LoopClosure <-> PointCloud2; Drawing -> MarkerArray."""

from __future__ import annotations

import array
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2, PointField
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from binvpr_ros.descriptor import Image, decode_image
from binvpr_ros.features import Camera
from binvpr_ros.graph import Drawing
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.loop_closure import LoopClosure


class ImageMessageError(ValueError):
    """An image message cannot be used; the message says why."""


class CameraInfoError(ValueError):
    """A camera's calibration cannot be used; the message says why."""


# Encoding -> channels, and the OpenCV code that makes RGB of it (None: it is RGB or grey already).
PLAIN_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "mono8": (1, None),
    "8UC1": (1, None),
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
}
# Encoding -> bytes a pixel, and what a converter library shall make of it.
CONVERTED_ENCODINGS: dict[str, tuple[int, str]] = {
    "mono16": (2, "mono8"),
    "rgb16": (6, "rgb8"),
    "bgr16": (6, "rgb8"),
    "rgba16": (8, "rgb8"),
    "bgra16": (8, "rgb8"),
    **{f"bayer_{order}8": (1, "rgb8") for order in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{order}16": (2, "rgb8") for order in ("rggb", "bggr", "gbrg", "grbg")},
    **dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv"), (2, "rgb8")),
}
# cv_bridge knows these under their older names alone.
OLDER_NAMES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}
# Two planes, the second of half the height: neither converter knows them.
PLANAR_ENCODINGS = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}


def decode(message: ImageMessage | CompressedImage) -> Image:
    """Return an image message of either kind as uint8 [H,W,3] RGB or [H,W] grey; raises ImageMessageError."""
    return image_from_compressed(message) if isinstance(message, CompressedImage) else image_from_message(message)


def image_from_message(message: ImageMessage) -> Image:
    """Return a sensor_msgs/Image as uint8 [H,W,3] RGB or [H,W] grey; raises ImageMessageError.

    Plain 8-bit encodings are viewed in place, row padding (`step`) included; the others go through cv_bridge or
    rosbags-image, after their rows were put together without padding, which neither of them expects.
    """
    encoding = message.encoding
    if encoding in PLAIN_ENCODINGS:
        channels, to_rgb = PLAIN_ENCODINGS[encoding]
        image = _rows(message, channels).reshape(message.height, message.width, channels)
        if channels == 1:
            return image[..., 0]
        return image if to_rgb is None else cv2.cvtColor(image, to_rgb)
    if encoding in PLANAR_ENCODINGS:
        if message.height % 2 or message.width % 2:
            raise ImageMessageError(f"its size {message.width}x{message.height} is odd, which {encoding} cannot have")
        planes = _rows(message, 1, rows=message.height * 3 // 2)
        return cv2.cvtColor(np.ascontiguousarray(planes), PLANAR_ENCODINGS[encoding])
    if encoding in CONVERTED_ENCODINGS:
        bytes_per_pixel, target = CONVERTED_ENCODINGS[encoding]
        rows = np.ascontiguousarray(_rows(message, bytes_per_pixel))
        tight = ImageMessage(
            height=message.height,
            width=message.width,
            encoding=OLDER_NAMES.get(encoding, encoding),
            is_bigendian=message.is_bigendian,
            step=rows.shape[1],
            data=array.array("B", rows.tobytes()),
        )
        return _converter()(tight, target)
    raise ImageMessageError(f"its encoding {encoding[:40]!r} is not one of {', '.join(supported_encodings())}")


def image_from_compressed(message: CompressedImage) -> Image:
    """Return a sensor_msgs/CompressedImage (jpeg, png) as uint8 [H,W,3] RGB or [H,W] grey; raises ImageMessageError."""
    if "compressedDepth" in message.format:
        raise ImageMessageError("it holds depth (compressedDepth); subscribe to the colour or grey image")
    data = np.frombuffer(message.data, np.uint8)
    image = decode_image(data)
    if image is None:
        raise ImageMessageError(f"its {data.size} bytes (format {message.format[:40]!r}) cannot be decoded")
    return image


def message_from_array(image: Image, encoding: str = "") -> ImageMessage:
    """Return an Image message of uint8 pixels [H,W] or [H,W,3]; without `encoding` mono8 or bgr8, OpenCV's order."""
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image)
    return ImageMessage(
        height=height, width=width, encoding=encoding or ("mono8" if image.ndim == 2 else "bgr8"),
        step=data.nbytes // height, data=array.array("B", data.tobytes()),
    )  # fmt: skip


def supported_encodings() -> list[str]:
    """Return the names of all encodings that image_from_message takes."""
    return [*PLAIN_ENCODINGS, *PLANAR_ENCODINGS, *CONVERTED_ENCODINGS]


def _rows(message: ImageMessage, bytes_per_pixel: int, rows: int | None = None) -> NDArray[np.uint8]:
    """Return the message's pixels as a view [rows, width * bytes_per_pixel] without the padding of `step`."""
    rows = message.height if rows is None else rows
    width = message.width * bytes_per_pixel
    if message.height == 0 or message.width == 0:
        raise ImageMessageError(f"its size is {message.width}x{message.height}")
    if message.step < width:
        raise ImageMessageError(
            f"its step of {message.step} bytes is less than the {width} of a row of "
            f"{message.width} {message.encoding} pixels"
        )
    if len(message.data) != message.step * rows:
        raise ImageMessageError(
            f"it has {len(message.data)} bytes of data instead of {message.step * rows} ({rows} rows of {message.step})"
        )
    return np.frombuffer(message.data, np.uint8).reshape(rows, message.step)[:, :width]


@functools.cache
def _converter() -> Callable[[ImageMessage, str], Image]:
    """Return the converter for the less plain encodings: cv_bridge where it is (ROS from apt), else rosbags-image."""
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        return _rosbags_converter()
    bridge = CvBridge()

    def convert_with_cv_bridge(message: ImageMessage, target: str) -> Image:
        try:
            image: Image = bridge.imgmsg_to_cv2(message, target)
        except (CvBridgeError, cv2.error) as error:
            raise ImageMessageError(f"cv_bridge cannot convert it ({error})") from None
        return image

    return convert_with_cv_bridge


def _rosbags_converter() -> Callable[[ImageMessage, str], Image]:
    try:
        from rosbags.image import ImageError, image_to_cvimage
    except ImportError:
        raise ImageMessageError(
            "its encoding needs a converter; install ros-<distro>-cv-bridge with apt, or rosbags-image with pip"
        ) from None

    def convert_with_rosbags(message: ImageMessage, target: str) -> Image:
        try:
            return np.asarray(image_to_cvimage(message, target), np.uint8)
        except (ImageError, cv2.error) as error:
            raise ImageMessageError(f"rosbags-image cannot convert it ({error})") from None

    return convert_with_rosbags


LENSES = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8, 12, 14), "equidistant": (4,), "fisheye": (4,)}
"""Distortion model -> how many coefficients it may have."""


def camera_from_info(message: CameraInfo, rectified: bool = False) -> Camera:
    """Return the camera of a sensor_msgs/CameraInfo; raises CameraInfoError where it is not calibrated, or not known.

    Of an image that is `rectified` (image_proc's image_rect) the lens distorts nothing, and its matrix is in `p`.
    """
    region = message.roi
    width, height = (region.width, region.height) if region.width and region.height else (message.width, message.height)
    matrix = np.array(message.p if rectified else message.k, np.float64).reshape(3, -1)[:, :3]
    coefficients = np.array([] if rectified else message.d, np.float64)
    if not (width and height and np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise CameraInfoError("it holds no calibration; calibrate the camera, or go on without")
    # A lens sees from some six degrees to nearly half a circle, and its axis goes through the sensor.
    focal, centre = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    inside = (centre > 0).all() and (centre < (message.width or width, message.height or height)).all()
    if not (inside and 0.1 * width < focal.min() <= focal.max() < 10 * width):
        raise CameraInfoError(
            f"it is of no camera of {width}x{height} pixels (focal length {focal[0]:.0f}, centre {centre[0]:.0f}, "
            f"{centre[1]:.0f}); calibrate the camera at this size, or go on without"
        )
    model = message.distortion_model or "plumb_bob"
    if not rectified and (len(coefficients) not in LENSES.get(model, ()) or not np.isfinite(coefficients).all()):
        raise CameraInfoError(
            f"its {len(coefficients)} coefficients of the distortion model {model[:40]!r} are not known here; "
            f"use one of {', '.join(LENSES)}, or rectified images"
        )
    matrix[:2, 2] -= (region.x_offset, region.y_offset)
    return Camera((width, height), matrix, coefficients, fisheye=not rectified and LENSES[model] == (4,))


ROUTE_COLOURS = ((0.25, 0.6, 1.0), (1.0, 0.65, 0.15), (0.8, 0.5, 1.0), (0.2, 0.85, 0.85), (1.0, 0.45, 0.6))
"""Red, green and blue, 0 to 1, of sessions in turn."""
CLOSURE_COLOUR = (0.2, 1.0, 0.3)
LINE_WIDTH = 1 / 400
"""Of a route's line, as a share of the longest side of all that is drawn: a room and a town are both seen whole."""
LEAST_WIDTH = 0.01  # metres


def message_from_drawing(drawing: Drawing) -> MarkerArray:
    """Return the route of each session, with its keyframes as points, and all closures as lines.

    Each message is complete: it first deletes what an earlier one drew.
    """
    header = Header(frame_id=drawing.frame)  # without a stamp: where the frame is now
    places = [position for route in drawing.routes.values() for position in route]
    width = max(LEAST_WIDTH, LINE_WIDTH * float(np.ptp(places, axis=0).max())) if places else LEAST_WIDTH

    def marker(
        name: str, number: int, kind: int, points: list[Point], size: float, colour: tuple[float, float, float]
    ) -> Marker:
        red, green, blue = colour
        return Marker(
            header=header, ns=name, id=number, type=kind, action=Marker.ADD, points=points,
            scale=Vector3(x=size, y=size), color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
        )  # fmt: skip

    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for session, route in drawing.routes.items():
        points = [Point(x=x, y=y, z=z) for x, y, z in route]
        colour = ROUTE_COLOURS[session % len(ROUTE_COLOURS)]
        markers.append(marker("keyframes", session, Marker.POINTS, points, 3 * width, colour))
        if len(points) > 1:
            markers.append(marker("route", session, Marker.LINE_STRIP, points, width, colour))
    ends = [Point(x=x, y=y, z=z) for closure in drawing.closures for x, y, z in closure]
    if ends:
        markers.append(marker("closures", 0, Marker.LINE_LIST, ends, 1.5 * width, CLOSURE_COLOUR))
    return MarkerArray(markers=markers)


def to_nanoseconds(stamp: Time) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def from_nanoseconds(stamp: int) -> Time:
    """Return nanoseconds as a builtin_interfaces/Time."""
    seconds, nanoseconds = divmod(stamp, NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


LOOP_CLOSURE_ROW = np.dtype([
    ("query_id", "<u4"),
    ("match_id", "<u4"),
    ("query_session", "<u4"),
    ("match_session", "<u4"),
    ("match_sec", "<i4"),
    ("match_nanosec", "<u4"),
    ("hamming", "<u4"),
    ("score", "<f4"),
    ("inliers", "<i4"),
])  # fmt: skip
"""A row of the topic `loop_closures`: 36 bytes, no padding."""

_POINT_FIELD_TYPES = {"u4": PointField.UINT32, "i4": PointField.INT32, "f4": PointField.FLOAT32}


def message_from_closures(header: Header, closures: Sequence[LoopClosure]) -> PointCloud2:
    """Return the closures of one query image, best first, as a table; `header` is that image's own."""
    rows = np.empty(len(closures), LOOP_CLOSURE_ROW)
    for row, closure in zip(rows, closures, strict=True):
        stamp = from_nanoseconds(closure.match.stamp)
        row["query_id"], row["match_id"] = closure.query.id, closure.match.id
        row["query_session"], row["match_session"] = closure.query.session, closure.match.session
        row["match_sec"], row["match_nanosec"] = stamp.sec, stamp.nanosec
        row["hamming"], row["score"], row["inliers"] = closure.hamming, closure.score, closure.inliers
    return PointCloud2(
        header=header,
        height=1,
        width=len(rows),
        fields=_point_fields(),
        is_bigendian=False,
        point_step=LOOP_CLOSURE_ROW.itemsize,
        row_step=LOOP_CLOSURE_ROW.itemsize * len(rows),
        data=array.array("B", rows.tobytes()),
        is_dense=True,
    )


def rows_from_message(message: PointCloud2) -> NDArray[Any]:
    """Return the rows of a `loop_closures` message as a structured array of LOOP_CLOSURE_ROW; raises ValueError."""
    expected = [(field.name, field.offset, field.datatype, field.count) for field in _point_fields()]
    fields = [(field.name, field.offset, field.datatype, field.count) for field in message.fields]
    if fields != expected or message.point_step != LOOP_CLOSURE_ROW.itemsize or message.is_bigendian:
        raise ValueError("the message is no table of loop closures: its fields differ; check the topic")
    return np.frombuffer(message.data, LOOP_CLOSURE_ROW)


def _point_fields() -> list[PointField]:
    fields: Mapping[str, tuple[Any, ...]] = LOOP_CLOSURE_ROW.fields or {}
    return [
        PointField(name=name, offset=offset, datatype=_POINT_FIELD_TYPES[kind.str[1:]], count=1)
        for name, (kind, offset, *_) in fields.items()
    ]
