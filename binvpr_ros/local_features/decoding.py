# SPDX-License-Identifier: Apache-2.0
"""From what a network says of the cells of an image to its keypoints, and the bits that describe each."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros import lce_delegate
from binvpr_ros.lce_delegate import CELL, DecodedFeatures
from binvpr_ros.local_features.camera import Points

Floats = NDArray[np.float32]

POSITIONS = CELL**2
LOGIT_LEVELS = 16
"""Levels of the network's logits to 1."""
NEAR = 2
"""Pixels, in rows and in columns, within which a keypoint is the most probable position."""
LEAST_PROBABLE = np.float32(0.01)
GRID = 6
"""Columns and rows of the grid over which the features of an image are spread."""
FAIR_SHARES = 2
"""As many features as an even spread would give each part of the grid come before all others."""
POWERS = np.rint(np.exp(-np.arange(256) / LOGIT_LEVELS) * 2**20).astype(np.float32)
"""Of e, by how many levels a logit is below the highest of its cell; integers, so the same on every machine."""
SIGMOIDS = np.rint(2**16 / (1 + np.exp(-np.arange(-128, 128) / LOGIT_LEVELS))).astype(np.float32) / np.float32(2**16)
"""By the level of a logit, from -128 on; multiples of 2^-16, likewise."""


class Maps(NamedTuple):
    """What the network says of the H x W cells of an image, int8."""

    descriptors: NDArray[np.int8]  # [H,W,B], whose signs are the bits once they are interpolated
    keypoints: NDArray[np.int8]  # [H,W,65], the logits of the 64 positions in a cell, row by row, and of none
    reliability: NDArray[np.int8]  # [H,W], logits; those are multiples of 1/LOGIT_LEVELS


def decode(maps: Maps, size: tuple[int, int], most: int) -> DecodedFeatures:
    """Return the features of an image of `size` (width, height), which is the top left part of what the maps are of.

    Those are, `most` at the most, the positions that are the most probable ones near them, in the order of their
    probability times the reliability of their cell. Of several as good, the higher comes first, then the one further
    left. They are spread: no part of a grid has more than FAIR_SHARES of an even share of `most` before all other parts
    have theirs.

    By the library where it was compiled, by NumPy otherwise; both give the same, bit for bit.
    """
    with contextlib.suppress(lce_delegate.DelegateError):  # where it was not compiled
        return lce_delegate.decode_features(*maps, size, most)
    return decode_numpy(maps, size, most)


def decode_numpy(maps: Maps, size: tuple[int, int], most: int) -> DecodedFeatures:
    """Return what `decode` does, by NumPy alone."""
    width, height = size
    heat = probabilities(maps.keypoints)[:height, :width]
    y, x = np.nonzero(highest(heat) & (heat >= LEAST_PROBABLE))
    scores = heat[y, x] * SIGMOIDS[maps.reliability[y // CELL, x // CELL].astype(np.intp) + 128]
    order = np.argsort(-scores, kind="stable")
    part = (y * GRID // height * GRID + x * GRID // width)[order]
    share = -(-FAIR_SHARES * most // GRID**2)
    fair = np.zeros(len(order), np.bool_)
    for number in range(GRID**2):
        fair[np.flatnonzero(part == number)[:share]] = True
    best = np.concatenate([order[fair], order[~fair]])[:most]
    points: Points = np.stack([x[best], y[best]], axis=1).astype(np.float32)
    bits = np.packbits(interpolated(maps.descriptors, x[best], y[best]) >= 0, axis=1)
    return DecodedFeatures(points, scores[best], bits)


def probabilities(keypoints: NDArray[np.int8]) -> Floats:
    """Return how probable a keypoint is at each pixel [8H,8W], from the logits [H,W,65] of cells: their softmax."""
    levels_ = keypoints.astype(np.intp)
    powers = POWERS[levels_.max(axis=2, keepdims=True) - levels_]
    total = powers.astype(np.int64).sum(axis=2, keepdims=True).astype(np.float32)
    likely = powers[..., :POSITIONS] * (np.float32(1) / total)
    rows, columns = keypoints.shape[:2]
    pixels: Floats = likely.reshape(rows, columns, CELL, CELL).transpose(0, 2, 1, 3)
    return pixels.reshape(rows * CELL, columns * CELL)


def highest(heat: Floats) -> NDArray[np.bool_]:
    """Tell which pixels [H,W] are higher than all within NEAR before them, row by row, and not lower than any after."""
    height, width = heat.shape
    around = np.pad(heat, NEAR, constant_values=-1)
    result = np.ones(heat.shape, np.bool_)
    for down in range(-NEAR, NEAR + 1):
        for right in range(-NEAR, NEAR + 1):
            other = around[NEAR + down : NEAR + down + height, NEAR + right : NEAR + right + width]
            if (down, right) < (0, 0):
                result &= heat > other
            elif (down, right) > (0, 0):
                result &= heat >= other
    return result


def interpolated(descriptors: NDArray[np.int8], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return 256 times the descriptors [H,W,B] at pixels [N]: [N,B], linear between cells' centres, flat at the border.

    Cells' centres are at pixel 3.5, 11.5 and so on, so weights are sixteenths in each direction.
    """
    rows, columns = descriptors.shape[:2]
    right, down = np.clip(2 * x + 1 - CELL, 0, 16 * (columns - 1)), np.clip(2 * y + 1 - CELL, 0, 16 * (rows - 1))
    column, row = np.minimum(right // 16, columns - 2), np.minimum(down // 16, rows - 2)
    right, down = (right - 16 * column)[:, np.newaxis], (down - 16 * row)[:, np.newaxis]
    values = descriptors.astype(np.int64)
    upper = values[row, column] * (16 - right) + values[row, column + 1] * right
    lower = values[row + 1, column] * (16 - right) + values[row + 1, column + 1] * right
    result: NDArray[np.int64] = upper * (16 - down) + lower * down
    return result
