# SPDX-License-Identifier: Apache-2.0
"""Folders of images whose names carry map coordinates, as VPR-datasets-downloader writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binvpr_ros.images import image_paths
from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, DatasetError, ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.truth import Views, ViewTruth

QUERIES = ("queries", "query")
REFERENCES = ("database", "references")
USUAL_RADIUS = 25.0  # metres


class CoordinateNames(Dataset):
    """Two folders of images named `@easting@northing@...@.jpg`, UTM coordinates in metres.

    The same place is within 25 m, whichever way the camera looked.
    """

    layout = f"{' or '.join(QUERIES)}, {' or '.join(REFERENCES)}, images named @easting@northing@...@.jpg"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether one of the folders holds an image of such a name."""
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
        count = sum(len(image_paths(folder)) for folder in folders if folder is not None)
        radius = USUAL_RADIUS if options.radius is None else options.radius
        truth = ViewTruth(ours, theirs, radius, 180.0, max(options.apart_radii, 1.0) * radius)
        return cls(
            path.absolute().name, queries, references, truth, conditions=f"same place: within {radius:g} m",
            left_out=with_more({}, "without coordinates in the name", count - len(queries) - len(references)),
        )  # fmt: skip


def _folder(path: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder of one of these names that holds an image with coordinates in its name."""
    folders = (path / name for name in names)
    return next((folder for folder in folders if any(map(_position, image_paths(folder)))), None)


def _position(path: Path) -> tuple[float, float] | None:
    """Return easting and northing in metres; None where the name does not carry them."""
    parts = path.name.split("@")
    try:
        position = float(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        return None
    return position if parts[0] == "" and np.isfinite(position).all() else None


def _images(folder: Path) -> tuple[ImageFiles, Views]:
    """Return the images of a folder that have coordinates, and where they were taken."""
    found = [(path, position) for path in image_paths(folder) if (position := _position(path)) is not None]
    return ImageFiles([path for path, _ in found]), Views(np.array([position for _, position in found]))
