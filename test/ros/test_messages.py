# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from encodings_of_cameras import Encoded, assert_shows, encode, grey, scene
from random_features import random_features
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, RegionOfInterest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from binvpr_ros.images import ENCODINGS, ImageError, Stretch
from binvpr_ros.keyframes import Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import NO_PAIRS
from binvpr_ros.loop_closure import LoopClosure, VerifiedViews
from binvpr_ros.ros.graph import Drawing
from binvpr_ros.ros.messages import (
    LOOP_CLOSURE_ROW,
    MATCH_ROW,
    CameraInfoError,
    camera_from_info,
    decode,
    depth_from_message,
    from_nanoseconds,
    image_from_compressed,
    image_from_message,
    message_from_closures,
    message_from_depth,
    message_from_drawing,
    message_from_matches,
    rows_from_message,
    to_nanoseconds,
)


def message(encoded: Encoded, **changes: Any) -> Image:
    """Return a real message that has been through CDR."""
    facts = encoded._asdict() | {"data": array.array("B", encoded.data)} | changes
    return deserialize_message(serialize_message(Image(**facts)), Image)


@pytest.mark.parametrize("padding", [0, 13])
@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding(encoding: str, bigendian: bool, padding: int) -> None:
    sent = message(encode(scene(), encoding, padding, bigendian))
    assert_shows(image_from_message(sent), scene(), encoding)
    np.testing.assert_array_equal(decode(sent), image_from_message(sent))


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name.startswith(("bayer", "rgb", "bgr", "mono"))])
def test_cv_bridge_decodes_the_same(encoding: str) -> None:
    bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed").CvBridge()
    sent = message(encode(scene(), encoding))
    expected = bridge.imgmsg_to_cv2(sent, "mono8" if encoding.startswith("mono") else "rgb8")
    difference = image_from_message(sent).astype(int) - expected
    assert np.abs(difference[1:-1, 1:-1]).max() <= 2  # it interpolates in 16 bits, and rounds


def test_plain_images_are_viewed_not_copied() -> None:
    original = message(encode(scene(), "rgb8", 13))
    assert np.shares_memory(image_from_message(original), np.frombuffer(original.data, np.uint8))


def test_a_stretch_reaches_images_of_both_kinds() -> None:
    dark = grey(scene()).astype(np.uint16) * 16
    raw = message(Encoded(48, 64, "mono16", 128, dark.tobytes()))
    compressed = _compressed(dark, ".png")
    for sent in (raw, compressed):
        assert decode(sent).max() < 16
        assert decode(sent, Stretch()).max() == 255


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"encoding": "rgb10"}, "its encoding 'rgb10' is not one of mono8, "),
        ({"step": 63}, "its step of 63 bytes is less than the 64 of a row of 64 mono8 pixels"),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1}, "it has 3072 bytes of data instead of"),
        ({"data": array.array("B")}, "it has 0 bytes of data"),
    ],
)
def test_unusable_images_are_refused_with_the_cause(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ImageError) as refused:
        image_from_message(message(encode(scene(), "mono8"), **changes))
    assert sentence in str(refused.value)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_colour(extension: str) -> None:
    image = image_from_compressed(_compressed(scene()[..., ::-1], extension))
    np.testing.assert_allclose(image.astype(int), scene().astype(int), atol=0 if extension == ".png" else 12)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_grey(extension: str) -> None:
    image = image_from_compressed(_compressed(grey(scene()), extension))
    assert image.shape == (48, 64)
    np.testing.assert_allclose(image.astype(int), grey(scene()).astype(int), atol=0 if extension == ".png" else 6)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_undecodable_images_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^its \d+ bytes .* \(its format is 'jpeg'\)$"):
        image_from_compressed(CompressedImage(format="jpeg", data=data))


@pytest.mark.parametrize("side", [10_000, 40_000, 65_500])
def test_a_jpeg_that_claims_to_be_huge_is_refused(side: int) -> None:
    data = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
    frame = data.index(b"\xff\xc0") + 5  # height and width follow
    bomb = data[:frame] + 2 * side.to_bytes(2, "big") + data[frame + 4 :]
    with pytest.raises(ImageError, match="cannot be decoded"):
        image_from_compressed(CompressedImage(format="jpeg", data=bomb))


def test_compressed_depth_is_refused() -> None:
    with pytest.raises(ImageError, match="depth"):
        image_from_compressed(CompressedImage(format="16UC1; compressedDepth png", data=b"x"))


def _compressed(bgr: NDArray[Any], extension: str) -> CompressedImage:
    return CompressedImage(format=extension[1:], data=cv2.imencode(extension, bgr)[1].tobytes())


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**9 - 1))
def test_stamps_lose_nothing(seconds: int, nanoseconds: int) -> None:
    stamp = Time(sec=seconds, nanosec=nanoseconds)
    assert from_nanoseconds(to_nanoseconds(stamp)) == stamp


def closures() -> list[LoopClosure]:
    descriptor = np.zeros(1, np.uint64)
    query = Keyframe(9, 2, 50_000_000_007, descriptor)
    return [
        LoopClosure(query, Keyframe(3, 1, 12_000_000_034, descriptor), 321, 0.875),
        LoopClosure(query, Keyframe(5, 2, 14_000_000_000, descriptor), 400, 0.5, inliers=17),
    ]


def test_closures_keep_the_contract_of_the_topic() -> None:
    header = Header(stamp=Time(sec=50, nanosec=7), frame_id="camera")
    table = message_from_closures(header, closures())
    assert (table.header, table.height, table.width) == (header, 1, 2)
    assert (table.point_step, table.row_step, table.is_dense, table.is_bigendian) == (36, 72, True, False)
    assert [(field.name, field.offset, field.datatype, field.count) for field in table.fields] == [
        ("query_id", 0, 6, 1), ("match_id", 4, 6, 1), ("query_session", 8, 6, 1), ("match_session", 12, 6, 1),
        ("match_sec", 16, 5, 1), ("match_nanosec", 20, 6, 1), ("hamming", 24, 6, 1), ("score", 28, 7, 1),
        ("inliers", 32, 5, 1),
    ]  # fmt: skip


def test_closures_come_back_from_the_wire() -> None:
    table = deserialize_message(serialize_message(message_from_closures(Header(), closures())), PointCloud2)
    rows = rows_from_message(table)
    assert rows.tolist() == [(9, 3, 2, 1, 12, 34, 321, 0.875, -1), (9, 5, 2, 2, 14, 0, 400, 0.5, 17)]


def test_another_table_is_no_table_of_closures() -> None:
    table = message_from_closures(Header(), closures())
    table.fields[7].name = "intensity"
    with pytest.raises(ValueError, match="its fields differ"):
        rows_from_message(table)


def test_a_drawing_is_routes_with_points_and_lines_between() -> None:
    routes = {2: [(0.0, 0.0, 0.0), (40.0, 0.0, 0.0)], 5: [(10.0, 3.0, 1.0)]}
    drawing = Drawing("odom", routes, [((10.0, 3.0, 1.0), (0.0, 0.0, 0.0))])
    array = deserialize_message(serialize_message(message_from_drawing(drawing)), MarkerArray)
    delete, *markers = array.markers
    assert delete.action == Marker.DELETEALL
    assert {marker.header.frame_id for marker in markers} == {"odom"}
    assert {marker.action for marker in markers} == {Marker.ADD}
    found = {(marker.ns, marker.id): marker for marker in markers}
    # A line needs two points.
    assert list(found) == [("keyframes", 2), ("route", 2), ("keyframes", 5), ("closures", 0)]
    points = {key: [(point.x, point.y, point.z) for point in marker.points] for key, marker in found.items()}
    assert points["keyframes", 2] == points["route", 2] == routes[2]
    assert points["keyframes", 5] == routes[5]
    assert points["closures", 0] == [(10.0, 3.0, 1.0), (0.0, 0.0, 0.0)]
    assert [marker.type for marker in markers] == [Marker.POINTS, Marker.LINE_STRIP, Marker.POINTS, Marker.LINE_LIST]
    assert len({(marker.color.r, marker.color.g, marker.color.b) for marker in markers}) == 3
    assert all(marker.color.a == 1 for marker in markers)
    assert found["route", 2].scale.x == pytest.approx(0.1)
    assert all(marker.scale.x >= 0.1 for marker in markers)


def test_a_drawing_without_anything_deletes_what_was_there() -> None:
    (marker,) = message_from_drawing(Drawing("odom", {}, [])).markers
    assert marker.action == Marker.DELETEALL


def test_a_row_has_36_bytes() -> None:
    assert LOOP_CLOSURE_ROW.itemsize == 36


def camera_info(**changes: Any) -> CameraInfo:
    facts: dict[str, Any] = {
        "width": 640, "height": 480, "distortion_model": "plumb_bob", "d": [-0.3, 0.1, 0.0, 0.0, 0.0],
        "k": [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0],
        "p": [400.0, 0.0, 310.0, 0.0, 0.0, 410.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    }  # fmt: skip
    return deserialize_message(serialize_message(CameraInfo(**(facts | changes))), CameraInfo)


def test_a_camera_comes_with_its_matrix_and_its_lens() -> None:
    camera = camera_from_info(camera_info())
    assert camera.size == (640, 480)
    np.testing.assert_array_equal(camera.matrix, [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    np.testing.assert_array_equal(camera.coefficients, [-0.3, 0.1, 0, 0, 0])
    assert not camera.fisheye
    assert camera_from_info(camera_info(distortion_model="equidistant", d=[0.1, 0.0, 0.0, 0.0])).fisheye


def test_a_rectified_image_has_the_matrix_of_its_projection_and_no_lens() -> None:
    camera = camera_from_info(camera_info(distortion_model="double_sphere"), rectified=True)
    np.testing.assert_array_equal(camera.matrix, [[400, 0, 310], [0, 410, 230], [0, 0, 1]])
    assert camera.coefficients.size == 0
    unset = camera_from_info(camera_info(p=[0.0] * 12), rectified=True)
    np.testing.assert_array_equal(unset.matrix, [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    assert unset.coefficients.size == 0


@pytest.mark.parametrize(
    ("model", "d", "count"),
    [
        ("plumb_bob", [-0.3, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 5),
        ("equidistant", [-0.3, 0.1, 0.0, 0.0, 0.0], 4),
        ("none", [], 0),
        ("", [], 0),
    ],
)
def test_a_driver_may_fill_its_calibration_with_zeros_or_name_no_lens(model: str, d: list[float], count: int) -> None:
    camera = camera_from_info(camera_info(distortion_model=model, d=d, p=[0.0] * 12))
    assert camera.coefficients.tolist() == d[:count]


def test_of_a_part_of_the_sensor_the_centre_moves() -> None:
    camera = camera_from_info(camera_info(roi=RegionOfInterest(x_offset=100, y_offset=40, width=320, height=240)))
    assert camera.size == (320, 240)
    np.testing.assert_array_equal(camera.matrix[:2, 2], [220, 200])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"k": [0.0] * 9}, "it holds no calibration; calibrate the camera, or go on without"),
        ({"k": [float("nan")] * 9}, "it holds no calibration"),
        ({"width": 0}, "it holds no calibration"),
        ({"distortion_model": "double_sphere"}, "its 5 coefficients of the distortion model 'double_sphere' are not"),
        ({"d": [0.1, 0.2]}, "its 2 coefficients of the distortion model 'plumb_bob' are not known here"),
    ],
)
def test_a_camera_that_cannot_be_used_says_why(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CameraInfoError, match=sentence):
        camera_from_info(camera_info(**changes))


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_depth_images_come_back(kind: type[np.generic], bigendian: bool, padding: int) -> None:
    depth = np.arange(12).reshape(3, 4).astype(kind)
    sent = message_from_depth(depth)
    assert sent.encoding == ("16UC1" if kind is np.uint16 else "32FC1")
    swapped = depth.astype(depth.dtype.newbyteorder(">" if bigendian else "<"))
    rows = [row.tobytes() + b"\x7f" * padding for row in swapped]
    sent.is_bigendian, sent.step, sent.data = int(bigendian), len(rows[0]), array.array("B", b"".join(rows))
    found = depth_from_message(deserialize_message(serialize_message(sent), Image))
    assert found.dtype == kind
    np.testing.assert_array_equal(found, depth)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": "rgb8"},
        {"encoding": "64FC1"},
        {"height": 0},
        {"width": 0},
        {"step": 7},
        {"height": 4},
        {"data": b""},
    ],
)
def test_what_is_no_depth_image_is_refused(changes: dict[str, Any]) -> None:
    sent = message_from_depth(np.ones((3, 4), np.uint16))
    for name, value in changes.items():
        setattr(sent, name, value)
    with pytest.raises(ImageError, match=r"^its (encoding|\d+ bytes)"):
        depth_from_message(sent)


def test_matches_are_pixels_of_the_full_images() -> None:
    positions = np.array([[0, 0], [32768, 16384]], np.uint16)
    features = random_features(1, 2)._replace(positions=positions)
    query, match = (Keyframe(number, 0, number, np.zeros(32, np.uint64)) for number in (7, 3))
    pairs = np.array([1, 0]), np.array([0, 1])
    camera = Camera((1280, 960), np.diag([900.0, 900, 1]), np.zeros(4))
    for match_camera, size in ((None, (640, 480)), (camera, (1280, 960))):
        views = VerifiedViews(features, features, pairs, NO_PAIRS, camera, match_camera)
        closures = [LoopClosure(query, match, 0, 1.0, 2, views), LoopClosure(query, match, 0, 1.0)]
        message = message_from_matches(Header(), closures, (640, 480))
        assert (message.width, message.point_step) == (2, 24)
        rows = np.frombuffer(message.data, MATCH_ROW)
        assert rows["query_id"].tolist() == [7, 7]
        assert rows["match_id"].tolist() == [3, 3]
        assert np.stack([rows["query_x"], rows["query_y"]], axis=1).tolist() == [[320, 120], [0, 0]]
        assert np.stack([rows["match_x"], rows["match_y"]], axis=1).tolist() == [[0, 0], [size[0] / 2, size[1] / 4]]
    assert message_from_matches(Header(), [], (640, 480)).width == 0
