# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.seven_scenes import SevenScenes

from .conftest import WriteImages, same_images


def write_pose(folder: Path, number: int, x: object) -> None:
    (folder / f"frame-{number:06}.pose.txt").write_text(
        f" 1.0e+000\t 0\t 0\t {x} \n 0\t 0\t -1\t 0 \n 0\t 1\t 0\t 2 \n 0\t 0\t 0\t 1 \n"
    )


def test_a_sequence(tmp_path: Path, write_images: WriteImages) -> None:
    path = tmp_path / "redkitchen/seq-01"
    pictures = write_images(path, [f"frame-{number:06}.color.png" for number in (0, 1, 2, 600, 601, 602)])
    write_images(path, ["frame-000000.depth.png"])
    assert not SevenScenes.fits(path)
    for number, x in ((0, 0), (1, 0.1), (2, "nan"), (600, 0.2), (601, -0.5)):
        write_pose(path, number, x)
    (path / "frame-000601.pose.txt").write_text("1 0 0")
    assert SevenScenes.fits(path)
    drive = SevenScenes.read(path, Options())
    assert same_images(drive.queries, [pictures[0], pictures[1], pictures[3]])
    assert drive.left_out == {"without a pose": 3}
    assert drive.stamps.tolist() == [0, 33_333_333, 20 * 10**9]
    assert drive.positions.tolist() == [[0, 0, 2], [0.1, 0, 2], [0.2, 0, 2]]
    assert np.argwhere(drive.truth.dense()).tolist() == [[2, 0], [2, 1]]
    assert (drive.name, drive.place, drive.optical) == ("redkitchen_seq-01", "redkitchen", True)
    assert drive.camera is not None
    assert drive.camera.size == (640, 480)


def test_poses_without_images_are_refused(tmp_path: Path) -> None:
    write_pose(tmp_path, 0, 0)
    with pytest.raises(DatasetError, match=r"has poses, but no images named frame-000000.color.png"):
        SevenScenes.read(tmp_path, Options())
