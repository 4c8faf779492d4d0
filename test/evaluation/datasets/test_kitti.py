# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.evaluation.datasets.kitti import KittiOdometry

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
    assert (drive.name, drive.radius, drive.angle) == ("07", 5, 40)
    assert same_images(drive.queries, colour)
    assert drive.stamps.tolist() == [0, 10_378_750_000, 20_740_000_000]
    assert drive.positions.tolist() == [[0, 0, 0], [0, 0, 30], [4.5, 0, 0]]
    assert drive.truth.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
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
    assert KittiOdometry.read(Path(), Options()).name == "07"


def test_what_does_not_go_together_is_said(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "image_0", NAMES)
    (tmp_path / "times.txt").write_text("0\n1\n")
    (tmp_path / "poses.txt").write_text(POSES)
    with pytest.raises(DatasetError, match="has 3 images, 2 stamps and 3 poses"):
        KittiOdometry.read(tmp_path, Options())
    (tmp_path / "poses.txt").write_text("1 2 3\n")
    with pytest.raises(DatasetError, match=r"poses.txt, line 1: it has 3 fields, not 4 or more"):
        KittiOdometry.read(tmp_path, Options())
