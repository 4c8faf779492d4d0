# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/Image <-> array; CameraInfo -> Camera; LoopClosure <-> PointCloud2; Drawing -> MarkerArray."""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2, PointField
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from binvpr_ros.images import Image, ImageError, Stretch, decode_file, decode_pixels
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.ros.graph import Drawing


class CameraInfoError(ValueError):
    """A camera's calibration cannot be used; the message says why."""


def decode(message: ImageMessage | CompressedImage, stretch: Stretch | None = None) -> Image:
    """Return an image message of either kind as uint8 [H,W,3] RGB or [H,W] grey; raises ImageError."""
    if isinstance(message, CompressedImage):
        return image_from_compressed(message, stretch)
    return image_from_message(message, stretch)


def image_from_message(message: ImageMessage, stretch: Stretch | None = None) -> Image:
    """Return a sensor_msgs/Image as uint8 [H,W,3] RGB or [H,W] grey, as `decode_pixels` does; raises ImageError."""
    return decode_pixels(
        message.height, message.width, message.encoding, message.step, message.data, message.is_bigendian, stretch
    )


def image_from_compressed(message: CompressedImage, stretch: Stretch | None = None) -> Image:
    """Return a sensor_msgs/CompressedImage (jpeg, png) as uint8 [H,W,3] RGB or [H,W] grey; raises ImageError."""
    if "compressedDepth" in message.format:
        raise ImageError("it holds depth (compressedDepth); subscribe to the colour or grey image")
    try:
        return decode_file(message.data, stretch)
    except ImageError as error:
        raise ImageError(f"{error} (its format is {message.format[:40]!r})") from None


def message_from_array(image: Image, encoding: str = "") -> ImageMessage:
    """Return an Image message of uint8 pixels [H,W] or [H,W,3]; without `encoding` mono8 or bgr8, OpenCV's order."""
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image)
    return ImageMessage(
        height=height, width=width, encoding=encoding or ("mono8" if image.ndim == 2 else "bgr8"),
        step=data.nbytes // height, data=array.array("B", data.tobytes()),
    )  # fmt: skip


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
