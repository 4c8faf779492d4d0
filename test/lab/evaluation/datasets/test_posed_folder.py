# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.posed_folder import COLUMNS, PosedFolder
from binvpr_ros.lab.evaluation.datasets.truth import Views, ViewTruth

from .conftest import WriteImages, same_images

HEAD = ",".join(COLUMNS)


def pose(frame: object, stamp: object, x: float, turned: bool = False) -> str:
    cosine = -1 if turned else 1
    return f"{frame},{stamp},{cosine},0,0,{x},0,1,0,0,0,0,{cosine},0,0,0,0,1"


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
    assert drive.truth.dense().tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert drive.left_out == {"without a pose": 1}
    wide = PosedFolder.read(tmp_path, Options(exclude_seconds=35, radius=2, angle=180))
    assert wide.truth.dense().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([HEAD], "poses.csv has no poses"),
        ([HEAD.replace("T23", "T")], "poses.csv, line 1: the columns T23 are missing"),
        ([HEAD, pose(2, 0, 0)], "poses.csv names image 2 and others, but the 2 images are counted from 0"),
        ([HEAD, pose("one", 0, 0)], "poses.csv, line 2: 'one' is not an index"),
        ([HEAD, pose(0, "noon", 0)], "poses.csv, line 2: 'noon' is not a time"),
        ([HEAD, pose(0, 0, np.nan)], "poses.csv, line 2: 'nan' is not a number"),
        ([HEAD, pose(0, 0, 0)[:-4]], "poses.csv, line 2: it has 16 fields, the first line has 18"),
        ([HEAD, pose(0, 1, 0), pose(1, 1, 0)], "has 1 images with a pose and a stamp of their own"),
        ([HEAD, pose(0, 1, 0), "1,2" + ",0" * 16], r"\(left out: 1 without a pose\)"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, write_images: WriteImages, lines: list[str], sentence: str) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "poses.csv").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=sentence):
        PosedFolder.read(tmp_path, Options())


def test_rows_that_cannot_be_used_cost_only_themselves(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "images", [f"{number}.png" for number in range(12)])
    lines = [
        HEAD,
        *(pose(frame, frame, 0) for frame in (1, 2, 3, 10, 11, 12, 99)),
        pose(4, "nan", 0),
        pose(5, 5, 0)[:20],
    ]
    (tmp_path / "poses.csv").write_text("\n".join(lines))
    drive = PosedFolder.read(tmp_path, Options())
    # The images are counted by their numbers: 2.png comes before 10.png.
    assert same_images(drive.queries, [pictures[frame] for frame in (1, 2, 3, 10, 11)])
    assert drive.left_out == {"with a line that cannot be read": 2, "without a file": 2, "without a pose": 5}


def test_images_are_counted_as_what_is_known_of_them(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, [f"{number}.png" for number in range(5)])
    lines = [
        HEAD,
        *(pose(frame, frame, 0) for frame in (0, 1)),
        pose(1, "noon", 0),  # of an image that has a pose
        pose(2, 2, 0)[:-4],
        pose("?", 3, 0),  # of an image that nobody can know
        pose(9, 9, 0)[:-4],
    ]
    (tmp_path / "poses.csv").write_text("\n".join(lines))
    drive = PosedFolder.read(tmp_path, Options())
    assert len(drive.queries) == 2
    assert drive.left_out == {"with a line that cannot be read": 1, "without a pose": 2}


def test_real_loops(shared_data: Path) -> None:
    folder = shared_data / "loops" / "redkitchen"
    drive = PosedFolder.read(folder, Options(radius=0.6, angle=40))
    assert len(drive.queries) == 500
    assert drive.camera is not None
    loops = np.zeros((500, 500), bool)
    table = np.loadtxt(folder / "loops.csv", delimiter=",", skiprows=1)
    loops[table[:, 0].astype(int), table[:, 1].astype(int)] = True
    frames = np.arange(500)
    past = frames[:, None] - frames > 50
    # The list counts the camera's roll.
    whole = Views(drive.positions, None, drive.rotations)
    np.testing.assert_array_equal(ViewTruth(whole, whole, 0.6, 40, 1.5).dense() & past, loops)
    assert isinstance(drive.truth, ViewTruth)
    assert (replace(drive.truth, candidates=None).dense() >= loops).all()
