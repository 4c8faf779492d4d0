# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.tum import TumFolder

from .conftest import WriteImages, same_images


def test_a_tum_folder(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "rgb", ["a.png", "b.png", "c.png"])
    (tmp_path / "rgb.txt").write_text(
        "# color images\n# timestamp filename\n100.175304 rgb/a.png\n120 rgb/b.png\n140 rgb/c.png\n"
    )
    assert not TumFolder.fits(tmp_path)
    (tmp_path / "groundtruth.txt").write_text(
        "# timestamp tx ty tz qx qy qz qw\n"
        "100.16 1 2 3 0 0 0 1\n"
        "100.19 9 9 9 0 0 0 1\n"  # 15 ms and 14.7 ms off: this one is nearer
        "120.0201 1 2 3 0 0 0 1\n"  # too far
        "139.99 9 9.5 9 0 0 0.1736482 0.9848078\n"  # half a metre away, rolled by 20 degrees
    )
    assert TumFolder.fits(tmp_path)
    drive = TumFolder.read(tmp_path, Options(exclude_seconds=30))
    assert same_images(drive.queries, [pictures[0], pictures[2]])
    assert drive.stamps.tolist() == [100_175_304_000, 140 * 10**9]
    assert drive.positions.tolist() == [[9, 9, 9], [9, 9.5, 9]]
    assert drive.truth.dense().tolist() == [[False, False], [True, False]]
    # It only rolled.
    assert TumFolder.read(tmp_path, Options(angle=19)).truth.answerable.any()
    assert drive.optical
    assert drive.left_out == {"without a pose": 1}


def test_a_download_that_was_cut_costs_only_what_is_missing(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "rgb", ["a.png", "b.png", "d.png", "e.png", "f.png"])
    (tmp_path / "rgb.txt").write_text(
        "10 rgb/a.png\n20 rgb/b.png\n30 rgb/c.png\n40 rgb/d.png\n40 rgb/e.png\n60 rgb/f.png\n70"
    )
    (tmp_path / "groundtruth.txt").write_text(
        "10 0 0 0 0 0 0 1\n20 0 0 nan 0 0 0 1\n30 0 0 0 0 0 0 1\n40 0 0 0 0 0 0 1\n60 0 0 0 0 0 0 0\n70 0 0"
    )
    drive = TumFolder.read(tmp_path, Options())
    assert same_images(drive.queries, [pictures[0], pictures[2]]) or same_images(
        drive.queries, [pictures[0], pictures[3]]
    )
    assert drive.left_out == {
        "with a line that cannot be read": 1, "without a file": 1, "without a pose": 2,
        "with a stamp that does not advance": 1,
    }  # fmt: skip


@pytest.mark.parametrize("separator", [",", ", ", " , ", "\t"])
def test_tables_as_other_programs_write_them(tmp_path: Path, write_images: WriteImages, separator: str) -> None:
    pictures = write_images(tmp_path / "rgb", ["a,b.png", "b.png"])
    images = b"# Kamera f\xfcr M\xfcnchen\n10 rgb/a,b.png\r\n20 rgb\\b.png\r\n"
    (tmp_path / "rgb.txt").write_bytes(images)
    (tmp_path / "groundtruth.txt").write_text(
        "".join(separator.join([time, *"123", *"0001"]) + "\r\n" for time in ("10.0", "20.0"))
    )
    drive = TumFolder.read(tmp_path, Options())
    assert same_images(drive.queries, pictures)
    assert drive.positions.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert drive.left_out == {}


def test_the_camera_of_a_published_drive_is_known(shared_data: Path) -> None:
    drive = TumFolder.read(shared_data / "loops/tum_fr1_rpy", Options())
    assert drive.camera is not None
    assert drive.camera.size == drive.queries[0].shape[1::-1]


@pytest.mark.parametrize(
    ("images", "track", "sentence"),
    [
        ("1\n", "1 0 0 0 0 0 0 1\n", "rgb.txt, line 1: it has 1 fields, not 2 or more"),
        ("1 a.png\n", "1 0 0 0 0 0 1\n", "groundtruth.txt, line 1: it has 7 fields, not 8 or more"),
        ("1 a.png\n", "2 0 0 0 0 0 0 1\n", "has a pose within 0.02 s"),
        ("1 a.png\n1 b.png\n", "1 0 0 0 0 0 0 1\n", "has 1 images with a pose and a stamp of their own"),
        ("1 c.png\n2 rgb/a.png\n", "1 0 0 0 0 0 0 1\n", "none of the 2 images that .*rgb.txt names exists"),
        ("# none\n", "1 0 0 0 0 0 0 1\n", "rgb.txt is empty"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, write_images: WriteImages, images: str, track: str, sentence: str
) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "rgb.txt").write_text(images)
    (tmp_path / "groundtruth.txt").write_text(track)
    with pytest.raises(DatasetError, match=sentence):
        TumFolder.read(tmp_path, Options())
