# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix

from binvpr_ros.lab.evaluation.datasets import open_dataset
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.listed_folder import ListedFolder

from .conftest import Pictures, WriteImages, same_images

NAMES = [f"{number}.png" for number in range(11)]
PAIRS = [[9, 0], [10, 0], [10, 1]]
OPTIONS = Options(rate=0.5, exclude_seconds=15)


def matrix() -> Any:
    square = np.zeros((11, 11), np.uint8)
    square[tuple(np.transpose(PAIRS))] = 1
    return square


@pytest.fixture(params=["images", "."])
def pictures(request: pytest.FixtureRequest, tmp_path: Path, write_images: WriteImages) -> Pictures:
    """Eleven images in tmp_path, whose numbers are not filled up with zeros."""
    return write_images(tmp_path / request.param, NAMES)


def write_table(folder: Path, name: str, content: Any) -> None:
    if name.endswith(".npy"):
        np.save(folder / name, content)
    elif name.endswith(".mat"):
        savemat(folder / name, content)
    elif isinstance(content, str):
        (folder / name).write_text(content)
    else:
        np.savetxt(folder / name, content, "%g", delimiter=",")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("loops.csv", "query,match,distance_m\n9,0,0.5\n10,0,0.6\n10,1,0.4\n"),
        ("loops.csv", "match,query\n0,9\n0,10\n1,10\n"),
        ("loops.csv", "9,0\n10,0\n1,10\n"),
        ("loops.txt", "# query match\n9 0\n10 0\n10 1\n"),
        ("truth.npy", matrix()),
        ("truth.npy", matrix().astype(bool).T),
        ("truth.csv", matrix()),
        ("CityCentreGroundTruth.mat", {"truth": matrix()}),
        ("truth.mat", {"coordinates": np.zeros((11, 2)), "truth": csc_matrix(matrix().astype(float))}),
    ],
)
def test_lists_and_matrices(tmp_path: Path, pictures: Pictures, name: str, content: Any) -> None:
    assert not ListedFolder.fits(tmp_path)
    write_table(tmp_path, name, content)
    assert ListedFolder.fits(tmp_path)
    drive = ListedFolder.read(tmp_path, OPTIONS)
    assert same_images(drive.queries, pictures)
    assert np.argwhere(drive.truth.dense()).tolist() == PAIRS
    assert drive.stamps.tolist() == [2 * 10**9 * at for at in range(11)]
    assert drive.name == tmp_path.name
    assert drive.conditions.endswith("; 0.5 images a second")


def test_stamps_where_they_are_there(tmp_path: Path, pictures: Pictures) -> None:
    write_table(tmp_path, "loops.txt", "9 0\n8 1\n8 2\n10 0")
    (tmp_path / "times.txt").write_text("0\n1\nnoon\n3\n4\n4\n6\n7\n20.5\n30\n")
    drive = ListedFolder.read(tmp_path, Options())
    assert len(drive.queries) == 8
    assert same_images(drive.queries.take([0, 1, 2, 6, 7]), [pictures[at] for at in (0, 1, 3, 8, 9)])
    assert drive.stamps[-2:].tolist() == [20_500_000_000, 30 * 10**9]
    assert np.argwhere(drive.truth.dense()).tolist() == [[6, 1], [7, 0]]
    assert drive.left_out == {
        "with a line that cannot be read": 1, "without a stamp": 1, "with a stamp that does not advance": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("loops.csv", "query,place\n1,0\n", "loops.csv, line 1: the columns match are missing"),
        ("loops.csv", "query,match\n11,0\n", "line 2: the index 11 is out of range: there are 11 images"),
        ("loops.txt", "1\n2\n", "loops.txt, line 1: it has 1 fields, not 2 or more"),
        ("truth.npy", np.full((11, 11), "x"), "has no numbers"),
        ("truth.npy", matrix() * 2, r"truth.npy contains 2, but a matrix that marks pairs of one place has only zeros"),
        ("truth.npy", matrix() - 0.5, r"truth.npy contains -0.5, but"),
        ("truth.npy", np.where(matrix(), np.nan, 0), r"truth.npy contains nan, but"),
        ("truth.npy", np.linspace(-1, 1, 121).reshape(11, 11), r"contains -1, but .*; move another matrix elsewhere"),
        ("truth.mat", {"truth": matrix() * 0.3}, r"truth.mat contains 0.3, but"),
        ("truth.csv", matrix() * 3, r"truth.csv, line 10, contains 3, but"),
        ("truth.csv", matrix() * np.nan, r"truth.csv, line 1: 'nan' is not a number"),
        ("truth.csv", "0,0,0,0,0,0,0,0,0,0,0\n" * 10, r"of the shape \[10, 11\], but there are 11 images"),
        ("truth.csv", "0,0,0,0,0,0,0,0,0,0,0\n0,0\n", "line 2: it has 2 fields, the first line has 11"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, pictures: Pictures, name: str, content: Any, sentence: str) -> None:
    assert len(pictures) == 11
    write_table(tmp_path, name, content)
    assert ListedFolder.fits(tmp_path)
    with pytest.raises(DatasetError, match=sentence):
        ListedFolder.read(tmp_path, Options())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("loops.csv", "query,match\n9,0\n11,0\n10,0\n-1,0\n10,1\n3\n"),
        ("loops.csv", "first,0\n9,0\nnine,0\n10,0\n10,1\n10,11\n"),
        ("loops.csv", "first\n9,0\n10,0\n10,1\n10,11\n8,1.5\n"),
        ("loops.txt", "9 0\n10 0\n10 1\n10 11\n8; 1\n8"),
    ],
)
@pytest.mark.parametrize("times", [False, True])
def test_a_line_that_cannot_be_read_costs_its_pair(
    tmp_path: Path, pictures: Pictures, name: str, content: str, times: bool
) -> None:
    write_table(tmp_path, name, content)
    if times:
        (tmp_path / "times.txt").write_text("".join(f"{2 * at}\n" for at in range(11)))
    drive = ListedFolder.read(tmp_path, OPTIONS)
    assert len(drive.queries) == len(pictures)
    assert np.argwhere(drive.truth.dense()).tolist() == PAIRS
    assert drive.left_out == {"listed pairs that cannot be read": 3}


@pytest.mark.parametrize("square", [matrix().astype(bool), matrix() * 1.0, matrix().astype(np.int64)])
def test_ones_of_any_type_mark_pairs(tmp_path: Path, pictures: Pictures, square: Any) -> None:
    assert len(pictures) == 11
    write_table(tmp_path, "truth.npy", square)
    assert np.argwhere(ListedFolder.read(tmp_path, OPTIONS).truth.dense()).tolist() == PAIRS


def test_a_file_of_matlab_that_was_cut(tmp_path: Path, pictures: Pictures) -> None:
    assert len(pictures) == 11
    savemat(tmp_path / "truth.mat", {"truth": np.random.default_rng(0).random((11, 11))})
    whole = (tmp_path / "truth.mat").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "truth.mat").write_bytes(whole[:size])
        if ListedFolder.fits(tmp_path):
            with pytest.raises(DatasetError, match=r"truth.mat is damaged, or not a MATLAB file"):
                ListedFolder.read(tmp_path, Options())


def test_a_file_of_matlab_7_3_is_saved_again(tmp_path: Path, pictures: Pictures) -> None:
    start = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon HDF5 schema 1.00 .".ljust(116)
    (tmp_path / "a.mat").write_bytes(start + bytes(8) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(
        DatasetError, match=r"a.mat is of MATLAB 7.3, which cannot be read here; save it again with: save"
    ):
        open_dataset(tmp_path, Options())
    write_table(tmp_path, "truth.mat", {"truth": matrix()})
    assert len(ListedFolder.read(tmp_path, OPTIONS).queries) == len(pictures)


def test_without_scipy_it_is_said_what_to_install(tmp_path: Path, pictures: Pictures) -> None:
    assert len(pictures) == 11
    write_table(tmp_path, "truth.mat", {"truth": matrix()})
    program = (
        "import sys; sys.modules['scipy'] = None\n"
        "from pathlib import Path\n"
        "from binvpr_ros.lab.evaluation.datasets import Options, open_dataset\n"
        "open_dataset(Path(sys.argv[1]), Options())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "truth.mat is a MATLAB file, and reading it needs scipy; run: pip install scipy" in done.stderr


def test_other_tables_are_no_matrices(tmp_path: Path, pictures: Pictures) -> None:
    assert len(pictures) == 11
    write_table(tmp_path, "imu.csv", np.zeros((11, 7)))
    write_table(tmp_path, "descriptors.npy", np.zeros((11, 512)))
    write_table(tmp_path, "positions.mat", {"positions": np.zeros((2, 11))})
    write_table(tmp_path, "similarities.npy", np.eye(9))
    write_table(tmp_path, "camera.mat", {"k": np.eye(3)})
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "objects.npy").touch()
    np.save(tmp_path / "objects.npy", np.array([[{}, 1], [2, 3]], object), allow_pickle=True)
    assert not ListedFolder.fits(tmp_path)
    assert not ListedFolder.fits(tmp_path / "0.png")


def test_real_loops_as_a_list(shared_data: Path, tmp_path: Path) -> None:
    kitchen = shared_data / "loops/redkitchen"
    (tmp_path / "images").symlink_to(kitchen / "images")
    (tmp_path / "loops.csv").symlink_to(kitchen / "loops.csv")
    drive = ListedFolder.read(tmp_path, Options(rate=5))
    assert int(drive.truth.dense().sum()) == len((kitchen / "loops.csv").read_text().splitlines()) - 1
