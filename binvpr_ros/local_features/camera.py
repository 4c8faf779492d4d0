# SPDX-License-Identifier: Apache-2.0
"""A calibrated camera: from pixels to rays."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
"""float32, [N,2]: x and y."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera: `matrix` [3,3] for images of `size` (width, height), and how its lens distorts.

    Without coefficients the image is taken as rectified. A `fisheye` has four (Kannala and Brandt), another lens 4, 5,
    8, 12 or 14, in OpenCV's order.
    """

    size: tuple[int, int]
    matrix: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    fisheye: bool = False

    @property
    def focal_length(self) -> float:
        """Focal length, in pixels of `size`."""
        return float(self.matrix[0, 0] + self.matrix[1, 1]) / 2

    def rays(self, points: Points) -> Points:
        """Return where the rays of pixels [N,2] of an image of `size` meet the plane one ahead of the camera, [N,2]."""
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        rays = undistort(points.reshape(-1, 1, 2).astype(np.float64), self.matrix, self.coefficients)
        return rays.reshape(-1, 2).astype(np.float32)
