# SPDX-License-Identifier: Apache-2.0
"""Calibrated cameras of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError
from binvpr_ros.local_features.camera import Camera

FISHEYE = ("equidistant", "fisheye", "kannala_brandt")
COEFFICIENTS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8, 12, 14), **dict.fromkeys(FISHEYE, (4,))}
"""Distortion model -> how many coefficients it may have."""


def camera_of(size: tuple[int, int], intrinsics: Sequence[float], model: str, coefficients: Sequence[float]) -> Camera:
    """Return the camera of images of `size` (width, height), from fx, fy, cx, cy in pixels and its lens.

    `model` is one of COEFFICIENTS; raises DatasetError where the numbers are not those of a camera.
    """
    fx, fy, cx, cy = intrinsics
    if not (min(size) > 0 and np.isfinite([*intrinsics, *coefficients]).all() and min(fx, fy) > 0):
        raise DatasetError(f"a camera of {size[0]}x{size[1]} pixels cannot have fx {fx}, fy {fy}; correct its file")
    if len(coefficients) not in COEFFICIENTS.get(model, ()):
        raise DatasetError(
            f"a camera of the model {model!r} with {len(coefficients)} coefficients is not known; use one of "
            f"{', '.join(COEFFICIENTS)}, or rectified images"
        )
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
    return Camera(size, matrix, np.array(coefficients, np.float64), fisheye=model in FISHEYE)


def read_camera(path: Path) -> Camera:
    """Return the camera of a calibration file as ROS's camera_calibration writes it; raises DatasetError."""
    if not path.is_file():
        raise DatasetError(f"there is no calibration file {path}; name one that camera_calibration wrote")
    try:
        text = path.read_text(encoding="utf-8")
        # OpenCV reads YAML that names its version in the first line, which ROS leaves out.
        storage = cv2.FileStorage(
            "%YAML:1.0\n---\n" + text.split("---")[-1], cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY
        )
        size = int(storage.getNode("image_width").real()), int(storage.getNode("image_height").real())
        matrix = _numbers(storage.getNode("camera_matrix"))
        model = storage.getNode("distortion_model").string() or "plumb_bob"
        coefficients = _numbers(storage.getNode("distortion_coefficients"))
    except (cv2.error, UnicodeDecodeError, SystemError):
        raise DatasetError(f"{path} is no calibration file; name one that camera_calibration wrote") from None
    if len(matrix) != 9:
        raise DatasetError(f"{path} holds no camera_matrix of nine numbers; name one that camera_calibration wrote")
    return camera_of(size, [matrix[at] for at in (0, 4, 2, 5)], model, coefficients)


def _numbers(node: Any) -> list[float]:
    data = node.getNode("data")
    return [data.at(at).real() for at in range(data.size())] if not node.empty() and not data.empty() else []
