# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, ImageFiles
from binvpr_ros.lab.evaluation.datasets.files import StampedFile, by_file, files_there, image_file, size_of, stamps_at

from .conftest import WriteImages


def test_entries_without_a_file_or_a_readable_line_are_counted(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["0.png"])
    there, away = StampedFile(tmp_path / "0.png", 0), StampedFile(tmp_path / "1.png", 1)
    entries, left_out = files_there(tmp_path / "rgb.txt", [None, away, there, away])
    assert entries == [there]
    assert left_out == {"with a line that cannot be read": 1, "without a file": 2}
    assert files_there(tmp_path / "rgb.txt", [there]) == ([there], {})
    with pytest.raises(DatasetError, match=r"none of the 1 images that .*rgb.txt names exists, such as .*1.png;"):
        files_there(tmp_path / "rgb.txt", [None, away])


def test_entries_are_ordered_folder_by_folder() -> None:
    names = ["b/1.png", "a/10.png", "a/9.png", "b/0.png"]
    entries = by_file([StampedFile(Path(name), at) for at, name in enumerate(names)])
    assert [str(entry.path) for entry in entries] == ["a/9.png", "a/10.png", "b/0.png", "b/1.png"]
    assert [entry.stamp for entry in entries] == [2, 1, 3, 0]


def test_stamps_of_a_rate() -> None:
    assert stamps_at(2, 3).tolist() == [0, 500_000_000, 10**9]
    assert stamps_at(30, 4).tolist() == [0, 33_333_333, 66_666_667, 100_000_000]


def test_the_size_is_that_of_the_first_image_that_can_be_read(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "0.png").write_bytes(b"rubbish")
    assert size_of(ImageFiles.of_folder(tmp_path)) == (8, 6)
    assert size_of(ImageFiles([tmp_path / "0.png"])) is None
    assert np.shape(ImageFiles.of_folder(tmp_path)[1]) == (6, 8, 3)


def test_backslashes_are_those_of_windows_unless_there_is_such_a_file(
    tmp_path: Path, write_images: WriteImages
) -> None:
    write_images(tmp_path / "images", ["0.png"])
    assert image_file(tmp_path, "images\\0.png") == tmp_path / "images/0.png"
    write_images(tmp_path, ["images\\0.png"])
    assert image_file(tmp_path, "images\\0.png") == tmp_path / "images\\0.png"
