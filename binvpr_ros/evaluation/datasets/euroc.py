# SPDX-License-Identifier: Apache-2.0
"""The layout of the EuRoC MAV data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binvpr_ros.evaluation.datasets.dataset import ImageFiles, Options, PosedSequence, poses_of_images
from binvpr_ros.evaluation.datasets.tables import read_rows

IMAGES = Path("cam0/data.csv")
TRACK = Path("state_groundtruth_estimate0/data.csv")


class EurocFolder(PosedSequence):
    """The left camera (cam0) of a drone, with the estimated poses of the drone's body.

    The body's pose stands for the camera's: they differ by a constant of a few centimetres and a fixed turn. An image
    takes the pose nearest in time, within 0.02 s; images without one are left out.
    """

    layout = "EuRoC MAV (mav0/)"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether this is `mav0`, or the folder that holds it, with images and poses."""
        folder = _mav0(path)
        return (folder / IMAGES).is_file() and (folder / TRACK).is_file()

    @classmethod
    def read(cls, path: Path, options: Options) -> EurocFolder:
        """Read the folder; raises DatasetError."""
        folder = _mav0(path).absolute()
        name = folder.parent.name
        images, track = read_rows(folder / IMAGES, ","), read_rows(folder / TRACK, ",")
        files = [folder / "cam0/data" / row.text(1) for row in images]
        stamps = np.array([row.stamp(0, 1) for row in images], np.int64)
        found, positions, rotations = poses_of_images(
            name, stamps, np.array([row.stamp(0, 1) for row in track], np.int64),
            # The quaternion comes as w, x, y, z.
            np.array([row.numbers((1, 2, 3, 5, 6, 7, 4)) for row in track]),
        )  # fmt: skip
        return cls.from_poses(
            name, ImageFiles([files[at] for at in found]), stamps[found], positions, rotations, options,
            left_out=len(files) - len(found),
        )  # fmt: skip


def _mav0(path: Path) -> Path:
    return path / "mav0" if (path / "mav0").is_dir() else path
