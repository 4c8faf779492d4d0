# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.lab.evaluation.datasets import open_dataset
from binvpr_ros.lab.evaluation.datasets.coordinate_names import CoordinateNames
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options

from .conftest import WriteImages, same_images


def name(east: object, north: object) -> str:
    return f"@{east}@{north}@10@S@037.77@-122.4@image@@90@@@@201401@@.png"


@pytest.mark.parametrize(("queries", "references"), [("queries", "database"), ("query", "references")])
def test_the_same_place_is_within_25_metres(
    tmp_path: Path, write_images: WriteImages, queries: str, references: str
) -> None:
    ours = write_images(tmp_path / queries, [name("0550000.00", "4178900.00"), name("0550100.00", "4178900.00")])
    assert CoordinateNames.fits(tmp_path)
    theirs = write_images(
        tmp_path / references,
        [name("0550000.00", "4178924.90"), name("0550000.00", "4178925.10"), name("0550090.00", "4178900.00"),
         "aerial.png", name("east", "4178900.00"), name("nan", "4178900.00")],
    )  # fmt: skip
    dataset = CoordinateNames.read(tmp_path, Options())
    assert same_images(dataset.queries, ours)
    assert same_images(dataset.references, theirs[:3])
    assert dataset.truth.dense().tolist() == [[True, False, False], [False, False, True]]
    assert CoordinateNames.read(tmp_path, Options(radius=26)).truth.dense()[0].tolist() == [True, True, False]
    assert dataset.left_out == {"without coordinates in the name": 3}
    assert dataset.conditions == "same place: within 25 m"


def test_a_folder_without_the_other_is_told(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "database", [name(1, 2)])
    assert CoordinateNames.fits(tmp_path)
    with pytest.raises(DatasetError, match="has no folder queries or query of images named @easting@northing@"):
        CoordinateNames.read(tmp_path, Options())


def test_folders_of_other_images_do_not_fit(tmp_path: Path, write_images: WriteImages) -> None:
    for folder in ("queries", "database"):
        write_images(tmp_path / folder, ["0.png", "a@1@2.png"])
    assert not CoordinateNames.fits(tmp_path)
    assert not CoordinateNames.fits(tmp_path / "away")


def test_sub_folders_belong_to_their_folder(tmp_path: Path, write_images: WriteImages) -> None:
    for folder in ("queries", "database"):
        for part in ("part_0", "part_1/left"):
            write_images(tmp_path / folder / part, [name(500_000 + 100 * at, 4_000_000) for at in range(2)])
    dataset = open_dataset(tmp_path, Options())
    assert isinstance(dataset, CoordinateNames)
    assert (len(dataset.queries), len(dataset.references), dataset.left_out) == (4, 4, {})
    assert dataset.truth.dense().tolist() == [[True, False] * 2, [False, True] * 2] * 2


@pytest.mark.parametrize(("first", "second"), [(120.43912, 36.59905), (36.59905, 120.43912), (-0.1276, 51.5)])
def test_degrees_are_not_taken_for_metres(
    tmp_path: Path, write_images: WriteImages, first: float, second: float
) -> None:
    for folder in ("queries", "database"):
        write_images(tmp_path / folder, [name(first + at * 0.0005, second + at * 0.0003) for at in range(4)])
    with pytest.raises(DatasetError, match=r"such as @.*png, look like degrees; rename the images to UTM coordinates"):
        CoordinateNames.read(tmp_path, Options())


@pytest.mark.parametrize("positions", [[(0, 0), (0, 1)], [(0, 0.0), (0, 2.5)], [(1.5, 2.5), (9.5, 2.5)], [(0.5, 190)]])
def test_metres_near_an_origin_are_no_degrees(
    tmp_path: Path, write_images: WriteImages, positions: list[tuple[float, float]]
) -> None:
    for folder in ("queries", "database"):
        write_images(tmp_path / folder, [name(*position) for position in positions])
    assert CoordinateNames.read(tmp_path, Options()).truth.answerable.all()
