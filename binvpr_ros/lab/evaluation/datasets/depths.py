# SPDX-License-Identifier: Apache-2.0
"""The depth images of drives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.local_features.depth import DepthImage


class Depths(Protocol):
    """The depth image of each image of a drive, read one at a time."""

    def __getitem__(self, index: int, /) -> DepthImage | None:
        """Return the depth image of an image; None where there is none that can be read."""

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Depths:
        """Return those of some of the images, in that order."""


@dataclass(frozen=True)
class DepthCamera:
    """A depth camera beside a colour camera that looks along the same axis; images of both have one size and centre."""

    focal_length: float  # pixels
    colour_focal_length: float
    baseline: float  # metres, by which the colour camera is to the right

    def registered(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a depth image [H,W], metres, as the colour camera would have taken it; 0 where nothing is seen."""
        height, width = depth.shape
        rows, columns = np.nonzero(depth > 0)
        metres = depth[rows, columns]
        enlarged = self.colour_focal_length / self.focal_length
        x = (columns - width / 2) * enlarged - self.colour_focal_length * self.baseline / metres + width / 2
        y = (rows - height / 2) * enlarged + height / 2
        x, y = np.rint(x).astype(np.intp), np.rint(y).astype(np.intp)
        seen = np.flatnonzero((x >= 0) & (x < width) & (y >= 0) & (y < height))
        seen = seen[np.argsort(-metres[seen], kind="stable")]  # the nearest comes last, and stays
        result = np.zeros_like(depth)
        result[y[seen], x[seen]] = metres[seen]
        return result


@dataclass(frozen=True)
class DepthFiles(Depths):
    """16-bit files, so many `units` to the metre, for the images that have one.

    `depth_camera` is the one that took them, where they are not registered.
    """

    paths: Sequence[Path | None]
    units: float
    unknown: int = 0
    depth_camera: DepthCamera | None = None

    def __getitem__(self, index: int, /) -> DepthImage | None:
        """Return a depth image, float32 [H,W] in metres; None where there is no file that can be read."""
        path = self.paths[index]
        values = None if path is None else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.uint16 or values.ndim != 2:
            return None
        metres = np.where(values == self.unknown, 0, values / self.units).astype(np.float32)
        return metres if self.depth_camera is None else self.depth_camera.registered(metres)

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> DepthFiles:
        """Return those of some of the images, in that order."""
        return dataclasses.replace(self, paths=[self.paths[int(index)] for index in indices])
