# SPDX-License-Identifier: Apache-2.0
"""FoundKeyframes: what a query finds in the maps of the others, as `loop_closure.LoopCloser` searches it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import NOTHING_CLOSED, Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.fleet.rows import OtherMap
from binvpr_ros.maps.searched import SearchedKeyframes, motion_along
from binvpr_ros.maps.store import MOST_KEYFRAMES, Columns
from binvpr_ros.network.cells import Grids, shifted
from binvpr_ros.network.hamming import Descriptor, nearest_view

OWN = MOST_KEYFRAMES - 1
"""In place of the number of a map: the robot's own, which comes after all others."""
MOST_SESSIONS = 8
"""Sessions that are looked at, those with the nearest keyframe. A place that every robot passes each day needs no more,
and the places of one session are what can make a match ambiguous."""


class Stretch(NamedTuple):
    """Keyframes of one session of a map, and how far each is from the query."""

    whose: OtherMap
    keyframes: Columns  # with the map's own ids
    distances: NDArray[np.uint32]  # [n], bits


def whole_id(number: int, keyframe: int) -> int:
    """Return the id of a keyframe among those of all maps; of a session likewise."""
    return number * MOST_KEYFRAMES + keyframe


def own_query(keyframe: Keyframe) -> Keyframe:
    """Return a keyframe of the robot's own map, by that map's ids, as one that is looked for in the others."""
    return dataclasses.replace(
        keyframe, id=whole_id(OWN, keyframe.id), session=whole_id(OWN, keyframe.session), closes=NOTHING_CLOSED
    )


class OwnKeyframes(NamedTuple):
    """The robot's own map at one moment, which has a say in what is a closure, though none is closed to it."""

    keyframes: Columns  # with the robot's ids
    matched: slice  # those that came before the query, and are matched
    maps: int
    features: Callable[[Keyframe], Features | None]
    camera_of: Callable[[Keyframe], Camera | None]
    calibration_is_sure: Callable[[Keyframe], bool]


class FoundKeyframes(SearchedKeyframes):
    """Stretches of other maps, made for one query, and after them the robot's `own` map, once `beside` is called.

    `typical` [N] are the distances of keyframes from all over the fleet's map.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        typical: NDArray[np.uint32],
        own: OwnKeyframes | None,
        grids: Grids,
        features: Callable[[OtherMap, int], Features | None],
    ) -> None:
        self._stretches = sorted(stretches, key=lambda one: (one.whose.number, int(one.keyframes.sessions[0])))
        self._typical, self._grids, self._features = typical, grids, features
        self._own = None if own is None else own._replace(keyframes=own.keyframes.only(own.matched))
        self._whose = {stretch.whose.number: stretch.whose for stretch in stretches}

    def beside(self, own: OwnKeyframes, query: Keyframe, shift_cells: int) -> FoundKeyframes:
        """Return the same beside the robot's own map: its session of the query, and those nearest to it.

        What the own map holds too is left out of the others': after a fork the original has the copy's images.
        """
        stretches = []
        for one in self._stretches:
            new = ~_held(one.keyframes, own.keyframes)
            if new.any():
                stretches.append(one._replace(keyframes=one.keyframes.only(new), distances=one.distances[new]))
        matched = own.keyframes.only(own.matched)
        distances = nearest_view(matched.descriptors, self.views(query.descriptor, shift_cells))
        chosen = whole_id(OWN, 0) + matched.sessions.astype(np.int64) == query.session
        for span in best_sessions(distances, matched.sessions.astype(np.int64)):
            chosen[span] = True
        near = own._replace(keyframes=matched.only(chosen), matched=slice(None))
        return FoundKeyframes(stretches, self._typical, near, self._grids, self._features)

    def __len__(self) -> int:
        """Return the number K of keyframes."""
        return self.foreign + (0 if self._own is None else len(self._own.keyframes.ids))

    @property
    def maps(self) -> int:
        """How many maps the keyframes are of."""
        return max(len(self._whose) + (0 if self._own is None else self._own.maps), 1)

    @cached_property
    def foreign(self) -> int:
        """How many are of other maps: all but the own."""
        return sum(len(stretch.distances) for stretch in self._stretches)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Ids [K], ascending: `whole_id`."""
        own = None if self._own is None else whole_id(OWN, 0) + self._own.keyframes.ids.astype(np.int64)
        return _joined([self._whole(one, one.keyframes.ids) for one in self._stretches], own)

    @cached_property
    def sessions(self) -> NDArray[np.int64]:
        """Sessions [K], likewise."""
        own = None if self._own is None else whole_id(OWN, 0) + self._own.keyframes.sessions.astype(np.int64)
        return _joined([self._whole(one, one.keyframes.sessions) for one in self._stretches], own)

    @cached_property
    def stamps(self) -> NDArray[np.int64]:
        """Stamps [K], nanoseconds of each robot's clock."""
        own = None if self._own is None else self._own.keyframes.stamps
        return _joined([one.keyframes.stamps for one in self._stretches], own)

    @cached_property
    def closes(self) -> NDArray[np.int64]:
        """Ids [K] of the keyframes whose places they were found to show, or NOTHING_CLOSED."""
        closed = [(one.whose.number, one.keyframes.closes) for one in self._stretches]
        if self._own is not None:
            closed.append((OWN, self._own.keyframes.closes))
        return _joined([
            np.where(ids == NOTHING_CLOSED, NOTHING_CLOSED, whole_id(number, 0) + ids.astype(np.int64))
            for number, ids in closed
        ], None)  # fmt: skip

    @cached_property
    def whereabouts(self) -> NDArray[np.float64]:
        """Whereabouts [K,5]; those of others are not known."""
        others = np.full((self.foreign, 5), np.nan)
        return others if self._own is None else np.concatenate([others, self._own.keyframes.whereabouts])

    def motion(self, first: int, last: int) -> NDArray[np.float64] | None:
        """Return the homography [3,3] from the keyframe at `last` to that at `first`; None where it is not known."""
        if self.sessions[first] != self.sessions[last]:
            return None
        # Between others' keyframes that were not fetched there may be more.
        numbers = self.ids[first : last + 1]
        if last < self.foreign and len(numbers) != numbers[-1] - numbers[0] + 1:
            return None
        return motion_along(self._motions[first + 1 : last + 1])

    def views(self, descriptor: Descriptor, shift_cells: int) -> NDArray[np.uint64]:
        """Return `descriptor` as it would be with the image moved by up to so many cells, itself first: [V,W]."""
        return shifted(descriptor, self._grids, shift_cells)

    def distances(self, views: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return the Hamming distance [K] of the query, whose `views` [V,W] these are, to every keyframe."""
        own = [] if self._own is None else [nearest_view(self._own.keyframes.descriptors, views)]
        return np.concatenate([*(one.distances for one in self._stretches), *own])

    def typical(self, distances: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return distances [N] of the query to keyframes from all over the maps."""
        return np.concatenate([self._typical, distances[self.foreign :]])

    def keyframe(self, index: int) -> Keyframe:
        """Return the keyframe at a position of the arrays above, without its features."""
        if index >= self.foreign and self._own is not None:
            descriptor = self._own.keyframes.descriptors[index - self.foreign]
            return Keyframe(
                int(self.ids[index]), int(self.sessions[index]), int(self.stamps[index]), descriptor,
                closes=int(self.closes[index]),
            )  # fmt: skip
        start = int(self._starts.searchsorted(index, side="right")) - 1
        descriptor = self._stretches[start].keyframes.descriptors[index - int(self._starts[start])]
        return Keyframe(
            int(self.ids[index]), int(self.sessions[index]), int(self.stamps[index]), descriptor,
            closes=int(self.closes[index]),
        )  # fmt: skip

    def origin(self, keyframe: Keyframe) -> tuple[OtherMap, int, int]:
        """Return the map that a keyframe is of, and its id and its session there."""
        number, there = divmod(keyframe.id, MOST_KEYFRAMES)
        return self._whose[number], there, keyframe.session % MOST_KEYFRAMES

    def features(self, keyframe: Keyframe) -> Features | None:
        """Return the features of a keyframe; None where there are none, or the server cannot be asked."""
        if self._own is not None and is_own(keyframe):
            return self._own.features(_by_own_ids(keyframe))
        whose, number, _ = self.origin(keyframe)
        return self._features(whose, number)

    def camera_of(self, keyframe: Keyframe) -> Camera | None:
        """Return the camera of a keyframe's map, the latest of several; None if not known."""
        if self._own is not None and is_own(keyframe):
            return self._own.camera_of(_by_own_ids(keyframe))
        return self.origin(keyframe)[0].identity.camera

    def calibration_is_sure(self, keyframe: Keyframe) -> bool:
        """Tell whether `camera_of` a keyframe surely took its image."""
        if self._own is not None and is_own(keyframe):
            return self._own.calibration_is_sure(_by_own_ids(keyframe))
        whose, number, _ = self.origin(keyframe)
        return whose.identity.camera is not None and number >= whose.identity.camera_from

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        counts = [len(stretch.distances) for stretch in self._stretches]
        return np.cumsum([0, *counts[:-1]])

    @cached_property
    def _motions(self) -> NDArray[np.float32]:
        own = [] if self._own is None else [self._own.keyframes.motions]
        return np.concatenate([*(one.keyframes.motions for one in self._stretches), *own])

    @staticmethod
    def _whole(stretch: Stretch, numbers: NDArray[np.int32]) -> NDArray[np.int64]:
        return whole_id(stretch.whose.number, 0) + numbers.astype(np.int64)


def is_own(keyframe: Keyframe) -> bool:
    """Tell whether a keyframe is of the robot's own map."""
    return keyframe.id // MOST_KEYFRAMES == OWN


def _by_own_ids(keyframe: Keyframe) -> Keyframe:
    number, session = keyframe.id % MOST_KEYFRAMES, keyframe.session % MOST_KEYFRAMES
    return dataclasses.replace(keyframe, id=number, session=session)


def _held(keyframes: Columns, own: Columns) -> NDArray[np.bool_]:
    """Return which keyframes [n] the own map holds too: of one stamp and one descriptor."""
    held = np.isin(keyframes.stamps, own.stamps)
    for index in np.flatnonzero(held):  # simulations repeat stamps
        there = own.descriptors[own.stamps == keyframes.stamps[index]]
        held[index] = (there == keyframes.descriptors[index]).all(axis=1).any()
    return held


def _joined(columns: Sequence[NDArray[np.int64]], own: NDArray[np.int64] | None) -> NDArray[np.int64]:
    every = [*columns] if own is None else [*columns, own]
    return np.concatenate(every) if every else np.empty(0, np.int64)


def best_sessions(distances: NDArray[np.uint32], sessions: NDArray[np.int64]) -> list[slice]:
    """Return where the MOST_SESSIONS sessions [K] lie that have the nearest keyframes, given all distances [K]."""
    if not len(sessions):
        return []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(sessions)) + 1])
    nearest = np.minimum.reduceat(distances, starts)
    stops = np.append(starts[1:], len(sessions))
    chosen = nearest.argsort(kind="stable")[:MOST_SESSIONS]
    return [slice(int(starts[one]), int(stops[one])) for one in chosen]
