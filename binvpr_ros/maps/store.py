# SPDX-License-Identifier: Apache-2.0
"""KeyframeStore: keyframes in memory, in columns, for exact search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import NOTHING_CLOSED, Keyframe
from binvpr_ros.network.hamming import nearest_view

INITIAL_CAPACITY = 16
"""Keyframes for which a store has room at first; a fleet has thousands of maps, and many of them are small."""
BLOCK = 1 << 15
"""Keyframes whose descriptors lie in one piece. Memory for them grows by a block, and nothing is ever copied."""
MOST_KEYFRAMES = 1 << 31
"""Ids are below it."""
VIEW_LOST, NOT_LOOKED, ONLY_VIEW = -3, -2, -1
"""In place of the id of another view: it was removed, it was never looked for, or there is none."""

UNKNOWN_MOTION = np.full((1, 9), np.nan, np.float32)
UNKNOWN_WHEREABOUTS = np.full((1, 5), np.nan)

Number = TypeVar("Number", np.int32, np.int64, np.uint32, np.float32, np.float64)


class Columns(NamedTuple):
    """Some keyframes, column by column."""

    ids: NDArray[np.int32]  # [n], ascending
    sessions: NDArray[np.int32]  # [n]
    stamps: NDArray[np.int64]  # [n], nanoseconds
    closes: NDArray[np.int32]  # [n], ids, or NOTHING_CLOSED
    motions: NDArray[np.float32]  # [n,9], homographies to the keyframes before them, NaN where they are not known
    whereabouts: NDArray[np.float64]  # [n,5], by odometry: run, x, y, z, travelled; NaN where they are not known
    descriptors: NDArray[np.uint64]  # [n,W]

    @classmethod
    def of(cls, keyframe: Keyframe) -> Columns:
        """Return one keyframe as columns."""
        return cls(
            np.array([keyframe.id], np.int32),
            np.array([keyframe.session], np.int32),
            np.array([keyframe.stamp], np.int64),
            np.array([keyframe.closes], np.int32),
            UNKNOWN_MOTION if keyframe.motion is None else keyframe.motion.reshape(1, 9),
            UNKNOWN_WHEREABOUTS
            if (where := keyframe.whereabouts) is None
            else np.array([[where.run, *where.position, where.travelled]]),
            keyframe.descriptor[np.newaxis],
        )

    def only(self, chosen: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Columns:
        """Return the keyframes of a slice, of a mask [n], or of positions [m], in their order."""
        return Columns(
            self.ids[chosen], self.sessions[chosen], self.stamps[chosen], self.closes[chosen], self.motions[chosen],
            self.whereabouts[chosen], self.descriptors[chosen],
        )  # fmt: skip


def joined(parts: Sequence[Columns]) -> Columns:
    """Return the keyframes of several, one after the other."""
    return Columns(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.sessions for part in parts]),
        np.concatenate([part.stamps for part in parts]),
        np.concatenate([part.closes for part in parts]),
        np.concatenate([part.motions for part in parts]),
        np.concatenate([part.whereabouts for part in parts]),
        np.concatenate([part.descriptors for part in parts]),
    )


class KeyframeStore:
    """Keyframes by ascending id, with descriptors of `words` 64-bit words. What is removed leaves no room unused."""

    def __init__(self, words: int) -> None:
        self._words = words
        self._size = 0
        self._ids = np.empty(INITIAL_CAPACITY, np.int32)
        self._sessions = np.empty(INITIAL_CAPACITY, np.int32)
        self._stamps = np.empty(INITIAL_CAPACITY, np.int64)
        self._closes = np.empty(INITIAL_CAPACITY, np.int32)
        self._motions = np.empty((INITIAL_CAPACITY, 9), np.float32)
        self._whereabouts = np.empty((INITIAL_CAPACITY, 5), np.float64)
        self._views = np.empty(INITIAL_CAPACITY, np.int32)
        self._view_distances = np.empty(INITIAL_CAPACITY, np.uint32)
        self.viewed_as: tuple[int, float] | None = None
        """From which position on, and up to which share of differing bits, `views` were looked for."""
        self._blocks: list[NDArray[np.uint64]] = []  # [BLOCK,W] each
        self._rows_used = 0
        # Row of each keyframe's descriptor; None while they lie in the keyframes' order, as they do until the first is
        # removed. Descriptors are never moved: they are most of the memory.
        self._rows: NDArray[np.int32] | None = None
        self._free_rows: list[int] = []

    def __len__(self) -> int:
        """Return the number K of keyframes."""
        return self._size

    @property
    def ids(self) -> NDArray[np.int32]:
        """Ids [K], ascending."""
        return self._ids[: self._size]

    @property
    def sessions(self) -> NDArray[np.int32]:
        """Sessions [K]."""
        return self._sessions[: self._size]

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Stamps [K], nanoseconds."""
        return self._stamps[: self._size]

    @property
    def closes(self) -> NDArray[np.int32]:
        """Ids [K] of the keyframes whose places they were found to show, or NOTHING_CLOSED."""
        return self._closes[: self._size]

    @property
    def motions(self) -> NDArray[np.float32]:
        """Homographies [K,9] to the keyframes before them in their sessions; NaN where they are not known."""
        return self._motions[: self._size]

    @property
    def whereabouts(self) -> NDArray[np.float64]:
        """Whereabouts [K,5] by odometry: run, x, y, z (metres), way travelled; NaN where they are not known."""
        return self._whereabouts[: self._size]

    @property
    def views(self) -> NDArray[np.int32]:
        """Ids [K] of the nearest other views of their places, or one of the marks above; forgetting.py writes them."""
        return self._views[: self._size]

    @property
    def view_distances(self) -> NDArray[np.uint32]:
        """Hamming distances [K] to `views`; forgetting.py writes them."""
        return self._view_distances[: self._size]

    def distances(self, views: NDArray[np.uint64], first: int = 0) -> NDArray[np.uint32]:
        """Return the Hamming distance [K - first] of a descriptor [W] to every keyframe from `first` on; exact.

        With several `views` [V,W] it is that of the nearest one.
        """
        start = first if self._rows is None else 0
        distances = np.empty(self._rows_used - start, np.uint32)
        for number in range(start // BLOCK, len(self._blocks)):
            low, high = max(start, number * BLOCK), min(self._rows_used, (number + 1) * BLOCK)
            rows = self._blocks[number][low - number * BLOCK : high - number * BLOCK]
            nearest_view(rows, views, distances[low - start : high - start])
        return distances if self._rows is None else distances[self._rows[first : self._size]]

    def keyframe(self, position: int) -> Keyframe:
        """Return the keyframe at `position` of the columns, without its features."""
        row = position if self._rows is None else int(self._rows[position])
        return Keyframe(
            int(self._ids[position]),
            int(self._sessions[position]),
            int(self._stamps[position]),
            self._blocks[row // BLOCK][row % BLOCK].copy(),
            closes=int(self._closes[position]),
        )

    def columns(self, start: int, stop: int) -> Columns:
        """Return the keyframes from position `start` up to `stop`, in columns; their descriptors are copied."""
        rows = np.arange(start, stop) if self._rows is None else self._rows[start:stop]
        descriptors = np.empty((len(rows), self._words), np.uint64)
        for number, block in enumerate(self._blocks):
            here = rows // BLOCK == number
            descriptors[here] = block[rows[here] % BLOCK]
        return Columns(
            self.ids[start:stop], self.sessions[start:stop], self.stamps[start:stop], self.closes[start:stop],
            self.motions[start:stop], self.whereabouts[start:stop], descriptors,
        )  # fmt: skip

    def append(self, keyframes: Columns) -> None:
        """Take in keyframes with ids above all others."""
        start, stop = self._size, self._size + len(keyframes.ids)
        if stop > len(self._ids):
            # One after the other, since what is copied is there twice; what was never written to takes no memory.
            capacity = max(stop, 2 * len(self._ids))
            self._ids = _with_capacity(self._ids, capacity)
            self._sessions = _with_capacity(self._sessions, capacity)
            self._stamps = _with_capacity(self._stamps, capacity)
            self._closes = _with_capacity(self._closes, capacity)
            self._motions = _with_capacity(self._motions, capacity)
            self._whereabouts = _with_capacity(self._whereabouts, capacity)
            self._views = _with_capacity(self._views, capacity)
            self._view_distances = _with_capacity(self._view_distances, capacity)
            if self._rows is not None:
                self._rows = _with_capacity(self._rows, capacity)
        self._ids[start:stop] = keyframes.ids
        self._sessions[start:stop] = keyframes.sessions
        self._stamps[start:stop] = keyframes.stamps
        self._closes[start:stop] = keyframes.closes
        self._motions[start:stop] = keyframes.motions
        self._whereabouts[start:stop] = keyframes.whereabouts
        self._views[start:stop] = NOT_LOOKED
        descriptors = keyframes.descriptors
        if self._rows is not None:
            for number in range(start, stop):
                row = self._free_rows.pop() if self._free_rows else self._rows_used
                self._rows[number] = row
                self._write(row, descriptors[number - start : number - start + 1])
        else:
            while len(descriptors):
                room = BLOCK - self._rows_used % BLOCK
                self._write(self._rows_used, descriptors[:room])
                descriptors = descriptors[room:]
        self._size = stop

    def remove(self, position: int) -> list[int]:
        """Drop the keyframe at `position`; the room of its descriptor is the next one's.

        Return the ids of those that closed it. They close what it closed or, where that is nothing, the first of them:
        that they show one place stays known.
        """
        self.views[self.views == self._ids[position]] = VIEW_LOST
        joined = np.flatnonzero(self.closes == self._ids[position])
        joined_ids: list[int] = self._ids[joined].tolist()
        self._closes[joined] = self._closes[position]
        if joined_ids and self._closes[position] == NOTHING_CLOSED:
            self._closes[joined[1:]] = joined_ids[0]
        if self._rows is None:
            self._rows = _with_capacity(np.arange(self._size, dtype=np.int32), len(self._ids))
        self._free_rows.append(int(self._rows[position]))
        if position + 1 < self._size and self._sessions[position] == self._sessions[position + 1]:
            # The next one's motion leads to the one before both of them, if they are of one session.
            self._motions[position + 1] = composed(*self._motions[position : position + 2])
        columns = (
            self._ids, self._sessions, self._stamps, self._closes, self._motions, self._whereabouts, self._views,
            self._view_distances, self._rows,
        )  # fmt: skip
        for column in columns:
            column[position : self._size - 1] = column[position + 1 : self._size]
        self._size -= 1
        return joined_ids

    def _write(self, row: int, descriptors: NDArray[np.uint64]) -> None:
        """Put descriptors [n,W] into rows of one block, from `row` on."""
        if row == len(self._blocks) * BLOCK:
            self._blocks.append(np.empty((BLOCK, self._words), np.uint64))
        self._blocks[row // BLOCK][row % BLOCK : row % BLOCK + len(descriptors)] = descriptors
        self._rows_used = max(self._rows_used, row + len(descriptors))


def composed(here: NDArray[np.floating], following: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the motion [9] of a keyframe's `following` one, [9], and then its own, `here` [9]; NaN for the unknown."""
    motion = here.reshape(3, 3).astype(np.float64) @ following.reshape(3, 3)
    with np.errstate(divide="ignore", invalid="ignore"):  # what a damaged map says may be zeros
        result: NDArray[np.float64] = (motion / np.abs(motion).max()).ravel()
    return result


def _with_capacity(values: NDArray[Number], capacity: int) -> NDArray[Number]:
    larger = np.empty((capacity, *values.shape[1:]), values.dtype)
    larger[: len(values)] = values
    return larger
