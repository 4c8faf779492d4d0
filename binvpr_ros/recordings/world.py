# SPDX-License-Identifier: Apache-2.0
"""A rendered building with a robot that drives through it: images with true poses, made from nothing.

The robot drives a western loop, an eastern loop, and the western loop again, beside its first track and in another
light. Walls carry doors, boards, windows, shelves and posters that a seeded generator places: places look alike, as
rooms of one building do, but no two are the same. Drawn by ray casting with NumPy.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Panel = Any  # float32 [TEXTURE, TEXTURE, 3]; OpenCV's stubs do not take NumPy's types
Colour = tuple[float, float, float]

# '#' is wall, letters are the corners of the track.
FLOOR_PLAN = (
    "#############",
    "#b...#f....g#",
    "#.##.#.##.#.#",
    "#.#...a..##.#",
    "#..#.##.#..h#",
    "#c..d##e..###",
    "#############",
)
LEFT_LOOP = "bcda"
RIGHT_LOOP = "ehgfa"
TRACK = "a" + LEFT_LOOP + RIGHT_LOOP + LEFT_LOOP
RATE = 15.0  # images a second
CELL = 1.6  # metres, the side of a square of the plan
WALL_HEIGHT = 2.6  # metres
CAMERA_HEIGHT = 1.1  # metres
TEXTURE = 128  # pixels a wall panel
FAR = 40.0  # metres
DEPTH_NOISE = 1.4e-3
"""Deviation of a measured depth, of its square, in 1/m: that of the first Kinect (Khoshelham and Elberink, 2012)."""
FARTHEST_MEASURED = 8.0  # metres


@dataclass(frozen=True)
class Pose:
    """Position in metres and heading in radians."""

    x: float
    y: float
    heading: float

    def same_place(self, other: Pose, radius: float = 2.0, angle: float = np.deg2rad(30)) -> bool:
        """Tell whether the other pose sees the same place: within `radius` metres and `angle` radians."""
        turn = (self.heading - other.heading + np.pi) % (2 * np.pi) - np.pi
        return bool(np.hypot(self.x - other.x, self.y - other.y) <= radius and abs(turn) <= angle)


@dataclass
class World:
    """The building; `seed` decides what its walls look like."""

    seed: int = 20
    width: int = 320
    height: int = 240
    field_of_view: float = np.deg2rad(75)
    _panels: list[NDArray[np.uint8]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._solid = np.array([[square == "#" for square in row] for row in FLOOR_PLAN])
        panels = self._solid.size * 4
        rng = np.random.default_rng(self.seed)
        full = np.stack([_wall_panel(rng, (index // 4) % self._solid.shape[1]) for index in range(panels)])
        # Smaller copies for far walls, so that they do not flicker.
        self._panels = [
            np.stack([cv2.resize(panel, (size, size), interpolation=cv2.INTER_AREA) for panel in full])
            for size in (TEXTURE, TEXTURE // 2, TEXTURE // 4, TEXTURE // 8)
        ]
        self._focal = self.width / 2 / np.tan(self.field_of_view / 2)

    def render(self, pose: Pose, light: float = 1.0, warmth: float = 0.0) -> NDArray[np.uint8]:
        """Return what the camera sees: uint8 RGB [height, width, 3]; `warmth` shifts the light from blue to red."""
        rays = self._rays(pose)
        depth, panel, along = self._cast(pose, rays)
        image = self._draw_ground(pose, rays)
        self._draw_walls(image, depth, panel, along)
        shade = np.array([1 + warmth, 1.0, 1 - warmth]) * light
        return np.clip(image * shade, 0, 255).astype(np.uint8)

    def depth(self, pose: Pose, rng: np.random.Generator | None = None) -> NDArray[np.float32]:
        """Return how far ahead of the camera all that it sees is: float32 [height, width], metres.

        With `rng` as a structured-light camera measures it: with noise that grows with the square of the depth, and
        with holes (0) beyond FARTHEST_MEASURED and where things end.
        """
        rays = self._rays(pose)
        to_wall, _, _ = self._cast(pose, rays)
        depth = np.where(self._wall_rows(to_wall)[1], to_wall, self._to_ground()[:, np.newaxis])
        if rng is None:
            return depth.astype(np.float32)
        measured = depth + DEPTH_NOISE * depth**2 * rng.normal(size=depth.shape)
        edge = cv2.dilate(depth, np.ones((3, 3))) > 1.1 * cv2.erode(depth, np.ones((3, 3)))
        return np.where((depth > FARTHEST_MEASURED) | edge, 0, measured).astype(np.float32)

    def _rays(self, pose: Pose) -> Array:
        """Return where the rays of the columns go, one metre ahead of the camera, in the plan: [2, width]."""
        columns = (np.arange(self.width) + 0.5 - self.width / 2) / self._focal
        forward = np.array([np.cos(pose.heading), np.sin(pose.heading)])
        right = np.array([-forward[1], forward[0]])
        return forward[:, None] + right[:, None] * columns

    def _to_ground(self) -> Array:
        """Return how far ahead floor and ceiling are, in metres: [height]."""
        below = np.arange(self.height) + 0.5 - self.height / 2
        to_plane = np.where(below > 0, CAMERA_HEIGHT, WALL_HEIGHT - CAMERA_HEIGHT)
        return np.minimum(to_plane * self._focal / np.maximum(np.abs(below), 0.5), FAR)

    def _wall_rows(self, depth: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Return which share of the wall's height is above each pixel, and where there is wall: [height, width] each.

        `depth` [width] is that of the walls.
        """
        scale = self._focal / depth
        top = self.height / 2 - (WALL_HEIGHT - CAMERA_HEIGHT) * scale
        rows = (np.arange(self.height)[:, None] + 0.5 - top) / (WALL_HEIGHT * scale)
        return rows, (rows >= 0) & (rows < 1)

    def _cast(self, pose: Pose, rays: Array) -> tuple[Array, NDArray[np.int64], Array]:
        """Return per column the depth of the wall (metres), its panel, and the place along it (0 to 1)."""
        position = np.array([pose.x, pose.y])[:, None] / CELL
        square = np.floor(position).astype(int) * np.ones((1, self.width), int)
        step = np.where(rays >= 0, 1, -1)
        per_square = 1 / np.maximum(np.abs(rays), 1e-9)
        next_crossing = np.where(rays >= 0, square + 1 - position, position - square) * per_square
        depth = np.zeros(self.width)
        axis = np.zeros(self.width, int)
        moving = np.ones(self.width, bool)
        everywhere = np.arange(self.width)
        while moving.any():
            nearer = next_crossing.argmin(axis=0)
            columns = everywhere[moving]
            axis[columns] = nearer[columns]
            depth[columns] = next_crossing[nearer[columns], columns]
            square[nearer[columns], columns] += step[nearer[columns], columns]
            next_crossing[nearer[columns], columns] += per_square[nearer[columns], columns]
            moving[columns] = ~self._solid[square[1, columns], square[0, columns]]
        side = axis * 2 + (step[axis, everywhere] > 0)
        panel = (square[1] * self._solid.shape[1] + square[0]) * 4 + side
        hit = position + rays * depth
        along = hit[1 - axis, everywhere] % 1.0
        return depth * CELL, panel, along

    def _draw_ground(self, pose: Pose, rays: Array) -> Array:
        """Return the image with floor and ceiling everywhere."""
        below = np.arange(self.height) >= self.height / 2
        distance = self._to_ground()[:, None]
        x, y = pose.x + rays[0] * distance, pose.y + rays[1] * distance
        dark = 1 / (1 + 0.06 * distance)
        tiles = (np.floor(x * 2) + np.floor(y * 2)) % 2
        # The floor's tint changes from wing to wing.
        floor = np.stack([95 + 30 * tiles + 2.5 * x, 100 + 25 * tiles, 125 + 20 * tiles - 2.5 * x], axis=-1)
        lamp = (np.abs(x % CELL - 1) < 0.25) & (np.abs(y % CELL - 1) < 0.6)
        ceiling = np.where(lamp, 250.0, 175.0)[..., None] * np.ones(3)
        image: Array = np.where(below[:, None, None], floor, ceiling) * dark[..., None]
        return image

    def _draw_walls(self, image: Array, depth: Array, panel: NDArray[np.int64], along: Array) -> None:
        """Paint the walls over `image`."""
        rows, wall = self._wall_rows(depth)
        level = np.clip(np.log2(TEXTURE / (WALL_HEIGHT * self._focal / depth)), 0, len(self._panels) - 1).astype(int)
        facing = np.where(panel % 4 < 2, 1.0, 0.85) / (1 + 0.06 * depth)
        for number, panels in enumerate(self._panels):
            y, x = np.nonzero(wall & (level == number))
            size = panels.shape[1]
            texels = panels[panel[x], (rows[y, x] * size).astype(int), (along[x] * size).astype(int)]
            image[y, x] = texels * facing[x, None]


def _wall_panel(rng: np.random.Generator, column: int) -> NDArray[np.uint8]:
    """Draw one wall panel [TEXTURE, TEXTURE, 3]; the paint changes slowly with its `column` in the plan."""
    paint = np.array([190 + 3 * column, 180 - 2 * column, 150 + 4 * column]) + rng.normal(0, 25, 3)
    panel = np.full((TEXTURE, TEXTURE, 3), paint, np.float32)
    if rng.random() < 0.5:
        panel[int(TEXTURE * 0.62) :] *= rng.uniform(0.5, 0.8)  # wainscot
    cv2.rectangle(panel, (0, int(TEXTURE * 0.95)), (TEXTURE, TEXTURE), (70, 60, 55), -1)
    for _ in range(rng.integers(1, 3)):
        FURNITURE[rng.integers(len(FURNITURE))](panel, rng)
    grain = cv2.resize(
        rng.normal(0, 6, (32, 32)).astype(np.float32), (TEXTURE, TEXTURE), interpolation=cv2.INTER_LINEAR
    )
    return np.clip(panel + grain[..., None], 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.uniform(20, 235, 3)
    return red, green, blue


def _rectangle(
    panel: Panel, left: float, top: float, right: float, bottom: float, colour: Colour, thickness: int = -1
) -> None:
    """Draw a rectangle given in shares of the panel."""
    start, end = ((int(x * TEXTURE), int(y * TEXTURE)) for x, y in ((left, top), (right, bottom)))
    cv2.rectangle(panel, start, end, colour, thickness)


def _door(panel: Panel, rng: np.random.Generator) -> None:
    left = rng.uniform(0.05, 0.5)
    colour = _colour(rng)
    _rectangle(panel, left - 0.03, 0.15, left + 0.45, 1, (60, 50, 45))
    _rectangle(panel, left, 0.18, left + 0.42, 1, colour)
    if rng.random() < 0.5:
        _rectangle(panel, left + 0.1, 0.28, left + 0.32, 0.5, (200, 220, 230))
    _rectangle(panel, left + 0.35, 0.58, left + 0.39, 0.62, (220, 200, 80))
    _rectangle(panel, left + 0.12, 0.06, left + 0.3, 0.12, _colour(rng))


def _board(panel: Panel, rng: np.random.Generator) -> None:
    left, top = rng.uniform(0.05, 0.3), rng.uniform(0.2, 0.3)
    _rectangle(panel, left, top, left + 0.6, top + 0.35, (235, 235, 230))
    for _ in range(rng.integers(4, 12)):
        x, y = left + rng.uniform(0.02, 0.5), top + rng.uniform(0.02, 0.28)
        _rectangle(panel, x, y, x + rng.uniform(0.03, 0.08), y + rng.uniform(0.02, 0.06), _colour(rng))


def _window(panel: Panel, rng: np.random.Generator) -> None:
    left, width = rng.uniform(0.05, 0.35), rng.uniform(0.3, 0.6)
    _rectangle(panel, left, 0.2, left + width, 0.55, (250, 250, 245))
    _rectangle(panel, left + 0.02, 0.4, left + width - 0.02, 0.53, (90, 140, 80))
    for bar in range(1, int(rng.integers(2, 5))):
        x = left + width * bar / 4
        _rectangle(panel, x, 0.2, x + 0.015, 0.55, (110, 110, 110))


def _shelf(panel: Panel, rng: np.random.Generator) -> None:
    left, width = rng.uniform(0.02, 0.4), rng.uniform(0.3, 0.55)
    _rectangle(panel, left, 0.4, left + width, 0.97, (120, 85, 50))
    for row in range(3):
        x, bottom = left + 0.02, 0.57 + 0.18 * row
        while x < left + width - 0.06:
            thickness = rng.uniform(0.02, 0.05)
            _rectangle(panel, x, bottom - rng.uniform(0.08, 0.13), x + thickness, bottom, _colour(rng))
            x += thickness + 0.008


def _poster(panel: Panel, rng: np.random.Generator) -> None:
    left, top, size = rng.uniform(0.05, 0.6), rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.35)
    _rectangle(panel, left, top, left + size, top + 1.2 * size, _colour(rng))
    for _ in range(4):
        centre = (
            int((left + rng.uniform(0.1, 0.9) * size) * TEXTURE),
            int((top + rng.uniform(0.1, 1.1) * size) * TEXTURE),
        )
        cv2.circle(panel, centre, int(rng.uniform(0.03, 0.12) * TEXTURE), _colour(rng), -1)
    _rectangle(panel, left, top, left + size, top + 1.2 * size, (30, 30, 30), 1)


FURNITURE = (_door, _board, _window, _shelf, _poster)


def drive(images: int = 900) -> Iterator[tuple[Pose, float, float]]:
    """Yield pose, light and warmth of each image of the drive; the last third repeats the first beside its track."""
    lengths = [len(_squares_between(start, end)) for start, end in itertools.pairwise(TRACK)]
    squares = np.array([square for start, end in itertools.pairwise(TRACK) for square in _squares_between(start, end)])
    repeats_from = sum(lengths[: -len(LEFT_LOOP)])
    corners = (squares + 0.5) * CELL
    steps = np.linspace(0, len(corners) - 1, images)
    rng = np.random.default_rng(1)
    sway = np.cumsum(rng.normal(0, 0.003, images)) % 0.1
    # The robot rounds the corners: its place and its heading are means over the track around it.
    around = np.linspace(-0.75, 0.75, 7)
    track = np.stack([
        np.mean([np.interp(steps + offset, np.arange(len(corners)), corners[:, axis]) for offset in around], axis=0)
        for axis in (0, 1)
    ])  # fmt: skip
    directions = np.unwrap(np.arctan2(*np.gradient(track, axis=1)[::-1]))
    for (x, y), heading, step, turn in zip(track.T, directions, steps, sway, strict=True):
        again = step >= repeats_from
        beside = 0.2 if again else 0.0
        pose = Pose(x - beside * np.sin(heading), y + beside * np.cos(heading), float(heading + turn))
        yield pose, (0.75 if again else 1.0), (0.08 if again else 0.0)


def _squares_between(start: str, end: str) -> list[tuple[int, int]]:
    """Return the shortest way from one lettered square to another as (x, y), without the last square."""
    at = {square: (x, y) for y, row in enumerate(FLOOR_PLAN) for x, square in enumerate(row) if square.isalpha()}
    before: dict[tuple[int, int], tuple[int, int] | None] = {at[end]: None}
    queue = deque([at[end]])
    while queue:
        x, y = queue.popleft()
        for square in ((x + 1, y), (x, y + 1), (x - 1, y), (x, y - 1)):
            if square not in before and FLOOR_PLAN[square[1]][square[0]] != "#":
                before[square] = (x, y)
                queue.append(square)
    way = [at[start]]
    while (following := before[way[-1]]) is not None:
        way.append(following)
    return way[:-1]


def wall_segments() -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the walls between solid and free squares, as pairs of points in metres, for drawing a map."""
    segments = []
    for y, row in enumerate(FLOOR_PLAN):
        for x, square in enumerate(row):
            if square == "#":
                continue
            for dx, dy, a, b in (
                (1, 0, (1, 0), (1, 1)),
                (-1, 0, (0, 0), (0, 1)),
                (0, 1, (0, 1), (1, 1)),
                (0, -1, (0, 0), (1, 0)),
            ):
                if FLOOR_PLAN[y + dy][x + dx] == "#":
                    start, end = ((CELL * (x + px), CELL * (y + py)) for px, py in (a, b))
                    segments.append((start, end))
    return segments
