# SPDX-License-Identifier: Apache-2.0
"""Which matches are loop closures, and for the others the reason of refusal.

The similarity of two descriptors of N bits at Hamming distance d is 1 - 2 d / N: the cosine of their signs. How high it
is for one place, and for two, depends on the scene, so a match's score is its position between them: 0 is the
similarity to the map as a whole (its median), 1 that of neighbouring keyframes. DBoW2 normalises by the latter alone
(Galvez-Lopez and Tardos, TRO 2012, section V-A); the former makes buildings where all looks alike score lower.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.database import KeyframeDatabase
from binvpr_ros.descriptor import WORD_BITS
from binvpr_ros.keyframes import NANOSECONDS, Keyframe

NOT_VERIFIED = -1
COUNTED_AT_ONCE = 1 << 15
"""Distances that NumPy counts at a time: it makes a copy of 64 bits each, which stays in the cache so."""


class Refusal(str, enum.Enum):
    """Why a keyframe's match is no loop closure; the values are the keys in diagnostics."""

    FEATURELESS = "featureless"  # the image shows too little contrast to be a keyframe
    NO_HISTORY = "no_history"  # no keyframe lies outside the exclusion window
    LOW_SCORE = "low_score"  # less similar than min_score
    NOT_CONFIRMED = "not_confirmed"  # the preceding keyframes did not match near the same place
    NOT_AMONG_BEST = "not_among_best"  # more than max_candidates other places match better


@dataclass(frozen=True)
class LoopClosure:
    """A query keyframe and an earlier keyframe of the same place; a row of the topic."""

    query: Keyframe
    match: Keyframe
    hamming: int  # bits
    score: float  # 0 to 1
    inliers: int = NOT_VERIFIED


@dataclass(frozen=True)
class Refused:
    """A match that was looked at and refused; `match` is None where there was nothing to match."""

    reason: Refusal
    match: Keyframe | None = None
    score: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What became of one query keyframe: its closures, best first, and what was refused."""

    closures: list[LoopClosure] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class _Candidate(NamedTuple):
    """A match above the threshold: its position in the database, and the streak of keyframes that matched near it.

    The score is not yet clipped to 1, so that the best of several good matches is told apart.
    """

    position: int
    id: int
    session: int
    score: float
    streak: int  # keyframes in a row, this one included
    since: int  # stamp of the first of them, nanoseconds


class LoopCloser:
    """Decides over the matches of each keyframe in turn; remembers what the preceding ones matched."""

    NEIGHBOURS = 15  # keyframes over which the similarity of neighbours is taken
    LEAST_NEIGHBOUR_SIMILARITY = 0.75  # of a calm drive; a fast one must not make poor matches look good
    MOST_PLACES = 20  # places followed from keyframe to keyframe

    def __init__(self) -> None:
        self._neighbour_similarities: deque[float] = deque(maxlen=self.NEIGHBOURS)
        self._previous: list[_Candidate] = []

    def decide(self, query: Keyframe, database: KeyframeDatabase, config: Config) -> Verdict:
        """Return the loop closures of `query`, which is not yet in `database`, and the refusals."""
        previous, self._previous = self._previous, []
        if len(database) == 0:
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])
        distances = database.distances(query.descriptor)
        # A map has many keyframes, and few distances that they can be at: all that follows is reckoned for the latter.
        bits = query.descriptor.size * WORD_BITS
        similarities = 1.0 - 2.0 * np.arange(bits + 1) / bits

        if database.sessions[-1] == query.session:
            self._neighbour_similarities.append(float(similarities[distances[-1]]))
        within_window = self._within_window(query, database, config)
        if within_window.all():
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])

        scores = self._scores(similarities, distances)
        distances[within_window] = len(scores)  # farther than any
        places = self._places(distances, scores, query, database, config)
        if not places:
            best = int(distances.argmin())
            refused = Refused(Refusal.LOW_SCORE, database.keyframe(best), _reported(scores[distances[best]]))
            return Verdict(refused=[refused])
        self._previous = [self._follow(place, previous, config) for place in places]

        closures: list[LoopClosure] = []
        refusals: list[Refused] = []
        for candidate in self._previous:
            match = database.keyframe(candidate.position)
            lasted = query.stamp - candidate.since
            if candidate.streak <= config.confirmations or lasted < config.confirmation_time * NANOSECONDS:
                refusals.append(Refused(Refusal.NOT_CONFIRMED, match, _reported(candidate.score)))
            elif len(closures) == config.max_candidates:
                refusals.append(Refused(Refusal.NOT_AMONG_BEST, match, _reported(candidate.score)))
            else:
                hamming = int(distances[candidate.position])
                closures.append(LoopClosure(query, match, hamming, _reported(candidate.score)))
        return Verdict(closures, refusals)

    def forget(self) -> None:
        """Start anew, as after a reset: nothing that was matched before confirms anything."""
        self._neighbour_similarities.clear()
        self._previous = []

    def _within_window(self, query: Keyframe, database: KeyframeDatabase, config: Config) -> NDArray[np.bool_]:
        """Return which keyframes [K] are too near in time, or among the latest, to be matched."""
        window = round(config.exclusion_time * NANOSECONDS)
        within = database.stamps > query.stamp - window
        within &= database.stamps < query.stamp + window
        within[database.ids.searchsorted(query.id - config.exclusion_keyframes) :] = True
        return within

    def _scores(self, similarities: NDArray[np.float64], distances: NDArray[np.uint32]) -> NDArray[np.float64]:
        """Return the score at each distance [N+1] of N bits, given the similarity there and the map's distances [K].

        It is 0 for the similarity to the map as a whole, 1 for that of neighbouring keyframes.
        """
        of_neighbours = self.LEAST_NEIGHBOUR_SIMILARITY
        if self._neighbour_similarities:
            of_neighbours = max(float(np.median(self._neighbour_similarities)), of_neighbours)
        # In a small map the median may itself be this place.
        of_others = min(float(similarities[_middle(distances, len(similarities))].mean()), of_neighbours / 2)
        return (similarities - of_others) / (of_neighbours - of_others)

    def _places(
        self,
        distances: NDArray[np.uint32],
        scores: NDArray[np.float64],
        query: Keyframe,
        database: KeyframeDatabase,
        config: Config,
    ) -> list[_Candidate]:
        """Return the best keyframe of each place that reaches the threshold, best first.

        `distances` [K] index `scores`; those beyond its end are not matched.
        """
        ids, sessions = database.ids, database.sessions
        places: list[_Candidate] = []
        # The farther, the lower the score.
        remaining = np.flatnonzero(distances < np.count_nonzero(scores >= config.min_score))
        while remaining.size and len(places) < self.MOST_PLACES:
            best = int(remaining[distances[remaining].argmin()])
            score = float(scores[distances[best]])
            places.append(_Candidate(best, int(ids[best]), int(sessions[best]), score, 1, query.stamp))
            apart = np.abs(ids[remaining] - ids[best]) > config.confirmation_window
            remaining = remaining[apart | (sessions[remaining] != sessions[best])]
        return places

    @staticmethod
    def _follow(place: _Candidate, previous: list[_Candidate], config: Config) -> _Candidate:
        """Return `place` with the longest streak that it continues."""
        near = [
            before
            for before in previous
            if before.session == place.session and abs(before.id - place.id) <= config.confirmation_window
        ]
        if not near:
            return place
        return place._replace(
            streak=1 + max(before.streak for before in near), since=min(before.since for before in near)
        )


def _middle(distances: NDArray[np.uint32], kinds: int) -> NDArray[np.intp]:
    """Return the two distances [2] in the middle of all [K], which are below `kinds`; twice the same for an odd K."""
    pieces = range(0, len(distances), COUNTED_AT_ONCE)
    counts = sum(np.bincount(distances[start : start + COUNTED_AT_ONCE], minlength=kinds) for start in pieces)
    return np.cumsum(counts).searchsorted([(len(distances) - 1) // 2, len(distances) // 2], side="right")


def _reported(score: float) -> float:
    """Return a score as it is published: 1 also for what is more similar than neighbouring keyframes are."""
    return float(np.clip(score, 0.0, 1.0))
