# SPDX-License-Identifier: Apache-2.0
"""What every data set offers: images, and which of them show the same place."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.config import Config
from binvpr_ros.images import IMAGE_SUFFIXES, Image, ImageError, Stretch, decode_file, image_paths, in_order
from binvpr_ros.lab.evaluation.datasets.truth import Truth
from binvpr_ros.recordings.errors import RecordingError

CAMERA_AXES = ("z", "-z", "x")
"""Axes along which a camera looks: as in OpenCV and ROS optical frames, in OpenGL, in the frame of a ROS body."""


class DatasetError(RecordingError):
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

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Images:
        """Return some of the images, in that order."""
        return ChosenImages(self, [int(index) for index in indices])

    def stretched(self) -> Images:
        """Return these images, those of 16 bits stretched as by the node's parameter `stretch_16_bit`.

        Each by itself, since they are read in any order.
        """
        return self

    def unreadable(self) -> dict[int, str]:
        """Return for each image that cannot be read its index and why."""
        found = {}
        for index in tqdm(range(len(self)), desc="check images", unit="image", leave=False, file=sys.stderr):
            try:
                self[index]
            except RecordingError as error:
                found[index] = str(error)
        return found


@dataclass(frozen=True)
class ChosenImages(Images):
    """Some images of others, in an order of their own."""

    images: Images
    indices: list[int]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Image:
        """Return one image, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError."""
        return self.images[self.indices[index]]

    def stretched(self) -> ChosenImages:
        """Return these images, those of 16 bits stretched."""
        return dataclasses.replace(self, images=self.images.stretched())


@dataclass(frozen=True)
class ImageFiles(Images):
    """Image files, in the order given; with `stretch` those of 16 bits are stretched."""

    paths: list[Path]
    stretch: bool = False

    @classmethod
    def of_folder(cls, folder: Path, by_name: bool = False) -> ImageFiles:
        """Return the images of `folder` in order: of their numbers where these are the order, else of their names.

        With `by_name` always in file-name order. Raises DatasetError where there are none.
        """
        paths = image_paths(folder)
        if not paths:
            raise DatasetError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); name a folder that does")
        return cls(paths if by_name else in_order(paths))

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    def __getitem__(self, index: int, /) -> Image:
        """Return one image, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError where it cannot be decoded."""
        return read_image(self.paths[index], self.stretch)

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> ImageFiles:
        """Return some of the files, in that order."""
        return dataclasses.replace(self, paths=[self.paths[index] for index in indices])

    def stretched(self) -> ImageFiles:
        """Return these images, those of 16 bits stretched."""
        return dataclasses.replace(self, stretch=True)


def own_stretch(wanted: bool) -> Stretch | None:
    """Return what stretches one image by itself, where that is wanted."""
    return Stretch() if wanted else None


def read_image(path: Path, stretch: bool = False) -> Image:
    """Return an image file, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError."""
    try:
        return decode_file(path.read_bytes(), own_stretch(stretch))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); restore the file") from None
    except ImageError as error:
        raise DatasetError(f"{path} cannot be used: {error}; restore the file, or remove it") from None


@dataclass(frozen=True)
class Options:
    """What the user says about a data set; each layout reads what concerns it."""

    queries: str = ""  # folder of the queries, where there are several
    references: str = ""  # folder of the references
    tolerance: int = 2  # frames by which a match may be off in traverses that are aligned frame by frame
    radius: float | None = None  # metres within which two images show the same place; None: as usual for the layout
    angle: float | None = None  # degrees, likewise
    apart_radii: float = 2.5  # radii beyond which two images show different places
    apart_angle: float = 60.0  # degrees between the optical axes, likewise
    exclude_seconds: float = Config().exclusion_time  # an image may not match what is younger than this
    rate: float = 1.0  # images a second, in a drive without stamps
    camera_axis: str = ""  # one of CAMERA_AXES: along which the camera looks in the frame of the poses; "": by layout
    camera: Path | None = None  # calibration of the drive's camera; None: as the data set says
    image_topic: str = ""
    pose_topic: str = ""


DatasetKind = TypeVar("DatasetKind", bound="Dataset")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Queries Q, references R, and which show the same place."""

    name: str
    queries: Images
    references: Images
    truth: Truth  # [Q,R]
    conditions: str = field(default="", kw_only=True)  # what was taken as the same place, for people
    left_out: Mapping[str, int] = field(default_factory=dict, kw_only=True)  # images by the reason

    @cached_property
    def candidates(self) -> NDArray[np.int64]:
        """How many references [Q], from the first on, each query may match: all."""
        return np.full(len(self.queries), len(self.references), np.int64)

    def stretched(self: DatasetKind) -> DatasetKind:
        """Return this data set with the images of 16 bits stretched."""
        queries = self.queries.stretched()
        references = queries if self.references is self.queries else self.references.stretched()
        return dataclasses.replace(self, queries=queries, references=references)

    def readable(self: DatasetKind) -> DatasetKind:
        """Return this data set without the images that cannot be read; raises DatasetError where none is left."""
        queries = self.queries.unreadable()
        references = queries if self.references is self.queries else self.references.unreadable()
        if not queries and not references:
            return self
        reasons = [*queries.values(), *(references.values() if references is not queries else ())]
        kept = [
            [index for index in range(len(images)) if index not in wrong]
            for images, wrong in ((self.queries, queries), (self.references, references))
        ]
        if not all(kept):
            raise DatasetError(f"no image of {self.name} can be read: {reasons[0]}")
        for reason in reasons[:MOST_NAMED]:
            tqdm.write(f"left out an image of {self.name}: {reason}", file=sys.stderr)
        return self._take(kept[0], kept[1], with_more(self.left_out, "unreadable", len(reasons)))

    def _take(
        self: DatasetKind, queries: Sequence[int], references: Sequence[int], left_out: Mapping[str, int]
    ) -> DatasetKind:
        """Return this data set with some queries and references alone."""
        return dataclasses.replace(
            self, queries=self.queries.take(queries), references=self.references.take(references),
            truth=self.truth.take(queries, references), left_out=left_out,
        )  # fmt: skip


MOST_NAMED = 5
"""Unreadable images of a data set that are named one by one; all are counted."""


def with_more(left_out: Mapping[str, int], reason: str, count: int) -> dict[str, int]:
    """Return what was left out, and `count` more for `reason`."""
    return dict(left_out) if not count else {**left_out, reason: left_out.get(reason, 0) + count}


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
