# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")

from encodings_of_cameras import assert_shows, mosaic, scene
from recorder import KINDS, MATRIX, PROJECTION, SECOND, Recorder
from sensor_msgs.msg import CompressedImage, Image

from binvpr_ros.images import Stretch
from binvpr_ros.ros.messages import (
    camera_from_info,
    decode,
    image_from_message,
    message_from_array,
    to_nanoseconds,
)
from binvpr_ros.ros.sources import (
    MOST_NAMED,
    ImageMessage,
    Source,
    SourceError,
    as_type,
    in_time,
    open_source,
)

Picture = NDArray[np.uint8]


@pytest.fixture
def pictures() -> list[Picture]:
    """Four plain-coloured RGB pictures [32,48,3] that can be told apart."""
    return [np.full((32, 48, 3), (60 * number, 100, 200), np.uint8) for number in range(4)]


def test_after_a_delay_messages_are_late_and_come_in_no_burst() -> None:
    interval, times = 0.05, list[float]()
    for number, _ in enumerate(in_time((interval, Image()) for _ in range(6))):
        times.append(time.monotonic())
        time.sleep(6 * interval * (number == 1))
    assert min(np.diff(times[2:])) >= 0.9 * interval


def messages_of(source: Source, compressed: bool = False, ascending: bool = False) -> list[ImageMessage]:
    return [message for _, message in source.read(compressed, ascending)]


def colours(source: Source, ascending: bool = False) -> list[int]:
    images = map(decode, messages_of(source, ascending=ascending))
    return [round(float(image[..., 0].mean()) / 60) for image in images]


def test_a_jpeg_file_is_published_as_it_is(tmp_path: Path, pictures: list[Picture]) -> None:
    cv2.imwrite(str(tmp_path / "0.jpg"), pictures[2])
    cv2.imwrite(str(tmp_path / "1.bmp"), pictures[3])
    first, second = messages_of(open_source(tmp_path), compressed=True)
    assert bytes(first.data) == (tmp_path / "0.jpg").read_bytes()
    assert isinstance(second, CompressedImage)
    assert second.format == "jpeg"


TIMES = [number * SECOND // 2 for number in range(4)]


def test_a_bag_with_its_stamps_and_frame(tmp_path: Path, pictures: list[Picture]) -> None:
    with Recorder("mcap", tmp_path / "drive") as recorder:
        for time, picture in zip(TIMES, pictures, strict=True):
            recorder.image("/front/image_raw", time, 100 * SECOND + time + 7, picture)
    source = open_source(recorder.path)
    assert len(source) == 4
    assert colours(source) == [0, 1, 2, 3]
    assert [interval for interval, _ in source.read()] == [0, 0.5, 0.5, 0.5]
    headers = [message.header for message in messages_of(source)]
    assert [to_nanoseconds(header.stamp) for header in headers] == [100 * SECOND + time + 7 for time in TIMES]
    assert {header.frame_id for header in headers} == {"front"}
    assert source.camera_info is None


def test_a_damaged_message_costs_itself_only(
    tmp_path: Path, pictures: list[Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    with Recorder("ros1", tmp_path / "drive") as recorder:
        for time, picture in zip(TIMES, pictures, strict=True):
            recorder.image("/image", time, time, picture, cut=100 if time == TIMES[2] else 0)
    source = open_source(recorder.path)
    assert colours(source) == [0, 1, 3]
    assert source.describe_left_out() == "1 left out: 1 unreadable"
    assert "left out image 2 on /image: its message is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("topic", "coefficients", "matrix"),
    [
        ("image_raw", [0.1, 0, 0, 0, 0], MATRIX),
        ("image_rect", [], PROJECTION),
        ("compressed", [0.1, 0, 0, 0, 0], MATRIX),
    ],
)
def test_a_bag_with_its_calibration(
    tmp_path: Path, pictures: list[Picture], kind: str, topic: str, coefficients: list[float], matrix: NDArray[Any]
) -> None:
    with Recorder(kind, tmp_path / "drive") as recorder:
        recorder.camera_info("/front/camera_info", 1)
        recorder.camera_info("/rear/camera_info", 1)
        if topic == "compressed":
            recorder.compressed("/front/image_raw/compressed", 1, 1, cv2.imencode(".jpg", pictures[0])[1], "jpeg")
        else:
            recorder.image(f"/front/{topic}", 1, 1, pictures[0])
    info = open_source(recorder.path).camera_info
    assert info is not None
    # However the topic is called that the images are published on.
    for rectified in (False, True) if topic == "image_rect" else (False,):
        camera = camera_from_info(info, rectified)
        assert camera.size == (48, 32)
        assert camera.coefficients.tolist() == coefficients
        np.testing.assert_array_equal(camera.matrix, matrix)


def test_a_bag_of_depth_only_is_refused_but_not_a_thermal_camera(tmp_path: Path) -> None:
    values = np.full((32, 48), 900, np.uint16)
    with Recorder("mcap", tmp_path / "depth") as recorder:
        recorder.image("/camera/depth/image", 1, 1, values, "16UC1")
        recorder.image("/camera/aligned_depth_to_color/image", 1, 1, values, "16UC1")
    with pytest.raises(
        SourceError, match=r"holds only depth images, on /camera/aligned_depth_to_color/image, /camera/"
    ):
        open_source(recorder.path)
    with Recorder("mcap", tmp_path / "thermal") as recorder:
        values[:, 24:] = 1900
        recorder.image("/thermal/image_raw", 1, 1, values, "16UC1")
    source = open_source(recorder.path)
    assert len(messages_of(source)) == 1
    ((_, message),) = source.read(compressed=True, stretch=Stretch())
    assert np.ptp(decode(message)) > 200  # in 8 bits it still shows what it showed in 16


def test_images_that_cannot_be_decoded_are_counted(tmp_path: Path, pictures: list[Picture]) -> None:
    with Recorder("mcap", tmp_path / "drive") as recorder:
        for time, picture in zip(TIMES, pictures, strict=True):
            data = cv2.imencode(".png", picture[..., ::-1])[1]
            recorder.compressed("/image/compressed", time, time, data[: 9 if time == TIMES[1] else None], "png")
    source = open_source(recorder.path)
    assert source.describe_left_out() == ""
    assert colours(source) == [0, 2, 3]
    assert source.describe_left_out() == "1 left out: 1 undecodable"


def test_stamps_that_do_not_advance_are_left_out_where_they_matter(tmp_path: Path, pictures: list[Picture]) -> None:
    stamps = [9 * SECOND, 9 * SECOND, 9 * SECOND - 1, 9 * SECOND + 1]
    with Recorder("mcap", tmp_path / "drive") as recorder:
        for time, stamp, picture in zip(TIMES, stamps, pictures, strict=True):
            recorder.image("/image", time, stamp, picture)
        recorder.image("/image", TIMES[-1] + 1, SECOND, pictures[0])
    source = open_source(recorder.path)
    assert colours(source) == [0, 1, 2, 3, 0]
    assert colours(source, ascending=True) == [0, 3, 0]
    assert source.describe_left_out() == "2 left out: 2 with a stamp that does not advance"


def test_files_that_cannot_be_read_are_named_and_left_out(
    tmp_path: Path, pictures: list[Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (0, 3):
        cv2.imwrite(str(tmp_path / f"{number}.bmp"), pictures[number][..., ::-1])
    (tmp_path / "1.bmp").write_text("rubbish")
    (tmp_path / "2.jpg").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "4.png").write_bytes(b"rubbish")
    huge = bytearray((tmp_path / "0.bmp").read_bytes())
    huge[18:26] = np.array([60_000, 60_000], "<i4").tobytes()  # more pixels than OpenCV reads
    (tmp_path / "5.bmp").write_bytes(huge)
    source = open_source(tmp_path)
    assert colours(source) == [0, 3]
    assert source.describe_left_out() == "4 left out: 3 undecodable, 1 unreadable"
    errors = capsys.readouterr().err
    assert "2.jpg: it cannot be read (No such file or directory)" in errors
    for name in ("1.bmp", "4.png", "5.bmp"):
        assert f"left out {tmp_path / name}: its " in errors


def test_of_many_images_that_are_left_out_for_one_reason_the_first_are_named(
    tmp_path: Path, pictures: list[Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    with Recorder("mcap", tmp_path / "depth") as recorder:
        for number in range(30):
            depth = pictures[0][..., 0].astype(np.float32)
            recorder.image("/depth", number * SECOND, number * SECOND, depth, "32FC1")
        recorder.image("/depth", 30 * SECOND, 30 * SECOND, pictures[0])
    source = open_source(recorder.path, "/depth")
    assert len(list(source.read(compressed=True))) == 1
    assert source.describe_left_out() == "30 left out: 30 undecodable"
    assert capsys.readouterr().err.count("left out") == MOST_NAMED


def thermal() -> NDArray[np.uint16]:
    """A picture [32,48] of a camera that uses a small part of its 16 bits."""
    return np.tile(np.linspace(3000, 3500, 48), (32, 1)).astype(np.uint16)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".pgm"])
def test_16_bit_grey_files_are_stretched_on_request(tmp_path: Path, suffix: str, compressed: bool) -> None:
    cv2.imwrite(str(tmp_path / f"0{suffix}"), thermal())
    ((_, message),) = open_source(tmp_path).read(compressed, stretch=Stretch())
    assert isinstance(message, CompressedImage if compressed else Image)
    wanted = Stretch().apply(thermal())
    np.testing.assert_allclose(decode(message).astype(int), wanted, atol=4 if compressed else 0)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".pgm"])
def test_16_bit_grey_files_keep_their_values_where_the_type_allows(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"0{suffix}"), thermal())
    source = open_source(tmp_path)
    (raw,) = messages_of(source)
    assert isinstance(raw, Image)
    assert (raw.encoding, raw.step) == ("mono16", 96)
    np.testing.assert_array_equal(np.frombuffer(raw.data, "<u2").reshape(32, 48), thermal())
    (compressed,) = messages_of(source, compressed=True)
    assert isinstance(compressed, CompressedImage)
    if suffix == ".png":
        assert bytes(compressed.data) == (tmp_path / "0.png").read_bytes()
    else:
        assert compressed.format == "jpeg"
        np.testing.assert_allclose(decode(compressed).astype(int), thermal() >> 8, atol=2)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
def test_colour_files_are_not_stretched(
    tmp_path: Path, pictures: list[Picture], suffix: str, depth: type[np.unsignedinteger[Any]], compressed: bool
) -> None:
    picture = pictures[1].astype(depth) * (1 if depth is np.uint8 else 256)
    cv2.imwrite(str(tmp_path / f"0{suffix}"), picture[..., ::-1])
    ((_, message),) = open_source(tmp_path).read(compressed, stretch=Stretch())
    np.testing.assert_allclose(decode(message).astype(int), pictures[1], atol=4)
    assert compressed or message.encoding == "rgb8"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["mono16", "png"])
def test_16_bit_messages_of_a_bag_are_stretched_on_request(tmp_path: Path, kind: str, compressed: bool) -> None:
    with Recorder("mcap", tmp_path / "drive") as recorder:
        if kind == "png":
            recorder.compressed("/image/compressed", 1, 1, cv2.imencode(".png", thermal())[1], "mono16; png compressed")
        else:
            recorder.image("/image", 1, 1, thermal(), "mono16")
    ((_, message),) = open_source(recorder.path).read(compressed, stretch=Stretch())
    assert message.header.frame_id == "front"
    wanted = Stretch().apply(thermal())
    np.testing.assert_allclose(decode(message).astype(int), wanted, atol=4 if compressed else 0)


@pytest.mark.parametrize("grey", [False, True])
def test_as_type_goes_both_ways(pictures: list[Picture], grey: bool) -> None:
    original = message_from_array(pictures[2][..., 0] if grey else pictures[2], "" if grey else "rgb8")
    original.header.frame_id = "front"
    compressed = as_type(original, compressed=True)
    assert isinstance(compressed, CompressedImage)
    back = as_type(compressed, compressed=False)
    assert isinstance(back, Image)
    assert back.encoding == ("mono8" if grey else "rgb8")
    assert back.header.frame_id == "front"
    difference = image_from_message(back).astype(int) - image_from_message(original)
    assert abs(difference).max() <= 4


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_compressed_mosaic_stays_a_mosaic_or_becomes_colour(tmp_path: Path, depth: int, compressed: bool) -> None:
    seen = mosaic(scene(), "rggb").astype(f"u{depth // 8}") << (depth - 8)
    kind = f"bayer_rggb{depth}; png compressed "
    with Recorder("mcap", tmp_path / "drive") as recorder:
        recorder.compressed("/image/compressed", 1, 1, cv2.imencode(".png", seen)[1].reshape(-1), kind)
    (message,) = messages_of(open_source(recorder.path), compressed)
    assert (message.format if isinstance(message, CompressedImage) else message.encoding) == (
        kind if compressed else "rgb8"
    )
    assert_shows(decode(message), scene(), "bayer_rggb8")
