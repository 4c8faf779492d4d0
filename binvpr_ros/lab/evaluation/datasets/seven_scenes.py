# SPDX-License-Identifier: Apache-2.0
"""The layout of the 7-Scenes data set."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from binvpr_ros.images import image_paths
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.cameras import camera_of
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.depths import DepthCamera, DepthFiles
from binvpr_ros.lab.evaluation.datasets.files import WITHOUT_POSE
from binvpr_ros.lab.evaluation.datasets.sequences import PosedSequence
from binvpr_ros.lab.evaluation.datasets.tables import read_rows

COLOUR_IMAGE = re.compile(r"frame-([0-9]{1,9})\.color\.\w+")
RATE = 30  # images a second
SIZE, INTRINSICS = (640, 480), (525.0, 525.0, 320.0, 240.0)
DEPTH_CAMERA = DepthCamera(585.0, INTRINSICS[0], 0.025)
"""That of a Kinect: the focal length is the one that the data set states, the baseline that of OpenNI's driver."""
MILLIMETRES, NO_DEPTH = 1000, 65535


class SevenScenes(PosedSequence):
    """A sequence `SCENE/seq-NN` of a hand-held camera at 30 Hz: for each frame an image, and a file with its pose.

    A pose is a matrix [4,4] to the world from the optical frame. All sequences of a scene share one world.
    """

    layout = "7-Scenes (frame-000000.color.png, frame-000000.pose.txt)"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there are poses of frames."""
        return next(path.glob("frame-*.pose.txt"), None) is not None

    @classmethod
    def read(cls, path: Path, options: Options) -> SevenScenes:
        """Read the sequence; raises DatasetError."""
        frames = [(int(found[1]), file) for file in image_paths(path) if (found := COLOUR_IMAGE.fullmatch(file.name))]
        if not frames:
            raise DatasetError(f"{path} has poses, but no images named frame-000000.color.png; restore the images")
        files, stamps, matrices = [], [], []
        for number, file in sorted(frames):
            try:
                rows = read_rows(path / f"{file.name.split('.')[0]}.pose.txt")
                matrix = [row.numbers(range(4)) for row in rows]
            except DatasetError:
                continue
            if len(matrix) == 4:
                files.append(file)
                stamps.append(round(number * NANOSECONDS / RATE))
                matrices.append(matrix)
        poses = np.array(matrices, np.float64).reshape(-1, 4, 4)
        scene = path.absolute().parent.name
        drive = cls.from_poses(
            f"{scene}_{path.absolute().name}", ImageFiles(files), np.array(stamps, np.int64),
            poses[:, :3, 3], poses[:, :3, :3], options, optical=True,
            camera=camera_of(SIZE, INTRINSICS, "plumb_bob", ()),
            left_out=with_more({}, WITHOUT_POSE, len(frames) - len(files)), depths=_depths(files),
        )  # fmt: skip
        return dataclasses.replace(drive, place=scene)


def _depths(files: list[Path]) -> DepthFiles | None:
    """Return the depth images beside the colour images, frame-000000.depth.png; None where there are none.

    They are not registered; that is made up for with the usual geometry of a Kinect.
    """
    beside = [file.with_name(f"{file.name.split('.')[0]}.depth.png") for file in files]
    there = [path if path.is_file() else None for path in beside]
    return DepthFiles(there, MILLIMETRES, NO_DEPTH, DEPTH_CAMERA) if any(there) else None
