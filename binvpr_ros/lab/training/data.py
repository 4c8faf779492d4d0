# SPDX-License-Identifier: Apache-2.0
"""Training images: folders of classes or of places, and randomly distorted views of them in batches."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.images import IMAGE_SUFFIXES, Image, ImageError, as_rgb, decode_file
from binvpr_ros.recordings.world import World, drive

TAUGHT_LEVELS = 32
"""Of a teacher's int8 maps, to one standard deviation of a channel."""
TAUGHT_CELLS = 8
"""Cells a side of the map that is to be learnt for a view."""


class TrainingDataError(ValueError):
    """The training images cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class TrainingImages:
    """Images [N,S,S,3] uint8 RGB with the numbers of their places [N] and of their classes [N], int32.

    In a folder of classes each image is a place of its own; in a folder of places there are no `classes`.
    """

    images: NDArray[np.uint8]
    places: NDArray[np.int32]
    labels: NDArray[np.int32]
    classes: list[str]

    @classmethod
    def of_classes(cls, directory: Path, size: int, per_class: int = 0, names: Sequence[str] = ()) -> TrainingImages:
        """Read DIR/<class>/<image>, resized to `size` squared; of each class at most `per_class` images, 0: all.

        With `names` these classes alone are read. Unreadable images are named, counted and left out. Raises
        TrainingDataError.
        """
        names, images, labels = _read(directory, size, "class", per_class, names)
        return cls(images, np.arange(len(images), dtype=np.int32), labels, names)

    @classmethod
    def of_places(cls, directory: Path, size: int) -> TrainingImages:
        """Read DIR/<place>/<image>, resized to `size` squared; likewise."""
        _, images, labels = _read(directory, size, "place")
        return cls(images, labels, np.zeros(len(images), np.int32), [])

    def of(self, places: NDArray[np.int32]) -> TrainingImages:
        """Return the images of some places alone."""
        chosen = np.isin(self.places, places)
        return TrainingImages(self.images[chosen], self.places[chosen], self.labels[chosen], self.classes)

    def hold_out(self, one_in: int) -> tuple[TrainingImages, TrainingImages]:
        """Return the images for training, and those of every `one_in`-th place (one at least), which are held out."""
        places = np.unique(self.places)
        held_out = places[min(one_in // 2, len(places) - 1) :: one_in]
        return self.of(np.setdiff1d(places, held_out)), self.of(held_out)


def _read(
    directory: Path, size: int, kind: str, limit: int = 0, wanted: Sequence[str] = ()
) -> tuple[list[str], Image, NDArray[np.int32]]:
    """Return the names of the sub-folders, their images, and for each the number of its sub-folder."""
    names, files = _list(directory, kind, limit, wanted)
    try:
        images = np.empty((len(files), size, size, 3), np.uint8)
    except MemoryError:
        need = len(files) * size * size * 3 / 2**30
        raise TrainingDataError(
            f"{len(files)} images at {size} pixels need {need:.0f} GiB; take fewer (--per-class) or smaller ones"
        ) from None
    labels: list[int] = []
    for path, number in tqdm(files, desc=f"read {directory.name}", unit="image", file=sys.stderr, leave=False):
        try:
            image = decode_file(path.read_bytes())
        except (OSError, ImageError) as error:
            reason = f"it cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
            tqdm.write(f"left out {path}: {reason}", file=sys.stderr)
            continue
        images[len(labels)] = as_rgb(shrink(image, size))
        labels.append(number)
    if len(labels) < len(files):
        print(f"{len(files) - len(labels)} of {len(files)} images of {directory} were left out", file=sys.stderr)
    if not labels:
        raise TrainingDataError(f"no image of {directory} can be decoded; check the files")
    return names, images[: len(labels)], np.array(labels, np.int32)


def _list(directory: Path, kind: str, limit: int, wanted: Sequence[str]) -> tuple[list[str], list[tuple[Path, int]]]:
    """Return the names of the sub-folders, and their image files with the number of the sub-folder."""
    if not directory.is_dir():
        raise TrainingDataError(f"{directory} is no folder; give one that holds a folder of images for each {kind}")
    names = sorted(path.name for path in directory.iterdir() if path.is_dir())
    missing = sorted(set(wanted) - set(names))
    if missing:
        raise TrainingDataError(f"{directory} lacks {len(missing)} classes, {missing[0]} among them; add their folders")
    names = list(wanted) or names
    files: list[tuple[Path, int]] = []
    for number, name in enumerate(names):
        found = sorted(path for path in (directory / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise TrainingDataError(f"the {kind} {directory / name} holds no images; remove the folder, or fill it")
        files += [(path, number) for path in found[: limit or None]]
    if not files:
        raise TrainingDataError(f"{directory} holds no folder of images; give one for each {kind}")
    return names, files


def shrink(image: Image, size: int) -> Image:
    """Return `image` in `size` squared."""
    small: Image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return small


def rendered_buildings(size: int, buildings: int = 4, images: int = 24) -> TrainingImages:
    """Return views of the demo's rendered world, a class a building: for trying things without any data."""
    worlds = [World(seed=seed, width=size, height=size) for seed in range(buildings)]
    views = [world.render(*stop) for world in worlds for stop in drive(images)]
    labels = np.repeat(np.arange(buildings, dtype=np.int32), images)
    names = [f"building{number}" for number in range(buildings)]
    return TrainingImages(np.stack(views), np.arange(len(views), dtype=np.int32), labels, names)


def distort(image: Image, size: int, rng: np.random.Generator) -> tuple[Image, NDArray[np.float64]]:
    """Return another view [size,size,3] of the place that `image` shows: moved, turned, in other light and weather.

    And the homography [3,3] from the view's pixels to the image's. The four corners move inwards by up to a quarter (as
    CALC does), so two views share about half of the scene. It is never mirrored: a mirrored image is another place.
    """
    view, homography = _move(image, size, rng)
    return _relight(view.astype(np.float32), rng), homography


def _relight(view: NDArray[np.float32], rng: np.random.Generator) -> Image:
    """Return a view [S,S,3] in other light and weather, by another camera."""
    size = view.shape[0]
    view = 255 * (view / 255) ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.25:
        view = _change_season(view, rng)
    grey = view.mean(axis=2, keepdims=True)
    saturation = rng.uniform(0.2, 1.5) if rng.random() > 0.15 else 0.0  # of a grey camera
    view = grey + (view - grey) * np.float32(saturation)
    mean = view.mean()
    view = (view - mean) * rng.uniform(0.5, 1.5) + mean * rng.uniform(0.6, 1.4)
    view *= rng.uniform(0.85, 1.15, 3).astype(np.float32)
    if rng.random() < 0.4:  # Lamps, the sun and shadows: the brightness varies smoothly across the image.
        patches = rng.integers(2, 5)
        light = rng.normal(0, rng.uniform(0.1, 0.5), (patches, patches)).astype(np.float32)
        view *= np.exp(cv2.resize(light, (size, size), interpolation=cv2.INTER_CUBIC))[..., None]
    if rng.random() < 0.15:  # Fog is thickest at the horizon, and clears towards the ground.
        density = rng.uniform(0.2, 0.7) * np.linspace(1, 0.3, size, dtype=np.float32)[:, None, None]
        view += (np.float32(rng.uniform(140, 230)) - view) * density
    if rng.random() < 0.4:  # Of another focus or a camera of fewer pixels.
        few = max(round(size / rng.uniform(1, 4)), 1)
        view = cv2.resize(cv2.resize(view, (few, few), interpolation=cv2.INTER_AREA), (size, size))
    if rng.random() < 0.3:
        view += rng.normal(0, rng.uniform(2, 10), view.shape).astype(np.float32)
    return np.clip(view, 0, 255).astype(np.uint8)


def _move(image: Image, size: int, rng: np.random.Generator) -> tuple[Image, NDArray[np.float64]]:
    """Return the view of a camera that stands a little elsewhere and is turned, and the homography from it."""
    source = image.shape[0]
    inwards = rng.uniform(0, 0.25, (4, 2)) * source
    corners = np.array([[0, 0], [source, 0], [source, source], [0, source]], np.float32)
    corners += (inwards * [[1, 1], [-1, 1], [-1, -1], [1, -1]]).astype(np.float32)
    angle = np.deg2rad(rng.uniform(-8, 8))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    corners = (corners - source / 2) @ turn + np.float32(source / 2)
    target = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    homography = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    moved: Image = cv2.warpPerspective(
        image, homography, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101
    )
    return moved, np.linalg.inv(homography)


def taught_view(taught: NDArray[np.int8], homography: NDArray[np.float64], size: int, side: int) -> NDArray[np.float32]:
    """Return a teacher's map [S,S,C] of an image of `side` pixels as a view of `size` pixels sees it.

    [TAUGHT_CELLS,TAUGHT_CELLS,C] float32; `homography` leads from the view's pixels to the image's.
    """
    cells, samples = taught.shape[0], 2 * TAUGHT_CELLS
    centres = (np.arange(samples) + 0.5) * (size / samples) - 0.5
    pixels = np.stack([*np.meshgrid(centres, centres), np.ones((samples, samples))]).reshape(3, -1)
    x, y, w = homography @ pixels
    places = ((np.stack([x / w, y / w]) + 0.5) * (cells / side) - 0.5).astype(np.float32).reshape(2, samples, samples)
    seen = cv2.remap(taught.astype(np.float32), places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    pooled: NDArray[np.float32] = seen.reshape(TAUGHT_CELLS, 2, TAUGHT_CELLS, 2, -1).mean(axis=(1, 3))
    return pooled / np.float32(TAUGHT_LEVELS)


def _change_season(view: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return [S,S,3] in another season: what is green brown or white, or what had one brightness another.

    The one are leaves that fall. The other is snow on dark ground below a bright sky, or a wet road, or lamps by night:
    the contrast of neighbours may be the other way round, but where they meet stays.
    """
    grey = view.mean(axis=2, keepdims=True)
    if rng.random() < 0.5:
        greenness = np.clip((view[..., 1] - np.maximum(view[..., 0], view[..., 2])) / 40, 0, 1)[..., None]
        brightness = rng.uniform(0.5, 1.6)
        colour = np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.0)], np.float32)
        return np.asarray(view + greenness * (grey * colour * np.float32(brightness) - view), np.float32)
    curve = np.interp(np.arange(256), np.linspace(0, 255, 5), rng.uniform(0, 255, 5)).astype(np.float32)
    other = curve[np.clip(grey, 0, 255).astype(np.uint8)]
    return np.asarray(view + np.float32(rng.uniform(0.3, 1.0)) * (other - grey), np.float32)


class ViewPairs(keras.utils.PyDataset):
    """Batches `first` to `last` of an endless series, each of `views` (1 or 2) views of each of `places` places.

    A view is an image of the place, distorted where there are two; the second one is of another image where there is
    one. Where there are two, places of one class come together, as hard negatives. A batch depends on the seed and its
    number alone, so that a run that was stopped goes on with the same ones. Yields float32 images
    [views*places, size, size, 3] and the targets by output: `descriptor` (numbers [views*places] of the places),
    `logits` (of the classes), `teacher` where there are maps [N,S,S,C] that a teacher made of the images: what it would
    see, in clear light, in the views.
    """

    CLASSMATES = 4

    def __init__(
        self,
        data: TrainingImages,
        size: int,
        places: int,
        seed: int,
        first: int = 0,
        last: int | None = None,
        views: int = 2,
        taught: NDArray[np.int8] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data, self.size, self.places, self.seed = data, size, places, seed
        self.views, self.taught = views, taught
        order = np.argsort(data.places, kind="stable")
        _, starts = np.unique(data.places[order], return_index=True)
        self._images_of = np.split(order, starts[1:])
        self._label_of = data.labels[order[starts]]
        self._order: tuple[int, NDArray[np.int64]] = (-1, order[:0])  # of the epoch that was asked for last
        if len(self._images_of) < places:
            raise TrainingDataError(
                f"there are {len(self._images_of)} places, a batch needs {places}; add images, or use a smaller --batch"
            )
        self.per_epoch = len(self._images_of) // places
        self.first, self.last = first, self.per_epoch if last is None else last

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        """Return one batch."""
        epoch, place_in_epoch = divmod(self.first + index, self.per_epoch)
        rng = np.random.default_rng((self.seed, epoch, place_in_epoch))
        chosen = self.order(epoch)[place_in_epoch * self.places : (place_in_epoch + 1) * self.places]
        pairs = [rng.permutation(self._images_of[place])[[0, -1]] for place in chosen]
        shown = np.array(pairs).T[: self.views].reshape(-1)  # all first views, then all second ones
        views = [self._view(self.data.images[image], rng) for image in shown]
        targets: dict[str, NDArray[Any]] = {"descriptor": np.tile(np.arange(len(chosen), dtype=np.int32), self.views)}
        if self.data.classes:
            targets["logits"] = self.data.labels[shown]
        if self.taught is not None:
            side = self.data.images.shape[1]
            targets["teacher"] = np.stack([
                taught_view(self.taught[image], homography, self.size, side)
                for image, (_, homography) in zip(shown, views, strict=True)
            ])  # fmt: skip
        return np.stack([view for view, _ in views]).astype(np.float32), targets

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return all places, shuffled; where views are told apart, `CLASSMATES` of one class stay neighbours."""
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            shuffled = rng.permutation(len(self._images_of))
            by_class = shuffled[np.argsort(self._label_of[shuffled], kind="stable")]
            together = self.CLASSMATES if self.views > 1 else 1
            whole = len(by_class) // together * together
            groups = by_class[:whole].reshape(-1, together)
            self._order = (epoch, np.concatenate([rng.permutation(groups).reshape(-1), by_class[whole:]]))
        return self._order[1]

    def _view(self, image: Image, rng: np.random.Generator) -> tuple[Image, NDArray[np.float64]]:
        if self.views > 1:
            return distort(image, self.size, rng)
        scale = image.shape[0] / self.size
        return shrink(image, self.size), np.diag([scale, scale, 1.0])
