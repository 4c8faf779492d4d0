# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.transforms import Transforms

from .conftest import WriteImages, same_images


def frame(file: str, x: float = 0, **more: Any) -> dict[str, Any]:
    """A camera that looks along the world's y, with z above it, as OpenGL's cameras do along their -z."""
    matrix = [[1, 0, 0, x], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    return {"file_path": file, "transform_matrix": matrix, **more}


def write(folder: Path, frames: Any, **more: Any) -> None:
    (folder / "transforms.json").write_text(json.dumps({"frames": frames, **more}))


def test_frames_in_the_order_of_their_files(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "images", ["frame_1.png", "frame_2.png", "frame_10.png"])
    assert not Transforms.fits(tmp_path)
    write(tmp_path, [frame("./images/frame_10", 0.5), frame("images/frame_1.png"), frame("images/frame_2.png", 9)])
    assert Transforms.fits(tmp_path)
    drive = Transforms.read(tmp_path, Options(rate=0.1))
    assert same_images(drive.queries, pictures)
    assert drive.positions[:, 0].tolist() == [0, 9, 0.5]
    assert drive.stamps.tolist() == [0, 10 * 10**9, 20 * 10**9]
    assert drive.optical
    assert drive.rotations[0][:, 2].tolist() == [0, 1, 0]  # ahead
    assert drive.rotations[0][:, 1].tolist() == [0, 0, -1]  # down
    assert np.argwhere(drive.truth.dense()).tolist() == [[2, 0]]
    assert (drive.camera, drive.name) == (None, tmp_path.name)
    assert drive.conditions.endswith("lengths in the file's unit; 0.1 images a second, by file name")


@pytest.mark.parametrize("key", ["timestamp", "time"])
def test_frames_in_the_order_of_their_stamps(tmp_path: Path, write_images: WriteImages, key: str) -> None:
    pictures = write_images(tmp_path, ["0.png", "1.png"])
    write(tmp_path, [frame("0.png", **{key: 2.5}), frame("1.png", **{key: 1})])
    drive = Transforms.read(tmp_path, Options())
    assert same_images(drive.queries, pictures[::-1])
    assert drive.stamps.tolist() == [10**9, 2_500_000_000]
    # Unless some have none.
    write(tmp_path, [frame("0.png", **{key: 2.5}), frame("1.png")])
    assert same_images(Transforms.read(tmp_path, Options()).queries, pictures)


def test_what_cannot_be_used_costs_only_itself(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path, [f"{number}.png" for number in range(3)])
    bad = [1, {}, {"file_path": "0.png"}, {"file_path": 3, "transform_matrix": np.eye(4).tolist()},
           {"file_path": "0.png", "transform_matrix": [[1, 2], [3]]}, frame("1.png", timestamp="noon"),
           frame("1.png", timestamp=1e30), {"file_path": "0.png", "transform_matrix": [1, 2]}]  # fmt: skip
    write(tmp_path, [frame("0.png"), frame("1.png", float("nan")), frame("2.png"), frame("away.png"), *bad])
    drive = Transforms.read(tmp_path, Options())
    assert same_images(drive.queries, [pictures[0], pictures[2]])
    assert drive.left_out == {"without a file": 1, "with an entry that cannot be read": 8, "without a pose": 1}


FOCAL = {"w": 8, "h": 6, "fl_x": 5, "fl_y": 5.5, "cx": 4.5, "cy": 3.5}
MATRIX = [[5, 0, 4.5], [0, 5.5, 3.5], [0, 0, 1]]


@pytest.mark.parametrize(
    ("intrinsics", "matrix", "coefficients", "fisheye"),
    [
        (FOCAL, MATRIX, [0] * 5, False),
        (FOCAL | {"camera_model": "PINHOLE"}, MATRIX, [], False),
        (FOCAL | {"k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4, "camera_model": "OPENCV"}, MATRIX,
         [0.1, 0.2, 0.3, 0.4, 0], False),
        (FOCAL | {"k1": 0.1, "k2": 0.2, "k3": 0.3, "camera_model": "OPENCV_FISHEYE"}, MATRIX, [0.1, 0.2, 0.3, 0], True),
        ({"camera_angle_x": np.pi / 2}, [[4, 0, 4], [0, 4, 3], [0, 0, 1]], [0] * 5, False),
    ],
)  # fmt: skip
def test_intrinsics(
    tmp_path: Path, write_images: WriteImages, intrinsics: dict[str, Any], matrix: Any, coefficients: Any, fisheye: bool
) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    write(tmp_path, [frame("0.png"), frame("1.png")], **intrinsics)
    camera = Transforms.read(tmp_path, Options()).camera
    assert camera is not None
    assert (camera.size, camera.fisheye) == ((8, 6), fisheye)
    np.testing.assert_allclose(camera.matrix, matrix)
    assert camera.coefficients.tolist() == coefficients


def test_intrinsics_of_each_frame(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    write(tmp_path, [frame("0.png", **FOCAL), frame("1.png", **FOCAL)])
    camera = Transforms.read(tmp_path, Options()).camera
    assert camera is not None
    assert camera.matrix.tolist() == MATRIX


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "its camera model 'EQUIRECTANGULAR' is not known here"),
        ({"camera_model": ["OPENCV"]}, "is not known here"),
        ({"cx": "middle"}, "it has invalid intrinsics; correct them"),
        ({"w": float("inf")}, "it has invalid intrinsics; correct them"),
        ({"fl_x": 0}, "it holds no calibration; calibrate the camera, or go on without"),
        ({"cx": 80}, "it does not fit images of 8x6 pixels"),
    ],
)
def test_a_camera_that_cannot_be_used_costs_only_itself(
    tmp_path: Path, write_images: WriteImages, capsys: pytest.CaptureFixture[str], changed: dict[str, Any],
    sentence: str,
) -> None:  # fmt: skip
    write_images(tmp_path / "images", ["0.png", "1.png"])
    write(tmp_path, [frame("images/0.png"), frame("images/1.png")], **FOCAL | changed)
    drive = Transforms.read(tmp_path, Options())
    assert (len(drive.queries), drive.camera) == (2, None)
    said = capsys.readouterr().err
    assert f"closures of near images stay near): {tmp_path}/transforms.json: " in said
    assert sentence in said
    assert said.count("\n") == 1


def test_frames_of_several_cameras_have_none(
    tmp_path: Path, write_images: WriteImages, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    write(tmp_path, [frame("0.png", **FOCAL), frame("1.png", **FOCAL | {"fl_x": 6})])
    assert Transforms.read(tmp_path, Options()).camera is None
    assert "transforms.json: its frames have different intrinsics; use images of one camera" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"frames": [', "transforms.json is not a JSON file"),
        ("[" * 100_000, "transforms.json is not a JSON file"),
        ("[]", "transforms.json has no frames"),
        ('{"frames": []}', "transforms.json has no frames"),
        ('{"frames": [1]}', "none of the 0 images that .*transforms.json names exists"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "transforms.json").write_text(content)
    with pytest.raises(DatasetError, match=sentence):
        Transforms.read(tmp_path, Options())


def test_paths_of_windows_and_suffixes_of_any_case(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "images", ["0.PNG", "1.Png", "2.png", "3.PNG"])
    files = [frame(file) for file in ("images/0", ".\\images\\1", "images\\2.png", "images\\3")]
    text = json.dumps({"frames": files})
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "transforms.json").write_text(text, encoding)
        drive = Transforms.read(tmp_path, Options())
        assert same_images(drive.queries, pictures)
        assert drive.left_out == {}
