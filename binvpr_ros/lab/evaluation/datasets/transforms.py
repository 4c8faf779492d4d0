# SPDX-License-Identifier: Apache-2.0
"""Posed images in the layout of nerfstudio and instant-ngp."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import IMAGE_SUFFIXES
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.cameras import camera_of, own_camera
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, ImageFiles, Options, with_more
from binvpr_ros.lab.evaluation.datasets.files import by_file, files_there, image_file, size_of, stamps_at
from binvpr_ros.lab.evaluation.datasets.sequences import PosedSequence
from binvpr_ros.local_features.camera import Camera, CameraError

TABLE = "transforms.json"
LENSES = {
    "PINHOLE": ("plumb_bob", ()),
    "SIMPLE_PINHOLE": ("plumb_bob", ()),
    "OPENCV": ("plumb_bob", ("k1", "k2", "p1", "p2", "k3")),
    "OPENCV_FISHEYE": ("equidistant", ("k1", "k2", "k3", "k4")),
}
"""Camera model -> its name in ROS, and its coefficients in the order of ROS."""


class Frame(NamedTuple):
    """A posed image."""

    path: Path
    matrix: NDArray[np.float64]  # [3,4], to the world from the camera
    seconds: float | None
    camera: Mapping[str, Any]  # its intrinsics, among other things


class Transforms(PosedSequence):
    """`transforms.json`: for each image its file, and a matrix to the world from a camera that looks along -z.

    Images are taken in the order of their `timestamp` or `time` (seconds) if each has one, else in the order of
    their files, `options.rate` a second. Lengths are in the unit of the file.
    """

    layout = f"nerfstudio ({TABLE})"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there is a file of this name."""
        return (path / TABLE).is_file()

    @classmethod
    def read(cls, path: Path, options: Options) -> Transforms:
        """Read the folder; raises DatasetError."""
        content, listed = _content(path / TABLE)
        read = [frame for frame in (_frame(path, content, frame) for frame in listed) if frame is not None]
        there, left_out = files_there(path / TABLE, read)
        left_out = with_more(left_out, "with an entry that cannot be read", len(listed) - len(read))
        frames = by_file(there)
        seconds = [frame.seconds for frame in frames]
        if None in seconds:
            stamps, order = stamps_at(options.rate, len(frames)), f"{options.rate:g} images a second, by file name"
        else:
            times = np.array(seconds, np.float64)
            frames = [frames[at] for at in np.argsort(times, kind="stable")]
            stamps, order = (np.sort(times) * NANOSECONDS).round().astype(np.int64), "in the order of their stamps"
        images = ImageFiles([frame.path for frame in frames])
        poses = np.stack([frame.matrix for frame in frames])
        # OpenGL's cameras look along -z.
        options = dataclasses.replace(options, camera_axis=options.camera_axis or "-z")
        drive = cls.from_poses(
            path.absolute().name, images, stamps, poses[:, :, 3], poses[:, :, :3], options,
            optical=False, camera=own_camera(options, path / TABLE, lambda: _camera(frames, images)), left_out=left_out,
        )  # fmt: skip
        return dataclasses.replace(drive, conditions=f"{drive.conditions}; lengths in the file's unit; {order}")


def _content(path: Path) -> tuple[Mapping[str, Any], Sequence[Any]]:
    """Return what a transforms.json holds, and its frames; raises DatasetError."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); restore the file") from None
    except (ValueError, RecursionError):
        raise DatasetError(f"{path} is not a JSON file; restore the file") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise DatasetError(f"{path} has no frames; write it again, for example with ns-process-data")
    return content, frames


def _frame(folder: Path, content: Mapping[str, Any], frame: Any) -> Frame | None:
    """Parse one frame; None if it is malformed."""
    try:
        matrix = np.array(frame["transform_matrix"], np.float64)[:3]
        time = frame.get("timestamp", frame.get("time"))
        seconds = None if time is None else float(time)
        path = _with_suffix(image_file(folder, frame["file_path"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        return None
    # Beyond this a stamp in nanoseconds has more than 64 bits.
    if matrix.shape != (3, 4) or (seconds is not None and not abs(seconds) < 2**63 / NANOSECONDS):
        return None
    return Frame(path, matrix, seconds, {**content, **frame})


def _with_suffix(path: Path) -> Path:
    """Return the image that a path without its suffix names."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path
    suffixes = (case(suffix) for suffix in IMAGE_SUFFIXES for case in (str.lower, str.upper, str.title))
    named = (path.with_name(path.name + suffix) for suffix in suffixes)
    return next((file for file in named if file.is_file()), path)


def _camera(frames: Sequence[Frame], images: ImageFiles) -> Camera | None:
    """Return the one camera of all frames; None if no focal length is given. Raises CameraError."""
    keys = ("w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_model", "is_fisheye",
            *(f"{letter}{number}" for letter in "kp" for number in range(1, 5)))  # fmt: skip
    given = {key: frames[0].camera[key] for key in keys if key in frames[0].camera}
    if any({key: frame.camera[key] for key in keys if key in frame.camera} != given for frame in frames):
        raise CameraError("its frames have different intrinsics; use images of one camera")
    size = (given["w"], given["h"]) if "w" in given and "h" in given else size_of(images)
    if size is None or not ("fl_x" in given or "camera_angle_x" in given):
        return None
    fisheye = given.get("is_fisheye") or given.get("camera_model") == "OPENCV_FISHEYE"
    name = "OPENCV_FISHEYE" if fisheye else str(given.get("camera_model", "OPENCV"))
    if name not in LENSES:
        raise CameraError(f"its camera model {name[:40]!r} is not known here; use one of {', '.join(LENSES)}")
    model, names = LENSES[name]
    try:
        width, height = float(size[0]), float(size[1])
        fx = float(given["fl_x"] if "fl_x" in given else width / 2 / math.tan(float(given["camera_angle_x"]) / 2))
        fy, cx, cy = float(given.get("fl_y", fx)), float(given.get("cx", width / 2)), float(given.get("cy", height / 2))
        coefficients = [float(given.get(name, 0)) for name in names]
        pixels = int(width), int(height)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise CameraError("it has invalid intrinsics; correct them") from None
    return camera_of(pixels, (fx, fy, cx, cy), model, coefficients)
