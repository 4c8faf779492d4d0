# SPDX-License-Identifier: Apache-2.0
"""The colours of an image, coarsely: corridors of one layout, which learned features match, may differ in nothing else.

Of each cell two ratios of red, green and blue, so that light which is merely brighter changes nothing. What all colours
are off by, the tint of the light or the camera's white balance, is left out where they are compared. Within a drive
they agree then (measured: docs/local_features.md); between seasons they do not.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image
from binvpr_ros.local_features.camera import Points

Colours = NDArray[np.uint8]
"""[ROWS,COLUMNS], a byte for each cell: the steps of its two ratios, those of the first in the upper four bits.

HIDDEN is that of a cell that shows the robot itself.
"""

ROWS, COLUMNS = 12, 16
SHADES = 16
"""Steps of a ratio, of which half are below zero."""
HIDDEN = 0
PER_UNIT = 20
"""Steps to one unit: (R-G)/(R+G) is half the natural logarithm of R/G."""
DARK = 16
"""Added to the sum of two levels, so that the colours of what is dark are not all noise."""
TOLERANCE = 2.0
"""Steps by which the colours of two views of one thing differ at the most, less the tint."""
MOST_TINT = 1.5
"""Steps by which the light, or the camera's white balance, may move all colours (measured: 1.4 in most drives)."""
LEAST_AGREEING, USUAL_AGREEING = 0.5, 0.7
"""Share of the cells in common whose colours agree: up to the first, evidence that two views are of one place counts
for nothing, from the second on for all. Measured: of one place, 95 of 100 pairs of three real drives have .67, .84 and
.85 or more, in the rendered building .62; of other places there, most have less than .5, a few up to .63."""
FEWEST_CELLS = 16
"""Cells in common, of which fewer say nothing."""


def colours(image: Image) -> Colours | None:
    """Return the colours of a uint8 image, [H,W,3] RGB; None for a grey one, [H,W]."""
    if image.ndim == 2:
        return None
    cells = cv2.resize(image, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA).astype(np.int64)
    red, green, blue = np.moveaxis(cells, 2, 0)
    # Integers, so that every machine has the same steps.
    first = _steps(red - green, red + green + DARK)
    second = _steps(red + green - 2 * blue, red + green + 2 * blue + 2 * DARK)
    result: Colours = np.maximum(first * SHADES + second, HIDDEN + 1).astype(np.uint8)
    return result


def without(found: Colours, hidden: NDArray[np.bool_]) -> Colours:
    """Return colours without those of cells of which a part is `hidden`, bool of any size that stands for the image."""
    shares = cv2.resize(hidden.astype(np.float32), (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    return np.where(shares > 0, np.uint8(HIDDEN), found)


def centres() -> NDArray[np.float64]:
    """Return the centres [ROWS*COLUMNS,2] of the cells, row by row, x and y in shares of the image."""
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    return np.stack([(column + 0.5) / COLUMNS, (row + 0.5) / ROWS], axis=1)


def agreement(ours: Colours, theirs: Colours, here: Points, there: Points) -> float:
    """Return for what share evidence that two images show one place counts, by their colours where they show the same.

    It is 1 where as many agree as usually do, or where too little is seen to tell, and 0 where half of them differ.

    `here` are the centres of the cells of `ours`, and `there` those of `theirs`, as pixels of one image; NaN for what
    is outside of it.
    """
    cell = np.linalg.norm(there[1] - there[0])
    inside, usable = (
        np.flatnonzero(np.isfinite(places).all(axis=1) & (cells.ravel() != HIDDEN))
        for places, cells in ((here, ours), (there, theirs))
    )
    if not np.isfinite(cell) or not len(usable):
        return 1.0
    ours_at, theirs_at = here[inside].astype(np.float64), there[usable].astype(np.float64)
    # |a - b|^2 by a product of matrices, which takes a tenth of the time of all differences.
    distances = (ours_at**2).sum(axis=1)[:, np.newaxis] - 2 * ours_at @ theirs_at.T + (theirs_at**2).sum(axis=1)
    near = distances.min(axis=1, initial=np.inf) <= (0.75 * cell) ** 2
    if np.count_nonzero(near) < FEWEST_CELLS:
        return 1.0
    nearest = usable[distances[near].argmin(axis=1)]
    differences = _apart(ours.ravel()[inside[near]]) - _apart(theirs.ravel()[nearest])
    tint = np.median(differences, axis=0)
    tint *= MOST_TINT / max(float(np.linalg.norm(tint)), MOST_TINT)
    share = float((np.linalg.norm(differences - tint, axis=1) <= TOLERANCE).mean())
    return float(np.clip((share - LEAST_AGREEING) / (USUAL_AGREEING - LEAST_AGREEING), 0, 1))


def _steps(difference: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ratios in steps, rounded half up, from 0 to SHADES - 1."""
    return np.clip((2 * PER_UNIT * difference + whole) // (2 * whole) + SHADES // 2, 0, SHADES - 1)


def _apart(bytes_: Colours) -> NDArray[np.float64]:
    """Return the two ratios [N,2] of colours [N], in steps."""
    return np.stack([bytes_ // SHADES, bytes_ % SHADES], axis=1).astype(np.float64)
