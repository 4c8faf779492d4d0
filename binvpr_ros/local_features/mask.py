# SPDX-License-Identifier: Apache-2.0
"""Which parts of the image show the robot itself: its deck, its gripper, dirt on the lens, a line of date and time.

Features there obey "no motion" in whatever two images. The user may say where they are (parameter `mask`). They are
learnt too: a feature that stays at its pixel from one keyframe to the next, while the rest of the image moves in such a
way that it should have moved as well, is on the robot. Far scenery ahead of a robot that drives straight on stays too,
and the rest of the image says that it should.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import ConfigError
from binvpr_ros.local_features.colours import without
from binvpr_ros.local_features.features import POSITION_STEPS, Features
from binvpr_ros.local_features.geometry import MOST_ITERATIONS, STILL, TOLERANCE, WIDTH, moved
from binvpr_ros.local_features.kinds import matches

ROWS, COLUMNS = 18, 24
"""Cells of the image for which is learnt whether they show the robot."""
MOVED = 8.0
"""Pixels by which a feature should have moved so that to stay says something."""
FEWEST_MOVED = 15
"""Features that must have moved, all by one homography, to say how the rest of the image moves."""
FEWEST_CELLS = 8
"""Cells that these must lie in."""
ENOUGH = 4
"""Times that a cell's features must have stayed; each time that they move halves the count."""
LOOKED_AT_AGAIN = 32
"""Keyframes, of which two in a row are looked at without what was learnt: it may be there no more, or be wrong."""

EDGES = 512
"""Of the image each way, to which the edges of rectangles are rounded."""


class Mask:
    """Leaves out the features of a camera's images that are on the robot; `given` (bool, any size) says where it is."""

    def __init__(self, given: NDArray[np.bool_] | None = None) -> None:
        self._given = given
        self._stayed = np.zeros((ROWS, COLUMNS), int)
        self._keyframes = 0
        self._latest: Features | None = None

    def features(self, extract: Callable[[NDArray[np.uint8] | None], Features]) -> Features:
        """Return the features of a new keyframe that are not on the robot, and learn from them.

        `extract` finds them where that is asked for, as `LocalFeatures.extract` does.
        """
        looks_again = self._keyframes % LOOKED_AT_AGAIN < 2
        self._keyframes += 1
        hidden = self.hidden
        found = extract(None if looks_again else self.visible)
        self._learn(found, looks_again)
        if hidden is None:
            return found
        if found.colours is not None:
            found = found._replace(colours=without(found.colours, hidden))
        column, row = (found.positions.astype(int) * hidden.shape[::-1] // POSITION_STEPS).T
        return found.only(~hidden[row, column])

    @property
    def hidden(self) -> NDArray[np.bool_] | None:
        """Where the robot is, in an image of any size that stands for the camera's; None for nowhere."""
        learnt = self._learnt
        if self._given is None or not learnt.any():
            return learnt if learnt.any() else self._given
        height, width = self._given.shape
        enlarged = cv2.resize(learnt.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        return self._given | (enlarged > 0)

    @property
    def visible(self) -> NDArray[np.uint8] | None:
        """What is not hidden, as `LocalFeatures.extract` takes it."""
        hidden = self.hidden
        return None if hidden is None else np.where(hidden, 0, 255).astype(np.uint8)

    @property
    def _learnt(self) -> NDArray[np.bool_]:
        """Cells [ROWS,COLUMNS] that were found to be on the robot, and those around them."""
        return _with_neighbours(self._stayed >= ENOUGH)

    def _learn(self, features: Features, everywhere: bool) -> None:
        """Learn from the features of the newest keyframe and of the one before it.

        Those that were found where nothing is hidden say nothing about the rest, unless they are from `everywhere`.
        """
        latest, self._latest = self._latest, features
        if latest is None:
            return
        ours, theirs = matches(features, latest)
        size = WIDTH, WIDTH * features.size[1] / features.size[0]
        here, there = features.points(ours, size), latest.points(theirs, size)
        offsets = np.linalg.norm(here - there, axis=1)
        moving = offsets > 2 * STILL
        if np.count_nonzero(moving) < FEWEST_MOVED:
            return
        try:
            homography, obeying = cv2.findHomography(
                here[moving], there[moving], cv2.USAC_MAGSAC, TOLERANCE, maxIters=MOST_ITERATIONS
            )
        except cv2.error:  # how USAC reports points that admit none
            return
        if homography is None or np.count_nonzero(obeying) < FEWEST_MOVED:
            return
        went = self._cells(features.positions[ours[moving]][np.asarray(obeying).ravel() > 0])
        if np.count_nonzero(went) < FEWEST_CELLS:
            return
        should_move = np.linalg.norm(moved(here, homography) - here, axis=1) > MOVED
        stayed = self._cells(features.positions[ours[(offsets < STILL) & should_move]])
        moves = _with_neighbours(went) & ~stayed
        if not everywhere:
            moves &= ~self._learnt
        self._stayed[moves] //= 2
        self._stayed[stayed] = np.minimum(self._stayed[stayed] + 1, 2 * ENOUGH)

    @staticmethod
    def _cells(positions: NDArray[np.uint16]) -> NDArray[np.bool_]:
        column, row = (positions.astype(int) * (COLUMNS, ROWS) // POSITION_STEPS).T
        cells = np.zeros((ROWS, COLUMNS), bool)
        cells[row, column] = True
        return cells


def _with_neighbours(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return cv2.dilate(cells.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def read_mask(text: str) -> NDArray[np.bool_] | None:
    """Return where the robot is in the image, by the parameter `mask`; None for nothing. Raises ConfigError.

    It is an image file that is black there, or rectangles, `left top right bottom` in shares of the image, with
    semicolons between them.
    """
    if not text.strip():
        return None
    try:
        rectangles = [[float(number) for number in part.split()] for part in text.split(";") if part.strip()]
    except ValueError:
        image = cv2.imread(text, cv2.IMREAD_GRAYSCALE) if Path(text).is_file() else None
        if image is None:
            raise ConfigError(
                f"mask is {text!r}, which is neither an image file nor rectangles; name an image that is black where "
                "the robot is, or give 'left top right bottom' as shares of the image"
            ) from None
        return _usable(np.asarray(image) < 128)
    given = np.zeros((EDGES, EDGES), bool)
    for rectangle in rectangles:
        left, top, right, bottom = rectangle if len(rectangle) == 4 else (0.0, 0.0, 0.0, 0.0)
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ConfigError(f"mask has the rectangle {rectangle}; give 'left top right bottom' as shares from 0 to 1")
        given[round(top * EDGES) : round(bottom * EDGES), round(left * EDGES) : round(right * EDGES)] = True
    return _usable(given)


def _usable(given: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if given.all():
        raise ConfigError("mask hides the whole image; leave the parts that do not show the robot white")
    return given
