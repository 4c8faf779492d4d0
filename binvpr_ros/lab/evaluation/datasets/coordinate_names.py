# SPDX-License-Identifier: Apache-2.0
"""Folders of images whose names carry map coordinates, as VPR-datasets-downloader writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import image_paths
from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, DatasetError, ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.truth import Views, ViewTruth

QUERIES = ("queries", "query")
REFERENCES = ("database", "references")
USUAL_RADIUS = 25.0  # metres
DEGREES = (90, 180)
"""Most of a latitude and of a longitude."""
WIDEST_IN_DEGREES = 5.0
"""By how much the coordinates of one region differ in degrees; in metres a set of this size would be one place."""


class CoordinateNames(Dataset):
    """Two folders of images named `@easting@northing@...@.jpg`, UTM coordinates in metres, in sub-folders or not.

    Images within 25 m show the same place, whichever way the camera looked.
    """

    layout = f"{' or '.join(QUERIES)}, {' or '.join(REFERENCES)}, images named @easting@northing@...@.jpg"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether one of the folders has an image of such a name."""
        return any(_folder(path, names) is not None for names in (QUERIES, REFERENCES))

    @classmethod
    def read(cls, path: Path, options: Options) -> CoordinateNames:
        """Read both folders; raises DatasetError."""
        folders = [_folder(path, names) for names in (QUERIES, REFERENCES)]
        for folder, names in zip(folders, (QUERIES, REFERENCES), strict=True):
            if folder is None:
                raise DatasetError(
                    f"{path} has no folder {' or '.join(names)} of images named @easting@northing@...@.jpg; add it"
                )
        (queries, ours), (references, theirs) = (_images(folder) for folder in folders if folder is not None)
        count = sum(len(list(_files(folder))) for folder in folders if folder is not None)
        if _in_degrees(np.concatenate([ours.positions, theirs.positions])):
            raise DatasetError(
                f"the coordinates in the names of the images of {path}, such as {queries.paths[0].name}, look like "
                "degrees; rename the images to UTM coordinates in metres"
            )
        radius = USUAL_RADIUS if options.radius is None else options.radius
        truth = ViewTruth(ours, theirs, radius, 180.0, max(options.apart_radii, 1.0) * radius)
        return cls(
            path.absolute().name, queries, references, truth, conditions=f"same place: within {radius:g} m",
            left_out=with_more({}, "without coordinates in the name", count - len(queries) - len(references)),
        )  # fmt: skip


def _folder(path: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder of one of these names that has an image with coordinates in its name, or None."""
    folders = (path / name for name in names)
    return next((folder for folder in folders if any(map(position, _files(folder)))), None)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the images of a folder and of the folders below it."""
    for root, below, _ in os.walk(folder):
        below.sort()
        yield from image_paths(Path(root))


def position(path: Path) -> tuple[float, float] | None:
    """Return easting and northing in metres; None if the name does not have them."""
    parts = path.name.split("@")
    try:
        found = float(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        return None
    return found if parts[0] == "" and np.isfinite(found).all() else None


def _in_degrees(positions: NDArray[np.float64]) -> bool:
    """Return whether positions [N,2] are degrees, in either order."""
    largest = np.sort(np.abs(positions), axis=1).max(axis=0)
    fractions = (positions != positions.round()).any(axis=1)
    return bool((largest <= DEGREES).all() and fractions.all() and np.ptp(positions, axis=0).max() < WIDEST_IN_DEGREES)


def _images(folder: Path) -> tuple[ImageFiles, Views]:
    """Return the images of a folder that have coordinates, and where they were taken."""
    found = [(path, at) for path in _files(folder) if (at := position(path)) is not None]
    return ImageFiles([path for path, _ in found]), Views(np.array([at for _, at in found]))
