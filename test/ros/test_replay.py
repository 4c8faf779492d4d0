# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from recorder import Recorder
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from binvpr_ros.ros.messages import (
    camera_from_info,
    decode,
    depth_from_message,
    image_from_compressed,
    image_from_message,
    message_from_array,
    to_nanoseconds,
)
from binvpr_ros.ros.replay import parse, publish

pytestmark = pytest.mark.usefixtures("ros")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((24, 32), 50 * number, np.uint8))
    return tmp_path


def replay(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "binvpr_ros.ros.replay", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_folder_arrives_in_order_at_its_rate(folder: Path, compressed: bool, backwards: bool) -> None:
    node = rclpy.create_node("receiver")
    received: list[Any] = []
    topic = "/replayed/compressed" if compressed else "/replayed"
    camera = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(CompressedImage if compressed else Image, topic, received.append, camera)
    options = ["--compressed"] * compressed + ["--backwards"] * backwards
    process = replay(str(folder), "--topic", "/replayed", "--rate", "20", "--frame-id", "front", *options)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
    output, errors = process.communicate(timeout=10)
    node.destroy_node()
    assert process.returncode == 0, errors
    assert output == "replay: 5 images\n"
    convert = image_from_compressed if compressed else image_from_message
    brightness = [int(convert(message).mean()) // 50 for message in received]
    assert brightness == ([4, 3, 2, 1, 0] if backwards else [0, 1, 2, 3, 4])
    stamps = [to_nanoseconds(message.header.stamp) for message in received]
    assert stamps == sorted(set(stamps))
    assert {message.header.frame_id for message in received} == {"front"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere"], "replay: /nowhere does not exist; give a folder"),
        (["FOLDER", "--keep-stamps"], "replay: --keep-stamps works only for bags and videos"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_sentence(folder: Path, arguments: list[str], sentence: str) -> None:
    process = replay(*(str(folder) if argument == "FOLDER" else argument for argument in arguments))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert sentence in errors
    assert "Traceback" not in errors


def test_a_folder_of_rubbish_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_text("rubbish")
    process = replay(str(tmp_path), "--wait", "0")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"left out {tmp_path / '0.png'}: " in errors
    assert f"no image of {tmp_path} can be published; name another recording" in errors


def test_what_is_left_out_is_counted_and_a_replay_that_nobody_hears_is_said(folder: Path) -> None:
    (folder / "2.png").write_text("rubbish")
    process = replay(str(folder), "--topic", "/unheard", "--rate", "100", "--wait", "0")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output == "replay: 4 images, 1 left out: 1 undecodable\n"
    assert "nobody subscribes to /unheard; publishing anyway" in errors
    assert "nobody subscribed to /unheard, so nobody received the 4 images" in errors


def test_a_bag_arrives_with_its_calibration(tmp_path: Path) -> None:
    pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")
    from recorder import SECOND, Recorder

    day = 24 * 3600 * SECOND
    with Recorder("mcap", tmp_path / "drive") as recorder:
        recorder.write("/chatter", 0, recorder.new("std_msgs/msg/String", data="early"))
        recorder.camera_info("/front/camera_info", 1)
        for number in range(3):
            picture = np.full((32, 48), 50 * number, np.uint8)
            recorder.image("/front/image_raw", day + number * SECOND // 10, 0, picture, "mono8")
    node = rclpy.create_node("receiver")
    received: list[Any] = []
    camera = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(CameraInfo, "/replayed/front/camera_info", received.append,
                             QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE))  # fmt: skip
    node.create_subscription(Image, "/replayed/front/image", received.append, camera)
    # Its stamps stand still and its first message is a day older: it plays for a fifth of a second all the same.
    process = replay(str(tmp_path / "drive"), "--topic", "/replayed/front/image")
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
    output, errors = process.communicate(timeout=10)
    node.destroy_node()
    assert process.returncode == 0, errors
    assert output == "replay: 3 images\n"
    images = [message for message in received if isinstance(message, Image)]
    calibrations = [message for message in received if isinstance(message, CameraInfo)]
    assert isinstance(received[0], CameraInfo)
    assert [message.header for message in calibrations] == [message.header for message in images]
    assert len(images) == 3
    assert camera_from_info(calibrations[0]).focal_length == 40


@pytest.mark.parametrize("rate", ["0", "-3", "nan", "inf"])
def test_a_rate_must_be_above_zero(rate: str) -> None:
    with pytest.raises(SystemExit):
        parse(["folder", "--rate", rate])


def test_an_image_that_the_demo_cannot_draw_is_left_out() -> None:
    node = rclpy.create_node("sender")
    depth = Image(height=2, width=2, encoding="32FC1", step=8, data=bytes(16))
    messages = [message_from_array(np.zeros((2, 2, 3), np.uint8), "rgb8") for _ in range(2)]
    drawn: list[Any] = []
    published = publish(node, "/replayed", [messages[0], depth, messages[1]], rate=100.0, wait=0.0,
                        before=lambda message: drawn.append(decode(message)))  # fmt: skip
    node.destroy_node()
    assert published == len(drawn) == 2


@pytest.mark.parametrize("keep_stamps", [False, True])
def test_depth_images_of_a_bag_go_out_beside_its_images(tmp_path: Path, keep_stamps: bool) -> None:
    start, interval = 1_700_000_000 * 10**9, 10**8
    with Recorder("mcap", tmp_path / "bag") as recorder:
        for number in range(5):
            stamp = start + number * interval
            recorder.image("/camera/image_raw", stamp, stamp, np.full((32, 48, 3), 40 * number, np.uint8))
            late = 30_000_000 if number == 3 else 5_000_000  # nanoseconds; too late for its image
            depth = np.full((32, 48), 1000 + number, np.uint16)
            recorder.image("/camera/depth", stamp + late, stamp + late, depth, "16UC1")
    node = rclpy.create_node("receiver")
    images: list[Image] = []
    depths: list[Image] = []
    camera = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, "/replayed", images.append, camera)
    node.create_subscription(Image, "/camera/depth", depths.append, camera)
    options = ["--keep-stamps"] * keep_stamps
    process = replay(str(recorder.path), "--topic", "/replayed", "--image-topic", "/camera/image_raw",
                     "--depth-topic", "/camera/depth", *options)  # fmt: skip
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
    _, errors = process.communicate(timeout=10)
    node.destroy_node()
    assert process.returncode == 0, errors
    assert len(images) == 5
    assert [int(depth_from_message(depth)[0, 0]) for depth in depths] == [1000, 1001, 1002, 1004]
    stamps = [to_nanoseconds(image.header.stamp) for image in images]
    assert [to_nanoseconds(depth.header.stamp) for depth in depths] == [stamps[number] for number in (0, 1, 2, 4)]
    assert (stamps[0] == start) == keep_stamps


def test_depth_images_are_of_bags_alone(folder: Path) -> None:
    process = replay(str(folder), "--depth-topic", "/camera/depth")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--depth-topic works only for bags" in errors
