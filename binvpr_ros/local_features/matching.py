# SPDX-License-Identifier: Apache-2.0
"""Which binary descriptors of two images are each other's nearest, clearly nearer than the second."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray

from binvpr_ros import lce_delegate
from binvpr_ros.lce_delegate import NO_DISTANCE, NO_ROW, NearestTwo
from binvpr_ros.network.hamming import hamming_numpy

BLOCK_BITS = 1 << 26
"""That NumPy compares at a time: 8 MB of memory."""


def mutual_matches(
    query: NDArray[np.uint8], match: NDArray[np.uint8], most_bits: int, ratio: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which descriptors [K] of `query` [N,B] are which [K] of `match` [M,B].

    Each is the nearest to the other, and they differ in `most_bits` at most and in `ratio` (Lowe, IJCV 2004, section
    7.1) at most of the bits in which the query's differs from the second nearest of `match`, where there is one. Of
    several as near the first counts. B is a multiple of 8, up to 64.
    """
    found = nearest_two(query, match)
    near = (found.distance <= most_bits) & (found.distance <= ratio * found.second.astype(np.float64))
    ours = np.flatnonzero(near & (found.nearest != NO_ROW))
    theirs = found.nearest[ours].astype(np.intp)
    mutual = found.back[theirs] == ours
    return ours[mutual], theirs[mutual]


def nearest_two(these: NDArray[np.uint8], those: NDArray[np.uint8]) -> NearestTwo:
    """Return the nearest two of `those` [M,B] to each of `these` [N,B], and the nearest of these to each of `those`.

    By the library where it was compiled, by NumPy otherwise; B is a multiple of 8, up to 64.
    """
    with contextlib.suppress(lce_delegate.DelegateError):  # where it was not compiled
        return lce_delegate.nearest_two(these, those)
    return nearest_two_numpy(these, those)


def nearest_two_numpy(these: NDArray[np.uint8], those: NDArray[np.uint8]) -> NearestTwo:
    """Return what `nearest_two` does, by NumPy alone."""
    count, other_count = len(these), len(those)
    found = NearestTwo(
        np.full(count, NO_ROW, np.int32), np.full(count, NO_DISTANCE, np.uint16),
        np.full(count, NO_DISTANCE, np.uint16), np.full(other_count, NO_ROW, np.int32),
    )  # fmt: skip
    if not count or not other_count:
        return found
    rows, others = (np.ascontiguousarray(some).view(np.uint64) for some in (these, those))
    least = np.full(other_count, NO_DISTANCE, np.uint16)
    step = max(1, BLOCK_BITS // (8 * those.nbytes))
    for start in range(0, count, step):
        block = slice(start, min(start + step, count))
        distances = hamming_numpy(others, rows[block, np.newaxis]).astype(np.uint16)
        lines, columns = np.arange(len(distances)), np.arange(other_count)
        nearest = distances.argmin(axis=1)
        found.nearest[block], found.distance[block] = nearest, distances[lines, nearest]
        back = distances.argmin(axis=0)
        nearer = distances[back, columns] < least
        least[nearer] = distances[back, columns][nearer]
        found.back[nearer] = start + back[nearer]
        distances[lines, nearest] = NO_DISTANCE
        found.second[block] = distances.min(axis=1)
    return found
