# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.folders import FolderPair

from .conftest import WriteImages, same_images


def test_a_pair_of_folders(tmp_path: Path, write_images: WriteImages) -> None:
    queries = write_images(tmp_path / "queries", ["0.png", "1.png", "2.png", "3.png"])
    references = write_images(tmp_path / "references", ["10.png", "9.png"])
    assert not FolderPair.fits(tmp_path)
    (tmp_path / "ground_truth.csv").write_text("query,references\n2,0 1\n0,1\n1,\n")
    assert FolderPair.fits(tmp_path)
    pair = FolderPair.read(tmp_path, Options())
    assert pair.name == tmp_path.name
    assert same_images(pair.queries, queries)
    assert same_images(pair.references, references)  # in plain file-name order
    assert pair.truth.dense().tolist() == [[0, 1], [0, 0], [1, 1], [0, 0]]
    assert pair.candidates.tolist() == [2] * 4


def test_a_pair_named_in_parts(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "a", ["0.png"])
    write_images(tmp_path / "b", ["0.png", "1.png"])
    table = tmp_path / "truth.csv"
    table.write_text("references,query\n1,0\n")
    pair = FolderPair.from_parts(tmp_path / "a", tmp_path / "b", table, "home")
    assert (pair.name, pair.truth.dense().tolist()) == ("home", [[False, True]])
    assert FolderPair.from_parts(tmp_path / "a", tmp_path / "b", table).name == tmp_path.name


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("query,matches\n0,0\n", "line 1: the columns references are missing"),
        ("query,references\n2,0\n", "line 2: the index 2 is out of range: there are 2 images"),
        ("query,references\n0,0\n1,0 3\n", "line 3: the index 3 is out of range: there are 3 images"),
        ("query,references\n0,one\n", "line 2: 'one' is not an index"),
        ("query,references\n,1\n", "line 2: '' is not an index"),
        ("query,references\n0\n", "line 2: it has 1 fields, the first line has 2"),
        ("query,references\n0,1\n\n0,2\n", "line 4: query 0 is listed twice"),
        ("", "ground_truth.csv is empty"),
    ],
)
def test_a_table_that_is_wrong_is_said_with_its_line(
    tmp_path: Path, write_images: WriteImages, table: str, sentence: str
) -> None:
    write_images(tmp_path / "queries", ["0.png", "1.png"])
    write_images(tmp_path / "references", ["0.png", "1.png", "2.png"])
    (tmp_path / "ground_truth.csv").write_text(table)
    with pytest.raises(DatasetError, match=r"ground_truth.csv") as refused:
        FolderPair.read(tmp_path, Options())
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_images(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "queries", ["0.png"])
    (tmp_path / "ground_truth.csv").write_text("query,references\n0,0\n")
    with pytest.raises(DatasetError, match="references holds no images"):
        FolderPair.read(tmp_path, Options())


@pytest.mark.parametrize(
    ("name", "queries", "references", "true_pairs"),
    [
        ("corridor", 111, 111, 549),
        ("grief_michigan", 55, 5, 55),
        ("nordland_winter_summer_64x32", 1192, 1192, 1192 * 7 - 12),
        ("sped607_thumb", 607, 607, 607),
    ],
)
def test_real_images(shared_data: Path, name: str, queries: int, references: int, true_pairs: int) -> None:
    pair = FolderPair.read(shared_data / "eval" / name, Options())
    assert pair.truth.shape == (len(pair.queries), len(pair.references)) == (queries, references)
    assert pair.truth.dense().sum() == true_pairs
    assert pair.truth.answerable.all()
    assert pair.queries[0].ndim in (2, 3)
