# SPDX-License-Identifier: Apache-2.0
"""Which matches are loop closures, and for the others the reason of refusal.

The similarity of two descriptors of N bits at Hamming distance d is 1 - 2 d / N: the cosine of their signs. The query
is moved by some cells of the image where that brings it nearer (`shift_cells`). How high a similarity is for one place,
and for two, depends on the scene, so a match's score is its position between them: 0 is the similarity to the map as a
whole (its median), 1 that of neighbouring keyframes. DBoW2 normalises by the latter alone (Galvez-Lopez and Tardos, TRO
2012, section V-A); the former makes buildings where all looks alike score lower.

What scores well and is confirmed by the keyframes before must then be a place that was left and come back to, must not
be one of many that look alike, and must be verified by geometry.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED, Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.hamming import WORD_BITS, hamming
from binvpr_ros.sequence import SequenceMatcher

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
    NEVER_LEFT = "never_left"  # the view has been much the same all the time since
    AMBIGUOUS = "ambiguous"  # more than max_places places look like this one
    FEW_INLIERS = "few_inliers"  # the local features do not obey one motion of the camera
    NOT_VERIFIED = "not_verified"  # there was no time to verify, or there are no features


@dataclass(frozen=True)
class LoopClosure:
    """A query keyframe and an earlier keyframe of the same place; a row of the topic."""

    query: Keyframe
    match: Keyframe
    hamming: int  # bits, of the query moved by the cells that bring it nearest
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

    @property
    def best(self) -> LoopClosure | Refused | None:
        """The best closure, or else the best match that was refused; None where there was nothing to match."""
        matched: list[LoopClosure | Refused] = [*self.closures, *self.refused]
        return next((judged for judged in matched if judged.match is not None), None)


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


Verify = Callable[[Features, Features, Camera | None], int]
"""Two images' features and their camera -> inliers, as `features.verify` does."""
Clock = Callable[[], float]
"""Seconds since any moment, as `time.perf_counter` does."""


class _Trial:
    """Tries the candidates of one keyframe: that they are one place, to which the robot came back, and by geometry."""

    ISLAND_SCORE = 0.5  # of a match's score: what an island of keyframes around it, or the present, reaches throughout
    RIVAL_SCORE = 0.8  # of a match's score: what the best of an island reaches that could be taken for it

    def __init__(
        self,
        query: Keyframe,
        database: KeyframeDatabase,
        config: Config,
        camera: Camera | None,
        views: NDArray[np.uint64],
        scores: NDArray[np.float64],
        distances: NDArray[np.uint32],
        verify: Verify,
        clock: Clock,
    ) -> None:
        self.query = query
        self.views = views  # [V,W], of the query's descriptor
        self.database = database
        self.config = config
        self._camera = camera
        self.distances = distances  # [K], of the keyframes within the exclusion window too
        self._score_at = scores  # [N+1], by distance
        self._verify = verify
        self._clock = clock
        self._spent = 0.0  # seconds

    @cached_property
    def _scores(self) -> NDArray[np.float64]:
        """Scores [K] of all keyframes; most queries have no candidate that needs them."""
        return self._score_at[self.distances]

    def of(self, candidate: _Candidate, match: Keyframe) -> tuple[Refusal | None, int]:
        """Return why `candidate`, which is the keyframe `match`, is no closure, or None, and the inliers."""
        reason = self._aliasing(candidate)
        if reason is not None or not self.config.verify:
            return reason, NOT_VERIFIED
        if self.query.features is None or self._spent >= self.config.verification_time:
            return Refusal.NOT_VERIFIED, NOT_VERIFIED
        start = self._clock()
        features = self.database.features(match)
        if features is None:
            return Refusal.NOT_VERIFIED, NOT_VERIFIED
        inliers = self._verify(self.query.features, features, self._camera)
        self._spent += self._clock() - start
        return (None if inliers >= self.config.min_inliers else Refusal.FEW_INLIERS), inliers

    def _aliasing(self, candidate: _Candidate) -> Refusal | None:
        """Return why the map around `candidate` looks like no one place to which the robot came back, or None.

        An island is a run of keyframes that look like the query. One that lasts until now is the present, and was never
        left: so look a tunnel, a wall, and a robot that stands. Of the others, those that closures have joined are one
        place; what looks like more than `max_places` places is a pattern, such as equal doors along a corridor. The
        keyframes within the exclusion window count too: a door that was passed seconds ago may be this one's double.
        """
        scores, window = self._scores, self.config.confirmation_window
        ids, sessions, closes = self.database.ids, self.database.sessions, self.database.closes
        score = min(candidate.score, 1.0)  # to be more like the query than its neighbours are proves nothing
        alike = np.flatnonzero(scores >= self.ISLAND_SCORE * score)
        apart = (np.diff(ids[alike]) > window) | (np.diff(sessions[alike]) != 0)
        starts = np.append(0, np.flatnonzero(apart) + 1)
        best = np.maximum.reduceat(scores[alike], starts)
        newest = alike[-1]
        if sessions[newest] == self.query.session and self.query.id - ids[newest] <= window:
            if candidate.position >= alike[starts[-1]]:
                return Refusal.NEVER_LEFT
            best[-1] = -np.inf  # the present is no other place
        stops = np.append(starts[1:], alike.size)
        places: list[list[tuple[int, int]]] = []  # each the first and last ids of its islands
        for at in np.flatnonzero(best >= self.RIVAL_SCORE * score):
            island = alike[starts[at] : stops[at]]
            first, last = int(ids[island[0]]), int(ids[island[-1]])
            closed = closes[island][closes[island] != NOTHING_CLOSED]
            joined = [
                place
                for place in places
                if any(((low - window <= closed) & (closed <= high + window)).any() for low, high in place)
            ]
            places = [place for place in places if place not in joined]
            places.append([(first, last), *(ends for place in joined for ends in place)])
        return Refusal.AMBIGUOUS if len(places) > self.config.max_places else None


class LoopCloser:
    """Decides over the matches of each keyframe in turn; remembers what the preceding ones matched."""

    NEIGHBOURS = 15  # keyframes over which the similarity of neighbours is taken
    LEAST_NEIGHBOUR_SIMILARITY = 0.75  # of a calm drive; a fast one must not make poor matches look good
    MOST_PLACES = 20  # places followed from keyframe to keyframe

    def __init__(self, verify: Verify = verify, clock: Clock = time.perf_counter) -> None:
        self._verify, self._clock = verify, clock
        self._neighbour_similarities: deque[float] = deque(maxlen=self.NEIGHBOURS)
        self._previous: list[_Candidate] = []
        self._sequence = SequenceMatcher()

    def decide(
        self, query: Keyframe, database: KeyframeDatabase, config: Config, camera: Camera | None = None
    ) -> Verdict:
        """Return the loop closures of `query`, which is not yet in `database`, and the refusals.

        `camera` took all the images; None where its calibration is not known.
        """
        previous, self._previous = self._previous, []
        if len(database) == 0:
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])
        within_window = self._within_window(query, database, config)
        views = database.views(query.descriptor, config.shift_cells)
        distances = self._distances(views, database, config, within_window)
        # A map has many keyframes, and few distances that they can be at: all that follows is reckoned for the latter.
        bits = query.descriptor.size * WORD_BITS
        similarities = 1.0 - 2.0 * np.arange(bits + 1) / bits

        if database.sessions[-1] == query.session:
            self._neighbour_similarities.append(float(similarities[distances[-1]]))
        if within_window.all():
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])

        scores = self._scores(similarities, distances)
        open_distances = np.where(within_window, np.uint32(len(scores)), distances)  # farther than any
        places = self._places(open_distances, scores, query, database, config)
        if not places:
            best = int(open_distances.argmin())
            refused = Refused(Refusal.LOW_SCORE, database.keyframe(best), _reported(scores[distances[best]]))
            return Verdict(refused=[refused])
        self._previous = [self._follow(place, previous, config) for place in places]

        return self._verdict(
            _Trial(query, database, config, camera, views, scores, distances, self._verify, self._clock)
        )

    def forget(self) -> None:
        """Start anew, as after a reset: nothing that was matched before confirms anything."""
        self._neighbour_similarities.clear()
        self._previous = []
        self._sequence.forget()

    def _distances(
        self,
        views: NDArray[np.uint64],
        database: KeyframeDatabase,
        config: Config,
        within_window: NDArray[np.bool_],
    ) -> NDArray[np.uint32]:
        """Return the distances [K] of the query's `views` [V,W], or those of the sequence that ends with it."""
        distances = database.distances(views)
        if config.sequence_keyframes == 1:
            self._sequence.forget()  # the parameter may change while the node runs
            return distances
        keyframes, reach = config.sequence_keyframes, config.confirmation_window
        followed = self._sequence.follow(distances, database.ids, within_window, keyframes, reach)
        return np.rint(followed).astype(np.uint32)

    def _within_window(self, query: Keyframe, database: KeyframeDatabase, config: Config) -> NDArray[np.bool_]:
        """Return which keyframes [K] are too near in time, or among the latest of this session, to be matched."""
        window = round(config.exclusion_time * NANOSECONDS)
        within = database.stamps > query.stamp - window
        within &= database.stamps < query.stamp + window
        # Not what an earlier session saw in a time that came again: in a simulation, or a bag, that was started anew.
        stamps, sessions = database.stamps, database.sessions
        own = int(sessions.searchsorted(query.session))
        start = stamps[own] if own < len(stamps) else query.stamp
        earlier = np.flatnonzero(within[:own])
        last = sessions.searchsorted(sessions[earlier], side="right") - 1
        within[earlier[stamps[last] > start]] = False
        within[max(own, int(database.ids.searchsorted(query.id - config.exclusion_keyframes))) :] = True
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

    def _verdict(self, trial: _Trial) -> Verdict:
        """Return which candidates of this keyframe are closures; those that match best are tried first."""
        query, config = trial.query, trial.config
        closures: list[LoopClosure] = []
        refusals: list[Refused] = []
        for candidate in self._previous:
            match = trial.database.keyframe(candidate.position)
            lasted = query.stamp - candidate.since
            reason, inliers = None, NOT_VERIFIED
            if candidate.streak <= config.confirmations or lasted < config.confirmation_time * NANOSECONDS:
                reason = Refusal.NOT_CONFIRMED
            elif len(closures) == config.max_candidates:
                reason = Refusal.NOT_AMONG_BEST
            else:
                reason, inliers = trial.of(candidate, match)
            if reason is None:
                bits = int(hamming(trial.views, match.descriptor).min())
                closures.append(LoopClosure(query, match, bits, _reported(candidate.score), inliers))
            else:
                refusals.append(Refused(reason, match, _reported(candidate.score)))
        return Verdict(closures, refusals)

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
