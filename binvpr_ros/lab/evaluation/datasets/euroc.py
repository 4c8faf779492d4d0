# SPDX-License-Identifier: Apache-2.0
"""The layout of the EuRoC MAV and TUM-VI data sets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.cameras import camera_of, own_camera, usable
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.files import WITHOUT_POSE, StampedFile, files_there, image_file
from binvpr_ros.lab.evaluation.datasets.sequences import ORTHOGONALITY, PosedSequence, poses_of_images
from binvpr_ros.lab.evaluation.datasets.tables import parse_rows, read_rows
from binvpr_ros.local_features.camera import Camera, CameraError

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
WITHOUT_MOUNTING = "the poses stay those of the body, whose roll counts too"


class EurocFolder(PosedSequence):
    """The left camera (cam0) of a drone or a hand-held rig, with the poses of its body or of a marker on it.

    Where each `sensor.yaml` says how its sensor is mounted, the poses become those of the camera's optical frame;
    otherwise they stay those of the body. An image takes the pose nearest in time, within 0.02 s; images without one
    are left out.
    """

    layout = f"EuRoC MAV or TUM-VI (mav0/ with cam0/ and one of {', '.join(f'{track}/' for track in TRACKS)})"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether this is `mav0`, or the folder that holds it, with images and poses."""
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
                lambda row: StampedFile(image_file(folder / IMAGES / "data", row.text(1)), row.stamp(0, 1)),
            ),
        )
        track = _track(folder)
        if track is None:
            raise DatasetError(f"{folder} has no poses; restore one of {', '.join(TRACKS)}")
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
        camera = to_sensor = None
        if camera_file.is_file():
            camera = own_camera(options, camera_file, lambda: _camera(camera_file))
            to_sensor = usable(camera_file, lambda: _mounting(camera_file), WITHOUT_MOUNTING)
        if to_sensor is not None and track_file.is_file():
            to_track = usable(track_file, lambda: _mounting(track_file), WITHOUT_MOUNTING)
            to_sensor = None if to_track is None else np.linalg.inv(to_track) @ to_sensor
        if to_sensor is not None:
            positions = positions + rotations @ to_sensor[:3, 3]
            rotations = rotations @ to_sensor[:3, :3]
        return cls.from_poses(
            name, ImageFiles([images[at].path for at in found]), stamps[found], positions, rotations, options,
            optical=to_sensor is not None, camera=camera,
            left_out=with_more(left_out, WITHOUT_POSE, len(images) - len(found)),
        )  # fmt: skip


def _mav0(path: Path) -> Path:
    return path / "mav0" if (path / "mav0").is_dir() else path


def _track(folder: Path) -> Path | None:
    return next((folder / track for track in TRACKS if (folder / track / "data.csv").is_file()), None)


def _fields(path: Path) -> dict[str, str]:
    """Return the text after each key of a `sensor.yaml`, all of whose keys differ; raises DatasetError."""
    try:
        text = path.read_text("utf-8", errors="replace")  # a comment may be in another encoding
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); restore the file") from None
    parts = re.split(r"^\s*(\w+)\s*:", re.sub(r"#.*", "", text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _numbers(fields: dict[str, str], key: str, count: int | None = None) -> list[float]:
    """Return the numbers, `count` of them if it is given, after a key of a `sensor.yaml`; raises CameraError."""
    try:
        numbers = [float(word) for word in re.findall(r"[^\s,\[\]]+", fields.get(key, ""))]
    except ValueError:
        numbers = [np.nan]
    if not np.isfinite(numbers).all() or count not in (None, len(numbers)):
        wanted = "a list of numbers" if count is None else f"a list of {count} numbers"
        raise CameraError(f"its {key} must be {wanted}; restore the file")
    return numbers


def _mounting(path: Path) -> NDArray[np.float64]:
    """Return T_BS [4,4], from the frame of the sensor to that of the body; raises CameraError and DatasetError."""
    fields = _fields(path)
    if "T_BS" not in fields:
        raise CameraError("it has no T_BS; restore the file")
    matrix = np.reshape(_numbers(fields, "data", 16), (4, 4))
    rotation = matrix[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() >= ORTHOGONALITY:
        raise CameraError("its T_BS has no rotation; restore the file")
    return matrix


def _camera(path: Path) -> Camera:
    """Return the camera of a `sensor.yaml`; raises CameraError and DatasetError."""
    fields = _fields(path)
    model = fields.get("distortion_model", "none").strip()
    width, height = _numbers(fields, "resolution", 2)
    return camera_of(
        (int(width), int(height)), _numbers(fields, "intrinsics", 4), MODELS.get(model, model),
        _numbers(fields, "distortion_coefficients"),
    )  # fmt: skip
