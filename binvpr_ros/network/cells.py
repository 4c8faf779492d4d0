# SPDX-License-Identifier: Apache-2.0
"""Which bits of a descriptor tell of which cell of the image, and what they would be with the camera turned a little.

A descriptor whose bits each belong to a cell tells places apart where the viewpoint is the same, and fails when the
camera points a cell higher. Comparing it shifted by some cells too, and taking the least distance, brings that back
(after the shifted images of SeqSLAM: Milford and Wyeth, ICRA 2012, section III-B).
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.network.hamming import WORD_BITS, Descriptor

Grids = tuple[tuple[int, int], ...]
"""Cells a side and bits of each cell, grid after grid: the bits of a cell together, cells row by row from the top left.

Bits are in the order of np.packbits. Empty: it is not known which of them belong where.
"""


def shifted(descriptor: Descriptor, grids: Grids, reach: int) -> NDArray[np.uint64]:
    """Return a `descriptor` [W], and what it would be with the image moved by up to `reach` cells each way: [V,W].

    The descriptor itself comes first; V is (2 `reach` + 1) squared where there are so many cells. They are those of the
    finest grid; one with half as many a side moves half as far, rounded towards none. What comes in at an edge is taken
    for what is at the edge.
    """
    bits = np.unpackbits(descriptor.view(np.uint8))
    return np.packbits(bits[_sources(grids, reach, descriptor.size * WORD_BITS)], axis=1).view(np.uint64)


def steady_bits(grids: Grids, reach: int, bits: int) -> NDArray[np.bool_]:
    """Return which of so many bits [bits] are the same in all that `shifted` returns."""
    return (_sources(grids, reach, bits) == np.arange(bits)).all(axis=0)


@functools.lru_cache(maxsize=8)
def _sources(grids: Grids, reach: int, bits: int) -> NDArray[np.intp]:
    """Return for each shift, and each of the bits, which bit takes its place: [V,bits]."""
    finest = max((side for side, _ in grids), default=1)
    steps = sorted(range(-reach, reach + 1), key=abs)
    shifts = list(itertools.product(steps, repeat=2))  # none at all first
    sources = np.tile(np.arange(bits), (len(shifts), 1))
    for row, (down, right) in zip(sources, shifts, strict=True):
        start = 0
        for side, bits_of_cell in grids:
            stop = start + side**2 * bits_of_cell
            cells = np.arange(start, stop).reshape(side, side, bits_of_cell)
            rows, columns = (np.clip(np.arange(side) + int(by * side / finest), 0, side - 1) for by in (down, right))
            row[start:stop] = cells[rows[:, None], columns].reshape(-1)
            start = stop
    _, firsts = np.unique(sources, axis=0, return_index=True)
    return sources[np.sort(firsts)]
