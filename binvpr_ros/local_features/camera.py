# SPDX-License-Identifier: Apache-2.0
"""A calibrated camera: from pixels to rays."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float32]
"""float32, [N,2]: x and y."""
LENSES = {
    "plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8, 12, 14), "equidistant": (4,), "fisheye": (4,), "none": (0,),
}  # fmt: skip
"""Distortion model -> how many coefficients it may have; zeros may follow, as drivers with arrays of one size send."""


class CameraError(ValueError):
    """A calibration cannot be used; the message, whose subject is the calibration, says why."""


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

    @classmethod
    def calibrated(
        cls,
        size: tuple[int, int],
        k: ArrayLike,
        d: ArrayLike,
        model: str,
        region: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> Camera:
        """Return the camera that a calibration describes; raises CameraError if it is none, or its lens is not known.

        `size` is (width, height), `k` [3,3] or its 9 numbers; `d` holds the coefficients of the distortion `model`, a
        key of LENSES ("" for plumb_bob). `region` (x, y, width, height) is the part of the sensor that images show,
        zeros for the whole. All lengths are in pixels. Zeros at the end of `d` that are too many are left out.
        """
        width, height = region[2:] if all(region[2:]) else size
        matrix = np.array(k, np.float64).reshape(3, 3)
        coefficients = np.array(d, np.float64).reshape(-1)
        if not (width > 0 and height > 0 and np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise CameraError("it holds no calibration; calibrate the camera, or go on without")
        # A lens sees from some six degrees to nearly half a circle, and its axis goes through the sensor.
        focal, centre = matrix[[0, 1], [0, 1]], matrix[:2, 2]
        inside = (centre > 0).all() and (centre < (size[0] or width, size[1] or height)).all()
        if not (inside and 0.1 * width < focal.min() <= focal.max() < 10 * width):
            raise CameraError(
                f"it does not fit images of {width}x{height} pixels (focal length {focal[0]:.0f}, "
                f"centre {centre[0]:.0f}, {centre[1]:.0f}); calibrate the camera at this size, or go on without"
            )
        model = model or "plumb_bob"
        given = len(coefficients)
        counts = [count for count in LENSES.get(model, ()) if count <= given and not coefficients[count:].any()]
        if not counts or not np.isfinite(coefficients).all():
            raise CameraError(
                f"its {given} coefficients of the distortion model {model[:40]!r} are not known here; "
                f"use one of {', '.join(LENSES)}, or rectified images"
            )
        matrix[:2, 2] -= region[:2]
        return cls((width, height), matrix, coefficients[: max(counts)], fisheye=LENSES[model] == (4,))

    @staticmethod
    def of_rectified(p: ArrayLike, k: ArrayLike) -> tuple[list[float], list[float], str]:
        """Return `k`, `d` and `model` of images that are rectified by the projection matrix `p`, [3,4] or 12 numbers.

        These are the images of image_proc's image_rect, which no lens distorts. Where `p` is all zeros, as some drivers
        leave it, the camera's own matrix `k`, [3,3] or 9 numbers, takes its place.
        """
        matrix = np.reshape(p, (3, 4))[:, :3] if np.any(p) else np.reshape(k, (3, 3))
        return matrix.ravel().tolist(), [], "plumb_bob"

    def is_that(self, other: Camera) -> bool:
        """Tell whether the calibration is the `other` one, in all its numbers."""
        return (
            (self.size, self.fisheye) == (other.size, other.fisheye)
            and np.array_equal(self.matrix, other.matrix)
            and np.array_equal(self.coefficients, other.coefficients)
        )

    @property
    def focal_length(self) -> float:
        """Focal length, in pixels of `size`."""
        return float(self.matrix[0, 0] + self.matrix[1, 1]) / 2

    def undistorted(self, points: Points) -> Points:
        """Return where pixels [N,2] of an image of `size` would be without the lens's distortion, [N,2]."""
        if not self.coefficients.any() and not self.fisheye:
            return points
        pixels = self.rays(points) * self.matrix[[0, 1], [0, 1]] + self.matrix[:2, 2]
        return pixels.astype(np.float32)

    def rays(self, points: Points) -> Points:
        """Return where the rays of pixels [N,2] of an image of `size` meet the plane one ahead of the camera, [N,2]."""
        if not len(points):
            return points
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        rays = undistort(points.reshape(-1, 1, 2).astype(np.float64), self.matrix, self.coefficients)
        return rays.reshape(-1, 2).astype(np.float32)
