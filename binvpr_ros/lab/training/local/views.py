# SPDX-License-Identifier: Apache-2.0
"""Two distorted views of each photograph of a batch, and what the teacher says of them: upright and in clear light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image
from binvpr_ros.lab.training.data import _relight
from binvpr_ros.lab.training.local.losses import TOGETHER
from binvpr_ros.lab.training.local.network import CELL
from binvpr_ros.lab.training.local.targets import CELLS, SIDE, Chosen, Taught
from binvpr_ros.local_features.learned import levels

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Motion:
    """How far a view may be from the photograph; most values are limits of uniform distributions."""

    share: float  # of the views that are moved at all
    roll: float  # degrees
    scale: float  # the size is divided, or multiplied, by as much
    shift: float  # of the side
    bend: float  # of the corners, of the side

    def homography(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a homography [3,3] from a view's pixels to the photograph's; both have SIDE pixels a side."""
        if rng.random() >= self.share:
            return np.eye(3)
        middle = (SIDE - 1) / 2
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (SIDE / 2)
        angle = np.deg2rad(rng.uniform(-self.roll, self.roll))
        size = np.exp(rng.uniform(-1, 1) * np.log(self.scale))
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        seen = corners @ turn.T + rng.uniform(-self.shift, self.shift, 2) * SIDE
        seen = seen + rng.uniform(-self.bend, self.bend, (4, 2)) * SIDE
        matrix: NDArray[np.float64] = cv2.getPerspectiveTransform(
            (corners + middle).astype(np.float32), (seen + middle).astype(np.float32)
        )
        return matrix


class ViewBatches(keras.utils.PyDataset):
    """Batches of two views each of `count` of the squares `among`, first ones and then second ones.

    A batch depends on the seed and its number alone, so that a run that was stopped goes on with the same ones. Yields
    images [2N,128,128,1] of levels, float32, and the targets by output, as `losses` has them. Border cells, for which
    the teacher saw other photographs, have no weight; nor have keypoints where the view is moved.
    """

    def __init__(
        self, taught: Taught, among: Chosen, count: int, motion: Motion, seed: int, first: int, last: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.taught, self.count, self.motion, self.seed = taught, count, motion, seed
        self.first, self.last = first, last
        self._order = among[np.argsort(taught.folders[among], kind="stable")]
        self._folders = taught.folders[self._order]

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[Floats, dict[str, Floats]]:
        """Return one batch."""
        rng = np.random.default_rng((self.seed, self.first + index))
        chosen = self._chosen(rng)
        moves = np.stack([self.motion.homography(rng) for _ in range(2 * self.count)])
        images = self.taught.images[chosen]
        views = [_relight(see(images[i % self.count], move).astype(np.float32), rng) for i, move in enumerate(moves)]
        shown = np.stack([levels(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)) for view in views])
        return shown[..., None].astype(np.float32), targets(self.taught, chosen, moves)

    def _chosen(self, rng: np.random.Generator) -> Chosen:
        """Return the squares of a batch, TOGETHER of one folder after the other: alike, and so hard to tell apart.

        Where a folder has too few, others follow.
        """
        groups = []
        for _ in range(self.count // TOGETHER):
            folder = rng.choice(self._folders)
            start, stop = np.searchsorted(self._folders, [folder, folder + 1])
            alike = self._order[start + rng.permutation(stop - start)[:TOGETHER]]
            some = rng.choice(self._order, min(2 * TOGETHER, len(self._order)), replace=False)
            groups.append(np.concatenate([alike, rng.permutation(np.setdiff1d(some, alike))])[:TOGETHER])
        return np.concatenate(groups)


def see(image: Image, move: NDArray[np.float64]) -> Image:
    """Return the view of a photograph; `move` leads from the view's pixels to the photograph's."""
    if np.array_equal(move, np.eye(3)):
        return image
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view: Image = cv2.warpPerspective(image, move, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return view


def targets(taught: Taught, chosen: Chosen, moves: NDArray[np.float64]) -> dict[str, Floats]:
    """Return the targets of two views each of the squares `chosen` [N], for views moved by `moves` [2N,3,3]."""
    count = len(chosen)
    twice = np.tile(chosen, 2)
    sources = _move(moves, _centres()[None])  # [2N,P,2], x and y, in the photographs' pixels
    places = (sources[..., ::-1] + 0.5) / CELL - 0.5  # rows and columns in cells
    seen = _within(places, 1)  # the teacher saw other photographs from the cells at the border
    descriptors = sample(taught.descriptors[chosen].astype(np.float32), places, count)
    descriptors /= np.linalg.norm(descriptors, axis=2, keepdims=True) + 1e-9
    reliability = sample(
        taught.reliability[chosen, ..., np.newaxis].astype(np.float32) / np.float32(255), places, count
    )
    others = np.linalg.inv(np.roll(moves, count, axis=0)).astype(np.float64)
    partners = (_move(others, sources)[..., ::-1] + 0.5) / CELL - 0.5
    shared = seen & _within(partners, 0)
    likely = np.square(taught.keypoints[twice].astype(np.float32) / np.float32(255))
    none = np.maximum(1 - likely.sum(axis=3, keepdims=True), 0)
    # Turned or enlarged, the teacher itself finds keypoints at other pixels.
    still = seen & (np.abs(moves - np.eye(3)).max(axis=(1, 2)) < 1e-9)[:, np.newaxis]

    def maps(*parts: NDArray[Any]) -> Floats:
        values = [part.reshape(len(twice), CELLS, CELLS, -1).astype(np.float32) for part in parts]
        return np.concatenate(values, axis=3)

    return {
        "taught": maps(descriptors, seen),
        "descriptors": maps(partners, shared),
        "keypoints": maps(np.concatenate([likely, none], axis=3), still),
        "reliability": maps(reliability, seen),
    }


def sample(maps: Floats, places: NDArray[np.float64], count: int) -> Floats:
    """Return `maps` [N,h,w,C] at `places` [2N,P,2], rows and columns in cells, of both views: [2N,P,C]."""
    height, width = maps.shape[1:3]
    places = np.clip(places, 0, (height - 1, width - 1))
    first = np.minimum(np.floor(places).astype(np.int64), (height - 2, width - 2))
    down, right = np.moveaxis((places - first).astype(np.float32), 2, 0)[..., None]
    row, column = first[..., 0], first[..., 1]
    which = np.tile(np.arange(count), 2)[:, None]
    upper = maps[which, row, column] * (1 - right) + maps[which, row, column + 1] * right
    lower = maps[which, row + 1, column] * (1 - right) + maps[which, row + 1, column + 1] * right
    return upper * (1 - down) + lower * down


def _within(places: NDArray[np.float64], border: int) -> NDArray[np.bool_]:
    """Tell which rows and columns [N,P,2] are those of cells, or between them, without so many at the border: [N,P]."""
    inside: NDArray[np.bool_] = np.abs(places - (CELLS - 1) / 2).max(axis=2) <= (CELLS - 1) / 2 - border
    return inside


def _centres() -> NDArray[np.float64]:
    """Return the pixels x and y at the centres of all cells, row by row: [P,2]."""
    along = np.arange(CELLS) * CELL + (CELL - 1) / 2
    return np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)


def _move(moves: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points [N,P,2] or [1,P,2] by homographies [N,3,3]."""
    ones = np.ones((*points.shape[:2], 1))
    moved = np.concatenate([points, ones], axis=2) @ moves.transpose(0, 2, 1)
    result: NDArray[np.float64] = moved[..., :2] / moved[..., 2:]
    return result
