# SPDX-License-Identifier: Apache-2.0
"""Which matches are loop closures, and for the others the reason of refusal.

The similarity of two descriptors of N bits at Hamming distance d is 1 - 2 d / N: the cosine of their signs. The query
is moved by some cells of the image where that brings it nearer (`shift_cells`). How high a similarity is for one place,
and for two, depends on the scene, so a match's score is its position between them: 0 is the similarity to the map as a
whole (its median), 1 that of neighbouring keyframes. DBoW2 normalises by the latter alone (Galvez-Lopez and Tardos, TRO
2012, section V-A); the former makes buildings where all looks alike score lower.

Scores say what is tried, matches of local features which view of a place, and in which order, and geometry decides: the
match is the place for which there is most evidence. It must have been left and come back to, and there must be no
rival, which is another place that verifies nearly as well. Whether two keyframes of a session that both verify are
rivals, or one place, is told by the camera's motion along the keyframes between them: where it leads back, they are one
place.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features, Pairs
from binvpr_ros.local_features.geometry import Verification, agree, colours_agree, verify
from binvpr_ros.local_features.kinds import matches
from binvpr_ros.maps.searched import SearchedKeyframes
from binvpr_ros.network.hamming import WORD_BITS, hamming
from binvpr_ros.odometry import too_far
from binvpr_ros.sequence import REACH, SequenceMatcher

NOT_VERIFIED = -1
COUNTED_AT_ONCE = 1 << 15
"""Distances that NumPy counts at a time: it makes a copy of 64 bits each, which stays in the cache so."""

LOOKED_AT_ONCE = 1 << 10
"""Latest keyframes of which it is asked at a time whether they are the present."""


class Refusal(str, enum.Enum):
    """Why a keyframe's match is no loop closure; the values are the keys in diagnostics."""

    FEATURELESS = "featureless"  # the image shows too little contrast to be a keyframe
    NO_HISTORY = "no_history"  # no keyframe lies outside the exclusion window
    LOW_SCORE = "low_score"  # less similar than min_score
    NOT_AMONG_BEST = "not_among_best"  # other places match better
    NOT_VERIFIED = "not_verified"  # there are no features, or too many other places were verified before
    FEW_INLIERS = "few_inliers"  # too few local features agree that it is the same place, or its colours do not
    NOT_CONFIRMED = "not_confirmed"  # without geometry: the preceding keyframes did not match near the same place
    NEVER_LEFT = "never_left"  # the view has been much the same all the time since
    ODOMETRY = "odometry"  # the robot's odometry says that it is elsewhere
    AMBIGUOUS = "ambiguous"  # another place matches nearly as well


class VerifiedViews(NamedTuple):
    """Two views that geometry has verified: the features of both, which are which, and their cameras."""

    ours: Features
    theirs: Features
    inliers: Pairs
    matches: Pairs  # inliers or not
    camera: Camera | None  # of the query; None where its calibration is not known
    match_camera: Camera | None
    sure: bool = True  # that `match_camera` took the match's image: of the cameras of a map, the latest is known


@dataclass(frozen=True)
class LoopClosure:
    """A query keyframe and an earlier keyframe of the same place; a row of the topic."""

    query: Keyframe
    match: Keyframe
    hamming: int  # bits, of the query moved by the cells that bring it nearest
    score: float  # 0 to 1
    inliers: int = NOT_VERIFIED
    views: VerifiedViews | None = field(default=None, compare=False, repr=False)  # with the inliers


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


class _Place(NamedTuple):
    """A keyframe of the map that looks like the query, the best of those around it."""

    position: int  # in the database
    session: int
    stamp: int  # nanoseconds
    score: float  # not yet clipped to 1, so that the best of several good matches is told apart
    views: tuple[int, ...]  # positions of those around it that are tried, itself the first
    streak: int = 1  # keyframes in a row that matched near it, the query included


class _View(NamedTuple):
    """A keyframe whose local features were matched with the query's."""

    position: int  # in the database
    ours: Features
    theirs: Features
    pairs: Pairs

    @property
    def matches(self) -> int:
        """Return how many matches there are: there cannot be more evidence."""
        return len(self.pairs[0])


class _Matched(NamedTuple):
    """A place with those of its views that have features, the one with most matches first."""

    place: _Place
    views: list[_View]

    @property
    def matches(self) -> int:
        """Return how many matches there are with a view at the most."""
        return self.views[0].matches


class _Verified(NamedTuple):
    """A place that geometry has looked at."""

    place: _Place
    position: int  # of the view that geometry speaks of
    found: Verification
    views: VerifiedViews


Match = Callable[[Features, Features], Pairs]
"""Two images' features -> which are which, as `kinds.matches` does."""
Verify = Callable[[Features, Features, Camera | None, Camera | None, Pairs, float], Verification]
"""Two images' features, their cameras, their matches, and the least evidence that counts -> as of `geometry.verify`."""
FeaturesLike = Callable[[Features], Features | None]
"""Features of a keyframe -> those of the query that can be matched with them; None where there are none."""
Clock = Callable[[], float]
"""Seconds since any moment, as `time.perf_counter` does."""


@dataclass(frozen=True, eq=False)
class _Search:
    """A query, and how near each of the K keyframes of the map is to it."""

    query: Keyframe
    database: SearchedKeyframes
    config: Config
    views: NDArray[np.uint64]  # [V,W], of the query's descriptor
    distances: NDArray[np.uint32]  # [K]
    score_at: NDArray[np.float64]  # [N+1], by distance
    within_window: NDArray[np.bool_]  # [K], what is too near in time to be matched
    elsewhere: NDArray[np.bool_]  # [K], what is too far away by odometry

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Scores [K] of all keyframes; most queries have no match that needs them."""
        return self.score_at[self.distances]

    def places(self, least: float, among: NDArray[np.bool_]) -> Iterator[_Place]:
        """Yield the best keyframe of each place `among` [K] keyframes with a score of `least` or more, best first."""
        stamps, sessions = self.database.stamps, self.database.sessions
        # The farther, the lower the score.
        remaining = np.flatnonzero(among & (self.distances < np.count_nonzero(self.score_at >= least)))
        while remaining.size:
            best = int(remaining[self.distances[remaining].argmin()])
            score = float(self.score_at[self.distances[best]])
            here = np.abs(stamps[remaining] - stamps[best]) <= self._window
            here &= sessions[remaining] == sessions[best]
            of_place, remaining = remaining[here], remaining[~here]
            views = of_place[self.distances[of_place].argsort(kind="stable")[: self._most_views]]
            yield _Place(best, int(sessions[best]), int(stamps[best]), score, tuple(views.tolist()))

    def present(self, score: float) -> int:
        """Return where the present begins [0, K]: from there on, all keyframes look like the query.

        Such a run reaches ISLAND_SCORE of `score` throughout.
        """
        # It is asked of every place that is tried, and the present is short: the map need not be looked through.
        end = len(self.database)
        while end:
            start = max(0, end - LOOKED_AT_ONCE)
            unlike = self.score_at[self.distances[start:end]] < ISLAND_SCORE * min(score, 1.0)
            unlike |= self.database.sessions[start:end] != self.query.session
            if unlike.any():
                return start + int(np.flatnonzero(unlike)[-1]) + 1
            end = start
        return 0

    def left_views(self, place: _Place) -> _Place:
        """Return a place that was left without those of its views that belong to the present."""
        present = self.present(place.score)
        if place.position >= present:
            return place
        return place._replace(views=tuple(view for view in place.views if view < present))

    def was_left(self, place: _Place) -> bool:
        """Tell whether a place is another one than the present: so look a tunnel, a wall, and a robot at rest."""
        return place.position < self.present(place.score)

    def joined(self, one: _Place, other: _Place, least: float = 0.0) -> bool:
        """Tell whether two places are known to be one, though geometry is not asked.

        All keyframes between them, in a session, look like the query, or those around the one closed a loop to those
        around the other. Nothing looks like it with a score below `least`.
        """
        first, last = sorted((one.position, other.position))
        goes_on = np.diff(self.database.stamps[first : last + 1]) <= self._window
        least = max(ISLAND_SCORE * min(one.score, 1.0), least)
        if one.session == other.session and goes_on.all() and (self.scores[first:last] >= least).all():
            return True
        here, there = self._around(one), self._around(other)
        closes, ids = self.database.closes, self.database.ids
        return bool(np.isin(closes[here], ids[there]).any() or np.isin(closes[there], ids[here]).any())

    def _around(self, place: _Place) -> NDArray[np.bool_]:
        """Return which keyframes [K] show `place` by their time alone."""
        near = np.abs(self.database.stamps - place.stamp) <= self._window
        return near & (self.database.sessions == place.session)

    @property
    def _window(self) -> int:
        return round(self.config.confirmation_window * NANOSECONDS)

    @property
    def _most_views(self) -> int:
        # A sequence leads to one keyframe; to others of its place other sequences do.
        return VIEWS if self.config.sequence_keyframes == 1 else 1

    def closure(self, position: int, inliers: int, views: VerifiedViews | None = None) -> LoopClosure:
        """Return the loop closure with a keyframe."""
        match = self.database.keyframe(position)
        bits = int(hamming(self.views, match.descriptor).min())
        score = float(self.score_at[self.distances[position]])
        return LoopClosure(self.query, match, bits, _reported(score), inliers, views)

    def refused(self, reason: Refusal, place: _Place) -> Refused:
        """Return the refusal of `place`."""
        return Refused(reason, self.database.keyframe(place.position), _reported(place.score))


SAME_LIGHT = 3600 * NANOSECONDS
"""Between two images of different drives, up to which their colours must agree as within a drive."""
ISLAND_SCORE = 0.5
"""Of a match's score: what keyframes that show much the same view reach."""
LEAST_ISLAND_SCORE = 0.25
"""Score below which nothing looks like the query, however little its match does."""
RIVAL_SCORE = 0.6
"""Of a match's score: what another place reaches that could be taken for it."""
RIVAL_EVIDENCE = 0.25
"""Of a match's evidence: what another place has that could be taken for it."""
ROW_EVIDENCE = 0.5
"""Of a match's evidence: what another view of the place has that is published beside it."""
VIEWS = 3
"""Keyframes of a place that are tried: the one most like the query may show another part of it."""
MOST_PLACES = 20
"""Places that are looked at: whose features are matched, or, where geometry is not asked, that are followed."""


class LoopCloser:
    """Decides over the matches of each keyframe in turn; remembers how similar the preceding ones were."""

    NEIGHBOURS = 15  # keyframes over which the similarity of neighbours is taken
    LEAST_NEIGHBOUR_SIMILARITY = 0.75  # of a calm drive; a fast one must not make poor matches look good

    def __init__(self, verify: Verify = verify, match: Match = matches, clock: Clock = time.perf_counter) -> None:
        self._verify, self._match, self._clock = verify, match, clock
        self._neighbour_similarities: deque[float] = deque(maxlen=self.NEIGHBOURS)
        self._previous: list[_Place] = []
        self._sequence = SequenceMatcher()
        self._latest: Features | None = None

    def follow(self, query: Keyframe, camera: Camera | None = None) -> Keyframe:
        """Return the newest keyframe with the camera's motion since the one before it, which was given here too."""
        latest, self._latest = self._latest, query.features
        if latest is None or query.features is None:
            return query
        found = self._verify(query.features, latest, camera, camera, self._match(query.features, latest), 0.0)
        return dataclasses.replace(query, motion=found.motion)

    def decide(
        self,
        query: Keyframe,
        database: SearchedKeyframes,
        config: Config,
        camera: Camera | None = None,
        like: FeaturesLike | None = None,
    ) -> Verdict:
        """Return the loop closures of `query`, which is not yet in `database`, and the refusals.

        `camera` takes the images; None where its calibration is not known. `like` gives the query's features of the
        kind of a keyframe's; without it, the query's are the only ones.
        """
        previous, self._previous = self._previous, []
        if len(database) == 0:
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])
        search = self._search(query, database, config)
        if search.within_window.all():
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])
        places = search.places(config.min_score, ~search.within_window & ~search.elsewhere)
        if config.verify:
            trial = _Trial(search, self._verify, self._match, self._clock, camera, like or (lambda _: query.features))
            verdict = trial.verdict(places)
        else:
            self._previous = [self._follow(place, previous, config) for place in itertools.islice(places, MOST_PLACES)]
            verdict = _by_looks(search, self._previous)
        judged: list[LoopClosure | Refused] = [*verdict.closures, *verdict.refused]
        best = max((one.score for one in judged), default=0.0)
        for place in itertools.islice(search.places(best, ~search.within_window & search.elsewhere), 1):
            verdict.refused.append(search.refused(Refusal.ODOMETRY, place))
        if verdict.best is None:
            best = int(np.where(search.within_window, len(search.score_at), search.distances).argmin())
            score = _reported(search.score_at[search.distances[best]])
            return Verdict(refused=[Refused(Refusal.LOW_SCORE, database.keyframe(best), score)])
        return verdict

    def lose_sight(self) -> None:
        """Take it that the camera saw nothing for a while: its motion up to the next keyframe is not known."""
        self._latest = None

    def forget(self) -> None:
        """Start anew, as after a reset: nothing that was matched before confirms anything."""
        self._neighbour_similarities.clear()
        self._previous = []
        self._sequence.forget()
        self.lose_sight()

    def _search(self, query: Keyframe, database: SearchedKeyframes, config: Config) -> _Search:
        within_window = _within_window(query, database, config)
        views = database.views(query.descriptor, config.shift_cells)
        distances = database.distances(views)
        if config.sequence_keyframes > 1:
            followed = self._sequence.follow(distances, database.ids, within_window, config.sequence_keyframes, REACH)
            distances = np.rint(followed).astype(np.uint32)
        else:
            self._sequence.forget()  # the parameter may change while the node runs
        # A map has many keyframes, and few distances that they can be at: scores are reckoned for the latter.
        bits = query.descriptor.size * WORD_BITS
        similarities = 1.0 - 2.0 * np.arange(bits + 1) / bits
        if database.sessions[-1] == query.session:
            self._neighbour_similarities.append(float(similarities[distances[-1]]))
        elsewhere = np.zeros(len(database), bool)
        if query.whereabouts is not None and config.odometry_drift:
            elsewhere = too_far(query.whereabouts, database.whereabouts, config.odometry_drift)
            elsewhere &= database.sessions == query.session
        scores = self._scores(similarities, database.typical(distances))
        return _Search(query, database, config, views, distances, scores, within_window, elsewhere)

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

    @staticmethod
    def _follow(place: _Place, previous: Sequence[_Place], config: Config) -> _Place:
        """Return `place` with the longest streak that it continues."""
        window = round(config.confirmation_window * NANOSECONDS)
        near = [
            before.streak
            for before in previous
            if before.session == place.session and abs(before.stamp - place.stamp) <= window
        ]
        return place._replace(streak=1 + max(near, default=0))


def _within_window(query: Keyframe, database: SearchedKeyframes, config: Config) -> NDArray[np.bool_]:
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
    within[: database.foreign] = False
    within[max(own, int(database.ids.searchsorted(query.id - config.exclusion_keyframes))) :] = True
    return within


class _Trial:
    """Tries the places that look like a query by geometry, those with most matches first, and looks for rivals."""

    def __init__(
        self, search: _Search, verify: Verify, match: Match, clock: Clock, camera: Camera | None, like: FeaturesLike
    ) -> None:
        self._search, self._verify, self._match, self._clock = search, verify, match, clock
        self._camera, self._like = camera, like
        self._tried = 0
        self._started = clock()
        self._verified: list[_Verified] = []
        self._refused: list[Refused] = []
        self._missed = 0.0  # the highest score of a place that was not looked at
        self._enough = 0.0  # the score below which no place could be taken for the match
        self._most = 0.0  # evidence of a place that could be the match

    def verdict(self, places: Iterable[_Place]) -> Verdict:
        """Return the closures, the one with most evidence first, and what was refused; places are given best first."""
        search = self._search
        self._try(places)
        rows, reason = self._judge(sorted(self._verified, key=lambda one: (one.found.of_a_part, -one.found.evidence)))
        others = [search.refused(reason, one.place) for one in self._verified if one not in rows]
        refused = others + sorted(self._refused, key=lambda one: -one.score)
        return Verdict([search.closure(one.position, one.found.inliers, one.views) for one in rows], refused)

    def _try(self, places: Iterable[_Place]) -> None:
        """Ask geometry about the places, those with most matches first, as far as it may be asked."""
        search = self._search
        waiting: list[_Matched] = []
        most = 0  # matches of a place so far
        for number, place in enumerate(places):
            if place.score < self._enough:
                self._refuse(Refusal.NOT_AMONG_BEST, place)
                break
            if number == MOST_PLACES or self._late:
                self._refuse(Refusal.NOT_VERIFIED, place)
                self._missed = max(self._missed, place.score)
                break
            matched = self._matched(search.left_views(place))
            if matched is None:
                self._refuse(Refusal.NOT_VERIFIED, place)
            elif matched.matches > most and not self._exhausted:
                # Most often this is the match, and then no place with a lower score need be matched.
                most = matched.matches
                self._ask(matched)
            else:
                waiting.append(matched)
        for matched in sorted(waiting, key=lambda one: -one.matches):
            self._ask(matched)

    def _ask(self, matched: _Matched) -> None:
        """Ask geometry about a place, unless it has too few matches to be of interest, or too much was asked."""
        config, place = self._search.config, matched.place
        if matched.matches < config.min_inliers:
            self._refuse(Refusal.FEW_INLIERS, place)
        elif place.score < self._enough or matched.matches < RIVAL_EVIDENCE * self._most:
            self._refuse(Refusal.NOT_AMONG_BEST, place)
        elif self._exhausted:
            self._refuse(Refusal.NOT_VERIFIED, place)
            self._missed = max(self._missed, place.score)
        elif (verified := self._look(matched, config.min_inliers)) is None:
            self._refuse(Refusal.FEW_INLIERS, place)
        else:
            self._verified.append(verified)
            if not verified.found.of_a_part and self._search.was_left(place):
                self._enough = max(self._enough, RIVAL_SCORE * min(place.score, 1.0))
                self._most = max(self._most, verified.found.evidence)

    def _refuse(self, reason: Refusal, place: _Place) -> None:
        self._refused.append(self._search.refused(reason, place))

    def _judge(self, verified: list[_Verified]) -> tuple[list[_Verified], Refusal]:
        """Return the closures among the places that verify, best first, and why the others are none."""
        left = [one for one in verified if self._search.was_left(one.place)]
        outdone = [one.found.evidence for one in left if one.place.score < self._enough and not one.found.of_a_part]
        left = [one for one in left if one.place.score >= self._enough]
        if not left:
            return [], Refusal.NEVER_LEFT
        match = left[0]
        if match.found.of_a_part:
            return [], Refusal.FEW_INLIERS
        rivals = [one for one in left if one.found.evidence >= RIVAL_EVIDENCE * match.found.evidence]
        missed = self._missed >= RIVAL_SCORE * min(match.place.score, 1.0)
        if missed or max(outdone, default=0.0) > match.found.evidence or self._ambiguous(rivals):
            return [], Refusal.AMBIGUOUS
        enough = ROW_EVIDENCE * match.found.evidence
        rows = [one for one in rivals if one.found.evidence >= enough and not one.found.of_a_part]
        return rows[: self._search.config.max_candidates], Refusal.NOT_AMONG_BEST

    @property
    def _exhausted(self) -> bool:
        # A second map of one place must not take the verifications of the first.
        return self._tried >= self._search.config.verifications * self._search.database.maps or self._late

    @property
    def _late(self) -> bool:
        return self._clock() - self._started >= self._search.config.verification_time

    def _matched(self, place: _Place) -> _Matched | None:
        """Return the matches of the query's local features with those of a place's views; None where none has any."""
        database = self._search.database
        views = []
        for position in place.views:
            theirs = database.features(database.keyframe(position))
            ours = None if theirs is None else self._like(theirs)
            if ours is not None and theirs is not None:
                views.append(_View(position, ours, theirs, self._match(ours, theirs)))
        views.sort(key=lambda view: -view.matches)
        return _Matched(place, views) if views else None

    def _look(self, matched: _Matched, least: float) -> _Verified | None:
        """Return what geometry says of a place, by the first of its views with `least` evidence; None without one."""
        self._tried += 1
        for view in matched.views:
            if view.matches < least:
                break
            found = self._verification(view)
            if found.evidence >= least:
                database = self._search.database
                sure = database.calibration_is_sure(database.keyframe(view.position))
                cameras = self._cameras(view.position)
                views = VerifiedViews(view.ours, view.theirs, found.pairs, view.pairs, *cameras, sure)
                return _Verified(matched.place, view.position, found, views)
        return None

    def _cameras(self, position: int) -> tuple[Camera | None, Camera | None]:
        """Return the cameras of the query and of a keyframe."""
        database = self._search.database
        # Without the query's own camera its lens cannot be undone, so that of the same camera's match must not be.
        return self._camera, self._camera and database.camera_of(database.keyframe(position))

    def _verification(self, view: _View) -> Verification:
        """Return what geometry says of the query and a keyframe: less where their colours differ, or nothing."""
        database = self._search.database
        match = database.keyframe(view.position)
        cameras = self._cameras(view.position)
        least = self._search.config.min_inliers
        found = self._verify(view.ours, view.theirs, *cameras, view.pairs, least)
        # From day to day the light changes, and the season.
        query = self._search.query
        same_light = match.session == query.session or abs(match.stamp - query.stamp) <= SAME_LIGHT
        if not same_light or found.homography is None or found.evidence < least:
            return found
        share = colours_agree(view.ours, view.theirs, found.homography, *cameras)
        return found._replace(colours=share) if share > 0 else Verification()

    def _ambiguous(self, verified: list[_Verified]) -> bool:
        """Tell whether the query could be at several places, of which the first is its match.

        What lies within the exclusion window may be a rival too: a door passed seconds ago may be this one's double.
        """
        search, match = self._search, verified[0]
        recent = search.within_window & ~search.elsewhere & (search.database.sessions == search.query.session)
        recent[search.present(match.place.score) :] = False
        alike = list(verified)
        least = max(RIVAL_EVIDENCE * match.found.evidence, search.config.min_inliers)
        for place in search.places(RIVAL_SCORE * min(match.place.score, 1.0), recent):
            matched = None if self._late else self._matched(place)
            if matched is None or len(matched.views) < len(place.views):
                return True
            if matched.matches < least:
                continue
            if self._exhausted:
                return True
            if (found := self._look(matched, least)) is not None:
                alike.append(found)
        for session in {one.place.session for one in alike}:
            those = [one for one in alike if one.place.session == session]
            if session == search.query.session:
                # The query is at the place of what the camera's motion leads back to, as it is at that of its match.
                those = [match, *(one for one in those if one is not match and not self._led_back(one, None))]
            if not _one_group(those, self._joined):
                return True
        return False

    def _joined(self, one: _Verified, other: _Verified) -> bool:
        known = self._search.joined(one.place, other.place, LEAST_ISLAND_SCORE)
        return known or (one.place.session == other.place.session and self._led_back(one, other))

    def _led_back(self, one: _Verified, other: _Verified | None) -> bool:
        """Tell whether the camera's motion between two keyframes of a session is what geometry says of them.

        `other` None is the query.
        """
        database, query = self._search.database, self._search.query
        if other is not None and other.position < one.position:
            one, other = other, one
        motion = database.motion(one.position, len(database) - 1 if other is None else other.position)
        if other is None and motion is not None:
            motion = None if query.motion is None else motion @ query.motion
        to_one = one.found.homography
        from_other = np.eye(3) if other is None else other.found.homography
        if motion is None or to_one is None or from_other is None:
            return False
        return agree(motion, to_one @ np.linalg.inv(from_other))


def _by_looks(search: _Search, places: Iterable[_Place]) -> Verdict:
    """Return the verdict over matches, best first, by looks alone: they must be confirmed, and look like no other."""
    config = search.config
    closures: list[LoopClosure] = []
    refused: list[Refused] = []
    for place in places:
        reason = None
        if place.streak <= config.confirmations:
            reason = Refusal.NOT_CONFIRMED
        elif not search.was_left(place):
            reason = Refusal.NEVER_LEFT
        elif len(closures) == config.max_candidates:
            reason = Refusal.NOT_AMONG_BEST
        else:
            before = ~search.elsewhere & (np.arange(len(search.distances)) < search.present(place.score))
            alike = list(search.places(RIVAL_SCORE * min(place.score, 1.0), before))
            sessions = {one.session for one in alike}
            groups = ([one for one in alike if one.session == session] for session in sessions)
            if not all(_one_group(group, search.joined) for group in groups):
                reason = Refusal.AMBIGUOUS
        if reason is None:
            closures.append(search.closure(place.position, NOT_VERIFIED))
        else:
            refused.append(search.refused(reason, place))
    return Verdict(closures, refused)


Member = TypeVar("Member")


def _one_group(members: Sequence[Member], joined: Callable[[Member, Member], bool]) -> bool:
    """Tell whether all members belong together, where some are `joined` in pairs."""
    group, others = list(members[:1]), list(members[1:])
    for member in group:  # which grows meanwhile
        near = [other for other in others if joined(member, other)]
        group += near
        others = [other for other in others if other not in near]
    return not others


def _middle(distances: NDArray[np.uint32], kinds: int) -> NDArray[np.intp]:
    """Return the two distances [2] in the middle of all [K], which are below `kinds`; twice the same for an odd K."""
    pieces = range(0, len(distances), COUNTED_AT_ONCE)
    counts = sum(np.bincount(distances[start : start + COUNTED_AT_ONCE], minlength=kinds) for start in pieces)
    return np.cumsum(counts).searchsorted([(len(distances) - 1) // 2, len(distances) // 2], side="right")


def _reported(score: float) -> float:
    """Return a score as it is published: 1 also for what is more similar than neighbouring keyframes are."""
    return float(np.clip(score, 0.0, 1.0))
