# SPDX-License-Identifier: Apache-2.0
"""A drive without poses, with a list or a matrix of its loops."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import image_paths
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.files import UNREADABLE_LINE, WITHOUT_STAMP, stamps_at
from binvpr_ros.lab.evaluation.datasets.sequences import ListedSequence
from binvpr_ros.lab.evaluation.datasets.tables import parse_rows, read_rows
from binvpr_ros.lab.evaluation.datasets.truth import blocks

Pairs = NDArray[np.int64]
"""[P,2], images of one place."""
LISTS = ("loops.csv", "loops.txt")
MATRICES = (".npy", ".csv", ".mat")
COLUMNS = ("query", "match")
HDF5_START = b"MATLAB 7.3 MAT-file"
"""Of a file that MATLAB saved with -v7.3, which SciPy cannot read."""
UNREADABLE_PAIR = "listed pairs that cannot be read"


class ListedFolder(ListedSequence):
    """Images, in `images` or in the folder itself, and the pairs of them that show one place, counted from 0.

    The pairs are `loops.csv` or `loops.txt`, with the columns `query` and `match` or with two indices a line, or a
    square matrix of zeros and ones, which are the pairs of one place: an array of NumPy, a table, or a file of MATLAB
    as in City Centre and New College. `times.txt` gives the time of each image in seconds; without it, `options.rate`
    images were taken a second.
    """

    layout = "images/, and loops.csv or a square matrix (.npy, .csv, .mat) that marks pairs of one place; times.txt"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there are images, and a list of pairs or a matrix with a row and a column for each image."""
        if not path.is_dir():
            return False
        images = _images(path)
        return bool(images) and _table(path, len(images)) is not None

    @classmethod
    def read(cls, path: Path, options: Options) -> ListedFolder:
        """Read the folder; raises DatasetError."""
        folder = path / "images" if image_paths(path / "images") else path
        files = ImageFiles.of_folder(folder)
        table = _table(path, len(files))
        if table is None:
            raise DatasetError(
                f"{path} has no list of pairs of images that show one place, and no matrix of {len(files)} rows and "
                "columns that marks them; add loops.csv"
            )
        pairs, unreadable = _listed(table, len(files)) if table.name in LISTS else (_marked(table, len(files)), 0)
        left_out = with_more({}, UNREADABLE_PAIR, unreadable)
        if not (path / "times.txt").is_file():
            stamps = stamps_at(options.rate, len(files))
            drive = cls.from_pairs(path.absolute().name, files, stamps, pairs, options, left_out)
            conditions = f"{drive.conditions}; {options.rate:g} images a second"
            return dataclasses.replace(drive, conditions=conditions)
        rows = read_rows(path / "times.txt")
        times = parse_rows(rows, lambda row: row.stamp(0, NANOSECONDS))[: len(files)]
        stamped = [at for at, time in enumerate(times) if time is not None]
        left_out = with_more(left_out, UNREADABLE_LINE, len(times) - len(stamped))
        left_out = with_more(left_out, WITHOUT_STAMP, len(files) - len(times))
        place = np.full(len(files), -1)
        place[stamped] = np.arange(len(stamped))
        pairs = place[pairs]
        return cls.from_pairs(
            path.absolute().name, files.take(stamped), np.array([times[at] for at in stamped], np.int64),
            pairs[(pairs >= 0).all(axis=1)], options, left_out,
        )  # fmt: skip


def _images(path: Path) -> list[Path]:
    return image_paths(path / "images") or image_paths(path)


def _table(path: Path, images: int) -> Path | None:
    """Return the file that says which of so many images show one place; None if there is none."""
    for name in LISTS:
        if (path / name).is_file():
            return path / name
    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in MATRICES and file.is_file()]
    # A file of HDF5 may hold the matrix, so reading it says how to save it again.
    square = (file for file in files if _is_square(file, images))
    return next(itertools.chain(square, filter(_is_hdf5, files)), None)


def _is_square(file: Path, images: int) -> bool:
    """Return whether a file has a matrix with a row and a column for each of so many images, without reading it all."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        with file.open(encoding="utf-8", errors="replace") as lines:
            return len(next(lines, "").split(",")) == images
    if suffix == ".npy":
        try:
            return bool(np.load(file, mmap_mode="r", allow_pickle=False).shape == (images, images))
        except (ValueError, EOFError):
            return False
    try:
        return _matlab_variable(file, images) is not None
    except ImportError:  # reading it says what to do
        return True


def _is_hdf5(file: Path) -> bool:
    """Return whether this is a file of MATLAB in HDF5."""
    with file.open("rb") as stream:
        return stream.read(len(HDF5_START)) == HDF5_START


def _listed(table: Path, images: int) -> tuple[Pairs, int]:
    """Return the pairs of a list, and how many of its lines cannot be read; raises DatasetError if none can."""
    rows = read_rows(table)
    columns = [0, 1]
    if any(name in rows[0].fields for name in COLUMNS):
        columns = rows[0].columns(COLUMNS)
        rows = rows[1:]
    pairs = parse_rows(rows, lambda row: [row.index(column, images) for column in columns])
    read = [pair for pair in pairs if pair is not None]
    return np.array(read, np.int64).reshape(-1, 2), len(pairs) - len(read)


def _marked(table: Path, images: int) -> Pairs:
    """Return the pairs of a square matrix; raises DatasetError."""
    suffix = table.suffix.lower()
    if suffix == ".mat":
        matrix = _matlab_matrix(table, images)
    else:
        matrix = _text_matrix(table) if suffix == ".csv" else _numpy_matrix(table)
    if matrix.shape != (images, images):
        raise DatasetError(
            f"{table} has a matrix of the shape {list(matrix.shape)}, but there are {images} images; "
            "give each image a row and a column"
        )
    if matrix.dtype.kind not in "biuf":
        raise DatasetError(f"{table} has no numbers; write a matrix of zeros and ones")
    # Block by block: the comparison of a whole matrix would double the memory.
    found = [
        np.argwhere(_ones(matrix[start:stop], str(table))) + np.array([start, 0])
        for start, stop in blocks(*matrix.shape)
    ]
    return np.concatenate(found)


def _ones(values: NDArray[Any], where: str) -> NDArray[np.bool_]:
    """Return which of the values are 1, where the others are 0; raises DatasetError."""
    ones: NDArray[np.bool_] = values == 1
    others = values[~ones & (values != 0)]  # with what is not a number
    if others.size:
        raise DatasetError(
            f"{where} contains {others[0]:g}, but a matrix that marks pairs of one place has only zeros and ones; "
            "move another matrix elsewhere"
        )
    return ones


def _numpy_matrix(table: Path) -> NDArray[Any]:
    try:
        return np.load(table, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise DatasetError(f"{table} is damaged, or not a matrix of numbers; restore the file") from None


def _text_matrix(table: Path) -> NDArray[Any]:
    rows = read_rows(table, ",")
    matrix = np.zeros((len(rows), len(rows[0].fields)), bool)
    for at, row in enumerate(rows):
        row.expect_length_of(rows[0])
        matrix[at] = _ones(np.array(row.numbers(range(len(row.fields)))), f"{table}, line {row.line},")
    return matrix


def _matlab_matrix(table: Path, images: int) -> NDArray[Any]:
    if _is_hdf5(table):
        raise DatasetError(f"{table} is of MATLAB 7.3, which cannot be read here; save it again with: save -v7")
    try:
        from scipy.io import loadmat

        name = _matlab_variable(table, images)
        matrix = loadmat(table, variable_names=[name])[name]
    except ImportError:
        raise DatasetError(f"{table} is a MATLAB file, and reading it needs scipy; run: pip install scipy") from None
    except Exception:  # noqa: BLE001 - a damaged file may raise anything
        raise DatasetError(f"{table} is damaged, or not a MATLAB file; restore the file") from None
    return matrix.toarray() if hasattr(matrix, "toarray") else matrix


def _matlab_variable(table: Path, images: int) -> str | None:
    """Return the name of the matrix in a MATLAB file with a row and a column for each of so many images, or None.

    Raises ImportError.
    """
    from scipy.io import whosmat

    try:
        variables = whosmat(table)
    except Exception:  # noqa: BLE001 - a damaged file may raise anything, HDF5 (version 7.3) too
        return None
    return next(
        (
            name for name, shape, kind in variables
            if shape == (images, images) and kind not in ("char", "cell", "struct", "object")
        ),
        None,
    )  # fmt: skip
