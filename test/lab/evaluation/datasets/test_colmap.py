# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.colmap import ColmapModel
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options

from .conftest import WriteImages, same_images

HEAD = "# Image list with two lines of data per image:\n#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n"
LEFT = "0.70710678 0 0.70710678 0"  # to the camera from the world: the camera looks along -x


def line(name: str, quaternion: str = "1 0 0 0", translation: str = "0 0 0", camera: int = 1) -> str:
    return f"7 {quaternion} {translation} {camera} {name}\n"


def write_model(folder: Path, images: str, cameras: str = "1 SIMPLE_PINHOLE 8 6 5 4 3\n") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images.txt").write_text(HEAD + images)
    (folder / "cameras.txt").write_text("# Camera list\n" + cameras)


@pytest.mark.parametrize("model", [".", "sparse", "sparse/0"])
@pytest.mark.parametrize("points", ["2362.39 248.498 58396 1784.7 268.254 -1\n", "\n", ""])
def test_a_model(tmp_path: Path, write_images: WriteImages, model: str, points: str) -> None:
    pictures = write_images(tmp_path / "images", ["1.jpg.png", "2.jpg.png", "10.jpg.png"])
    assert not ColmapModel.fits(tmp_path)
    lines = [line("10.jpg.png", "0 0 0 1", "1 2 -3.5"), line("1.jpg.png", translation="-1 -2 -3"),
             line("2.jpg.png", LEFT, "-3 -2 1")]  # fmt: skip
    write_model(tmp_path / model, points.join([*lines, ""]))
    assert ColmapModel.fits(tmp_path)
    drive = ColmapModel.read(tmp_path, Options(rate=0.1, exclude_seconds=10, angle=40))
    # 2.jpg comes before 10.jpg; the last one stands half a metre from the first, and has only rolled.
    assert same_images(drive.queries, pictures)
    assert drive.stamps.tolist() == [0, 10 * 10**9, 20 * 10**9]
    np.testing.assert_allclose(drive.positions, [(1, 2, 3), (1, 2, 3), (1, 2, 3.5)], atol=1e-7)
    np.testing.assert_allclose(drive.rotations[:, :, 2], [(0, 0, 1), (-1, 0, 0), (0, 0, 1)], atol=1e-7)
    assert np.argwhere(drive.truth.dense()).tolist() == [[2, 0]]
    assert drive.name == tmp_path.name
    assert drive.conditions.endswith("lengths in the model's unit; 0.1 images a second, by file name")
    assert drive.left_out == {}
    if model != ".":
        assert same_images(ColmapModel.read(tmp_path / model, Options()).queries, pictures)


def test_names_may_hold_folders_and_spaces(tmp_path: Path, write_images: WriteImages) -> None:
    first = write_images(tmp_path / "images/b", ["0 a.png"])
    second = write_images(tmp_path / "images/a", ["1.png"])
    write_model(tmp_path, line("b/0 a.png") + "\n" + line("a/1.png") + "\n")
    assert same_images(ColmapModel.read(tmp_path, Options()).queries, second + first)


def test_names_are_taken_as_they_are(tmp_path: Path, write_images: WriteImages) -> None:
    names = ["a  b (1).png", "a  b, (2).png", "c,d.png"]
    pictures = write_images(tmp_path / "images/left", names)
    write_model(tmp_path, line(f"left/{names[0]}") + line(f"left/{names[1]}") + line(f"left\\{names[2]}"))
    drive = ColmapModel.read(tmp_path, Options())
    assert same_images(drive.queries, pictures)
    assert drive.left_out == {}


def test_images_may_lie_beside_the_tables(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "images", ["0.png", "1.png"])  # of another model
    pictures = write_images(tmp_path / "model", ["0.png", "1.png"])
    write_model(tmp_path / "model", line("0.png") + line("1.png"))
    assert same_images(ColmapModel.read(tmp_path / "model", Options()).queries, pictures)


def test_what_cannot_be_used_costs_only_itself(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "images", [f"{number}.png" for number in range(4)])
    write_model(
        tmp_path,
        line("0.png") + "\n" + line("away.png") + "\n" + line("1.png", "0 0 0 0") + "\n" + line("2.png", "nan 0 0 0")
        + "\n" + line("3.png") + "1 2 3\n" + "9 1 0 0 0 0.5e",
    )  # fmt: skip
    drive = ColmapModel.read(tmp_path, Options())
    assert same_images(drive.queries, [pictures[0], pictures[3]])
    assert drive.left_out == {"with a line that cannot be read": 2, "without a file": 1, "without a pose": 1}


CAMERAS = [
    ("SIMPLE_PINHOLE 8 6 5 4 3", (5, 5, 4, 3), [], False),
    ("PINHOLE 8 6 5 5.5 4 3", (5, 5.5, 4, 3), [], False),
    ("SIMPLE_RADIAL 8 6 5 4 3 0.1", (5, 5, 4, 3), [0.1, 0, 0, 0], False),
    ("RADIAL 8 6 5 4 3 0.1 0.2", (5, 5, 4, 3), [0.1, 0.2, 0, 0], False),
    ("OPENCV 8 6 5 5.5 4 3 0.1 0.2 0.3 0.4", (5, 5.5, 4, 3), [0.1, 0.2, 0.3, 0.4], False),
    ("OPENCV_FISHEYE 8 6 5 5.5 4 3 0.1 0.2 0.3 0.4", (5, 5.5, 4, 3), [0.1, 0.2, 0.3, 0.4], True),
    ("FULL_OPENCV 8 6 5 5.5 4 3 1 2 3 4 5 6 7 8", (5, 5.5, 4, 3), [1, 2, 3, 4, 5, 6, 7, 8], False),
    ("RADIAL_FISHEYE 8 6 5 4 3 0.1 0.2", (5, 5, 4, 3), [0.1, 0.2, 0, 0], True),
]


@pytest.mark.parametrize(("camera", "intrinsics", "coefficients", "fisheye"), CAMERAS)
def test_cameras(
    tmp_path: Path, write_images: WriteImages, camera: str, intrinsics: tuple[float, ...],
    coefficients: list[float], fisheye: bool,
) -> None:  # fmt: skip
    write_images(tmp_path, ["0.png", "1.png"])
    write_model(tmp_path, line("0.png") + line("1.png"), f"2 PINHOLE 1 1 1 1 1 1\n1 {camera}\n")
    found = ColmapModel.read(tmp_path, Options()).camera
    assert found is not None
    fx, fy, cx, cy = intrinsics
    assert (found.size, found.fisheye) == ((8, 6), fisheye)
    assert found.matrix.tolist() == [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    assert found.coefficients.tolist() == coefficients
    assert found.rays(np.array([[4, 3]], np.float32)).shape == (1, 2)


@pytest.mark.parametrize(
    ("cameras", "second", "sentence"),
    [
        ("1 THIN_PRISM_FISHEYE 8 6 5 5 4 3 0 0 0 0 0 0 0 0\n", 1,
         ", line 2: the camera model 'THIN_PRISM_FISHEYE' is not known here"),
        ("2 PINHOLE 8 6 5 5 4 3\n", 1, ": the camera of the images is missing"),
        ("1 PINHOLE 8 6 5 5 4 3\n2 PINHOLE 8 6 5 5 4 3\n", 2, ": the images are of 2 cameras"),
        ("1 PINHOLE 8 6 5 5\n", 1, ", line 2: it has 6 fields, not 7 or more"),
        ("1 PINHOLE 8 6 0 5 4 3\n", 1, ": it holds no calibration"),
        ("1 PINHOLE 8 6 5 5 9 3\n", 1, ": it does not fit images of 8x6 pixels"),
        ("# none\n", 1, " is empty"),
    ],
)  # fmt: skip
def test_a_camera_that_cannot_be_used_costs_only_itself(
    tmp_path: Path, write_images: WriteImages, capsys: pytest.CaptureFixture[str], cameras: str, second: int,
    sentence: str,
) -> None:  # fmt: skip
    write_images(tmp_path, ["0.png", "1.png"])
    write_model(tmp_path, line("0.png") + line("1.png", camera=second), cameras)
    drive = ColmapModel.read(tmp_path, Options())
    assert (len(drive.queries), drive.camera) == (2, None)
    said = capsys.readouterr().err
    assert f"closures of near images stay near): {tmp_path}/cameras.txt{sentence}" in said
    assert said.count("\n") == 1


def test_what_is_wrong_is_said(tmp_path: Path, write_images: WriteImages) -> None:
    for name in ("images.bin", "cameras.bin"):
        (tmp_path / "sparse/0").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sparse/0" / name).write_bytes(b"\x02\0\0\0")
    assert ColmapModel.fits(tmp_path)
    with pytest.raises(DatasetError, match=r"colmap model_converter --input_path .*sparse/0 .* --output_type TXT"):
        ColmapModel.read(tmp_path, Options())
    write_images(tmp_path / "images", ["0.png"])
    write_model(tmp_path, "")
    with pytest.raises(DatasetError, match=r"images.txt is empty"):
        ColmapModel.read(tmp_path, Options())
    write_model(tmp_path, "1 2 3\n")
    with pytest.raises(DatasetError, match=r"images.txt is empty"):
        ColmapModel.read(tmp_path, Options())
