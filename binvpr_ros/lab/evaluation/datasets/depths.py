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
class DepthFiles(Depths):
    """16-bit files, so many `units` to the metre, for the images that have one.

    `enlarged` says how much larger the focal length of the depth camera is than that of the colour camera, where both
    look from one place along one axis, and the files are not registered.
    """

    paths: Sequence[Path | None]
    units: float
    unknown: int = 0
    enlarged: float = 1.0

    def __getitem__(self, index: int, /) -> DepthImage | None:
        """Return a depth image, float32 [H,W] in metres; None where there is no file that can be read."""
        path = self.paths[index]
        values = None if path is None else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.uint16 or values.ndim != 2:
            return None
        metres = np.where(values == self.unknown, 0, values / self.units).astype(np.float32)
        if self.enlarged == 1:
            return metres
        height, width = metres.shape
        x, y = ((np.arange(side) - side / 2) * self.enlarged + side / 2 for side in (width, height))
        across, down = (axis.astype(np.float32) for axis in np.meshgrid(x, y))
        return np.asarray(cv2.remap(metres, across, down, cv2.INTER_NEAREST), np.float32)

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> DepthFiles:
        """Return those of some of the images, in that order."""
        return dataclasses.replace(self, paths=[self.paths[int(index)] for index in indices])
