# SPDX-License-Identifier: Apache-2.0
"""The layout of the TUM RGB-D data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.dataset import ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.depths import DepthFiles
from binvpr_ros.lab.evaluation.datasets.files import WITHOUT_POSE, StampedFile, files_there, image_file
from binvpr_ros.lab.evaluation.datasets.sequences import POSE_TOLERANCE, PosedSequence, nearest, poses_of_images
from binvpr_ros.lab.evaluation.datasets.tables import parse_rows, read_rows

DEPTH_UNITS = 5000
"""That a metre is in a depth image."""


class TumFolder(PosedSequence):
    """`rgb.txt` lists stamps and image files, `groundtruth.txt` stamps and poses (tx ty tz qx qy qz qw).

    The poses are those of the colour camera's optical frame. An image takes the pose nearest in time, within 0.02 s;
    images without one are left out. Where there is `depth.txt`, an image has the depth image nearest in time, likewise.
    """

    layout = "TUM RGB-D (rgb.txt, groundtruth.txt)"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether both tables exist."""
        return (path / "rgb.txt").is_file() and (path / "groundtruth.txt").is_file()

    @classmethod
    def read(cls, path: Path, options: Options) -> TumFolder:
        """Read the folder; raises DatasetError."""
        name, table = path.absolute().name, path / "rgb.txt"
        images, left_out = files_there(
            table,
            parse_rows(
                read_rows(table), lambda row: StampedFile(image_file(path, row.text(1)), row.stamp(0, NANOSECONDS))
            ),
        )
        rows = read_rows(path / "groundtruth.txt")
        track = parse_rows(rows, lambda row: (row.stamp(0, NANOSECONDS), row.numbers(range(1, 8))))
        poses = [pose for pose in track if pose is not None]
        stamps = np.array([image.stamp for image in images], np.int64)
        found, positions, rotations = poses_of_images(
            name, stamps, np.array([stamp for stamp, _ in poses], np.int64), np.array([pose for _, pose in poses])
        )
        return cls.from_poses(
            name, ImageFiles([images[at].path for at in found]), stamps[found], positions, rotations, options,
            optical=True, depths=_depths(path, stamps[found]),
            left_out=with_more(left_out, WITHOUT_POSE, len(images) - len(found)),
        )  # fmt: skip


def _depths(path: Path, stamps: NDArray[np.int64]) -> DepthFiles | None:
    """Return the depth image of each image with these stamps [N]; None where there are none."""
    table = path / "depth.txt"
    if not table.is_file():
        return None
    files, _ = files_there(
        table,
        parse_rows(read_rows(table), lambda row: StampedFile(image_file(path, row.text(1)), row.stamp(0, NANOSECONDS))),
    )
    files = sorted(files, key=lambda file: file.stamp)
    found, closest = nearest(stamps, np.array([file.stamp for file in files], np.int64), POSE_TOLERANCE)
    paths: list[Path | None] = [None] * len(stamps)
    for image, depth in zip(found.tolist(), closest.tolist(), strict=True):
        paths[image] = files[depth].path
    return DepthFiles(paths, DEPTH_UNITS)
