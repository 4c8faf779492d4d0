# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import array
import sys
import types
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, RegionOfInterest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from binvpr_ros import messages
from binvpr_ros.graph import Drawing
from binvpr_ros.keyframes import Keyframe
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.messages import (
    LOOP_CLOSURE_ROW,
    CameraInfoError,
    ImageMessageError,
    camera_from_info,
    from_nanoseconds,
    image_from_compressed,
    image_from_message,
    message_from_closures,
    message_from_drawing,
    rows_from_message,
    supported_encodings,
    to_nanoseconds,
)

PADDINGS = (0, 1, 13)


def message(pixels: NDArray[Any], encoding: str, padding: int = 0, **changes: Any) -> Image:
    """Return a real message of `pixels` [H,W] or [H,W,C], its rows padded with rubbish; it has been through CDR."""
    rows = pixels.reshape(pixels.shape[0], -1).view(np.uint8)
    padded = np.full((rows.shape[0], rows.shape[1] + padding), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    facts = {
        "height": pixels.shape[0], "width": pixels.shape[1], "encoding": encoding, "is_bigendian": 0,
        "step": padded.shape[1], "data": array.array("B", padded.tobytes()),
    }  # fmt: skip
    return deserialize_message(serialize_message(Image(**(facts | changes))), Image)


@pytest.fixture(scope="module")
def rgb() -> NDArray[np.uint8]:
    """A smooth colourful picture [48, 64, 3]: what colour filters and chroma planes lose of it is little."""
    y, x = np.mgrid[0:48, 0:64].astype(np.float32)
    return np.dstack([x * 3.5, y * 4.5, 255 - (x + y) * 2]).astype(np.uint8)


@pytest.fixture(scope="module")
def grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey(grey: NDArray[np.uint8], encoding: str, padding: int) -> None:
    np.testing.assert_array_equal(image_from_message(message(grey, encoding, padding)), grey)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("8UC3", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]), ("bgra8", [2, 1, 0, 0]),
     ("8UC4", [2, 1, 0, 1])],
)  # fmt: skip
def test_colour(rgb: NDArray[np.uint8], encoding: str, order: list[int], padding: int) -> None:
    np.testing.assert_array_equal(image_from_message(message(rgb[..., order], encoding, padding)), rgb)


def test_plain_images_are_viewed_not_copied(rgb: NDArray[np.uint8]) -> None:
    original = message(rgb, "rgb8", 13)
    assert np.shares_memory(image_from_message(original), np.frombuffer(original.data, np.uint8))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("bigendian", [0, 1])
def test_mono16(grey: NDArray[np.uint8], padding: int, bigendian: int) -> None:
    deep = (grey.astype(np.uint16) * 257).astype(">u2" if bigendian else "<u2")
    image = image_from_message(message(deep, "mono16", padding, is_bigendian=bigendian))
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, grey, atol=1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("encoding", "order"), [("rgb16", [0, 1, 2]), ("bgr16", [2, 1, 0]), ("bgra16", [2, 1, 0, 0])])
def test_deep_colour(rgb: NDArray[np.uint8], encoding: str, order: list[int], padding: int) -> None:
    deep = rgb[..., order].astype(np.uint16) * 257
    np.testing.assert_allclose(image_from_message(message(deep, encoding, padding)), rgb, atol=1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("depth", [8, 16])
def test_bayer(rgb: NDArray[np.uint8], order: str, depth: int, padding: int) -> None:
    channels = ["rgb".index(colour) for colour in order]
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for position, channel in enumerate(channels):
        row, column = divmod(position, 2)
        mosaic[row::2, column::2] = rgb[row::2, column::2, channel]
    pixels = mosaic if depth == 8 else mosaic.astype(np.uint16) * 257
    image = image_from_message(message(pixels, f"bayer_{order}{depth}", padding))
    inside = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(image[inside].astype(int), rgb[inside].astype(int), atol=8)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("encoding", "luma", "chroma"), [("yuv422", 1, 0), ("uyvy", 1, 0), ("yuv422_yuy2", 0, 1), ("yuyv", 0, 1)]
)
def test_yuv422(rgb: NDArray[np.uint8], encoding: str, luma: int, chroma: int, padding: int) -> None:
    yuv = _video_yuv(rgb)
    packed = np.empty((*rgb.shape[:2], 2), np.uint8)
    packed[..., luma] = yuv[..., 0]
    packed[:, 0::2, chroma], packed[:, 1::2, chroma] = yuv[:, 0::2, 1], yuv[:, 0::2, 2]
    image = image_from_message(message(packed, encoding, padding))
    np.testing.assert_allclose(image.astype(int), rgb.astype(int), atol=10)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize(("encoding", "first"), [("nv12", 1), ("nv21", 2)])
def test_two_planes(rgb: NDArray[np.uint8], encoding: str, first: int, padding: int) -> None:
    yuv = _video_yuv(rgb)
    chroma = np.empty((24, 64), np.uint8)
    chroma[:, 0::2], chroma[:, 1::2] = yuv[::2, ::2, first], yuv[::2, ::2, 3 - first]
    image = image_from_message(message(np.vstack([yuv[..., 0], chroma]), encoding, padding, height=48))
    np.testing.assert_allclose(image.astype(int), rgb.astype(int), atol=12)


def _video_yuv(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return [H,W,3] YUV of limited range (BT.601), which cameras send."""
    red, green, blue = (rgb[..., channel].astype(float) for channel in range(3))
    y = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
    u = 128 - 0.148 * red - 0.291 * green + 0.439 * blue
    v = 128 + 0.439 * red - 0.368 * green - 0.071 * blue
    return np.clip(np.dstack([y, u, v]).round(), 0, 255).astype(np.uint8)


def test_cv_bridge_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch, grey: NDArray[np.uint8]) -> None:
    """Robots have cv_bridge from apt; here a module of that name shows that it is asked, with rows put together."""
    asked: list[tuple[str, int, str]] = []

    class CvBridge:
        def imgmsg_to_cv2(self, image: Image, target: str) -> NDArray[np.uint8]:
            asked.append((image.encoding, image.step, target))
            return grey

    bridge = types.ModuleType("cv_bridge")
    bridge.CvBridge, bridge.CvBridgeError = CvBridge, TypeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv_bridge", bridge)
    messages._converter.cache_clear()
    try:
        image = image_from_message(message(grey.astype(np.uint16), "mono16", 13))
        image_from_message(message(np.dstack([grey, grey]), "uyvy", 13))
    finally:
        messages._converter.cache_clear()
    assert asked == [("mono16", 128, "mono8"), ("yuv422", 128, "rgb8")]
    np.testing.assert_array_equal(image, grey)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"encoding": "rgb10"}, "its encoding 'rgb10' is not one of mono8, "),
        ({"encoding": "32FC1"}, "its encoding '32FC1' is not one of"),
        ({"encoding": ""}, "its encoding '' is not one of"),
        ({"step": 63}, "its step of 63 bytes is less than the 64 of a row of 64 mono8 pixels"),
        ({"step": 0}, "its step of 0 bytes"),
        ({"height": 0}, "its size is 64x0"),
        ({"width": 0}, "its size is 0x48"),
        ({"height": 49}, "it has 3072 bytes of data instead of 3136"),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1}, "it has 3072 bytes of data instead of"),
        ({"data": array.array("B", b"short")}, "it has 5 bytes of data"),
        ({"data": array.array("B")}, "it has 0 bytes of data"),
        ({"encoding": "nv12", "height": 47}, "is odd"),
        ({"encoding": "bayer_rggb16"}, "its step of 64 bytes is less than the 128 of a row"),
    ],
)
def test_unusable_images_are_refused_with_the_cause(
    grey: NDArray[np.uint8], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ImageMessageError) as refused:
        image_from_message(message(grey, **({"encoding": "mono8"} | changes)))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@given(
    st.sampled_from([*supported_encodings(), "unknown"]), st.integers(0, 9), st.integers(0, 9), st.integers(0, 80),
    st.binary(max_size=800), st.integers(0, 1),
)  # fmt: skip
def test_any_message_gives_an_image_or_an_error(
    encoding: str, height: int, width: int, step: int, data: bytes, bigendian: int
) -> None:
    rubbish = Image(height=height, width=width, encoding=encoding, step=step, is_bigendian=bigendian, data=data)
    try:
        image = image_from_message(rubbish)
    except ImageMessageError:
        return
    assert image.dtype == np.uint8
    assert image.shape in ((height, width), (height, width, 3))


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_colour(rgb: NDArray[np.uint8], extension: str) -> None:
    image = image_from_compressed(_compressed(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), extension))
    np.testing.assert_allclose(image.astype(int), rgb.astype(int), atol=0 if extension == ".png" else 12)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_grey(grey: NDArray[np.uint8], extension: str) -> None:
    image = image_from_compressed(_compressed(grey, extension))
    assert image.shape == grey.shape
    np.testing.assert_allclose(image.astype(int), grey.astype(int), atol=0 if extension == ".png" else 6)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_undecodable_images_are_refused(data: bytes) -> None:
    with pytest.raises(ImageMessageError, match=r"its \d+ bytes \(format 'jpeg'\) cannot be decoded"):
        image_from_compressed(CompressedImage(format="jpeg", data=data))


@pytest.mark.parametrize("side", [10_000, 40_000, 65_500])
def test_a_jpeg_that_claims_to_be_huge_is_refused(side: int) -> None:
    data = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
    frame = data.index(b"\xff\xc0") + 5  # height and width follow
    bomb = data[:frame] + 2 * side.to_bytes(2, "big") + data[frame + 4 :]
    with pytest.raises(ImageMessageError, match="cannot be decoded"):
        image_from_compressed(CompressedImage(format="jpeg", data=bomb))


def test_compressed_depth_is_refused() -> None:
    with pytest.raises(ImageMessageError, match="depth"):
        image_from_compressed(CompressedImage(format="16UC1; compressedDepth png", data=b"x"))


def _compressed(bgr: NDArray[np.uint8], extension: str) -> CompressedImage:
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


def test_without_any_converter_the_image_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, grey: NDArray[np.uint8]
) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    monkeypatch.setitem(sys.modules, "rosbags.image", None)
    messages._converter.cache_clear()
    with pytest.raises(ImageMessageError, match="install ros-<distro>-cv-bridge with apt, or rosbags-image with pip"):
        image_from_message(message(grey.astype(np.uint16), "mono16"))
    messages._converter.cache_clear()


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
