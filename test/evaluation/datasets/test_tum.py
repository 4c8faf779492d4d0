# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.evaluation.datasets.tum import TumFolder

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
        "139.99 9 9.5 9 0 0 0.1736482 0.9848078\n"  # half a metre away, turned by 20 degrees
    )
    assert TumFolder.fits(tmp_path)
    drive = TumFolder.read(tmp_path, Options(exclude_seconds=30))
    assert same_images(drive.queries, [pictures[0], pictures[2]])
    assert drive.stamps.tolist() == [100_175_304_000, 140 * 10**9]
    assert drive.positions.tolist() == [[9, 9, 9], [9, 9.5, 9]]
    assert drive.truth.tolist() == [[False, False], [True, False]]
    assert not TumFolder.read(tmp_path, Options(angle=19)).truth.any()


@pytest.mark.parametrize(
    ("images", "track", "sentence"),
    [
        ("1\n", "1 0 0 0 0 0 0 1\n", "rgb.txt, line 1: it has 1 fields, not 2 or more"),
        ("1 a.png\n", "1 0 0 0 0 0 1\n", "groundtruth.txt, line 1: it has 7 fields, not 8 or more"),
        ("1 a.png\n", "2 0 0 0 0 0 0 1\n", "has a pose within 0.02 s"),
        ("1 a.png\n2 b.png\n", "1 0 0 0 0 0 0 0\n2 0 0 0 0 0 0 1\n", "image 0 of .* has a pose that is no"),
        ("# none\n", "1 0 0 0 0 0 0 1\n", "rgb.txt is empty"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, images: str, track: str, sentence: str) -> None:
    (tmp_path / "rgb.txt").write_text(images)
    (tmp_path / "groundtruth.txt").write_text(track)
    with pytest.raises(DatasetError, match=sentence):
        TumFolder.read(tmp_path, Options())
