# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.kitti import KittiOdometry

from .conftest import WriteImages, same_images

POSES = "1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 30\n1 0 0 4.5e+00 0 1 0 0 0 0 1 0\n"
NAMES = ["000000.png", "000001.png", "000002.png"]


@pytest.mark.parametrize("poses", ["poses/07.txt", "sequences/07/poses.txt"])
def test_a_kitti_drive(tmp_path: Path, write_images: WriteImages, poses: str) -> None:
    path = tmp_path / "sequences/07"
    write_images(path / "image_3", NAMES)
    colour = write_images(path / "image_2", NAMES)
    (path / "times.txt").write_text("0.000000e+00\n1.037875e+01\n2.074000e+01\n")
    assert not KittiOdometry.fits(path)
    (tmp_path / poses).parent.mkdir(exist_ok=True)
    (tmp_path / poses).write_text(POSES)
    assert KittiOdometry.fits(path)
    drive = KittiOdometry.read(path, Options())
    assert drive.name == f"{tmp_path.name} 07"
    assert "within 5 m and 40 degrees between the optical axes" in drive.conditions
    assert (drive.left_out, drive.camera) == ({}, None)
    assert same_images(drive.queries, colour)
    assert drive.stamps.tolist() == [0, 10_378_750_000, 20_740_000_000]
    assert drive.positions.tolist() == [[0, 0, 0], [0, 0, 30], [4.5, 0, 0]]
    assert drive.truth.dense().tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    grey = write_images(path / "image_0", NAMES)
    assert same_images(KittiOdometry.read(path, Options()).queries, grey)


def test_a_drive_found_from_within(tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sequences/07"
    write_images(path / "image_0", NAMES)
    (path / "times.txt").write_text("0\n1\n2\n")
    (tmp_path / "poses").mkdir()
    (tmp_path / "poses/07.txt").write_text(POSES)
    monkeypatch.chdir(path)
    assert KittiOdometry.fits(Path())
    assert KittiOdometry.read(Path(), Options()).name == f"{tmp_path.name} 07"


def line(x: float, z: float) -> str:
    return f"1 0 0 {x} 0 1 0 0 0 0 1 {z}\n"


def write_drive(path: Path, times: int, poses: int) -> None:
    (path / "times.txt").write_text("".join(f"{frame}\n" for frame in range(times)))
    (path / "poses.txt").write_text("".join(line(frame, 0) for frame in range(poses)))


def test_an_image_takes_the_lines_of_its_number(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "image_0", [f"{frame:06}.png" for frame in (0, 1, 3, 4, 6, 7)])
    write_drive(tmp_path, times=7, poses=6)
    drive = KittiOdometry.read(tmp_path, Options())
    assert same_images(drive.queries, pictures[:4])
    assert drive.positions[:, 0].tolist() == [0, 1, 3, 4]
    assert drive.stamps.tolist() == [0, 10**9, 3 * 10**9, 4 * 10**9]
    assert drive.left_out == {"without a pose": 1, "without a stamp": 1}


def test_a_part_with_tables_of_its_own_counts_from_its_start(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "image_0", [f"{frame:06}.png" for frame in (4500, 4501, 4503)])
    write_drive(tmp_path, times=3, poses=3)
    drive = KittiOdometry.read(tmp_path, Options())
    assert same_images(drive.queries, pictures)
    assert drive.positions[:, 0].tolist() == [0, 1, 2]


def test_a_line_that_cannot_be_read_costs_its_image(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "image_0", [f"{frame:06}.png" for frame in range(4)])
    write_drive(tmp_path, times=4, poses=4)
    lines = [line(0, 0), line(1, 0).replace("1", "nan"), line(2, 0), line(3, 0)[:12]]
    (tmp_path / "poses.txt").write_text("".join(lines))
    drive = KittiOdometry.read(tmp_path, Options())
    assert same_images(drive.queries, [pictures[0], pictures[2]])
    assert drive.left_out == {"with a line that cannot be read": 2}


def test_the_camera_is_that_of_the_calibration(
    tmp_path: Path, write_images: WriteImages, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "image_2", NAMES)  # 8 x 6 pixels
    write_drive(tmp_path, times=3, poses=3)
    (tmp_path / "poses.txt").write_text(line(0, 0) + line(1, 0) + "0 0 1 2 0 1 0 0 -1 0 0 0\n")
    calibration = "P0: 5 0 4 0 0 5 3 0 0 0 1 0\nP2: 6 0 4 0.3 0 6 3 0.6 0 0 1 0\nTr: 1 0 0 0 0 1 0 0 0 0 1 0\n"
    (tmp_path / "calib.txt").write_text(calibration)
    drive = KittiOdometry.read(tmp_path, Options())
    assert drive.camera is not None
    assert drive.camera.size == (8, 6)
    assert drive.camera.matrix.tolist() == [[6, 0, 4], [0, 6, 3], [0, 0, 1]]
    assert not drive.camera.coefficients.size
    # Camera 2 stands 5 cm to the left of camera 0, and 10 cm above it; the last pose turns left to back.
    np.testing.assert_allclose(drive.positions, [(-0.05, -0.1, 0), (0.95, -0.1, 0), (2, -0.1, 0.05)], atol=1e-12)
    # Images that somebody has made smaller have another camera.
    (tmp_path / "calib.txt").write_text(calibration.replace("6 0 4", "12 0 8"))
    assert KittiOdometry.read(tmp_path, Options()).camera is None
    assert "calib.txt: its centre 8, 3 is not that of images of 8x6 pixels" in capsys.readouterr().err
    for wrong, sentence in (
        ("P2: 0 0 4 0.3 0 6 3 0.6 0 0 0 0", "line 1: its numbers are not a projection matrix; correct the line"),
        ("P2: 6 0 4 0.3 0", "line 1: it has 6 fields, not 7 or more; correct the line"),
        ("P2: 6 0 4 nan 0 6 3 0.6 0 0 1 0", "line 1: 'nan' is not a number; correct the line"),
    ):
        (tmp_path / "calib.txt").write_text(wrong)
        drive = KittiOdometry.read(tmp_path, Options())
        assert drive.camera is None
        assert drive.positions.tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
        assert capsys.readouterr().err == (
            "calibration ignored (the poses stay those of camera 0; without a camera, closures of near images stay "
            f"near): {tmp_path}/calib.txt, {sentence}\n"
        )
    (tmp_path / "calib.txt").write_text("P2: 90 0 4 0.3 0 90 3 0.6 0 0 1 0\n")
    assert KittiOdometry.read(tmp_path, Options()).camera is None
    assert "calib.txt: it does not fit images of 8x6 pixels" in capsys.readouterr().err


def test_what_does_not_go_together_is_said(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "image_0", NAMES)
    write_drive(tmp_path, times=3, poses=1)
    with pytest.raises(DatasetError, match=r"has 1 images with a pose .* \(left out: 2 without a pose\)"):
        KittiOdometry.read(tmp_path, Options())
    (tmp_path / "poses.txt").write_text("1 2 3\n")
    with pytest.raises(DatasetError, match=r"poses.txt, line 1: it has 3 fields, not 4 or more"):
        KittiOdometry.read(tmp_path, Options())
