# SPDX-License-Identifier: Apache-2.0
"""Training images: a folder of class folders, and two randomly distorted views of each image in a batch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.evaluation.datasets.dataset import IMAGE_SUFFIXES
from binvpr_ros.evaluation.world import World, drive

Image = NDArray[np.uint8]


class TrainingDataError(ValueError):
    """The training images cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class ClassFolder:
    """Images [N,S,S,3] uint8 RGB with their class numbers [N] int32, from DIR/<class>/<image>."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    classes: list[str]

    @classmethod
    def read(cls, directory: Path, size: int) -> ClassFolder:
        """Read all images of `directory`, resized to `size` squared; unreadable ones are named and skipped."""
        if not directory.is_dir():
            raise TrainingDataError(f"{directory} is no folder; give one that holds a folder of images for each class")
        classes = sorted(path.name for path in directory.iterdir() if path.is_dir())
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((directory / name).rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES
        ]
        if not files:
            raise TrainingDataError(
                f"{directory} has no images in class folders; expected {directory}/<class>/<image>.jpg"
            )
        images, labels = [], []
        for path, label in tqdm(files, desc=f"read {directory.name}", file=sys.stderr):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                print(f"skipped {path}: it cannot be decoded", file=sys.stderr)
                continue
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            labels.append(label)
        return cls(np.stack(images), np.asarray(labels, np.int32), classes)


def rendered_buildings(size: int, buildings: int = 4, images: int = 24) -> ClassFolder:
    """Return views of the demo's rendered world, a class a building: for trying things without any data."""
    worlds = [World(seed=seed, width=size, height=size) for seed in range(buildings)]
    views = [world.render(*stop) for world in worlds for stop in drive(images)]
    labels = np.repeat(np.arange(buildings, dtype=np.int32), images)
    return ClassFolder(np.stack(views), labels, [f"building{number}" for number in range(buildings)])


def distort(image: Image, size: int, rng: np.random.Generator) -> Image:
    """Return another view [size,size,3] of the place that `image` shows: moved, turned, relit, blurred, noisy.

    The four corners move inwards by up to a quarter (as CALC does), so two views share about half of the scene.
    """
    source = image.shape[0]
    inwards = rng.uniform(0, 0.25, (4, 2)) * source
    corners = np.array([[0, 0], [source, 0], [source, source], [0, source]], np.float32)
    corners += (inwards * [[1, 1], [-1, 1], [-1, -1], [1, -1]]).astype(np.float32)
    angle = np.deg2rad(rng.uniform(-8, 8))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    corners = (corners - source / 2) @ turn + np.float32(source / 2)
    target = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    view = cv2.warpPerspective(
        image, cv2.getPerspectiveTransform(corners.astype(np.float32), target), (size, size),
        flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101,
    ).astype(np.float32)  # fmt: skip

    view = 255 * (view / 255) ** np.exp(rng.uniform(-0.6, 0.6))
    grey = view.mean(axis=2, keepdims=True)
    view = grey + (view - grey) * rng.uniform(0.2, 1.5)
    mean = view.mean()
    view = (view - mean) * rng.uniform(0.5, 1.5) + mean * rng.uniform(0.6, 1.4)
    view *= rng.uniform(0.85, 1.15, 3).astype(np.float32)
    if rng.random() < 0.3:  # A lamp or the sun: a smooth ramp of brightness across the image.
        direction = rng.uniform(-0.4, 0.4, 2)
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        view *= (1 + direction[0] * ramp[:, None] + direction[1] * ramp[None, :])[..., None].astype(np.float32)
    if rng.random() < 0.2:
        view = cv2.GaussianBlur(view, (3, 3), 0)
    if rng.random() < 0.3:
        view += rng.normal(0, rng.uniform(2, 10), view.shape).astype(np.float32)
    return np.clip(view, 0, 255).astype(np.uint8)


class ViewPairs(keras.utils.PyDataset):
    """Batches of two views of each of `places` images; images of one class come together, as hard negatives.

    Yields float32 images [2*places, size, size, 3] and {"descriptor": place numbers [2*places], "logits": classes}.
    """

    CLASSMATES = 4

    def __init__(self, data: ClassFolder, size: int, places: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data, self.size, self.places, self.seed = data, size, places, seed
        self.epoch = 0
        self._arrange()

    def __len__(self) -> int:
        return len(self.data.images) // self.places

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], dict[str, NDArray[np.int32]]]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = self.order[index * self.places : (index + 1) * self.places]
        images = [distort(self.data.images[i], self.size, rng) for _ in range(2) for i in chosen]
        places = np.tile(np.arange(len(chosen), dtype=np.int32), 2)
        return np.stack(images).astype(np.float32), {
            "descriptor": places,
            "logits": np.tile(self.data.labels[chosen], 2),
        }

    def on_epoch_end(self) -> None:
        """Shuffle anew."""
        self.epoch += 1
        self._arrange()

    def _arrange(self) -> None:
        """Shuffle so that `CLASSMATES` images of one class stay neighbours."""
        rng = np.random.default_rng((self.seed, self.epoch))
        shuffled = rng.permutation(len(self.data.labels))
        by_class = shuffled[np.argsort(self.data.labels[shuffled], kind="stable")]
        whole = len(by_class) // self.CLASSMATES * self.CLASSMATES
        groups = by_class[:whole].reshape(-1, self.CLASSMATES)
        self.order = np.concatenate([rng.permutation(groups).reshape(-1), by_class[whole:]])
