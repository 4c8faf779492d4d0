# SPDX-License-Identifier: Apache-2.0
"""The rendered building as a data set: a drive with true poses, without files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.datasets.cameras import camera_of
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Images, Options
from binvpr_ros.lab.evaluation.datasets.depths import Depths
from binvpr_ros.lab.evaluation.datasets.files import stamps_at
from binvpr_ros.lab.evaluation.datasets.sequences import PosedSequence
from binvpr_ros.local_features.depth import DepthImage
from binvpr_ros.recordings.world import RATE, Pose, World, drive


class RenderedBuilding(PosedSequence):
    """The drive of `binvpr_ros.recordings.world`: three loops through a building, the last where the first was."""

    usual_radius = 2.0
    usual_angle = 30.0

    @classmethod
    def make(cls, options: Options, images: int = 900) -> RenderedBuilding:
        """Make a drive of so many images, rendered when first needed; raises DatasetError if they are too few."""
        if images < 2:
            raise DatasetError(f"{images} images are too few for a drive; ask for at least two")
        stops = list(drive(images))
        headings = np.array([pose.heading for pose, _, _ in stops])
        # The axes of the optical frame in the world, whose third axis points down: right, down, ahead.
        rotations = np.zeros((images, 3, 3))
        rotations[:, 0, 2] = rotations[:, 1, 0] = np.cos(headings)
        rotations[:, 1, 2] = np.sin(headings)
        rotations[:, 0, 0] = -rotations[:, 1, 2]
        rotations[:, 2, 1] = 1
        world = World()
        focal = world.width / 2 / np.tan(world.field_of_view / 2)
        centre = (world.width - 1) / 2, (world.height - 1) / 2
        return cls.from_poses(
            "rendered building", _Views(world, stops), stamps_at(RATE, images),
            np.array([(pose.x, pose.y, 0) for pose, _, _ in stops]), rotations, options, optical=True,
            camera=camera_of((world.width, world.height), (focal, focal, *centre), "plumb_bob", ()),
            depths=_Depths(world, stops, list(range(images))),
        )  # fmt: skip


@dataclass(frozen=True)
class _Depths(Depths):
    """What a structured-light camera beside the camera measures at each stop, [240,320] in metres."""

    world: World
    stops: list[tuple[Pose, float, float]]
    indices: list[int]

    def __getitem__(self, index: int, /) -> DepthImage | None:
        number = self.indices[index]
        return self.world.depth(self.stops[number][0], np.random.default_rng([self.world.seed, number]))

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> _Depths:
        return dataclasses.replace(self, indices=[self.indices[int(index)] for index in indices])


class _Views(Images):
    """What the camera sees at each stop, [240,320,3] RGB."""

    def __init__(self, world: World, stops: list[tuple[Pose, float, float]]) -> None:
        self._world = world
        self._stops = stops
        self._views: dict[int, Image] = {}

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, index: int, /) -> Image:
        if index not in self._views:
            self._views[index] = self._world.render(*self._stops[index])
        return self._views[index]
