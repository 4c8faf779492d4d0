# SPDX-License-Identifier: Apache-2.0
"""The layout of the KITTI odometry benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binvpr_ros.evaluation.datasets.dataset import ImageFiles, Options, PosedSequence, image_paths
from binvpr_ros.evaluation.datasets.tables import read_rows
from binvpr_ros.keyframes import NANOSECONDS

CAMERAS = ("image_0", "image_2", "image_1", "image_3")  # the left ones first: the poses are theirs


class KittiOdometry(PosedSequence):
    """One drive `sequences/NN` of a car; `poses/NN.txt`, or its own `poses.txt`, holds a 3x4 matrix a line."""

    layout = "KITTI odometry (sequences/NN/ with image_0/, times.txt, and poses/NN.txt)"
    usual_radius = 5.0

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether there are images, times and poses."""
        return (path / "times.txt").is_file() and _poses(path).is_file() and _images(path).is_dir()

    @classmethod
    def read(cls, path: Path, options: Options) -> KittiOdometry:
        """Read the drive; raises DatasetError."""
        times, poses = read_rows(path / "times.txt"), read_rows(_poses(path))
        matrices = np.array([row.numbers(range(12)) for row in poses]).reshape(-1, 3, 4)
        return cls.from_poses(
            path.absolute().name, ImageFiles.of_folder(_images(path)),
            np.array([row.stamp(0, NANOSECONDS) for row in times], np.int64),
            matrices[:, :, 3], matrices[:, :, :3], options,
        )  # fmt: skip


def _poses(path: Path) -> Path:
    own = path / "poses.txt"
    absolute = path.absolute()
    return own if own.is_file() else absolute.parent.parent / "poses" / f"{absolute.name}.txt"


def _images(path: Path) -> Path:
    """Return the folder of the first camera that has images."""
    return next((path / camera for camera in CAMERAS if image_paths(path / camera)), path / CAMERAS[0])
