# SPDX-License-Identifier: Apache-2.0
"""Image <-> array; CameraInfo -> Camera; closures and constraints <-> PointCloud2; Drawing -> MarkerArray."""

from __future__ import annotations

import array
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2, PointField
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.images import Image, ImageError, Stretch, decode_compressed, decode_pixels
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.local_features.camera import Camera, CameraError
from binvpr_ros.local_features.depth import DepthImage
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.loop_constraint import LoopConstraint, quaternion_from_rotation
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
    return decode_compressed(message.data, message.format, stretch)


DEPTH_ENCODINGS: Mapping[str, np.dtype[Any]] = {
    "16UC1": np.dtype(np.uint16),
    "mono16": np.dtype(np.uint16),
    "32FC1": np.dtype(np.float32),
}
"""Encodings of depth images: millimetres, and metres (REP 118)."""


def depth_from_message(message: ImageMessage) -> DepthImage:
    """Return a depth image [H,W], uint16 in millimetres or float32 in metres; raises ImageError."""
    kind = DEPTH_ENCODINGS.get(message.encoding)
    if kind is None:
        raise ImageError(
            f"its encoding {message.encoding[:40]!r} is not a depth encoding; use {', '.join(DEPTH_ENCODINGS)}"
        )
    height, width, step = message.height, message.width, message.step
    if not height or not width or step < width * kind.itemsize or len(message.data) < height * step:
        raise ImageError(f"its {len(message.data)} bytes are no {width}x{height} pixels of {message.encoding}")
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, : width * kind.itemsize]
    values = np.ascontiguousarray(rows).view(kind.newbyteorder(">" if message.is_bigendian else "<"))
    found: DepthImage = values.astype(kind)
    return found


def message_from_depth(depth: DepthImage) -> ImageMessage:
    """Return an Image message of a depth image [H,W], 16UC1 or 32FC1."""
    data = np.ascontiguousarray(depth.astype(depth.dtype.newbyteorder("<")))
    return ImageMessage(
        height=depth.shape[0], width=depth.shape[1], encoding="16UC1" if depth.dtype == np.uint16 else "32FC1",
        step=data.nbytes // depth.shape[0], data=array.array("B", data.tobytes()),
    )  # fmt: skip


def message_from_array(image: Image, encoding: str = "") -> ImageMessage:
    """Return an Image message of uint8 pixels [H,W] or [H,W,3]; without `encoding` mono8 or bgr8, OpenCV's order."""
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image)
    return ImageMessage(
        height=height, width=width, encoding=encoding or ("mono8" if image.ndim == 2 else "bgr8"),
        step=data.nbytes // height, data=array.array("B", data.tobytes()),
    )  # fmt: skip


def camera_from_info(message: CameraInfo, rectified: bool = False) -> Camera:
    """Return the camera of a sensor_msgs/CameraInfo; raises CameraInfoError if it is not calibrated, or not known.

    `rectified` says that the images are those of image_proc's image_rect.
    """
    roi = message.roi
    k, d, model = message.k, message.d, message.distortion_model
    if rectified:
        k, d, model = Camera.of_rectified(message.p, message.k)
    try:
        return Camera.calibrated(
            (message.width, message.height), k, d, model, (roi.x_offset, roi.y_offset, roi.width, roi.height)
        )
    except CameraError as error:
        raise CameraInfoError(str(error)) from None


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

LOOP_CONSTRAINT_ROW = np.dtype([
    ("query_id", "<u4"),
    ("match_id", "<u4"),
    ("query_session", "<u4"),
    ("match_session", "<u4"),
    ("query_sec", "<i4"),
    ("query_nanosec", "<u4"),
    ("match_sec", "<i4"),
    ("match_nanosec", "<u4"),
    ("scale_known", "<u4"),
    ("inliers", "<i4"),
    *((name, "<f8") for name in ("x", "y", "z", "qx", "qy", "qz", "qw")),
    ("covariance", "<f8", 36),
])  # fmt: skip
"""A row of the topic `loop_constraints`: 384 bytes, no padding."""

ROBOT_BYTES = 64
"""For a robot's name: more than PostgreSQL gives a role."""
FLEET_CLOSURE_ROW = np.dtype([
    *((name, LOOP_CLOSURE_ROW[name].str) for name in LOOP_CLOSURE_ROW.names or ()),
    ("map_keyframe", "<u4"),
    ("map_session", "<u4"),
    ("other_clock", "<u4"),
    ("pose_known", "<u4"),
    ("pose_inliers", "<i4"),
    ("map", "|u1", 16),
    ("robot", "|u1", ROBOT_BYTES),
    *((name, "<f8") for name in ("x", "y", "z", "qx", "qy", "qz", "qw")),
    ("covariance", "<f8", 36),
])  # fmt: skip
"""A row of the topic `fleet_closures`: 480 bytes, no padding."""
FOREIGN = 1 << 31
"""From it on, ids and sessions of matches are of other maps of the fleet."""

MATCH_ROW = np.dtype([
    ("query_id", "<u4"),
    ("match_id", "<u4"),
    ("query_x", "<f4"),
    ("query_y", "<f4"),
    ("match_x", "<f4"),
    ("match_y", "<f4"),
])  # fmt: skip
"""A row of the topic `~/matches`: 24 bytes, no padding."""

_POINT_FIELD_TYPES = {
    "<u4": PointField.UINT32, "<i4": PointField.INT32, "<f4": PointField.FLOAT32, "<f8": PointField.FLOAT64,
    "|u1": PointField.UINT8,
}  # fmt: skip


def message_from_closures(header: Header, closures: Sequence[LoopClosure]) -> PointCloud2:
    """Return the closures of one query image, best first, as a table; `header` is that image's own."""
    rows = np.empty(len(closures), LOOP_CLOSURE_ROW)
    for row, closure in zip(rows, closures, strict=True):
        stamp = from_nanoseconds(closure.match.stamp)
        row["query_id"], row["match_id"] = closure.query.id, closure.match.id
        row["query_session"], row["match_session"] = closure.query.session, closure.match.session
        row["match_sec"], row["match_nanosec"] = stamp.sec, stamp.nanosec
        row["hamming"], row["score"], row["inliers"] = closure.hamming, closure.score, closure.inliers
    return _table(header, rows)


def message_from_constraints(header: Header, constraints: Sequence[LoopConstraint]) -> PointCloud2:
    """Return the constraints of one query image, best first, as a table; `header` is that image's own."""
    rows = np.empty(len(constraints), LOOP_CONSTRAINT_ROW)
    for row, constraint in zip(rows, constraints, strict=True):
        pose = constraint.pose
        row["query_id"], row["match_id"] = constraint.query_id, constraint.match_id
        row["query_session"], row["match_session"] = constraint.query_session, constraint.match_session
        for name, nanoseconds in (("query", constraint.query_stamp), ("match", constraint.match_stamp)):
            stamp = from_nanoseconds(nanoseconds)
            row[f"{name}_sec"], row[f"{name}_nanosec"] = stamp.sec, stamp.nanosec
        row["scale_known"], row["inliers"] = pose.scale_known, pose.inliers
        row["x"], row["y"], row["z"] = pose.translation
        row["qx"], row["qy"], row["qz"], row["qw"] = quaternion_from_rotation(pose.rotation)
        row["covariance"] = pose.covariance.ravel()
    return _table(header, rows)


def message_from_fleet_closures(
    header: Header, closures: Sequence[FleetClosure], session_of: Callable[[FleetClosure], int]
) -> PointCloud2:
    """Return the closures of one query image with other maps of the fleet, best first, as a table.

    `session_of` numbers the sessions of all other maps, from 0 on.
    """
    rows = np.zeros(len(closures), FLEET_CLOSURE_ROW)
    for row, closure in zip(rows, closures, strict=True):
        stamp, pose = from_nanoseconds(closure.match_stamp), closure.pose
        row["query_id"], row["match_id"] = closure.query_id, FOREIGN + closure.match_id
        row["query_session"], row["match_session"] = closure.query_session, FOREIGN + session_of(closure)
        row["match_sec"], row["match_nanosec"] = stamp.sec, stamp.nanosec
        row["hamming"], row["score"], row["inliers"] = closure.hamming, closure.score, closure.inliers
        row["map_keyframe"], row["map_session"] = closure.match_id, closure.match_session
        row["other_clock"] = closure.other_clock
        row["map"] = np.frombuffer(uuid.UUID(closure.map_uuid).bytes, np.uint8)
        name = closure.robot.encode()[:ROBOT_BYTES]
        row["robot"][: len(name)] = np.frombuffer(name, np.uint8)
        if pose is not None:
            row["pose_known"], row["pose_inliers"] = 1 + pose.scale_known, pose.inliers
            row["x"], row["y"], row["z"] = pose.translation
            row["qx"], row["qy"], row["qz"], row["qw"] = quaternion_from_rotation(pose.rotation)
            row["covariance"] = pose.covariance.ravel()
    return _table(header, rows)


def own_rows_of(message: PointCloud2) -> PointCloud2:
    """Return the part of a message of `fleet_closures` that is one of `loop_closures`."""
    theirs = fleet_rows_from_message(message)
    rows = np.empty(len(theirs), LOOP_CLOSURE_ROW)
    for name in LOOP_CLOSURE_ROW.names or ():
        rows[name] = theirs[name]
    return _table(message.header, rows)


def message_from_matches(header: Header, closures: Sequence[LoopClosure], size: tuple[int, int]) -> PointCloud2:
    """Return the pixels that verify the closures of a query image of `size` (width, height), a row for each pair.

    Those of a match are pixels of the images of its camera, or where that is not known, of an image of `size` too.
    """
    parts = []
    for closure in closures:
        if closure.views is None:
            continue
        ours, theirs = closure.views.inliers
        rows = np.empty(len(ours), MATCH_ROW)
        rows["query_id"], rows["match_id"] = closure.query.id, closure.match.id
        camera = closure.views.match_camera
        rows["query_x"], rows["query_y"] = closure.views.ours.points(ours, size).T
        rows["match_x"], rows["match_y"] = closure.views.theirs.points(theirs, camera.size if camera else size).T
        parts.append(rows)
    return _table(header, np.concatenate(parts) if parts else np.empty(0, MATCH_ROW))


def rows_from_message(message: PointCloud2) -> NDArray[Any]:
    """Return the rows of a `loop_closures` message as a structured array of LOOP_CLOSURE_ROW; raises ValueError."""
    return _rows(message, LOOP_CLOSURE_ROW, "loop closures")


def constraint_rows_from_message(message: PointCloud2) -> NDArray[Any]:
    """Return the rows of a `loop_constraints` message, of LOOP_CONSTRAINT_ROW; raises ValueError."""
    return _rows(message, LOOP_CONSTRAINT_ROW, "loop constraints")


def fleet_rows_from_message(message: PointCloud2) -> NDArray[Any]:
    """Return the rows of a `fleet_closures` message, of FLEET_CLOSURE_ROW; raises ValueError."""
    return _rows(message, FLEET_CLOSURE_ROW, "closures with a fleet's map")


def _table(header: Header, rows: NDArray[Any]) -> PointCloud2:
    return PointCloud2(
        header=header,
        height=1,
        width=len(rows),
        fields=_point_fields(rows.dtype),
        is_bigendian=False,
        point_step=rows.dtype.itemsize,
        row_step=rows.nbytes,
        data=array.array("B", rows.tobytes()),
        is_dense=True,
    )


def _rows(message: PointCloud2, row: np.dtype[Any], what: str) -> NDArray[Any]:
    """Return the rows of a table of `what`, a structured array of `row`; raises ValueError."""
    row_step = message.width * message.point_step
    if message.row_step != row_step or len(message.data) != message.height * row_step:
        raise ValueError(f"the message is no table of {what}: its size is not that of its data; check the topic")
    expected = [(field.name, field.offset, field.datatype, field.count) for field in _point_fields(row)]
    fields = [(field.name, field.offset, field.datatype, field.count) for field in message.fields]
    if fields != expected or message.point_step != row.itemsize or message.is_bigendian:
        raise ValueError(f"the message is no table of {what}: its fields differ; check the topic")
    return np.frombuffer(message.data, row)


def _point_fields(row: np.dtype[Any]) -> list[PointField]:
    fields: Mapping[str, tuple[Any, ...]] = row.fields or {}
    return [
        PointField(name=name, offset=offset, datatype=_POINT_FIELD_TYPES[kind.base.str], count=math.prod(kind.shape))
        for name, (kind, offset, *_) in fields.items()
    ]
