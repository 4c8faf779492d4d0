# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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
    DEFAULT_RATE,
    LONGEST_PAUSE,
    Folder,
    ImageMessage,
    Source,
    SourceError,
    as_type,
    open_source,
)

Picture = NDArray[np.uint8]


@pytest.fixture
def pictures() -> list[Picture]:
    """Four plain-coloured RGB pictures [32,48,3] that can be told apart."""
    return [np.full((32, 48, 3), (60 * number, 100, 200), np.uint8) for number in range(4)]


def messages_of(source: Source, compressed: bool = False, ascending: bool = False) -> list[ImageMessage]:
    return [message for _, message in source.read(compressed, ascending)]


def intervals_of(source: Source) -> list[float]:
    return [interval for interval, _ in source.read()]


def colours(source: Source, ascending: bool = False) -> list[int]:
    images = map(decode, messages_of(source, ascending=ascending))
    return [round(float(image[..., 0].mean()) / 60) for image in images]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_folder_in_file_name_order_and_backwards(tmp_path: Path, pictures: list[Picture], suffix: str) -> None:
    for number in (2, 0, 3, 1):
        cv2.imwrite(str(tmp_path / f"{number:03}{suffix}"), pictures[number][..., ::-1])
    (tmp_path / "notes.txt").write_text("not an image")
    source = open_source(tmp_path)
    assert len(source) == 4
    assert colours(source) == [0, 1, 2, 3]
    assert intervals_of(source) == [1 / DEFAULT_RATE] * 4
    assert not source.has_stamps
    assert isinstance(source, Folder)
    assert colours(source.backwards()) == [3, 2, 1, 0]


def test_a_folder_in_the_order_of_its_numbers(
    tmp_path: Path, pictures: list[Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, picture in zip(("1", "2", "10", "11"), pictures, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    source = open_source(tmp_path)
    assert colours(source) == [0, 1, 2, 3]
    assert isinstance(source, Folder)
    assert colours(source.backwards()) == [3, 2, 1, 0]
    assert capsys.readouterr().err.count("images are read in numeric order, 2.png before 10.png") == 1


def test_a_jpeg_file_is_published_as_it_is(tmp_path: Path, pictures: list[Picture]) -> None:
    cv2.imwrite(str(tmp_path / "0.jpg"), pictures[2])
    cv2.imwrite(str(tmp_path / "1.bmp"), pictures[3])
    first, second = messages_of(open_source(tmp_path), compressed=True)
    assert bytes(first.data) == (tmp_path / "0.jpg").read_bytes()
    assert isinstance(second, CompressedImage)
    assert second.format == "jpeg"


def test_a_video_with_its_rate_and_stamps(tmp_path: Path, pictures: list[Picture]) -> None:
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (48, 32))
    for picture in pictures:
        writer.write(picture[..., ::-1])
    writer.release()
    source = open_source(path)
    assert len(source) == 4
    assert intervals_of(source) == [0.1] * 4
    assert colours(source) == [0, 1, 2, 3]
    stamps = [to_nanoseconds(message.header.stamp) for message in messages_of(source)]
    assert stamps == [0, 100_000_000, 200_000_000, 300_000_000]


TIMES = [number * SECOND // 2 for number in range(4)]


@pytest.fixture(params=KINDS)
def bag(request: pytest.FixtureRequest, tmp_path: Path, pictures: list[Picture]) -> Path:
    """A bag of each kind with one image topic and another topic."""
    with Recorder(request.param, tmp_path / "drive") as recorder:
        for number, (time, picture) in enumerate(zip(TIMES, pictures, strict=True)):
            recorder.image("/front/image_raw", time, (100 + number) * SECOND + 7, picture)
            recorder.write("/chatter", time, recorder.new("std_msgs/msg/String", data="hello"))
    return recorder.path


def test_a_bag_with_its_stamps_and_frame(bag: Path) -> None:
    source = open_source(bag)
    assert len(source) == 4
    assert colours(source) == [0, 1, 2, 3]
    headers = [message.header for message in messages_of(source)]
    assert [to_nanoseconds(header.stamp) for header in headers] == [(100 + number) * 10**9 + 7 for number in range(4)]
    assert {header.frame_id for header in headers} == {"front"}
    assert source.camera_info is None


HOUR = 3600 * SECOND
TENTH = SECOND // 10


@pytest.mark.parametrize(
    ("recorded", "stamps", "intervals"),
    [
        # As a camera and a recorder do, but for a disk that was slow.
        ([0, TENTH, TENTH, 3 * TENTH], [0, TENTH, 2 * TENTH, 3 * TENTH], [0.1, 0.1, 0.1]),
        # A pause of an hour.
        ([0, TENTH, HOUR, HOUR + TENTH], [0, TENTH, HOUR, HOUR + TENTH], [0.1, LONGEST_PAUSE, 0.1]),
        # No stamps; stamps that stand still, that leap, that go back.
        ([0, TENTH, 3 * TENTH, 4 * TENTH], [0, 0, 0, 0], [0.1, 0.2, 0.1]),
        ([0, TENTH, 3 * TENTH, 4 * TENTH], [SECOND, SECOND, HOUR, 0], [0.1, 0.2, 0.1]),
        # Times of recording that a converter has lost.
        ([7, 7, 7, 7], [0, TENTH, 3 * TENTH, 4 * TENTH], [0.1, 0.2, 0.1]),
        # Nothing at all.
        ([7, 7, 7, 7], [0, 0, 0, 0], [1 / DEFAULT_RATE] * 3),
    ],
)
def test_a_bag_has_its_recorded_pace(
    tmp_path: Path, pictures: list[Picture], recorded: list[int], stamps: list[int], intervals: list[float]
) -> None:
    with Recorder("mcap", tmp_path / "drive") as recorder:
        recorder.write("/chatter", 0, recorder.new("std_msgs/msg/String", data="long before the camera"))
        for time, stamp, picture in zip(recorded, stamps, pictures, strict=True):
            recorder.image("/image", time + 24 * HOUR, stamp, picture)
    assert intervals_of(open_source(recorder.path)) == pytest.approx([0.0, *intervals])


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


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_not_taken_for_the_camera(tmp_path: Path, pictures: list[Picture], kind: str) -> None:
    depth = np.full((32, 48), 900, np.uint16)
    with Recorder(kind, tmp_path / "drive") as recorder:
        for time, picture in zip(TIMES, pictures, strict=True):
            recorder.image("/depth_camera/image_raw", time, time, picture)
            recorder.image("/depth_camera/depth/image_raw", time, time, depth, "16UC1")
            recorder.image("/confidence", time, time, depth.astype(np.float32), "32FC1")
            recorder.compressed("/stereo/compressedDepth", time, time, np.zeros(9, np.uint8), "16UC1; compressedDepth")
    assert colours(open_source(recorder.path)) == [0, 1, 2, 3]
    (message, *_) = messages_of(open_source(recorder.path, "/depth_camera/depth/image_raw"))
    assert isinstance(message, Image)
    assert message.encoding == "16UC1"


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_message_costs_itself_only(
    tmp_path: Path, pictures: list[Picture], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Recorder(kind, tmp_path / "drive") as recorder:
        for time, picture in zip(TIMES, pictures, strict=True):
            recorder.image("/image", time, time, picture, cut=100 if time == TIMES[2] else 0)
    source = open_source(recorder.path)
    assert colours(source) == [0, 1, 3]
    assert intervals_of(source)[2] == 1.0
    assert "left out image 2 on /image: its message is damaged" in capsys.readouterr().err


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


def test_a_bag_is_read_up_to_its_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    with Recorder("ros1", tmp_path / "drive") as recorder:
        for number in range(100):
            recorder.image("/image", number * SECOND, number * SECOND, noise)
    data = bytearray(recorder.path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40_000] = bytes(40_000)
    recorder.path.write_bytes(data)
    source = open_source(recorder.path)
    read = len(messages_of(source))
    assert 0 < read < 100
    assert source.describe_left_out() == f"{100 - read} left out: {100 - read} beyond damage to the bag"
    errors = capsys.readouterr().err
    assert f"left out the last {100 - read} images: {recorder.path} cannot be read as a bag (" in errors
    assert "repair drive.bag with `rosbag reindex " in errors


def test_a_folder_around_a_bag(bag: Path) -> None:
    assert colours(open_source(bag.parent)) == [0, 1, 2, 3]
    if bag.is_dir():
        (bag / "metadata.yaml").unlink()
        assert colours(open_source(bag)) == [0, 1, 2, 3]
        (file,) = bag.iterdir()
        (bag / f"second{file.suffix}").write_bytes(file.read_bytes())
        with pytest.raises(
            SourceError, match=r"holds 2 bags, or parts of one .* `ros2 bag reindex .*`: drive.*, second"
        ):
            open_source(bag)


def test_a_bag_without_the_topic_that_was_asked_for(bag: Path) -> None:
    with pytest.raises(SourceError, match="does not hold the image topic /rear/image_raw"):
        open_source(bag, "/rear/image_raw")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "does not exist; give a folder of images, a video, or a ROS bag"),
        ("empty", "holds no images"),
        (
            "broken.mp4",
            "cannot be opened as a video; convert it to mp4 (h264) or, if it was cut, copy or record it again",
        ),
        ("broken.bag", "broken.bag is not a .bag file, so restore it from a copy"),
        ("part.db3.zstd", "is a compressed part of a bag; decompress it with `zstd -d "),
        ("text.txt", "is neither a folder of images nor a video"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    for file in ("broken.mp4", "broken.bag", "part.db3.zstd", "text.txt"):
        (tmp_path / file).write_text("rubbish")
    with pytest.raises(SourceError) as refused:
        open_source(tmp_path / name)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


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


def test_compressed_parts_of_a_bag_are_decompressed_before_they_are_joined(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"part_{number}.db3.zstd").touch()
    with pytest.raises(SourceError, match=rf"parts with `zstd -d {tmp_path}/\*.zstd` and then `ros2 bag reindex "):
        open_source(tmp_path)


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
