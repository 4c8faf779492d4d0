# SPDX-License-Identifier: Apache-2.0
"""FoundKeyframes: what a query finds in the maps of the others, as `loop_closure.LoopCloser` searches it."""

from __future__ import annotations

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
    return Keyframe(
        whole_id(OWN, keyframe.id), whole_id(OWN, keyframe.session), keyframe.stamp, keyframe.descriptor,
        keyframe.features,
    )  # fmt: skip


class FoundKeyframes(SearchedKeyframes):
    """Stretches of other maps, made for one query, and before it in its own session the `previous` keyframe.

    `typical` [N] are the distances of keyframes from all over the fleet's map.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        typical: NDArray[np.uint32],
        previous: Keyframe | None,
        grids: Grids,
        features: Callable[[OtherMap, int], Features | None],
    ) -> None:
        self._stretches = sorted(stretches, key=lambda one: (one.whose.number, int(one.keyframes.sessions[0])))
        self._typical, self._previous, self._grids, self._features = typical, previous, grids, features
        self._whose = {stretch.whose.number: stretch.whose for stretch in stretches}

    def __len__(self) -> int:
        """Return the number K of keyframes."""
        return self.foreign + (self._previous is not None)

    @property
    def maps(self) -> int:
        """How many maps the keyframes are of."""
        return max(len(self._whose), 1)

    @cached_property
    def foreign(self) -> int:
        """How many are of other maps: all but `previous`."""
        return sum(len(stretch.distances) for stretch in self._stretches)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Ids [K], ascending: `whole_id`."""
        return self._joined([self._whole(one, one.keyframes.ids) for one in self._stretches], "id")

    @cached_property
    def sessions(self) -> NDArray[np.int64]:
        """Sessions [K], likewise."""
        return self._joined([self._whole(one, one.keyframes.sessions) for one in self._stretches], "session")

    @cached_property
    def stamps(self) -> NDArray[np.int64]:
        """Stamps [K], nanoseconds of each robot's clock."""
        return self._joined([one.keyframes.stamps for one in self._stretches], "stamp")

    @cached_property
    def closes(self) -> NDArray[np.int64]:
        """Ids [K] of the keyframes whose places they were found to show, or NOTHING_CLOSED."""
        closed = [(one, one.keyframes.closes) for one in self._stretches]
        whole = [np.where(ids == NOTHING_CLOSED, NOTHING_CLOSED, self._whole(one, ids)) for one, ids in closed]
        return self._joined(whole, "closes")

    @cached_property
    def whereabouts(self) -> NDArray[np.float64]:
        """Whereabouts [K,5], none of which are known."""
        return np.full((len(self), 5), np.nan)

    def motion(self, first: int, last: int) -> NDArray[np.float64] | None:
        """Return the homography [3,3] from the keyframe at `last` to that at `first`; None where it is not known."""
        # Between keyframes that were not fetched there may be others.
        numbers = self.ids[first : last + 1]
        if last >= self.foreign or len(numbers) != numbers[-1] - numbers[0] + 1:
            return None
        return motion_along(self._motions[first + 1 : last + 1])

    def views(self, descriptor: Descriptor, shift_cells: int) -> NDArray[np.uint64]:
        """Return `descriptor` as it would be with the image moved by up to so many cells, itself first: [V,W]."""
        return shifted(descriptor, self._grids, shift_cells)

    def distances(self, views: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return the Hamming distance [K] of the query, whose `views` [V,W] these are, to every keyframe."""
        own = [] if self._previous is None else [nearest_view(self._previous.descriptor[np.newaxis], views)]
        return np.concatenate([*(one.distances for one in self._stretches), *own])

    def typical(self, _: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return distances [N] of the query to keyframes from all over the map."""
        return self._typical

    def keyframe(self, index: int) -> Keyframe:
        """Return the keyframe at a position of the arrays above, without its features."""
        if index >= self.foreign and self._previous is not None:
            return self._previous
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
        if keyframe.id // MOST_KEYFRAMES == OWN:
            return None
        whose, number, _ = self.origin(keyframe)
        return self._features(whose, number)

    def camera_of(self, keyframe: Keyframe) -> Camera | None:
        """Return the camera of a keyframe's map, the latest of several; None if not known."""
        return self.origin(keyframe)[0].identity.camera

    def calibration_is_sure(self, keyframe: Keyframe) -> bool:
        """Tell whether `camera_of` a keyframe surely took its image."""
        whose, number, _ = self.origin(keyframe)
        return whose.identity.camera is not None and number >= whose.identity.camera_from

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        counts = [len(stretch.distances) for stretch in self._stretches]
        return np.cumsum([0, *counts[:-1]])

    @cached_property
    def _motions(self) -> NDArray[np.float32]:
        return np.concatenate([one.keyframes.motions for one in self._stretches])

    @staticmethod
    def _whole(stretch: Stretch, numbers: NDArray[np.int32]) -> NDArray[np.int64]:
        return whole_id(stretch.whose.number, 0) + numbers.astype(np.int64)

    def _joined(self, columns: Sequence[NDArray[np.int64]], name: str) -> NDArray[np.int64]:
        own = [] if self._previous is None else [np.array([getattr(self._previous, name)], np.int64)]
        return np.concatenate([*columns, *own]) if columns or own else np.empty(0, np.int64)


def best_sessions(distances: NDArray[np.uint32], sessions: NDArray[np.int64]) -> list[slice]:
    """Return where the MOST_SESSIONS sessions [K] lie that have the nearest keyframes, given all distances [K]."""
    if not len(sessions):
        return []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(sessions)) + 1])
    nearest = np.minimum.reduceat(distances, starts)
    stops = np.append(starts[1:], len(sessions))
    chosen = nearest.argsort(kind="stable")[:MOST_SESSIONS]
    return [slice(int(starts[one]), int(stops[one])) for one in chosen]
