# SPDX-License-Identifier: Apache-2.0
"""The layout of the KITTI odometry benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import image_paths
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.cameras import WITHOUT_CAMERA, camera_of, own_camera, usable
from binvpr_ros.lab.evaluation.datasets.dataset import ImageFiles, Images, Options
from binvpr_ros.lab.evaluation.datasets.files import UNREADABLE_LINE, WITHOUT_POSE, WITHOUT_STAMP, size_of
from binvpr_ros.lab.evaluation.datasets.sequences import PosedSequence
from binvpr_ros.lab.evaluation.datasets.tables import parse_rows, read_rows
from binvpr_ros.local_features.camera import Camera, CameraError

CAMERAS = ("image_0", "image_2", "image_1", "image_3")  # the left ones first
CALIBRATION = "calib.txt"


class KittiOdometry(PosedSequence):
    """One drive `sequences/NN` of a car; `poses/NN.txt`, or its own `poses.txt`, holds a 3x4 matrix a line.

    The poses are those of the optical frame of camera 0. `calib.txt`, if it is there, says where the camera used is
    beside it. An image's number is the number of its line in `times.txt` and in the poses, from 0.
    """

    layout = "KITTI odometry (sequences/NN/ with image_0/, times.txt, and poses/NN.txt)"
    usual_radius = 5.0

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there are images, times and poses."""
        return (path / "times.txt").is_file() and _poses(path).is_file() and _images(path).is_dir()

    @classmethod
    def read(cls, path: Path, options: Options) -> KittiOdometry:
        """Read the drive; raises DatasetError."""
        folder = _images(path)
        files = ImageFiles.of_folder(folder).paths
        times = parse_rows(read_rows(path / "times.txt"), lambda row: row.stamp(0, NANOSECONDS))
        poses = parse_rows(read_rows(_poses(path)), lambda row: row.numbers(range(12)))
        left_out: Counter[str] = Counter()
        kept, stamps, matrices = [], [], []
        for file, frame in zip(files, _frames(files, len(times), len(poses)), strict=True):
            if frame >= len(times):
                left_out[WITHOUT_STAMP] += 1
            elif frame >= len(poses):
                left_out[WITHOUT_POSE] += 1
            elif (stamp := times[frame]) is None or (matrix := poses[frame]) is None:
                left_out[UNREADABLE_LINE] += 1
            else:
                kept.append(file)
                stamps.append(stamp)
                matrices.append(matrix)
        images, tracks = ImageFiles(kept), np.array(matrices, np.float64).reshape(-1, 3, 4)
        calibration = path / CALIBRATION
        cost = f"the poses stay those of camera 0; {WITHOUT_CAMERA}"
        projection = usable(calibration, lambda: _projection(calibration, folder.name), cost)
        positions, rotations, camera = tracks[:, :, 3], tracks[:, :, :3], None
        if projection is not None:
            # The cameras are rectified to one orientation: a point X of camera 0 is seen at K (X - c) from c.
            positions = positions - rotations @ np.linalg.solve(projection[:, :3], projection[:, 3])
            camera = own_camera(options, calibration, lambda: _camera(projection, images))
        return cls.from_poses(
            _name(path), images, np.array(stamps, np.int64), positions, rotations, options,
            optical=True, camera=camera, left_out=left_out,
        )  # fmt: skip


def _name(path: Path) -> str:
    """Return a name that says more than the drive's number."""
    drive = path.absolute()
    return f"{drive.parent.parent.name} {drive.name}" if drive.parent.name == "sequences" else drive.name


def _poses(path: Path) -> Path:
    own = path / "poses.txt"
    absolute = path.absolute()
    return own if own.is_file() else absolute.parent.parent / "poses" / f"{absolute.name}.txt"


def _images(path: Path) -> Path:
    """Return the folder of the first camera that has images."""
    return next((path / camera for camera in CAMERAS if image_paths(path / camera)), path / CAMERAS[0])


def _frames(files: Sequence[Path], times: int, poses: int) -> Sequence[int]:
    """Return the number of each image's line in the tables of `times` and `poses` lines."""
    # A part of a drive with tables of its own is counted from its own start.
    if len(files) == times == poses or not all(file.stem.isdecimal() for file in files):
        return range(len(files))
    return [int(file.stem) for file in files]


def _projection(path: Path, camera: str) -> NDArray[np.float64] | None:
    """Return the projection matrix [3,4] of `camera` ("image_2"); None if the calibration has none."""
    if not path.is_file():
        return None
    for row in read_rows(path):
        if row.text(0) == f"P{camera[-1]}:":
            matrix = np.array(row.numbers(range(1, 13))).reshape(3, 4)
            if abs(np.linalg.det(matrix[:, :3])) < 1e-6:
                raise row.wrong("its numbers are not a projection matrix")
            return matrix
    return None


def _camera(projection: NDArray[np.float64], images: Images) -> Camera | None:
    """Return the rectified camera; None if no image can be read. Raises CameraError."""
    size = size_of(images)
    if size is None:
        return None
    fx, cx, fy, cy = (float(projection[at]) for at in ((0, 0), (0, 2), (1, 1), (1, 2)))
    if not 0.25 < cx / size[0] < 0.75:
        raise CameraError(
            f"its centre {cx:.0f}, {cy:.0f} is not that of images of {size[0]}x{size[1]} pixels; restore the images as "
            "they were calibrated"
        )
    return camera_of(size, (fx, fy, cx, cy), "plumb_bob", ())
