# SPDX-License-Identifier: Apache-2.0
"""The image files that a table names, some of which may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import in_order
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Images, with_more

WITHOUT_FILE = "without a file"
WITHOUT_POSE = "without a pose"
WITHOUT_STAMP = "without a stamp"
STAMP_BEHIND = "with a stamp that does not advance"
UNREADABLE_LINE = "with a line that cannot be read"
MOST_TRIED = 10
"""Images that are tried for their size: the first ones may be damaged."""


class Named(Protocol):
    """An entry of a table that names an image file."""

    @property
    def path(self) -> Path:
        """Return the image file."""


class StampedFile(NamedTuple):
    """An image file, and its stamp in nanoseconds."""

    path: Path
    stamp: int


def image_file(folder: Path, name: str) -> Path:
    """Return the image file that a table names, relative to `folder`; tables made on Windows have backslashes."""
    path = folder / name
    return path if "\\" not in name or path.is_file() else folder / name.replace("\\", "/")


NamedEntry = TypeVar("NamedEntry", bound=Named)


def files_there(table: Path, entries: Sequence[NamedEntry | None]) -> tuple[list[NamedEntry], dict[str, int]]:
    """Return the entries of `table` whose image files exist, and how many entries are left out for each reason.

    An entry of None is a line that cannot be read. Raises DatasetError if no file exists.
    """
    read = [entry for entry in entries if entry is not None]
    there = [entry for entry in read if entry.path.is_file()]
    if not there:
        first = f", such as {read[0].path}" if read else ""
        raise DatasetError(f"none of the {len(read)} images that {table} names exists{first}; restore the images")
    counts = with_more({}, UNREADABLE_LINE, len(entries) - len(read))
    return there, with_more(counts, WITHOUT_FILE, len(read) - len(there))


def by_file(entries: Sequence[NamedEntry]) -> list[NamedEntry]:
    """Return entries in the order of their image files, folder by folder; of several for one file, the last."""
    at = {entry.path: entry for entry in entries}
    folders: dict[Path, list[Path]] = {}
    for path in at:
        folders.setdefault(path.parent, []).append(path)
    return [at[path] for folder in sorted(folders) for path in in_order(folders[folder])]


def stamps_at(rate: float, count: int) -> NDArray[np.int64]:
    """Return the stamps [count] (nanoseconds) of a drive with `rate` images a second."""
    return (np.arange(count) * (NANOSECONDS / rate)).round().astype(np.int64)


def size_of(images: Images) -> tuple[int, int] | None:
    """Return width and height of the first image that can be read; None if the first ten cannot."""
    for index in range(min(len(images), MOST_TRIED)):
        try:
            height, width = images[index].shape[:2]
        except DatasetError:
            continue
        return width, height
    return None
