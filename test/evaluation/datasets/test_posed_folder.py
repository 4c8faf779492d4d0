# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.evaluation.datasets.posed_folder import COLUMNS, PosedFolder

from .conftest import WriteImages, same_images

HEAD = ",".join(COLUMNS)


def pose(frame: object, stamp: object, x: float, turned: bool = False) -> str:
    cosine = -1 if turned else 1
    return f"{frame},{stamp},{cosine},0,0,{x},0,{cosine},0,0,0,0,1,0,0,0,0,1"


@pytest.mark.parametrize("folder", ["images", "."])
def test_images_and_poses(tmp_path: Path, write_images: WriteImages, folder: str) -> None:
    pictures = write_images(tmp_path / folder, ["0.png", "1.png", "2.png", "3.png", "4.png"])
    assert not PosedFolder.fits(tmp_path)
    lines = [HEAD, pose(0, 0, 0), pose(1, 20, 0.5), pose(3, 40.000000001, 0.5, turned=True), pose(4, 60, 1)]
    (tmp_path / "poses.csv").write_text("\n".join(lines))
    assert PosedFolder.fits(tmp_path)
    drive = PosedFolder.read(tmp_path, Options(exclude_seconds=15))
    assert drive.name == tmp_path.name
    assert same_images(drive.queries, [pictures[0], pictures[1], pictures[3], pictures[4]])
    assert drive.stamps.tolist() == [0, 20 * 10**9, 40 * 10**9 + 1, 60 * 10**9]
    assert drive.positions[:, 0].tolist() == [0, 0.5, 0.5, 1]
    assert drive.truth.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    wide = PosedFolder.read(tmp_path, Options(exclude_seconds=35, radius=2, angle=180))
    assert wide.truth.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([HEAD], "poses.csv holds no poses"),
        ([HEAD.replace("T23", "T")], "poses.csv, line 1: the columns T23 are missing"),
        ([HEAD, pose(2, 0, 0)], "poses.csv, line 2: the index 2 is out of range: there are 2 images"),
        ([HEAD, pose("one", 0, 0)], "poses.csv, line 2: 'one' is no index"),
        ([HEAD, pose(0, "noon", 0)], "poses.csv, line 2: 'noon' is no time"),
        ([HEAD, pose(0, 0, np.nan)], "poses.csv, line 2: 'nan' is no number"),
        ([HEAD, pose(0, 1, 0), pose(1, 1, 0)], "do not ascend"),
        ([HEAD, pose(0, 1, 0), "1,2" + ",0" * 16], "image 1 of .* has a pose that is no position and rotation"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, write_images: WriteImages, lines: list[str], sentence: str) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "poses.csv").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=sentence):
        PosedFolder.read(tmp_path, Options())


def test_real_loops(shared_data: Path) -> None:
    folder = shared_data / "loops" / "redkitchen"
    drive = PosedFolder.read(folder, Options(radius=0.6, angle=40))
    assert len(drive.queries) == 500
    loops = np.zeros((500, 500), bool)
    table = np.loadtxt(folder / "loops.csv", delimiter=",", skiprows=1)
    loops[table[:, 0].astype(int), table[:, 1].astype(int)] = True
    frames = np.arange(500)
    np.testing.assert_array_equal(drive.same_place & (frames[:, None] - frames > 50), loops)
