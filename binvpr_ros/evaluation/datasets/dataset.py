# SPDX-License-Identifier: Apache-2.0
"""What every data set offers: images, and which of them show the same place."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.descriptor import Image, decode_image
from binvpr_ros.keyframes import NANOSECONDS

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
ORTHOGONALITY = 0.02
"""By how much the rows of a rotation matrix may fail to be unit vectors at right angles: files round, cameras drift."""
POSE_TOLERANCE = 0.02
"""Seconds by which the stamps of an image and of its pose may differ."""

Truth = NDArray[np.bool_]
"""bool, [Q,R]: which references show the place of which query."""


class DatasetError(ValueError):
    """The data set cannot be read; the message says what is wrong and what to do."""


class Images(Protocol):
    """Images in order, read one at a time."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> Image:
        """Return one image, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError."""

    def __iter__(self) -> Iterator[Image]:
        """Yield all images in order; raises DatasetError."""
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class ImageFiles(Images):
    """Image files, in the order given."""

    paths: list[Path]

    @classmethod
    def of_folder(cls, folder: Path, numeric: bool = False) -> ImageFiles:
        """Return the images of `folder`, in file-name order; raises DatasetError where there are none.

        With `numeric` 10.jpg comes after 2.jpg; without, it is said on standard error that it does not.
        """
        paths = image_paths(folder)
        if not paths:
            raise DatasetError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); name a folder that does")
        by_number = sorted(paths, key=_number_order)
        if numeric or by_number == paths:
            return cls(by_number)
        first = next(path for path, other in zip(paths, by_number, strict=True) if path != other)
        print(
            f"{folder}: {first.name} is taken as image {paths.index(first)}, its number would make it image "
            f"{by_number.index(first)}; if numbers are the order, fill them up with zeros",
            file=sys.stderr,
        )
        return cls(paths)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    def __getitem__(self, index: int, /) -> Image:
        """Return one image, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError where it cannot be decoded."""
        return read_image(self.paths[index])


def _number_order(path: Path) -> list[str | int]:
    """Return a key that sorts file names by the numbers in them."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"([0-9]+)", path.name))]


def image_paths(folder: Path) -> list[Path]:
    """Return the image files of `folder`, in file-name order; none where it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir()
        # A dot begins what is no image but some system's note about one.
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )  # fmt: skip


def read_image(path: Path) -> Image:
    """Return an image file, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); restore the file") from None
    image = decode_image(data)
    if image is None:
        raise DatasetError(f"{path} cannot be decoded as an image; restore the file, or remove it")
    return image


@dataclass(frozen=True)
class Options:
    """What the user says about a data set; each layout reads what concerns it."""

    queries: str = ""  # folder of the queries, where there are several
    references: str = ""  # folder of the references
    tolerance: int = 2  # frames, by which a match may be off in traverses that are aligned frame by frame
    radius: float | None = None  # metres, within which two images show the same place; None: as usual for the layout
    angle: float | None = None  # degrees, likewise
    exclude_seconds: float = Config().exclusion_time  # an image may not match what is younger than this
    image_topic: str = ""
    pose_topic: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Queries Q, references R, and which show the same place."""

    name: str
    queries: Images
    references: Images
    truth: Truth  # [Q,R]
    conditions: str = field(default="", kw_only=True)  # what was taken as the same place, and which images, for people

    @cached_property
    def candidates(self) -> Truth:
        """Which references [Q,R] a query may match: all."""
        return np.broadcast_to(np.True_, self.truth.shape)


class Layout(Protocol):
    """A kind of data set that is known by its files."""

    layout: str
    """One line for people: which files make this layout."""

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Tell whether the files at `path` have this layout, without reading them whole."""

    @classmethod
    def read(cls, path: Path, options: Options) -> Dataset:
        """Read the data set at `path`; raises DatasetError."""


PosedKind = TypeVar("PosedKind", bound="PosedSequence")


@dataclass(frozen=True, eq=False)
class PosedSequence(Dataset):
    """A drive: N images with stamps and poses, where each image may match its own past alone.

    `queries` and `references` are the same images. Two of them show the same place when their cameras stand within
    `radius` metres of each other and look the same way within `angle` degrees.
    """

    stamps: NDArray[np.int64]  # [N], nanoseconds, ascending
    positions: NDArray[np.float64]  # [N,3], metres
    same_place: Truth = field(repr=False)  # [N,N], whether or not the one may match the other
    exclude_seconds: float
    radius: float
    angle: float

    usual_radius: ClassVar[float] = 0.6  # metres
    usual_angle: ClassVar[float] = 40.0  # degrees

    @classmethod
    def from_poses(
        cls: type[PosedKind],
        name: str,
        images: Images,
        stamps: NDArray[np.int64],
        positions: NDArray[np.float64],
        rotations: NDArray[np.float64],
        options: Options,
        left_out: int = 0,
    ) -> PosedKind:
        """Make a sequence of N images from stamps [N] (nanoseconds), positions [N,3] (metres) and rotations [N,3,3].

        The rotations are those of the camera, or of anything fixed to it; `left_out` images had no pose. Raises
        DatasetError for fewer than two images, stamps that do not ascend, and poses that are none.
        """
        if not len(images) == len(stamps) == len(positions) == len(rotations):
            raise DatasetError(
                f"{name} has {len(images)} images, {len(stamps)} stamps and {len(positions)} poses; "
                "give each image one of each"
            )
        if len(stamps) < 2:
            raise DatasetError(f"{name} has {len(stamps)} images with a pose; a drive needs two at least")
        if (np.diff(stamps) <= 0).any():
            raise DatasetError(f"the stamps of {name} do not ascend from image to image; sort them")
        # What is not a number compares as False, so it is no pose either; a quaternion of zeros comes here as that.
        orthogonal = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) < ORTHOGONALITY
        wrong = np.flatnonzero(~(orthogonal & np.isfinite(positions).all(axis=1)))
        if wrong.size:
            raise DatasetError(
                f"image {wrong[0]} of {name} has a pose that is no position and rotation; correct it, or leave it out"
            )
        radius = cls.usual_radius if options.radius is None else options.radius
        angle = cls.usual_angle if options.angle is None else options.angle
        same_place = within(positions, rotations, radius, angle)
        past = in_the_past(stamps, options.exclude_seconds)
        conditions = (
            f"same place: within {radius:g} m and {angle:g} degrees; only what is {options.exclude_seconds:g} s older"
        )
        if left_out:
            conditions += f"; {left_out} images without a pose left out"
        return cls(
            name, images, images, same_place & past, stamps, positions, same_place, options.exclude_seconds, radius,
            angle, conditions=conditions,
        )  # fmt: skip

    @cached_property
    def candidates(self) -> Truth:
        """Which images [N,N] an image may match: those older by at least `exclude_seconds`."""
        return in_the_past(self.stamps, self.exclude_seconds)


def within(positions: NDArray[np.float64], rotations: NDArray[np.float64], radius: float, angle: float) -> Truth:
    """Return which poses [N,N] lie within `radius` metres and `angle` degrees of each other."""
    positions = positions - positions.mean(axis=0)  # map coordinates are so large that their squares lose centimetres
    squares = (positions**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * positions @ positions.T
    # The trace of A^T B is the sum of the products of their entries, and 1 + 2 cos of the angle between them.
    flat = rotations.reshape(len(rotations), 9)
    cosines = np.clip((flat @ flat.T - 1) / 2, -1, 1)
    return (distances <= radius**2 + 1e-9) & (cosines >= np.cos(np.deg2rad(min(angle, 180))) - 1e-9)


def in_the_past(stamps: NDArray[np.int64], seconds: float) -> Truth:
    """Return which images [N,N] lie before an image by at least `seconds`, and before it at all."""
    age = stamps[:, None] - stamps
    return (age >= round(seconds * NANOSECONDS)) & (age > 0)


def rotations_from_quaternions(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation matrices [N,3,3] of quaternions [N,4] in the order x, y, z, w; they need not be unit.

    A quaternion of zeros has no rotation: its matrix is not a number.
    """
    with np.errstate(invalid="ignore"):
        x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    return np.stack(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)


def nearest(
    stamps: NDArray[np.int64], others: NDArray[np.int64], tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for those `stamps` that have one of `others` within `tolerance` seconds, the indices into both.

    Both are in nanoseconds, and `others` ascend; of two that are equally near the earlier is taken.
    """
    if not len(others):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    after = np.minimum(np.searchsorted(others, stamps), len(others) - 1)
    before = np.maximum(after - 1, 0)
    closest = np.where(np.abs(others[before] - stamps) <= np.abs(others[after] - stamps), before, after)
    found = np.flatnonzero(np.abs(others[closest] - stamps) <= tolerance * NANOSECONDS)
    return found, closest[found]


def poses_of_images(
    name: str,
    stamps: NDArray[np.int64],
    pose_stamps: NDArray[np.int64],
    poses: NDArray[np.float64],
    tolerance: float = POSE_TOLERANCE,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return which of the images with `stamps` have a pose within `tolerance` seconds, and those poses.

    `poses` [P,7] are x, y, z (metres) and a quaternion x, y, z, w, at `pose_stamps` [P] in any order; stamps are in
    nanoseconds. Returns the N indices of the images, their positions [N,3] and rotations [N,3,3]; raises DatasetError
    where no image has a pose.
    """
    order = np.argsort(pose_stamps, kind="stable")
    found, closest = nearest(stamps, pose_stamps[order], tolerance)
    if not found.size:
        raise DatasetError(
            f"no image of {name} has a pose within {tolerance} s of its stamp; check that both have the same clock"
        )
    chosen = poses[order][closest]
    return found, chosen[:, :3], rotations_from_quaternions(chosen[:, 3:])
