# SPDX-License-Identifier: Apache-2.0
"""The depths of local features, from a depth image of the same view."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.local_features.features import MILLIMETRES, MOST_DEPTH, POSITION_STEPS, Features

DepthImage: TypeAlias = NDArray[np.uint16] | NDArray[np.float32]
"""[H,W] of any size: uint16 in millimetres, 0 unknown; or float32 in metres, unknown where not finite or below 0."""

REACH = 2
"""Pixels around a feature, of a depth image of WIDTH, among which the median is taken: a hole is filled."""
WIDTH = 640
FEWEST_KNOWN = 0.5
"""Share of those pixels that must be known."""
MOST_SPREAD = 0.05
"""Share of the depth by which the middle half of those pixels may spread: at an edge, which side is it?"""


MOST_ASPECT = 0.02
"""Share by which the shapes of an image and of its depth may differ: of one that is not registered they do."""


def why_unusable(depth: DepthImage, size: tuple[int, int]) -> str:
    """Return why a depth image is none of the view of an image of `size` (width, height); "" where it may be."""
    height, width = depth.shape
    if abs(width * size[1] / (height * size[0]) - 1) > MOST_ASPECT:
        return (
            f"its {width}x{height} pixels have another aspect ratio than the image's {size[0]}x{size[1]}; "
            "use a depth topic that is registered to the camera"
        )
    known = depth[np.isfinite(depth) & (depth > 0)]
    if known.size > 1 and known.min() == known.max():
        return "all its depths are equal, like a placeholder's; check the driver of the depth camera"
    return ""


def with_depths(features: Features, depth: DepthImage) -> Features:
    """Return features with their depths, read from the `depth` image of the same view, of any size.

    A feature whose surroundings have holes, or lie at the edge of a thing, has none.
    """
    height, width = depth.shape
    step = max(1, round(width / WIDTH))
    column, row = (features.positions.astype(np.intp) * (width, height) // POSITION_STEPS).T
    around = np.arange(-REACH, REACH + 1) * step
    rows = np.clip(row[:, np.newaxis, np.newaxis] + around[:, np.newaxis], 0, height - 1)
    columns = np.clip(column[:, np.newaxis, np.newaxis] + around, 0, width - 1)
    metres = depth[rows, columns].reshape(len(row), around.size**2).astype(np.float64)
    if depth.dtype == np.uint16:
        metres /= MILLIMETRES
    known = np.isfinite(metres) & (metres > 0)
    # The unknown go last; of the others the quartiles are picked.
    ordered = np.sort(np.where(known, metres, np.inf), axis=1)
    count = known.sum(axis=1)
    lower, middle, upper = (ordered[np.arange(len(row)), (count - 1).clip(0) * part // 4] for part in (1, 2, 3))
    usable = (count >= FEWEST_KNOWN * around.size**2) & (middle <= MOST_DEPTH / MILLIMETRES)
    with np.errstate(invalid="ignore"):
        usable &= upper - lower <= MOST_SPREAD * middle
    depths = np.zeros(len(row), np.uint16)
    depths[usable] = np.rint(middle[usable] * MILLIMETRES)
    return features._replace(depths=depths)


NEAR = 0.01
"""Share of the image's width within which a feature has the depth of another: what lay at an edge has none."""


def with_depths_of(features: Features, earlier: Features) -> Features:
    """Return features with the depths of `earlier` ones of the same image, of any kind, each that of the nearest."""
    if earlier.depths is None:
        return features
    known = np.flatnonzero(earlier.depths)
    depths = np.zeros(len(features.positions), np.uint16)
    if known.size and depths.size:
        shape = np.array([1, features.size[1] / features.size[0]]) / POSITION_STEPS
        here, there = features.positions * shape, earlier.positions[known] * shape
        squares = ((here[:, np.newaxis] - there) ** 2).sum(axis=2)
        nearest = squares.argmin(axis=1)
        near = squares[np.arange(len(here)), nearest] <= NEAR**2
        depths[near] = earlier.depths[known[nearest[near]]]
    return features._replace(depths=depths)
