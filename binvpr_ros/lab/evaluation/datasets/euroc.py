# SPDX-License-Identifier: Apache-2.0
"""The layout of the EuRoC MAV and TUM-VI data sets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.cameras import camera_of
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.files import WITHOUT_POSE, StampedFile, files_there
from binvpr_ros.lab.evaluation.datasets.sequences import ORTHOGONALITY, PosedSequence, poses_of_images
from binvpr_ros.lab.evaluation.datasets.tables import parse_rows, read_rows
from binvpr_ros.local_features.camera import Camera

IMAGES = "cam0"
TRACKS = ("state_groundtruth_estimate0", "vicon0", "mocap0")
"""Folders with poses, the best first; `leica0` holds positions only."""
MODELS = {
    "radial-tangential": "plumb_bob",
    "radtan": "plumb_bob",
    "plumb_bob": "plumb_bob",
    "none": "plumb_bob",
    "equidistant": "equidistant",
}
"""The name of a distortion model in `sensor.yaml` -> its name in ROS."""


class EurocFolder(PosedSequence):
    """The left camera (cam0) of a drone or a hand-held rig, with the poses of its body or of a marker on it.

    Where `sensor.yaml` says how the sensors are mounted, the poses become those of the camera's optical frame;
    otherwise they stay those of the body. An image takes the pose nearest in time, within 0.02 s; images without one
    are left out.
    """

    layout = f"EuRoC MAV or TUM-VI (mav0/ with cam0/ and one of {', '.join(f'{track}/' for track in TRACKS)})"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether this is `mav0`, or the folder that holds it, with images and poses."""
        folder = _mav0(path)
        return (folder / IMAGES / "data.csv").is_file() and _track(folder) is not None

    @classmethod
    def read(cls, path: Path, options: Options) -> EurocFolder:
        """Read the folder; raises DatasetError."""
        folder = _mav0(path).absolute()
        name, table = folder.parent.name, folder / IMAGES / "data.csv"
        images, left_out = files_there(
            table,
            parse_rows(
                read_rows(table, ","),
                lambda row: StampedFile(folder / IMAGES / "data" / row.text(1), row.stamp(0, 1)),
            ),
        )
        track = _track(folder)
        if track is None:
            raise DatasetError(f"{folder} holds no poses; restore one of {', '.join(TRACKS)}")
        # The quaternion comes as w, x, y, z.
        entries = parse_rows(
            read_rows(track / "data.csv", ","), lambda row: (row.stamp(0, 1), row.numbers((1, 2, 3, 5, 6, 7, 4)))
        )
        poses = [pose for pose in entries if pose is not None]
        stamps = np.array([image.stamp for image in images], np.int64)
        found, positions, rotations = poses_of_images(
            name, stamps, np.array([stamp for stamp, _ in poses], np.int64), np.array([pose for _, pose in poses])
        )
        camera_file, track_file = folder / IMAGES / "sensor.yaml", track / "sensor.yaml"
        optical = camera_file.is_file()
        camera = None
        if optical:
            calibration = _fields(camera_file)
            camera = _camera(camera_file, calibration)
            to_sensor = _mounting(camera_file, calibration)
            if track_file.is_file():
                to_sensor = np.linalg.inv(_mounting(track_file, _fields(track_file))) @ to_sensor
            positions = positions + rotations @ to_sensor[:3, 3]
            rotations = rotations @ to_sensor[:3, :3]
        return cls.from_poses(
            name, ImageFiles([images[at].path for at in found]), stamps[found], positions, rotations, options,
            optical=optical, camera=camera, left_out=with_more(left_out, WITHOUT_POSE, len(images) - len(found)),
        )  # fmt: skip


def _mav0(path: Path) -> Path:
    return path / "mav0" if (path / "mav0").is_dir() else path


def _track(folder: Path) -> Path | None:
    return next((folder / track for track in TRACKS if (folder / track / "data.csv").is_file()), None)


def _fields(path: Path) -> dict[str, str]:
    """Return the text after each key of a `sensor.yaml`, all of whose keys differ; raises DatasetError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); restore the file") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is no text file; restore the file") from None
    parts = re.split(r"^\s*(\w+)\s*:", re.sub(r"#.*", "", text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _numbers(path: Path, fields: dict[str, str], key: str) -> list[float]:
    try:
        return [float(word) for word in re.findall(r"[^\s,\[\]]+", fields.get(key, ""))]
    except ValueError:
        raise DatasetError(f"{path}: {key} is no list of numbers; restore the file") from None


def _mounting(path: Path, fields: dict[str, str]) -> NDArray[np.float64]:
    """Return T_BS [4,4], from the frame of the sensor to that of the body; raises DatasetError."""
    numbers = np.array(_numbers(path, fields, "data") if "T_BS" in fields else [])
    matrix = numbers.reshape(4, 4) if numbers.size == 16 else np.zeros((4, 4))
    rotation = matrix[:3, :3]
    # What is not a number compares as False.
    if not (np.isfinite(matrix).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < ORTHOGONALITY):
        raise DatasetError(f"{path} holds no T_BS with a rotation and a translation; restore the file, or remove it")
    return matrix


def _camera(path: Path, fields: dict[str, str]) -> Camera | None:
    """Return the camera of a `sensor.yaml`; None where its model is another one. Raises DatasetError."""
    model = MODELS.get(fields.get("distortion_model", "none").strip())
    intrinsics, size = _numbers(path, fields, "intrinsics"), _numbers(path, fields, "resolution")
    if model is None or len(intrinsics) != 4 or len(size) != 2:
        return None
    coefficients = _numbers(path, fields, "distortion_coefficients")
    return camera_of((int(size[0]), int(size[1])), intrinsics, model, coefficients)
