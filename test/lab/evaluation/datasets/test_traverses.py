# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.traverses import Traverses

from .conftest import WriteImages, same_images

NAMES = [f"{number}.png" for number in range(4)]


@pytest.mark.parametrize(
    ("folders", "options", "queries", "references"),
    [
        (["day_left", "day_right", "night_right"], Options(), "night_right", "day_left"),
        (["day_left", "day_right", "night_right"], Options(queries="day_right", references="day_left"), "day_right",
         "day_left"),
        (["fall", "spring", "summer", "winter"], Options(), "winter", "summer"),
        (["summer", "winter"], Options(), "winter", "summer"),
        (["summer", "winter"], Options(queries="summer"), "summer", "winter"),
        (["a", "b"], Options(), "b", "a"),
        (["a", "b"], Options(references="b"), "a", "b"),
        (["day_left", "day_right"], Options(), "day_right", "day_left"),
    ],
)  # fmt: skip
def test_traverses(
    tmp_path: Path, write_images: WriteImages, folders: list[str], options: Options, queries: str, references: str
) -> None:
    pictures = {folder: write_images(tmp_path / folder, NAMES) for folder in folders}
    (tmp_path / "README.txt").touch()
    (tmp_path / "notes").mkdir()
    assert Traverses.fits(tmp_path)
    traverses = Traverses.read(tmp_path, options)
    assert same_images(traverses.queries, pictures[queries])
    assert same_images(traverses.references, pictures[references])
    assert traverses.truth.dense().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]


def test_tolerance(tmp_path: Path, write_images: WriteImages) -> None:
    for folder in "ab":
        write_images(tmp_path / folder, NAMES)
    assert Traverses.read(tmp_path, Options(tolerance=0)).truth.dense().sum() == 4
    assert Traverses.read(tmp_path, Options(tolerance=1)).truth.dense().sum() == 10


@pytest.mark.parametrize(
    "options",
    [Options(), Options(queries="a"), Options(queries="a", references="d"), Options(queries="a", references="a")],
)
def test_folders_have_to_be_named_where_there_are_several(
    tmp_path: Path, write_images: WriteImages, options: Options
) -> None:
    for folder in "abc":
        write_images(tmp_path / folder, NAMES)
    with pytest.raises(DatasetError, match="has the traverses a, b, c; name one for the queries and one for"):
        Traverses.read(tmp_path, options)


def test_what_is_no_set_of_traverses(tmp_path: Path, write_images: WriteImages) -> None:
    assert not Traverses.fits(tmp_path / "away")
    write_images(tmp_path / "a", NAMES)
    assert not Traverses.fits(tmp_path)
    write_images(tmp_path / "b", NAMES[1:])
    assert not Traverses.fits(tmp_path)
    with pytest.raises(DatasetError, match=r"b has 3 images and .*a 4; give both the same number"):
        Traverses.read(tmp_path, Options())
    write_images(tmp_path / "b", NAMES)
    assert Traverses.fits(tmp_path)
    (tmp_path / "times.txt").touch()
    assert not Traverses.fits(tmp_path)


def test_the_frames_of_a_traverse_are_in_the_order_of_their_numbers(tmp_path: Path, write_images: WriteImages) -> None:
    names = [f"frame{number}.png" for number in range(12)]
    pictures = {folder: write_images(tmp_path / folder, names) for folder in ("summer", "winter")}
    traverses = Traverses.read(tmp_path, Options(tolerance=0))
    assert same_images(traverses.queries, pictures["winter"])
    assert same_images(traverses.references, pictures["summer"])


def test_images_with_coordinates_in_their_names_are_not_aligned(tmp_path: Path, write_images: WriteImages) -> None:
    for folder in ("part_0", "part_1"):
        write_images(tmp_path / folder, [f"@{500_000 + at}@4000000@.png" for at in range(4)])
    assert not Traverses.fits(tmp_path)
