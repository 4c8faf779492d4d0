# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.vpr_bench import VprBench

from .conftest import WriteImages, same_images


def save(path: Path, rows: list[tuple[Any, Any]]) -> None:
    table = np.empty((len(rows), 2), object)
    for line, row in enumerate(rows):
        table[line, 0], table[line, 1] = row
    np.save(path / "ground_truth_new.npy", table, allow_pickle=True)


@pytest.fixture
def folder(tmp_path: Path, write_images: WriteImages) -> Path:
    write_images(tmp_path / "query", ["1.jpg.png", "2.png", "10.png"])
    write_images(tmp_path / "ref", ["0000000.png", "0000001.png"])
    return tmp_path


def test_a_folder_in_the_order_of_its_numbers(tmp_path: Path, write_images: WriteImages) -> None:
    queries = write_images(tmp_path / "query", ["0.png", "1.png", "2.png", "10.png"])
    references = write_images(tmp_path / "ref", ["0000009.png", "0000010.png"])
    assert not VprBench.fits(tmp_path)
    save(tmp_path, [(0, [0]), (2, np.array([1, 0])), (3, [1, 2, 3]), (1, [])])
    assert VprBench.fits(tmp_path)
    bench = VprBench.read(tmp_path, Options())
    assert bench.name == tmp_path.name
    assert same_images(bench.queries, queries)
    assert same_images(bench.references, references)
    # References 2 and 3 are past the end, as in the published files.
    assert bench.truth.dense().tolist() == [[1, 0], [0, 0], [1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([(3, [0])], "row 0, names query 3 of 3"),
        ([(0, [0]), (1, [2, 3])], "row 1, names references 2 and above of 2"),
        ([(0, [-1])], "row 0, is not an index and a list of indices"),
        ([(0, [0.5])], "row 0, is not an index and a list of indices"),
        ([("0", [0])], "row 0, is not an index and a list of indices"),
        ([([0, 1], [0])], "row 0, is not an index and a list of indices"),
        ([(0, [[0], [0, 1]])], "row 0, is not an index and a list of indices"),
    ],
)
def test_rows_that_are_wrong(folder: Path, rows: list[tuple[Any, Any]], sentence: str) -> None:
    save(folder, rows)
    with pytest.raises(DatasetError, match=sentence):
        VprBench.read(folder, Options())


def test_arrays_that_are_wrong(folder: Path) -> None:
    np.save(folder / "ground_truth_new.npy", np.zeros(3, int))
    with pytest.raises(DatasetError, match=r"has the shape \[3\] instead of \[queries,2\]"):
        VprBench.read(folder, Options())
    save(folder, [(0, [Path()])])
    with pytest.raises(DatasetError, match=r"it asks for .*, which no array needs"):
        VprBench.read(folder, Options())
