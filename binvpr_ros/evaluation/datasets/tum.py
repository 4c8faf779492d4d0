# SPDX-License-Identifier: Apache-2.0
"""The layout of the TUM RGB-D data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binvpr_ros.evaluation.datasets.dataset import ImageFiles, Options, PosedSequence, poses_of_images
from binvpr_ros.evaluation.datasets.tables import read_rows
from binvpr_ros.keyframes import NANOSECONDS


class TumFolder(PosedSequence):
    """`rgb.txt` lists stamps and image files, `groundtruth.txt` stamps and poses (tx ty tz qx qy qz qw).

    An image takes the pose nearest in time, within 0.02 s; images without one are left out.
    """

    layout = "TUM RGB-D (rgb.txt, groundtruth.txt)"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether both tables are there."""
        return (path / "rgb.txt").is_file() and (path / "groundtruth.txt").is_file()

    @classmethod
    def read(cls, path: Path, options: Options) -> TumFolder:
        """Read the folder; raises DatasetError."""
        name = path.absolute().name
        images, track = read_rows(path / "rgb.txt"), read_rows(path / "groundtruth.txt")
        files = [path / row.text(1) for row in images]
        stamps = np.array([row.stamp(0, NANOSECONDS) for row in images], np.int64)
        found, positions, rotations = poses_of_images(
            name, stamps, np.array([row.stamp(0, NANOSECONDS) for row in track], np.int64),
            np.array([row.numbers(range(1, 8)) for row in track]),
        )  # fmt: skip
        return cls.from_poses(
            name, ImageFiles([files[at] for at in found]), stamps[found], positions, rotations, options,
            left_out=len(files) - len(found),
        )  # fmt: skip
