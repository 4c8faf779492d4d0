# SPDX-License-Identifier: Apache-2.0
"""A drive as a robot sees it that has a part of itself in the picture: it looks the same at every place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image, as_rgb
from binvpr_ros.lab.evaluation.datasets.dataset import Images
from binvpr_ros.lab.evaluation.datasets.sequences import ImageSequence
from binvpr_ros.recordings.world import World
from binvpr_ros.recordings.world import drive as route

Overlay = Callable[[tuple[int, int], int], tuple[NDArray[np.bool_], Image]]
"""Height and width of an image, and its number -> where it is covered [H,W], and by what [H,W,3]."""


@functools.cache
def _deck(size: tuple[int, int]) -> tuple[NDArray[np.bool_], Image]:
    """Return a textured deck on the lowest quarter."""
    height, width = size
    texture = np.random.default_rng(0).integers(0, 255, (30, 160, 3), np.uint8)
    return _lowest(size, 0.25), np.asarray(cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC))


@functools.cache
def _gripper(size: tuple[int, int]) -> tuple[NDArray[np.bool_], Image]:
    """Return a gripper with two fingers that reaches in from below."""
    height, width = size
    covered = np.zeros(size, np.uint8)
    arm = np.array([[0.39, 1.0], [0.45, 0.62], [0.55, 0.62], [0.61, 1.0]]) * (width, height)
    cv2.fillPoly(covered, [arm.astype(np.int32)], 1)
    for x in (0.45, 0.55):
        cv2.circle(covered, (round(x * width), round(0.6 * height)), width // 21, 1, -1)
    texture = np.random.default_rng(1).integers(30, 220, (60, 80, 3), np.uint8)
    return covered > 0, np.asarray(cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC))


@functools.cache
def _strip(size: tuple[int, int], share: float) -> tuple[NDArray[np.bool_], Image]:
    """Return a photograph of something else over the lowest `share` of the image."""
    height, width = size
    return _lowest(size, share), as_rgb(World(width=width, height=height).render(*next(iter(route(20)))))


def _clock(size: tuple[int, int], number: int) -> tuple[NDArray[np.bool_], Image]:
    """Return a line of date and time at the top, of which the seconds change."""
    height, width = size
    covered, image = np.zeros(size, bool), np.zeros((height, width, 3), np.uint8)
    line = max(12, height // 14)
    covered[line // 2 : line // 2 + line, : round(0.7 * width)] = True
    text, scale = f"2026-11-30 12:{number // 900 % 60:02d}:{number // 15 % 60:02d} CAM 01", line / 40
    cv2.putText(image, text, (4, line // 2 + round(0.75 * line)), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1)
    return covered, image


def _lowest(size: tuple[int, int], share: float) -> NDArray[np.bool_]:
    covered = np.zeros(size, bool)
    covered[round((1 - share) * size[0]) :] = True
    return covered


OVERLAYS: Mapping[str, Overlay] = {
    "deck": lambda size, _: _deck(size),
    "gripper": lambda size, _: _gripper(size),
    "strip25": lambda size, _: _strip(size, 0.25),
    "strip20": lambda size, _: _strip(size, 0.2),
    "strip15": lambda size, _: _strip(size, 0.15),
    "clock": _clock,
}


@dataclass(frozen=True)
class OverlaidImages(Images):
    """Images that are partly covered."""

    images: Images
    overlay: Overlay

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int, /) -> Image:
        """Return one image, uint8 [H,W,3] RGB; raises DatasetError."""
        image = as_rgb(self.images[index]).copy()
        covered, by = self.overlay(image.shape[:2], index)
        image[covered] = by[covered]
        return image


def overlaid(drive: ImageSequence, name: str) -> ImageSequence:
    """Return a drive with an overlay, a key of OVERLAYS; it is of the same place."""
    images = OverlaidImages(drive.queries, OVERLAYS[name])
    return dataclasses.replace(drive, name=f"{drive.name}, {name}", queries=images, references=images)
