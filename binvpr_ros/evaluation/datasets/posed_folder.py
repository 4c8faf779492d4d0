# SPDX-License-Identifier: Apache-2.0
"""A folder of images and a table of their poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binvpr_ros.evaluation.datasets.dataset import DatasetError, ImageFiles, Options, PosedSequence
from binvpr_ros.evaluation.datasets.tables import read_columns
from binvpr_ros.keyframes import NANOSECONDS

COLUMNS = ("frame", "stamp_s", *(f"T{row}{column}" for row in range(4) for column in range(4)))


class PosedFolder(PosedSequence):
    """Images in file-name order, and `poses.csv`: index of the image, stamp, and matrix from camera to world (metres).

    Images that the table does not name have no pose and are left out.
    """

    layout = "images/, poses.csv"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether there is a table of this name."""
        return (path / "poses.csv").is_file()

    @classmethod
    def read(cls, path: Path, options: Options) -> PosedFolder:
        """Read the folder, with the images in `images` or in the folder itself; raises DatasetError."""
        folder = path / "images"
        files = ImageFiles.of_folder(folder if folder.is_dir() else path).paths
        rows, (frame_column, stamp_column, *matrix_columns) = read_columns(path / "poses.csv", COLUMNS)
        if not rows:
            raise DatasetError(f"{path / 'poses.csv'} holds no poses; add a line for each image")
        frames = [row.index(frame_column, len(files)) for row in rows]
        matrices = np.array([row.numbers(matrix_columns) for row in rows]).reshape(-1, 4, 4)
        return cls.from_poses(
            path.absolute().name, ImageFiles([files[frame] for frame in frames]),
            np.array([row.stamp(stamp_column, NANOSECONDS) for row in rows], np.int64),
            matrices[:, :3, 3], matrices[:, :3, :3], options,
        )  # fmt: skip
