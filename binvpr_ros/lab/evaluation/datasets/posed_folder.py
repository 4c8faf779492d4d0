# SPDX-License-Identifier: Apache-2.0
"""A folder of images and a table of their poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.files import UNREADABLE_LINE, WITHOUT_FILE, WITHOUT_POSE
from binvpr_ros.lab.evaluation.datasets.sequences import PosedSequence
from binvpr_ros.lab.evaluation.datasets.tables import Row, parse_rows, read_rows

COLUMNS = ("frame", "stamp_s", *(f"T{row}{column}" for row in range(4) for column in range(4)))
MOST_FRAMES = 2**31


class PosedFolder(PosedSequence):
    """Images, and `poses.csv`: index of the image, stamp, and matrix to the world from the optical frame (metres).

    Images are counted from 0, in the order of their numbers where these are the order, else of their names. Images that
    the table does not name have no pose and are left out.
    """

    layout = "images/, poses.csv"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there is a table of this name."""
        return (path / "poses.csv").is_file()

    @classmethod
    def read(cls, path: Path, options: Options) -> PosedFolder:
        """Read the folder, with the images in `images` or in the folder itself; raises DatasetError."""
        folder = path / "images"
        files = ImageFiles.of_folder(folder if folder.is_dir() else path)
        head, *rows = read_rows(path / "poses.csv", ",")
        frame_column, stamp_column, *matrix_columns = head.columns(COLUMNS)
        if not rows:
            raise DatasetError(f"{path / 'poses.csv'} has no poses; add a line for each image")

        def entry(row: Row) -> tuple[int, int, list[float]]:
            row.expect_length_of(head)
            return (
                row.index(frame_column, MOST_FRAMES),
                row.stamp(stamp_column, NANOSECONDS),
                row.numbers(matrix_columns),
            )

        named = parse_rows(rows, lambda row: row.index(frame_column, MOST_FRAMES))
        parsed = parse_rows(rows, entry)
        read = [found for found in parsed if found is not None]
        there = [found for found in read if found[0] < len(files)]
        if not there:
            raise DatasetError(
                f"{path / 'poses.csv'} names image {read[0][0]} and others, but the {len(files)} images are counted "
                "from 0; restore the images"
            )
        posed = {frame for frame, _, _ in there}
        unreadable = {
            frame for frame, found in zip(named, parsed, strict=True)
            if frame is not None and found is None and frame < len(files)
        } - posed  # fmt: skip
        left_out = with_more({}, UNREADABLE_LINE, len(unreadable))
        left_out = with_more(left_out, WITHOUT_FILE, len(read) - len(there))
        left_out = with_more(left_out, WITHOUT_POSE, len(files) - len(posed) - len(unreadable))
        matrices = np.array([matrix for _, _, matrix in there]).reshape(-1, 4, 4)
        return cls.from_poses(
            path.absolute().name, files.take([frame for frame, _, _ in there]),
            np.array([stamp for _, stamp, _ in there], np.int64),
            matrices[:, :3, 3], matrices[:, :3, :3], options, optical=True, left_out=left_out,
        )  # fmt: skip
