# SPDX-License-Identifier: Apache-2.0
"""Calibrated cameras of data sets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
from tqdm import tqdm

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.local_features.camera import Camera, CameraError

WITHOUT_CAMERA = "without a camera, closures of near images stay near"

Kind = TypeVar("Kind")


def camera_of(size: tuple[int, int], intrinsics: Sequence[float], model: str, coefficients: Sequence[float]) -> Camera:
    """Return the camera of images of `size` (width, height), from fx, fy, cx, cy in pixels and its lens.

    `model` is one of features.LENSES; raises CameraError if the numbers are not those of a camera.
    """
    fx, fy, cx, cy = intrinsics
    return Camera.calibrated(size, [fx, 0, cx, 0, fy, cy, 0, 0, 1], coefficients, model)


def usable(source: Path | str, read: Callable[[], Kind], cost: str) -> Kind | None:
    """Return what `read` finds in the calibration `source`; None if that cannot be used.

    A sentence on standard error then says why, and what it costs.
    """
    try:
        return read()
    except CameraError as error:
        reason = f"{source}: {error}"
    except DatasetError as error:  # which names its file
        reason = str(error)
    tqdm.write(f"calibration ignored ({cost}): {reason}", file=sys.stderr)
    return None


def own_camera(options: Options, source: Path | str, read: Callable[[], Camera | None]) -> Camera | None:
    """Return the camera that `read` finds in the calibration `source` of a drive; None if that cannot be used.

    Where `options` name a camera, the drive's own is not read.
    """
    return usable(source, read, WITHOUT_CAMERA) if options.camera is None else None


def read_camera(path: Path) -> Camera:
    """Return the camera of a calibration file as ROS's camera_calibration writes it; raises DatasetError."""
    if not path.is_file():
        raise DatasetError(f"there is no calibration file {path}; name one that camera_calibration wrote")
    try:
        text = path.read_text("utf-8", errors="replace")  # a comment may be in another encoding
        # OpenCV reads YAML that names its version in the first line, which ROS leaves out.
        storage = cv2.FileStorage(
            "%YAML:1.0\n---\n" + text.split("---")[-1], cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY
        )
        size = int(storage.getNode("image_width").real()), int(storage.getNode("image_height").real())
        matrix = _numbers(storage.getNode("camera_matrix"))
        model = storage.getNode("distortion_model").string()
        coefficients = _numbers(storage.getNode("distortion_coefficients"))
    except (cv2.error, SystemError):
        raise DatasetError(f"{path} is not a calibration file; name one that camera_calibration wrote") from None
    if len(matrix) != 9:
        raise DatasetError(f"{path} has no camera_matrix of nine numbers; name a file that camera_calibration wrote")
    try:
        return Camera.calibrated(size, matrix, coefficients, model)
    except CameraError as error:
        raise DatasetError(f"{path}: {error}") from None


def _numbers(node: Any) -> list[float]:
    data = node.getNode("data")
    return [data.at(at).real() for at in range(data.size())] if not node.empty() and not data.empty() else []
