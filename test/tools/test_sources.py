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

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image

from binvpr_ros.messages import image_from_compressed, image_from_message, message_from_array, to_nanoseconds
from binvpr_ros.tools.sources import Source, SourceError, as_type, open_source

Picture = NDArray[np.uint8]


@pytest.fixture
def pictures() -> list[Picture]:
    """Four plain-coloured RGB pictures [32,48,3] that can be told apart."""
    return [np.full((32, 48, 3), (60 * number, 100, 200), np.uint8) for number in range(4)]


def colours(source: Source) -> list[int]:
    images = [image_from_message(message) if isinstance(message, Image) else image_from_compressed(message)
              for message in source]  # fmt: skip
    return [round(float(image[..., 0].mean()) / 60) for image in images]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_folder_in_file_name_order_and_backwards(tmp_path: Path, pictures: list[Picture], suffix: str) -> None:
    for number in (2, 0, 3, 1):
        cv2.imwrite(str(tmp_path / f"{number:03}{suffix}"), pictures[number][..., ::-1])
    (tmp_path / "notes.txt").write_text("not an image")
    source = open_source(tmp_path)
    assert len(source) == 4
    assert colours(source) == [0, 1, 2, 3]
    assert not source.has_stamps
    backwards = list(reversed(source))  # type: ignore[call-overload]
    assert [bytes(message.data) for message in backwards] == [bytes(message.data) for message in source][::-1]


def test_a_video_with_its_rate_and_stamps(tmp_path: Path, pictures: list[Picture]) -> None:
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (48, 32))
    for picture in pictures:
        writer.write(picture[..., ::-1])
    writer.release()
    source = open_source(path)
    assert (len(source), source.rate) == (4, 10.0)
    assert colours(source) == [0, 1, 2, 3]
    assert [to_nanoseconds(message.header.stamp) for message in source] == [0, 100_000_000, 200_000_000, 300_000_000]


def ros_image(store: Any, picture: Picture, number: int) -> Any:
    header = store.types["std_msgs/msg/Header"]
    time = store.types["builtin_interfaces/msg/Time"](sec=100 + number, nanosec=7)
    sequence = {"seq": number} if "seq" in header.__dataclass_fields__ else {}
    return store.types["sensor_msgs/msg/Image"](
        header=header(stamp=time, frame_id="front", **sequence), height=32, width=48, encoding="rgb8", is_bigendian=0,
        step=144, data=picture.reshape(-1),
    )  # fmt: skip


@pytest.fixture(params=["ros1", "sqlite3", "mcap"])
def bag(request: pytest.FixtureRequest, tmp_path: Path, pictures: list[Picture]) -> Path:
    """A bag of each kind with one image topic and another topic."""
    if request.param == "ros1":
        path, store = tmp_path / "drive.bag", get_typestore(Stores.ROS1_NOETIC)
        writer: Any = Writer1(path)
        serialize = store.serialize_ros1
    else:
        path, store = tmp_path / "drive", get_typestore(Stores.ROS2_JAZZY)
        writer = Writer2(path, version=9, storage_plugin=StoragePlugin[request.param.upper()])
        serialize = store.serialize_cdr
    with writer:
        images = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=store)
        texts = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=store)
        for number, picture in enumerate(pictures):
            stamp = number * 500_000_000
            writer.write(images, stamp, serialize(ros_image(store, picture, number), "sensor_msgs/msg/Image"))
            text = store.types["std_msgs/msg/String"](data="hello")
            writer.write(texts, stamp, serialize(text, "std_msgs/msg/String"))
    return path


def test_a_bag_with_its_stamps_and_frame(bag: Path) -> None:
    source = open_source(bag)
    assert len(source) == 4
    assert source.rate == pytest.approx(4 / 1.5, rel=0.01)
    assert colours(source) == [0, 1, 2, 3]
    headers = [message.header for message in source]
    assert [to_nanoseconds(header.stamp) for header in headers] == [(100 + number) * 10**9 + 7 for number in range(4)]
    assert {header.frame_id for header in headers} == {"front"}


def test_a_bag_without_the_topic_that_was_asked_for(bag: Path) -> None:
    with pytest.raises(SourceError, match="does not hold the image topic /rear/image_raw"):
        open_source(bag, "/rear/image_raw")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "does not exist; give a folder of images, a video, or a ROS bag"),
        ("empty", "holds no images"),
        ("broken.mp4", "cannot be opened as a video"),
        ("broken.bag", "cannot be read as a bag"),
        ("text.txt", "is neither a folder of images nor a video"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    for file in ("broken.mp4", "broken.bag", "text.txt"):
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
    assert colours(open_source(tmp_path)) == [0, 3]
    errors = capsys.readouterr().err
    assert "1.bmp: it cannot be decoded" in errors
    assert "2.jpg: it cannot be read (No such file or directory)" in errors


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
