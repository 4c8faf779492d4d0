# SPDX-License-Identifier: Apache-2.0
"""Drives through scenes that look alike in many places, drawn for tests.

In SCENES no place is ever seen again; a robot that turns about (`there_and_back`) sees each place twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

RATE = 10  # images a second
IMAGES = 260
WIDTH, HEIGHT = 320, 240
SPEED = 12  # pixels an image
PAPER = 20  # pixels


def equal_doors(seconds: int, seed: int = 0, papered: bool = False) -> Iterator[Image]:
    """Yield what a camera sees that passes a door every so many `seconds`; all doors are one picture.

    Between them the wall is blank, or `papered`, which is nowhere the same. The noise is that of `seed`.
    """
    return _past(_wall(seconds, papered), np.random.default_rng(seed))


def there_and_back(seconds: int, seed: int = 0) -> Iterator[tuple[int, Image]]:
    """Yield where a camera is (pixels) and what it sees that passes equal doors in a blank wall, and then backs up."""
    wall, rng = _wall(seconds, papered=False), np.random.default_rng(seed)
    for left in (*range(0, IMAGES // 2 * SPEED, SPEED), *range(IMAGES // 2 * SPEED, -1, -SPEED)):
        yield left, _noisy(wall[:, left : left + WIDTH], rng)


def _wall(seconds: int, papered: bool) -> Image:
    rng = np.random.default_rng(0)
    wall = np.full((HEIGHT, IMAGES * SPEED + WIDTH), 150, np.uint8)
    if papered:
        paper = rng.integers(60, 200, (HEIGHT // PAPER, -(-wall.shape[1] // PAPER)), np.uint8)
        wall = paper.repeat(PAPER, axis=0).repeat(PAPER, axis=1)[:, : wall.shape[1]]
    door = cv2.resize(rng.integers(60, 140, (24, 12), np.uint8), (120, 200), interpolation=cv2.INTER_NEAREST)
    cv2.putText(door, "B 17", (18, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 250, 2)
    cv2.circle(door, (104, 110), 7, 20, -1)
    for left in range(40, wall.shape[1] - 120, SPEED * RATE * seconds):
        wall[40:, left : left + 120] = door
    return wall


def repeated_texture() -> Iterator[Image]:
    """Yield what a camera sees that passes bricks."""
    rng = np.random.default_rng(1)
    wall = np.full((HEIGHT, IMAGES * SPEED + WIDTH), 90, np.uint8)
    for row in range(0, HEIGHT, 24):
        for column in range(-24 * (row // 24 % 2), wall.shape[1], 48):
            wall[row + 2 : row + 24, max(column + 2, 0) : column + 48] = 170
    return _past(wall, rng)


def blank_walls() -> Iterator[Image]:
    """Yield what a camera sees that passes a wall on which there is nothing but the shadow of the ceiling."""
    shadow = np.linspace(90, 170, HEIGHT).astype(np.uint8)[:, np.newaxis]
    return _past(np.repeat(shadow, IMAGES * SPEED + WIDTH, axis=1), np.random.default_rng(2))


def darkness() -> Iterator[Image]:
    """Yield what a camera sees at night: noise, and more of it in the middle."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    light = 8 + 50 * np.exp(-3 * (x**2 + y**2))
    for _ in range(IMAGES):
        yield np.clip(light * rng.random((HEIGHT, WIDTH)), 0, 255).astype(np.uint8)


def tunnel() -> Iterator[Image]:
    """Yield what a camera sees that drives through a round tunnel of equal segments, with lamps in each."""
    rng = np.random.default_rng(4)
    segment = cv2.resize(rng.integers(80, 160, (8, 16), np.uint8), (128, 64), interpolation=cv2.INTER_NEAREST)
    segment[:3] = 30
    segment[20:28, 28:36] = segment[20:28, 92:100] = 255
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = x - WIDTH / 2, y - HEIGHT / 2
    radius = np.hypot(x, y)
    around = ((np.arctan2(y, x) / (2 * np.pi)) % 1 * 128).astype(np.float32)
    depth = 160 / np.maximum(radius, 4)
    for number in range(IMAGES):
        ahead = ((depth + number * 0.11) % 1 * 64).astype(np.float32)
        image = cv2.remap(segment, around, ahead, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        yield _noisy(np.where(radius > 8, image / (1 + depth / 8), 10), rng)


SCENES: dict[str, Callable[[], Iterator[Image]]] = {
    **{
        f"equal doors, one every {seconds} s, noise {seed}": functools.partial(equal_doors, seconds, seed)
        for seconds in (3, 5, 8)
        for seed in range(3)
    },
    **{
        f"equal doors in a papered wall, one every {seconds} s": functools.partial(equal_doors, seconds, papered=True)
        for seconds in (3, 5, 8)
    },
    "repeated texture": repeated_texture,
    "blank walls": blank_walls,
    "darkness": darkness,
    "tunnel": tunnel,
}


def _past(wall: Image, rng: np.random.Generator) -> Iterator[Image]:
    """Yield what a camera sees that passes a wall and looks at it."""
    for number in range(IMAGES):
        yield _noisy(wall[:, number * SPEED : number * SPEED + WIDTH], rng)


def _noisy(image: NDArray[Any], rng: np.random.Generator) -> Image:
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
