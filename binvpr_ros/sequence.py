# SPDX-License-Identifier: Apache-2.0
"""Distances of the last few keyframes together, along the map, at a speed that is not known.

A place seen in another season or light may be no nearer than others, image by image, and still be the one along which
all of the last images fit (SeqSLAM: Milford and Wyeth, ICRA 2012). That one searches for lines of constant speed; here
each step of the query may be any of up to `reach` keyframes of the map, so the robot may stand, or drive faster than
then, and change its speed. The best path to each keyframe follows from those to the keyframes before it (Viterbi), so
a step costs a few passes over the map, however long the sequence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 5
"""Keyframes of the map, at most, by which each step of a drive moves on."""


class SequenceMatcher:
    """Sums up the distances of keyframes as they come; a map may grow, and lose keyframes, between them."""

    def __init__(self) -> None:
        self._ids: NDArray[np.signedinteger[Any]] = np.empty(0, np.int32)
        self._paths: list[NDArray[np.float32]] = []  # [K] each: forwards along the map, and backwards

    def forget(self) -> None:
        """Start anew: the next keyframe is the first of its sequence."""
        self._paths = []

    def follow(
        self,
        distances: NDArray[Any],
        ids: NDArray[np.signedinteger[Any]],
        present: NDArray[np.bool_],
        keyframes: int,
        reach: int,
    ) -> NDArray[np.float32]:
        """Return the distances [K] of the sequence that ends with a keyframe at `distances` [K] to those of `ids` [K].

        Each is the mean along the best path that ends there. An earlier keyframe weighs 1 - 1/`keyframes` times what
        the one after it does. No path leads through keyframes of the `present` [K], which look like every query: theirs
        is the keyframe's own distance.
        """
        own = distances.astype(np.float32)
        weight = np.float32(1 / keyframes)
        before = [self._at(ids, path, own) for path in self._paths] or [own, own]
        forwards, backwards = (np.where(present, np.float32(np.inf), path) for path in before)
        least = _least_of_preceding(forwards, reach), _least_of_preceding(backwards[::-1], reach)[::-1]
        self._ids = ids.copy()
        self._paths = [np.where(present, own, own * weight + along * (1 - weight)) for along in least]
        return np.minimum(*self._paths)

    def _at(
        self, ids: NDArray[np.signedinteger[Any]], path: NDArray[np.float32], new: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return `path` [K'] for the keyframes that there are now [K]; where one has none, what is `new` [K]."""
        known = len(self._ids)
        if np.array_equal(self._ids, ids[:known]):
            return np.concatenate([path, new[known:]])
        at = np.minimum(self._ids.searchsorted(ids), known - 1)
        return np.where(self._ids[at] == ids, path[at], new)


def _least_of_preceding(values: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Return for each of the values [K] the least of it and the `reach` before it."""
    least = values.copy()
    width = 1  # of the windows whose least is known
    while width < reach + 1:
        step = min(width, reach + 1 - width)
        np.minimum(least[step:], least[:-step].copy(), out=least[step:])
        width += step
    return least
