# SPDX-License-Identifier: Apache-2.0
"""Text models of COLMAP."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from binvpr_ros.images import image_paths
from binvpr_ros.lab.evaluation.datasets.cameras import camera_of, own_camera
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, ImageFiles, Options
from binvpr_ros.lab.evaluation.datasets.files import by_file, files_there, image_file, stamps_at
from binvpr_ros.lab.evaluation.datasets.sequences import PosedSequence, rotations_from_quaternions
from binvpr_ros.lab.evaluation.datasets.tables import Row, parse_rows, read_rows
from binvpr_ros.local_features.camera import Camera, CameraError

MODEL_FOLDERS = (".", "sparse", "sparse/0")
LENSES = {
    "SIMPLE_PINHOLE": (1, 0, "plumb_bob", 0),
    "PINHOLE": (2, 0, "plumb_bob", 0),
    "SIMPLE_RADIAL": (1, 1, "plumb_bob", 4),
    "RADIAL": (1, 2, "plumb_bob", 4),
    "OPENCV": (2, 4, "plumb_bob", 4),
    "FULL_OPENCV": (2, 8, "rational_polynomial", 8),
    "SIMPLE_RADIAL_FISHEYE": (1, 1, "equidistant", 4),
    "RADIAL_FISHEYE": (1, 2, "equidistant", 4),
    "OPENCV_FISHEYE": (2, 4, "equidistant", 4),
}
"""Camera model -> how many focal lengths and coefficients it has, and the model and number of coefficients in ROS."""


class PosedImage(NamedTuple):
    """A line of `images.txt`."""

    path: Path
    quaternion: list[float]  # x, y, z, w, to the camera from the world
    translation: list[float]
    camera: str


class ColmapModel(PosedSequence):
    """`images.txt` and `cameras.txt`, in the folder itself or in `sparse/` or `sparse/0/`, and `images/`.

    The images have no stamps: they are taken in the order of their files, `options.rate` a second. Lengths are in the
    unit of the model, which is a metre only if somebody has scaled it.
    """

    layout = "COLMAP as text (images.txt, cameras.txt, in the folder or in sparse/ or sparse/0/, and images/)"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there is a model, text or binary."""
        return _model(path, ".txt") is not None or _model(path, ".bin") is not None

    @classmethod
    def read(cls, path: Path, options: Options) -> ColmapModel:
        """Read the model; raises DatasetError."""
        model = _model(path, ".txt")
        if model is None:
            folder = _model(path, ".bin")
            raise DatasetError(
                f"{folder} contains a binary model; convert it with: colmap model_converter --input_path {folder} "
                f"--output_path {folder} --output_type TXT"
            )
        root = path.absolute()
        images, table = _images(root), model / "images.txt"

        def entry(row: Row) -> PosedImage:
            numbers = row.numbers(range(1, 8))
            return PosedImage(image_file(images, row.text(9)), [*numbers[1:4], numbers[0]], numbers[4:], row.text(8))

        there, left_out = files_there(table, parse_rows(read_rows(table, wanted=_names_image, maxsplit=9), entry))
        entries = by_file(there)
        to_world = rotations_from_quaternions(np.array([entry.quaternion for entry in entries])).transpose(0, 2, 1)
        translations = np.array([entry.translation for entry in entries])
        cameras, used = model / "cameras.txt", {entry.camera for entry in entries}
        drive = cls.from_poses(
            root.name, ImageFiles([entry.path for entry in entries]), stamps_at(options.rate, len(entries)),
            -(to_world @ translations[:, :, None])[:, :, 0], to_world, options, optical=True,
            camera=own_camera(options, cameras, lambda: _camera(cameras, used)), left_out=left_out,
        )  # fmt: skip
        conditions = f"{drive.conditions}; lengths in the model's unit; {options.rate:g} images a second, by file name"
        return dataclasses.replace(drive, conditions=conditions)


def _model(path: Path, suffix: str) -> Path | None:
    """Return the folder whose model consists of files with this suffix."""
    folders = (path / folder for folder in MODEL_FOLDERS)
    names = [f"{name}{suffix}" for name in ("images", "cameras")]
    return next((folder for folder in folders if all((folder / name).is_file() for name in names)), None)


def _images(root: Path) -> Path:
    """Return the folder of the images: `root` may be that of the model, `sparse/0`, beside which they lie."""
    around = [] if image_paths(root) else [root.parent, root.parent.parent]
    folders = (folder / "images" for folder in (root, *around))
    return next((folder for folder in folders if folder.is_dir()), root)


def _names_image(line: str) -> bool:
    """Tell an image's line from that of its points, which holds numbers only, thousands of them."""
    try:
        float(line.rsplit(maxsplit=1)[-1])
    except ValueError:
        return True
    return False


def _camera(table: Path, used: set[str]) -> Camera:
    """Return the one camera of all images; raises CameraError and DatasetError."""
    if len(used) > 1:
        raise CameraError(f"the images are of {len(used)} cameras; use those of one camera")
    row = next((row for row in read_rows(table) if row.text(0) in used), None)
    if row is None:
        raise CameraError("the camera of the images is missing; restore the file")
    lens = LENSES.get(row.text(1))
    if lens is None:
        raise row.wrong(f"the camera model {row.text(1)[:40]!r} is not known here (known: {', '.join(LENSES)})")
    focals, distortions, model, coefficients = lens
    width, height, *numbers = row.numbers(range(2, 4 + focals + 2 + distortions))
    intrinsics = (numbers[0], numbers[focals - 1], *numbers[focals : focals + 2])
    lengthened = [*numbers[focals + 2 :], *[0.0] * (coefficients - distortions)]
    return camera_of((int(width), int(height)), intrinsics, model, lengthened)
