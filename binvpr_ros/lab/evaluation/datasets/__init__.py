# SPDX-License-Identifier: Apache-2.0
"""Data sets of images of places: one class for each layout, and how to find the layout of a folder."""

from __future__ import annotations

from pathlib import Path

from binvpr_ros.lab.evaluation.datasets.bag import PosedBag
from binvpr_ros.lab.evaluation.datasets.colmap import ColmapModel
from binvpr_ros.lab.evaluation.datasets.coordinate_names import CoordinateNames
from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, DatasetError, Layout, Options
from binvpr_ros.lab.evaluation.datasets.euroc import EurocFolder
from binvpr_ros.lab.evaluation.datasets.folders import FolderPair
from binvpr_ros.lab.evaluation.datasets.kitti import KittiOdometry
from binvpr_ros.lab.evaluation.datasets.listed_folder import ListedFolder
from binvpr_ros.lab.evaluation.datasets.posed_folder import PosedFolder
from binvpr_ros.lab.evaluation.datasets.sequences import ImageSequence, PosedSequence
from binvpr_ros.lab.evaluation.datasets.seven_scenes import SevenScenes
from binvpr_ros.lab.evaluation.datasets.transforms import Transforms
from binvpr_ros.lab.evaluation.datasets.traverses import Traverses
from binvpr_ros.lab.evaluation.datasets.tum import TumFolder
from binvpr_ros.lab.evaluation.datasets.vpr_bench import VprBench
from binvpr_ros.recordings.bags import describe_bags, is_bag

__all__ = [
    "LAYOUTS", "Dataset", "DatasetError", "ImageSequence", "Options", "PosedSequence", "find_datasets", "open_dataset",
]  # fmt: skip

LAYOUTS: tuple[type[Layout], ...] = (
    FolderPair,
    VprBench,
    PosedFolder,
    TumFolder,
    EurocFolder,
    KittiOdometry,
    SevenScenes,
    # Before COLMAP's models, from which such files are often made.
    Transforms,
    ColmapModel,
    CoordinateNames,
    PosedBag,
    ListedFolder,
    # Last, because many data sets with their own ground truth also have folders of equally many images.
    Traverses,
)
"""All layouts, in the order in which they are tried."""


def open_dataset(path: Path, options: Options) -> Dataset:
    """Read the data set at `path`, or the only one below it, with the first layout that fits; raises DatasetError."""
    if not path.exists():
        raise DatasetError(f"{path} does not exist; name a folder or a bag")
    try:
        layout = _layout(path)
        if layout is not None:
            return layout.read(path, options)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); change its permissions") from None
    inside = find_datasets(path)
    if len(inside) == 1:
        return open_dataset(inside[0], options)
    if inside and all(found.is_file() and found.parent == path for found in inside):
        raise DatasetError(describe_bags(path, inside))
    if inside:
        names = ", ".join(str(found.relative_to(path)) for found in inside)
        raise DatasetError(f"{path} is not a data set but contains several; name one: {names}")
    known = "; ".join(layout.layout for layout in LAYOUTS)
    raise DatasetError(f"{path} is not a data set of a known layout: {known}")


def find_datasets(root: Path) -> list[Path]:
    """Return `root` if it fits a layout, else the topmost folders and bags below it that do, sorted.

    Folders that cannot be read are skipped.
    """
    found, seen, waiting = [], set(), [root]
    while waiting:
        path = waiting.pop()
        if path.resolve() in seen:  # links may lead round in a circle
            continue
        seen.add(path.resolve())
        try:
            if _layout(path) is not None:
                found.append(path)
            elif path.is_dir():
                waiting += [below for below in path.iterdir() if below.is_dir() or is_bag(below)]
        except OSError:
            continue
    return sorted(found)


def _layout(path: Path) -> type[Layout] | None:
    return next((layout for layout in LAYOUTS if layout.fits(path)), None)
