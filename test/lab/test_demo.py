# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="ROS 2 is not installed")


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ROS_DOMAIN_ID"}
    command = [sys.executable, "-m", "binvpr_ros.lab.demo", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_the_rendered_building_end_to_end(tmp_path: Path) -> None:
    recorded = importlib.util.find_spec("rerun") is not None
    result = demo(tmp_path, *(["--record", "drive.rrd"] if recorded else []))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    counts = re.fullmatch(r"demo: (\d+) images, (\d+) keyframes, (\d+) loop closures", lines[-1])
    assert counts, lines
    images, keyframes, closures = map(int, counts.groups())
    assert images == 900
    assert keyframes > 100
    truth = re.search(r"ground truth: (\d+) of (\d+) published closures are true", result.stdout)
    assert truth
    assert int(truth[2]) == closures >= 20
    assert int(truth[1]) >= 0.9 * closures
    picture = cv2.imread(str(tmp_path / "demo.png"))
    assert picture is not None
    assert picture.shape[0] > 400
    assert picture.std() > 10
    if recorded:
        from rrd import rows_of, texts_of

        file = tmp_path / "drive.rrd"
        assert len(rows_of(file, "Scalars:scalars")["score/closed_same"]) == int(truth[1])
        assert len(rows_of(file, "LineStrips2D:strips")["route/closures"]) == closures
        shown = rows_of(file, "EncodedImage:blob")
        assert len(shown["camera"]) > 200
        queries = {stamp for path in ("closed_same", "closed_apart")
                   for stamp, _ in rows_of(file, "Scalars:scalars").get(f"score/{path}", [])}  # fmt: skip
        assert shown["match/closure"]
        assert {stamp for stamp, _ in shown["match/closure"]} <= queries
        assert not {stamp for stamp, _ in shown["match/refusal"]} & queries
        closed = re.match(r"## (\d+) of (\d+) keyframes closed a loop", texts_of(file)[-1])
        assert closed
        assert 0 < int(closed[1]) <= closures
        assert int(closed[2]) == keyframes


def test_a_folder_of_ones_own(tmp_path: Path, world_images: list[NDArray[np.uint8]]) -> None:
    (tmp_path / "images").mkdir()
    for number, image in enumerate(world_images[:20]):
        cv2.imwrite(str(tmp_path / "images" / f"{number:03}.jpg"), image[..., ::-1])
    result = demo(tmp_path, "images")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"demo: 20 images, \d+ keyframes, 0 loop closures", result.stdout.splitlines()[-1])
    assert (tmp_path / "demo.png").is_file()


def test_a_bag_with_a_calibration(tmp_path: Path, world_images: list[NDArray[np.uint8]]) -> None:
    pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")
    from recorder import SECOND, Recorder

    with Recorder("mcap", tmp_path / "drive") as recorder:
        # An hour before the camera: the demo does not wait for it.
        recorder.camera_info("/front/camera_info", 1)
        for number, image in enumerate(world_images[:20]):
            recorder.image("/front/image_raw", 3600 * SECOND + number * SECOND // 10, 0, image)
        recorder.image("/front/image_raw", 3603 * SECOND, 0, world_images[0], "octarine")
        recorder.image("/front/depth", 1, 0, world_images[0][..., 0].astype(np.uint16), "16UC1")
    result = demo(tmp_path, "drive")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"demo: 20 images, \d+ keyframes, 0 loop closures", result.stdout.splitlines()[-1])
    assert "the camera of /demo/image is calibrated" in result.stderr
    assert "left out image 20: its encoding 'octarine'" in result.stderr
    assert "no usable image" not in result.stderr
    counts = re.search(r"processed (\d+), dropped (\d+), lost before the node (\d+), ", result.stdout)
    assert counts
    assert sum(map(int, counts.groups())) == 20


def test_a_view_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rerun", reason="Rerun is not installed (extra view)")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    result = demo(tmp_path, "--view")
    assert result.returncode == 1
    assert result.stderr.startswith("demo: there is no display to open Rerun's viewer on; ")
    assert len(result.stderr.splitlines()) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = demo(tmp_path, "/nowhere")
    assert result.returncode == 1
    assert "demo: /nowhere does not exist" in result.stderr
    assert "Traceback" not in result.stderr


def test_images_of_any_shape_and_of_none(tmp_path: Path) -> None:
    for number, shape in enumerate([(2000, 3, 3), (3, 2000, 3), (1, 1), (480, 640)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full(shape, 100, np.uint8))
    result = demo(tmp_path, str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "demo: 4 images, 0 keyframes, 0 loop closures"
    for file in tmp_path.glob("*.png"):
        file.write_bytes(b"rubbish")
    result = demo(tmp_path, str(tmp_path))
    assert result.returncode == 1
    assert "demo: none of the images can be decoded; name others" in result.stderr
