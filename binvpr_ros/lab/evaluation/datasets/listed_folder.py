# SPDX-License-Identifier: Apache-2.0
"""A drive without poses, and a list or a matrix of its loops."""

from __future__ import annotations

import dataclasses
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


class ListedFolder(ListedSequence):
    """Images, in `images` or in the folder itself, and the pairs of them that show one place, counted from 0.

    The pairs are `loops.csv` or `loops.txt`, with the columns `query` and `match` or with two indices a line, or a
    square matrix that is not zero where two images show one place: an array of NumPy, a table, or a file of MATLAB as
    City Centre and New College have. `times.txt` holds the seconds of each image; without it `options.rate` images
    were taken a second.
    """

    layout = "images/, and loops.csv or a square matrix (.npy, .csv, .mat) of which show one place; times.txt"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether there are images, and a list or a matrix about them."""
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
                f"{path} has no list and no matrix of pairs of images that show one place; add loops.csv"
            )
        pairs = _listed(table, len(files)) if table.name in LISTS else _pairs(table, len(files))
        if not (path / "times.txt").is_file():
            drive = cls.from_pairs(path.absolute().name, files, stamps_at(options.rate, len(files)), pairs, options)
            conditions = f"{drive.conditions}; {options.rate:g} images a second"
            return dataclasses.replace(drive, conditions=conditions)
        rows = read_rows(path / "times.txt")
        times = parse_rows(rows, lambda row: row.stamp(0, NANOSECONDS))[: len(files)]
        stamped = [at for at, time in enumerate(times) if time is not None]
        left_out = with_more({}, UNREADABLE_LINE, len(times) - len(stamped))
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
    """Return the file that says which images show one place."""
    for name in LISTS:
        if (path / name).is_file():
            return path / name
    files = (file for file in sorted(path.iterdir()) if file.suffix.lower() in MATRICES and file.is_file())
    return next((file for file in files if _is_square(file, images)), None)


def _is_square(file: Path, images: int) -> bool:
    """Tell whether a file holds a square matrix, without reading it whole."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        with file.open(encoding="utf-8", errors="replace") as lines:
            return len(next(lines, "").split(",")) == images
    if suffix == ".npy":
        try:
            shape = np.load(file, mmap_mode="r", allow_pickle=False).shape
        except (ValueError, EOFError):
            return False
        return len(shape) == 2 and shape[0] == shape[1]
    try:
        return _matlab_variable(file) is not None
    except ImportError:  # reading it says what to do
        return True


def _listed(table: Path, images: int) -> Pairs:
    """Return the pairs of a list; raises DatasetError."""
    rows = read_rows(table, ",")
    if len(rows[0].fields) == 1:
        rows = read_rows(table)
    columns = [0, 1]
    if not rows[0].fields[0].isdecimal():
        columns = rows[0].columns(("query", "match"))
        rows = rows[1:]
    return np.array([[row.index(column, images) for column in columns] for row in rows], np.int64).reshape(-1, 2)


def _pairs(table: Path, images: int) -> Pairs:
    """Return the pairs of a square matrix; raises DatasetError."""
    matrix = {".npy": _numpy_matrix, ".csv": _text_matrix, ".mat": _matlab_matrix}[table.suffix.lower()](table)
    if matrix.shape != (images, images):
        raise DatasetError(
            f"{table} holds a matrix of the shape {list(matrix.shape)}, but there are {images} images; "
            "give each image a row and a column"
        )
    if matrix.dtype.kind not in "biuf":
        raise DatasetError(f"{table} holds no numbers; write a matrix of zeros and ones")
    # Block by block: the comparison of a whole matrix would double the memory.
    found = [np.argwhere(matrix[start:stop] != 0) + np.array([start, 0]) for start, stop in blocks(*matrix.shape)]
    return np.concatenate(found)


def _numpy_matrix(table: Path) -> NDArray[Any]:
    try:
        return np.load(table, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise DatasetError(f"{table} is damaged, or no matrix of numbers; restore the file") from None


def _text_matrix(table: Path) -> NDArray[Any]:
    rows = read_rows(table, ",")
    matrix = np.zeros((len(rows), len(rows[0].fields)), bool)
    for at, row in enumerate(rows):
        if len(row.fields) != matrix.shape[1]:
            raise row.wrong(f"it has {len(row.fields)} fields, the first line {matrix.shape[1]}")
        matrix[at] = np.array(row.numbers(range(len(row.fields)))) != 0
    return matrix


def _matlab_matrix(table: Path) -> NDArray[Any]:
    try:
        from scipy.io import loadmat

        name = _matlab_variable(table)
        if name is None:
            raise DatasetError(f"{table} holds no square matrix of numbers; save it anew with: save -v7")
        matrix = loadmat(table, variable_names=[name])[name]
    except ImportError:
        raise DatasetError(
            f"{table} is a file of MATLAB, which scipy reads; install it with: pip install scipy"
        ) from None
    except DatasetError:
        raise
    except Exception:  # noqa: BLE001 - a damaged file may raise anything
        raise DatasetError(f"{table} is damaged, or no file of MATLAB; restore the file") from None
    return matrix.toarray() if hasattr(matrix, "toarray") else matrix


def _matlab_variable(table: Path) -> str | None:
    """Return the name of the square matrix in a file of MATLAB; None where there is none. Raises ImportError."""
    from scipy.io import whosmat

    try:
        variables = whosmat(table)
    except Exception:  # noqa: BLE001 - a damaged file may raise anything, HDF5 (version 7.3) too
        return None
    return next(
        (
            name for name, shape, kind in variables
            if len(shape) == 2 and shape[0] == shape[1] > 1 and kind not in ("char", "cell", "struct", "object")
        ),
        None,
    )  # fmt: skip
