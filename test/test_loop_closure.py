# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED, Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.colours import COLUMNS, ROWS, Colours
from binvpr_ros.local_features.features import Features, Pairs
from binvpr_ros.local_features.geometry import FEWEST_FOLLOWED, WIDTH, Verification
from binvpr_ros.loop_closure import (
    ISLAND_SCORE,
    LEAST_ISLAND_SCORE,
    MOST_PLACES,
    NOT_VERIFIED,
    RIVAL_EVIDENCE,
    RIVAL_SCORE,
    ROW_EVIDENCE,
    VIEWS,
    LoopCloser,
    LoopClosure,
    Refusal,
    Refused,
    Verdict,
)
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.cells import Grids, shifted
from binvpr_ros.network.hamming import Descriptor, hamming
from binvpr_ros.odometry import Whereabouts

BITS = 1024
CONFIG = Config(
    exclusion_time=10.0, exclusion_keyframes=5, min_score=0.6, confirmations=2, max_candidates=2, verify=False
)
VERIFIED = CONFIG.replace(verify=True, min_inliers=20, verification_time=60.0)
CLOSES_NOTHING = VERIFIED.replace(min_inliers=500)
SOME_FEATURES = Features((1, 1), np.zeros((0, 2), np.uint16), np.zeros(0, np.uint8), np.zeros((0, 32), np.uint8))
PLACE = 0.45 * WIDTH
"""Pixels by which the view moves from a place to the next one."""

Geometry = Callable[[float, float], Verification]
"""Where two keyframes were taken, query and match -> what geometry says of them."""


def place(number: float, noise: float = 0.0) -> Descriptor:
    """Return the descriptor of a place on a road, where places d < 4 apart have a similarity of about 1 - d / 4."""
    rng = np.random.default_rng(0)
    segments = rng.integers(0, 2, (100, BITS), np.uint8)
    segment = np.floor(number / 4 + rng.random(BITS)).astype(
        int
    )  # Each bit changes once on the way to the next segment.
    flips = np.random.default_rng(int(number * 1000)).random(BITS) < noise
    return np.packbits(segments[segment, np.arange(BITS)] ^ flips).view(np.uint64)


def found(inliers: int, coverage: float = 1.0, moved: float = 0.0) -> Verification:
    """Return what geometry says of two views with so many inliers, of places that are `moved` apart."""
    homography = np.array([[1.0, 0, moved * PLACE], [0, 1, 0], [0, 0, 1]])
    return Verification((np.arange(inliers), np.arange(inliers)), homography, coverage, spread=1.0)


def always(inliers: int, coverage: float = 1.0) -> Geometry:
    """Return a geometry by which all views are one."""
    return lambda *_: found(inliers, coverage)


def on_a_road(query: float, match: float) -> Verification:
    """Say of two views what a camera sees that looks at one side of a road: they overlap up to two places apart."""
    return found(100, moved=query - match) if abs(query - match) <= 2 else Verification()


def with_equal_doors(*doors: float) -> Geometry:
    """Return the geometry of a road where at all of `doors` the same is seen."""

    def geometry(query: float, match: float) -> Verification:
        here, there = ([at - door for door in doors if abs(at - door) <= 1] for at in (query, match))
        return found(100, moved=here[0] - there[0]) if here and there else on_a_road(query, match)

    return geometry


class Drive:
    """Feeds places, one a second, to a LoopCloser, as the recognizer does; geometry is the one given."""

    def __init__(
        self,
        config: Config = CONFIG,
        geometry: Geometry = on_a_road,
        grids: Grids = (),
        seconds_each: float = 0.0,
    ) -> None:
        self.config = config
        self.geometry = geometry
        self.has_features = True
        self.colours: Colours | None = None
        self.whereabouts: Callable[[float], Whereabouts] | None = None
        self.camera: Camera | None = None
        self.cameras: set[Camera | None] = set()
        self.verified = 0  # pairs, for the latest keyframe
        self.closer = LoopCloser(self.verify, self.match, lambda: self.clock)
        self.database = KeyframeDatabase(None, "", BITS // 64, grids=grids)
        self.seconds = 0
        self.clock, self._seconds_each = 0.0, seconds_each
        self._taken_at: list[float] = []

    def through(self, places: Iterable[float], noise: float = 0.0) -> list[Verdict]:
        return [self.at(place(number, noise), number) for number in places]

    def seen(self, query: Features, match: Features) -> Verification:
        # The width stands for the number of the view.
        return self.geometry(*(self._taken_at[features.size[0]] for features in (query, match)))

    def match(self, query: Features, match: Features) -> Pairs:
        return self.seen(query, match).pairs

    def verify(
        self, query: Features, match: Features, camera: Camera | None, match_camera: Camera | None, *_: Any
    ) -> Verification:
        self.verified += 1
        self.clock += self._seconds_each
        self.cameras |= {camera, match_camera}
        return self.seen(query, match)

    def at(self, descriptor: Descriptor, taken_at: float = 0.0) -> Verdict:
        features = None
        if self.has_features:
            features = SOME_FEATURES._replace(size=(len(self._taken_at), 1), colours=self.colours)
        self._taken_at.append(taken_at)
        query = self.database.next_keyframe(self.seconds * NANOSECONDS, descriptor, features)
        if self.whereabouts is not None:
            query = dataclasses.replace(query, whereabouts=self.whereabouts(taken_at))
        query = self.closer.follow(query, self.camera)
        self.verified = 0
        verdict = self.closer.decide(query, self.database, self.config, self.camera)
        closes = verdict.closures[0].match.id if verdict.closures else NOTHING_CLOSED
        self.database.add(dataclasses.replace(query, closes=closes), camera=self.camera)
        self.seconds += 1
        return verdict

    def begin_session(self, seconds_later: int = 0) -> None:
        self.database.new_session()
        self.closer.forget()
        self.seconds += seconds_later


def reasons(verdict: Verdict) -> list[Refusal]:
    return [refused.reason for refused in verdict.refused]


def matches(verdict: Verdict) -> list[int]:
    return [closure.match.id for closure in verdict.closures]


def test_the_first_keyframes_have_no_history() -> None:
    verdicts = Drive().through(range(10))
    assert all(reasons(verdict) == [Refusal.NO_HISTORY] for verdict in verdicts)


@pytest.mark.parametrize("sequence_keyframes", [1, 3])
def test_a_camera_that_points_a_cell_higher_closes_the_loop_where_that_is_allowed(sequence_keyframes: int) -> None:
    grids: Grids = ((8, BITS // 64),)
    config = CONFIG.replace(confirmations=0, sequence_keyframes=sequence_keyframes)
    drive = Drive(config, grids=grids)
    drive.through(range(0, 400, 10))
    verdicts = [drive.at(shifted(place(number), grids, 1)[2]) for number in range(10, 100, 10)]
    closure = verdicts[-1].closures[0]
    assert closure.match.id == 9
    assert closure.hamming < BITS / 8 < BITS / 4 < hamming(closure.query.descriptor, closure.match.descriptor)
    drive.config = config.replace(shift_cells=0)  # while the node runs
    verdicts = [drive.at(shifted(place(number), grids, 1)[2]) for number in range(100, 130, 10)]
    assert reasons(verdicts[-1]) == [Refusal.LOW_SCORE]
    verdicts = [drive.at(place(number)) for number in range(130, 220, 10)]
    assert verdicts[-1].closures[0].hamming == 0


def test_the_best_is_a_closure_or_else_the_best_match_that_was_refused() -> None:
    query, first, second = (Keyframe(number, 0, number, place(number)) for number in range(3))
    closure = LoopClosure(query, first, 1, 0.5)
    refusals = [Refused(Refusal.FEW_INLIERS, second, 0.9), Refused(Refusal.AMBIGUOUS, first, 0.5)]
    assert Verdict([closure], refusals).best is closure
    assert Verdict([], refusals).best is refusals[0]
    assert Verdict([], [Refused(Refusal.NO_HISTORY)]).best is None
    assert Verdict().best is None


def test_a_place_is_recognised_by_the_view_of_it_that_shows_the_same() -> None:
    """The keyframe most like the query shows the other half of the place; its neighbour shows the half in view."""

    def geometry(query: float, match: float) -> Verification:
        return found(100 if match == 13 else 0) if query == 200 else on_a_road(query, match)

    drive = Drive(VERIFIED, geometry)
    drive.through(range(40))
    drive.through(range(80, 100))
    verdict = drive.at(place(12.4), taken_at=200)
    assert matches(verdict) == [13]
    closure = verdict.closures[0]
    assert hamming(closure.query.descriptor, place(12)) < closure.hamming
    assert closure.hamming == hamming(closure.query.descriptor, place(13))
    drive.config = VERIFIED.replace(min_inliers=101)
    assert not drive.at(place(12.4), taken_at=200).closures


def test_a_view_that_geometry_refuses_does_not_speak_for_the_others() -> None:
    """The view with most matches lies on a part of the image; the one beside it verifies."""

    def geometry(query: float, match: float) -> Verification:
        if query == 200:
            return {12: found(100), 13: found(101, coverage=0.1)}.get(int(match), Verification())
        return on_a_road(query, match)

    drive = Drive(VERIFIED, geometry)
    drive.through(range(40))
    drive.through(range(80, 100))
    assert matches(drive.at(place(12.2), taken_at=200)) == [12]


@pytest.mark.parametrize("seconds", [3, 20])
def test_a_rival_counts_by_any_of_its_views(seconds: int) -> None:
    """A double of the place was seen, and beside it what has one match more, which geometry refuses."""
    double, beside = 1005, 1006

    def geometry(query: float, match: float) -> Verification:
        if query == 5 and match in (double, beside):
            return found(100) if match == double else found(101, coverage=0.1)
        return on_a_road(query, match)

    drive = Drive(VERIFIED, geometry)
    drive.through(range(30))
    drive.at(place(5), double)
    drive.at(place(5.5), beside)
    drive.through(range(60, 60 + seconds))  # within the exclusion window, or beyond it
    verdict = drive.at(place(5), 5)
    assert not verdict.closures
    assert Refusal.AMBIGUOUS in reasons(verdict)


def test_a_rival_of_which_a_view_has_no_features_makes_a_match_ambiguous() -> None:
    drive = Drive(VERIFIED, lambda query, match: Verification() if match > 1000 else on_a_road(query, match))
    drive.through(range(30))
    drive.has_features = False
    drive.at(place(5), 1005)
    drive.has_features = True
    drive.at(place(5.5), 1006)
    drive.through(range(60, 63))
    verdict = drive.at(place(5), 5)
    assert not verdict.closures
    assert Refusal.AMBIGUOUS in reasons(verdict)


def test_a_rival_is_led_back_to_by_the_motion_of_the_view_that_verifies() -> None:
    """The doors at 3, 43 and 45 are equal; the robot is at 45 for the first time."""

    def geometry(query: float, match: float) -> Verification:
        if query == 45 and abs(match - 3) <= 1:
            return found(100, moved=3 - match)
        if query == 45 and match in (42, 43):
            return found(110 if match == 42 else 100, moved=43 - match)
        return on_a_road(query, match)

    drive = Drive(VERIFIED, geometry)
    drive.through([*range(8), *range(20, 34), 40, 41])
    for looks_like, taken_at in ((3.9, 42), (3, 43), (44, 44)):
        drive.at(place(looks_like), taken_at)
    verdict = drive.at(place(3), 45)
    assert not verdict.closures
    assert Refusal.AMBIGUOUS in reasons(verdict)


def test_of_a_place_that_was_left_no_view_of_the_present_is_published() -> None:
    def geometry(query: float, match: float) -> Verification:
        return {20: found(100), 22: found(120)}.get(int(match), Verification()) if query == 400 else Verification()

    drive = Drive(VERIFIED.replace(exclusion_keyframes=0), geometry)
    drive.through(range(20))
    drive.at(place(25), 20)
    drive.at(place(22.2), 21)
    for number in range(22, 33):
        drive.at(place(25.4), number)
    assert matches(drive.at(place(25), 400)) == [20]


def test_of_several_good_matches_the_best_is_taken() -> None:
    drive = Drive(CONFIG.replace(confirmations=0))
    drive.through(np.arange(0, 30, 0.5))  # neighbours are more alike than the query and its match will be
    drive.through(range(50, 80))
    assert drive.at(place(11.0)).closures[0].match.id == 22


def test_new_places_are_no_closures() -> None:
    verdicts = Drive().through(range(40))
    assert not any(verdict.closures for verdict in verdicts)
    assert all(reasons(verdict) == [Refusal.LOW_SCORE] for verdict in verdicts[10:])


def test_a_place_seen_again_is_a_closure_once_it_is_confirmed() -> None:
    drive = Drive()
    drive.through(range(30))
    verdicts = drive.through(range(6), noise=0.02)
    assert [reasons(verdict) for verdict in verdicts[:2]] == [[Refusal.NOT_CONFIRMED]] * 2
    for number, verdict in enumerate(verdicts[2:], 2):
        (closure,) = verdict.closures
        assert closure.match.id == number
        assert closure.query.id == 30 + number
        assert closure.score > 0.9
        assert closure.hamming == pytest.approx(0.02 * BITS, rel=0.9)
        assert closure.inliers == NOT_VERIFIED


def test_the_same_road_driven_backwards_is_confirmed_too() -> None:
    drive = Drive()
    drive.through(range(30))
    assert [len(verdict.closures) for verdict in drive.through([20, 19, 18, 17])][2:] == [1, 1]


def test_one_match_between_new_places_is_not_confirmed() -> None:
    drive = Drive()
    drive.through(range(30))
    verdicts = drive.through([60, 61, 7, 62, 63])
    assert reasons(verdicts[2]) == [Refusal.NOT_CONFIRMED]
    assert not any(verdict.closures for verdict in verdicts)


def test_matches_that_jump_about_do_not_confirm_each_other() -> None:
    drive = Drive()
    drive.through(range(40))
    assert not any(verdict.closures for verdict in drive.through([3, 20, 10, 28, 15]))


@pytest.mark.parametrize(("window", "confirmed"), [(3.0, True), (2.5, False)])
def test_matches_confirm_each_other_within_the_window_in_seconds(window: float, confirmed: bool) -> None:
    drive = Drive(CONFIG.replace(confirmations=1, confirmation_window=window))
    drive.through(range(30))
    verdict = drive.through([5, 8])[-1]  # which was seen three seconds after the other
    assert matches(verdict) == [8] * confirmed
    assert reasons(verdict) == [Refusal.NOT_CONFIRMED] * (not confirmed)


def test_nothing_younger_than_the_window_is_matched() -> None:
    drive = Drive()
    verdicts = drive.through([*range(9)] * 6)  # the latest view of a place is nine seconds old
    for verdict in verdicts:
        for closure in verdict.closures:
            assert closure.query.stamp - closure.match.stamp >= 10 * NANOSECONDS
    assert any(verdict.closures for verdict in verdicts)


def test_nor_one_of_the_latest_keyframes() -> None:
    drive = Drive(CONFIG.replace(exclusion_time=0.0, exclusion_keyframes=20))
    for verdict in drive.through([0, 1] * 30):
        for closure in verdict.closures:
            assert closure.query.id - closure.match.id > 20


def test_no_more_than_max_candidates_best_first_one_a_place() -> None:
    drive = Drive()
    for noise in (0.08, 0.0, 0.04):
        drive.through(range(12), noise)
        drive.through(range(50, 70))
    verdict = drive.through([4, 5, 6])[-1]
    assert matches(verdict) == [38, 70]
    assert verdict.closures[0].score >= verdict.closures[1].score
    assert reasons(verdict) == [Refusal.NOT_AMONG_BEST]


def test_an_earlier_session_is_matched_at_once() -> None:
    drive = Drive()
    drive.through(range(20))
    drive.begin_session(seconds_later=10_000)
    verdict = drive.through([5, 6, 7])[-1]
    assert matches(verdict) == [7]
    assert (verdict.closures[0].query.session, verdict.closures[0].match.session) == (1, 0)


def test_a_robot_that_starts_where_it_stopped_the_day_before_finds_the_latest_keyframes_too() -> None:
    drive = Drive(CONFIG.replace(confirmations=0))
    drive.through(range(20))
    drive.begin_session(seconds_later=86_400)
    verdicts = drive.through([19, 18, 17])
    assert [matches(verdict)[:1] for verdict in verdicts] == [[19], [18], [17]]
    assert not any(verdict.closures for verdict in drive.through([50, 50, 50]))  # but none of its own session


def test_the_latest_keyframes_are_not_matched_where_only_the_session_is_another() -> None:
    drive = Drive(CONFIG.replace(confirmations=0))
    drive.through(range(20))
    drive.begin_session()
    assert not any(verdict.closures for verdict in drive.through([19, 19, 19]))


def test_the_window_holds_over_the_border_of_a_session() -> None:
    drive = Drive(CONFIG.replace(confirmations=0, exclusion_keyframes=0))
    drive.through(range(20))
    drive.begin_session()
    verdicts = drive.through([15] * 12)
    assert not any(verdict.closures for verdict in verdicts[:3])
    assert all(abs(c.query.stamp - c.match.stamp) >= 10 * NANOSECONDS for verdict in verdicts for c in verdict.closures)


def test_a_time_that_comes_again_is_not_the_present() -> None:
    """A simulation that is started anew: what the first session saw at these stamps is what is to be found."""
    drive = Drive(CONFIG.replace(confirmations=0, exclusion_keyframes=0))
    drive.through(range(40))
    drive.begin_session()
    drive.seconds = 0
    for number, verdict in enumerate(drive.through(range(20))):
        assert [(closure.match.id, closure.match.session) for closure in verdict.closures[:1]] == [(number, 0)]


def test_without_geometry_a_robot_that_stands_closes_no_loops() -> None:
    drive = Drive()
    drive.through(range(20))
    standing = drive.through([20.0] * 40)
    assert not any(verdict.closures for verdict in standing)
    assert Refusal.NEVER_LEFT in reasons(standing[-1])


def test_scores_are_relative_to_how_similar_neighbours_are() -> None:
    near, far = Drive(), Drive()
    near.through(np.arange(0, 30, 0.25))
    far.through(range(120))
    noisy = place(5.0, noise=0.2)
    near_score = near.at(noisy).refused[0].score
    far_score = far.at(noisy).refused[0].score
    assert near_score < far_score


def test_without_confirmations_a_single_match_is_enough() -> None:
    drive = Drive(CONFIG.replace(confirmations=0))
    drive.through(range(30))
    assert matches(drive.through([7])[0]) == [7]


def test_forget_ends_all_streaks() -> None:
    drive = Drive()
    drive.through(range(30))
    drive.through([5, 6])
    drive.closer.forget()
    assert reasons(drive.through([7])[0]) == [Refusal.NOT_CONFIRMED]


def test_a_streak_does_not_go_on_over_keyframes_that_geometry_decided() -> None:
    drive = Drive()
    drive.through(range(30))
    drive.through([5, 6])
    drive.config = VERIFIED  # while the node runs
    assert matches(drive.through([7])[0]) == [7]
    drive.config = CONFIG
    assert reasons(drive.through([8])[0]) == [Refusal.NOT_CONFIRMED]


def misleading(number: int) -> Descriptor:
    """Return the descriptor of a place of which much shows, as it seems, another place far from it."""
    rng = np.random.default_rng(number)
    share = rng.random(BITS)
    other = rng.choice([far for far in range(60) if abs(far - number) > 8])
    own, others, noise = (
        np.unpackbits(bits.view(np.uint8)) for bits in (place(number), place(other), place(0.0, noise=0.5))
    )
    return np.packbits(np.where(share < 0.3, own, np.where(share < 0.7, others, noise))).view(np.uint64)


@pytest.mark.parametrize(("keyframes", "right"), [(1, 0), (5, 25)])
def test_in_a_sequence_what_misleads_one_image_does_not_count(keyframes: int, right: int) -> None:
    drive = Drive(CONFIG.replace(sequence_keyframes=keyframes, min_score=0.05, confirmations=0, max_candidates=1))
    drive.through(range(60))
    drive.begin_session()
    way = range(0, 60, 2)
    verdicts = [drive.at(misleading(number)) for number in way]
    best = [verdict.best.match if verdict.best else None for verdict in verdicts]
    near = [match is not None and abs(match.id - number) <= 1 for number, match in zip(way, best, strict=True)]
    assert sum(near) >= right
    assert (sum(near) < 10) == (keyframes == 1)
    closures = [closure for verdict in verdicts for closure in verdict.closures]
    assert len(closures) >= 10
    for closure in closures:
        own = hamming(closure.match.descriptor, closure.query.descriptor)
        assert closure.hamming == own  # of the two images, not of the sequence


class Streak(NamedTuple):
    """A place that matched."""

    at: int  # position in the database
    session: int
    stamp: int
    length: int


class PlainLoopCloser:
    """Decides as LoopCloser does, one keyframe and one rule after the other; geometry knows of no motion here."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._neighbours: list[float] = []
        self._streaks: list[Streak] = []

    def forget(self) -> None:
        self._neighbours, self._streaks = [], []

    def decide(self, query: Keyframe, database: KeyframeDatabase, config: Config) -> Verdict:
        previous, self._streaks = self._streaks, []
        if len(database) == 0:
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])
        self._query, self._database, self._config = query, database, config
        self._keyframes: dict[int, list[int]] = {}  # of each place, by its best keyframe
        self._shown: dict[int, int] = {}  # the view of each place that verifies
        self._window = round(config.confirmation_window * NANOSECONDS)
        self._sessions, self._stamps = database.sessions.tolist(), database.stamps.tolist()
        self._distances = database.distances(query.descriptor[None])
        scores, outside = self._scores(), self._outside()
        if not any(outside):
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])
        verdict = self._by_geometry(scores, outside) if config.verify else self._by_looks(scores, outside, previous)
        if not verdict.closures and not verdict.refused:
            best = int(np.where(outside, scores, -np.inf).argmax())
            verdict.refused.append(self._refused(Refusal.LOW_SCORE, best, scores))
        return verdict

    def _outside(self) -> list[bool]:
        """Return which keyframes may be matched."""
        query, own = self._query, self._query.session
        begun = min([query.stamp, *(t for t, s in zip(self._stamps, self._sessions, strict=True) if s == own)])
        ended = {session: max(self._of(session)) for session in set(self._sessions)}
        result = []
        for number, session, stamp in zip(self._database.ids.tolist(), self._sessions, self._stamps, strict=True):
            old = abs(query.stamp - stamp) >= round(self._config.exclusion_time * NANOSECONDS)
            if session == own:
                result.append(old and query.id - number > self._config.exclusion_keyframes)
            else:
                result.append(old or ended[session] > begun)  # its time comes again
        return result

    def _of(self, session: int) -> list[int]:
        return [stamp for stamp, of in zip(self._stamps, self._sessions, strict=True) if of == session]

    def _scores(self) -> NDArray[np.float64]:
        similarities = 1.0 - 2.0 * self._distances / (self._query.descriptor.size * 64)
        if self._sessions[-1] == self._query.session:
            self._neighbours = [*self._neighbours, float(similarities[-1])][-LoopCloser.NEIGHBOURS :]
        of_neighbours = LoopCloser.LEAST_NEIGHBOUR_SIMILARITY
        if self._neighbours:
            of_neighbours = max(float(np.median(self._neighbours)), of_neighbours)
        of_others = min(float(np.median(similarities)), of_neighbours / 2)
        scores: NDArray[np.float64] = (similarities - of_others) / (of_neighbours - of_others)
        return scores

    def _places(self, scores: NDArray[np.float64], among: Iterable[bool], least: float) -> list[int]:
        """Return the positions of the best keyframes of places, best first, and note what else is of the place."""
        places: dict[int, list[int]] = {}
        may = list(among)
        for at in np.argsort(-scores, kind="stable").tolist():
            if may[at] and scores[at] >= least:
                place = next((other for other in places if self._near(at, other)), at)
                places.setdefault(place, []).append(at)
        self._keyframes |= places
        return list(places)

    def _views(self, at: int) -> list[int]:
        """Return the views of a place that are tried, the one with most matches first."""
        return sorted(self._keyframes[at][:VIEWS], key=lambda view: -self._look(view).inliers)

    def _left_views(self, at: int, scores: NDArray[np.float64]) -> list[int]:
        """Return those of a place that do not belong to the present, or all where itself does."""
        present = self._present(scores, scores[at])
        return [view for view in self._views(at) if view < present or at >= present]

    def _verified(self, views: Iterable[int], least: float) -> int | None:
        """Return the first of some views that has so much evidence."""
        return next((view for view in views if self._look(view).evidence >= least), None)

    def _near(self, one: int, other: int) -> bool:
        """Tell whether two keyframes show one place by their time alone."""
        near = abs(self._stamps[one] - self._stamps[other]) <= self._window
        return near and self._sessions[one] == self._sessions[other]

    def _present(self, scores: NDArray[np.float64], best: float) -> int:
        """Return where the run of keyframes that look like the query begins, which goes on until now."""
        first = len(scores)
        own = self._query.session
        while first and scores[first - 1] >= ISLAND_SCORE * min(best, 1.0) and self._sessions[first - 1] == own:
            first -= 1
        return first

    def _one_place(self, places: list[int], scores: NDArray[np.float64], least: float = 0.0) -> bool:
        """Tell whether all places of each session are joined with the first one of it, over any number of others."""
        for session in {self._sessions[at] for at in places}:
            # A place in the query's own session must be that of the match, wherever that was.
            own = least > 0 and session == self._query.session
            those = [at for at in places if self._sessions[at] == session or (own and at == places[0])]
            group, grown = {those[0]}, True
            while grown:
                grown = False
                for one, other in itertools.product(list(group), those):
                    if other not in group and self._joined(one, other, scores, least):
                        group.add(other)
                        grown = True
            if len(group) < len(those):
                return False
        return True

    def _joined(self, one: int, other: int, scores: NDArray[np.float64], least: float) -> bool:
        first, last = sorted((one, other))
        goes_on = self._sessions[one] == self._sessions[other] and all(
            self._stamps[at + 1] - self._stamps[at] <= self._window for at in range(first, last)
        )
        least = max(ISLAND_SCORE * min(scores[one], 1.0), least)
        if goes_on and all(score >= least for score in scores[first:last]):
            return True
        ids, closes = self._database.ids.tolist(), self._database.closes.tolist()
        here, there = ([at for at in range(len(ids)) if self._near(at, place)] for place in (one, other))
        return any(closes[a] == ids[b] or closes[b] == ids[a] for a, b in itertools.product(here, there))

    def _by_looks(self, scores: NDArray[np.float64], outside: list[bool], previous: list[Streak]) -> Verdict:
        verdict = Verdict()
        for at in self._places(scores, outside, self._config.min_score)[:MOST_PLACES]:
            session, stamp = self._sessions[at], self._stamps[at]
            lengths = [s.length for s in previous if s.session == session and abs(s.stamp - stamp) <= self._window]
            self._streaks.append(Streak(at, session, stamp, 1 + max(lengths, default=0)))
        for at, _, _, length in self._streaks:
            present = self._present(scores, scores[at])
            before = [position < present for position in range(len(scores))]
            if length <= self._config.confirmations:
                verdict.refused.append(self._refused(Refusal.NOT_CONFIRMED, at, scores))
            elif at >= present:
                verdict.refused.append(self._refused(Refusal.NEVER_LEFT, at, scores))
            elif len(verdict.closures) == self._config.max_candidates:
                verdict.refused.append(self._refused(Refusal.NOT_AMONG_BEST, at, scores))
            elif not self._one_place(self._places(scores, before, RIVAL_SCORE * min(scores[at], 1.0)), scores):
                verdict.refused.append(self._refused(Refusal.AMBIGUOUS, at, scores))
            else:
                verdict.closures.append(self._closure(at, scores, NOT_VERIFIED))
        return verdict

    def _asked(  # noqa: C901 - all rules in one place are easier to compare
        self, scores: NDArray[np.float64], outside: list[bool], verdict: Verdict
    ) -> tuple[dict[int, float], list[int], int, float]:
        """Return the evidence of places that verify, which are whole, how many were tried, the best score missed."""
        config = self._config
        evidence: dict[int, float] = {}
        whole: list[int] = []  # not of a part of the view
        tried, missed, most = 0, 0.0, 0
        waiting: list[int] = []
        views: dict[int, list[int]] = {}

        def best(of: Callable[[int], float]) -> float:
            return max((of(one) for one in whole if self._was_left(one, scores)), default=0)

        def ask(at: int) -> None:
            nonlocal tried, missed
            most_matches = self._look(views[at][0]).inliers
            if most_matches < config.min_inliers:
                reason = Refusal.FEW_INLIERS
            elif scores[at] < RIVAL_SCORE * min(best(scores.__getitem__), 1.0) or most_matches < RIVAL_EVIDENCE * best(
                evidence.__getitem__
            ):
                reason = Refusal.NOT_AMONG_BEST
            elif tried == config.verifications:
                reason, missed = Refusal.NOT_VERIFIED, max(missed, scores[at])
            else:
                tried += 1
                view = self._verified(views[at], config.min_inliers)
                if view is not None:
                    self._shown[at], evidence[at] = view, self._look(view).evidence
                    whole.extend([] if self._look(view).of_a_part else [at])
                    return
                reason = Refusal.FEW_INLIERS
            verdict.refused.append(self._refused(reason, at, scores))

        for number, at in enumerate(self._places(scores, outside, config.min_score)):
            if scores[at] < RIVAL_SCORE * min(best(scores.__getitem__), 1.0):
                verdict.refused.append(self._refused(Refusal.NOT_AMONG_BEST, at, scores))
                break
            if number == MOST_PLACES:
                missed = max(missed, scores[at])
                verdict.refused.append(self._refused(Refusal.NOT_VERIFIED, at, scores))
                break
            views[at] = self._left_views(at, scores)
            if self._look(views[at][0]).inliers > most and tried < config.verifications:
                most = self._look(views[at][0]).inliers
                ask(at)
            else:
                waiting.append(at)
        for at in sorted(waiting, key=lambda at: -self._look(views[at][0]).inliers):
            ask(at)
        verdict.refused.sort(key=lambda one: -one.score)
        return evidence, whole, tried, missed

    def _by_geometry(self, scores: NDArray[np.float64], outside: list[bool]) -> Verdict:
        config, verdict = self._config, Verdict()
        evidence, whole, tried, missed = self._asked(scores, outside, verdict)
        if not evidence:
            return verdict
        best = sorted(evidence, key=lambda at: (at not in whole, -evidence[at]))
        left = [at for at in best if self._was_left(at, scores)]
        enough = RIVAL_SCORE * min(max((scores[at] for at in left if at in whole), default=0), 1.0)
        outdone = max((evidence[at] for at in left if at in whole and scores[at] < enough), default=0)
        left = [at for at in left if scores[at] >= enough]
        rivals = [at for at in left if evidence[at] >= RIVAL_EVIDENCE * evidence[left[0]]]
        reason, chosen = Refusal.NEVER_LEFT, list[int]()
        if left and left[0] not in whole:
            reason = Refusal.FEW_INLIERS
        elif left and (
            missed >= RIVAL_SCORE * min(scores[left[0]], 1.0)
            or outdone > evidence[left[0]]
            or self._ambiguous(scores, outside, rivals, evidence[left[0]], config.verifications - tried)
        ):
            reason = Refusal.AMBIGUOUS
        elif left:
            reason, chosen = (
                Refusal.NOT_AMONG_BEST,
                [at for at in rivals if at in whole and evidence[at] >= ROW_EVIDENCE * evidence[left[0]]][
                    : config.max_candidates
                ],
            )
        others = [self._refused(reason, at, scores) for at in evidence if at not in chosen]
        shown = [self._shown[at] for at in chosen]
        closures = [self._closure(view, scores, self._look(view).inliers) for view in shown]
        return Verdict(closures, others + verdict.refused)

    def _was_left(self, at: int, scores: NDArray[np.float64]) -> bool:
        return at < self._present(scores, scores[at])

    def _ambiguous(
        self, scores: NDArray[np.float64], outside: list[bool], rivals: list[int], most: float, budget: int
    ) -> bool:
        """Tell whether the first of the rivals is not the only place that it could be."""
        best = scores[rivals[0]]
        present = self._present(scores, best)
        recent = [
            not out and session == self._query.session and at < present
            for at, (out, session) in enumerate(zip(outside, self._sessions, strict=True))
        ]
        least = max(RIVAL_EVIDENCE * most, self._config.min_inliers)
        doubles = self._places(scores, recent, RIVAL_SCORE * min(best, 1.0))
        doubles = [at for at in doubles if self._look(self._views(at)[0]).inliers >= least]
        if len(doubles) > budget:
            return True
        alike = rivals + [at for at in doubles if self._verified(self._views(at), least) is not None]
        return not self._one_place(alike, scores, LEAST_ISLAND_SCORE)

    def _look(self, at: int) -> Verification:
        return self._geometry(self._query.id, int(self._database.ids[at]))

    def _closure(self, at: int, scores: NDArray[np.float64], inliers: int) -> LoopClosure:
        score = float(np.clip(scores[at], 0, 1))
        return LoopClosure(self._query, self._database.keyframe(at), int(self._distances[at]), score, inliers)

    def _refused(self, reason: Refusal, at: int, scores: NDArray[np.float64]) -> Refused:
        return Refused(reason, self._database.keyframe(at), float(np.clip(scores[at], 0, 1)))


def facts(verdict: Verdict) -> list[tuple[Any, ...]]:
    """Return all that a verdict says, scores to the last bit."""
    closures = [(c.query.id, c.match.id, c.match.session, c.hamming, c.score, c.inliers) for c in verdict.closures]
    refusals = [(r.reason, r.match and (r.match.id, r.match.session, r.match.stamp), r.score) for r in verdict.refused]
    return [*closures, *refusals]


def by_chance(query: float, match: float) -> Verification:
    """Say of two views, told apart by their numbers, something that is the same each time."""
    rng = np.random.default_rng(int(query) << 32 | int(match))
    coverage, spread = rng.choice([0.5, 1.0]), rng.choice([0.3, 0.9])
    inliers = int(rng.choice([0, 19, 20, 30, 50, 100]))
    return found(inliers, float(coverage))._replace(homography=None, spread=float(spread))


@given(
    config=st.builds(
        Config,
        verify=st.booleans(),
        exclusion_time=st.sampled_from([0.0, 3.0, 10.0]),
        exclusion_keyframes=st.integers(0, 12),
        min_score=st.sampled_from([0.0, 0.2, 0.35, 0.6, 1.0]),
        confirmations=st.integers(0, 2),
        confirmation_window=st.sampled_from([0.0, 0.7, 2.5, 6.0]),
        min_inliers=st.sampled_from([8, 20, 50]),
        verifications=st.integers(1, 8),
        verification_time=st.just(60.0),
        max_candidates=st.integers(1, 3),
    ),
    words=st.integers(1, 17),
    places=st.integers(1, 40),
    noise=st.sampled_from([0.0, 0.02, 0.1, 0.4]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_verdicts_are_those_of_the_plain_way(config: Config, words: int, places: int, noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (places, 64 * words), np.uint8)
    database = KeyframeDatabase(None, "", words)

    def seen(query: Features, match: Features, *_: Any) -> Verification:
        return by_chance(query.size[0], match.size[0])

    closer = LoopCloser(seen, lambda query, match: seen(query, match).pairs)
    plain = PlainLoopCloser(by_chance)
    stamp, at = int(rng.integers(2**62)), 0
    for number in range(60):
        at = (at + 1) % places if rng.random() < 0.9 else int(rng.integers(places))
        stamp += round(rng.random() * NANOSECONDS)
        descriptor = np.packbits(bits[at] ^ (rng.random(64 * words) < noise * rng.random())).view(np.uint64)
        query = database.next_keyframe(stamp, descriptor, SOME_FEATURES._replace(size=(number, 1)))
        verdict = closer.decide(query, database, config)
        assert facts(verdict) == facts(plain.decide(query, database, config))
        closes = verdict.closures[0].match.id if verdict.closures else NOTHING_CLOSED
        database.add(dataclasses.replace(query, closes=closes))
        if rng.random() < 0.03:  # a session that begins earlier than the last ended, or long after
            database.new_session()
            stamp += int(rng.integers(-40, 40)) * NANOSECONDS
            if rng.random() < 0.3:
                database.reset()
            closer.forget()
            plain.forget()


def test_what_geometry_verifies_is_a_closure_at_once() -> None:
    drive = Drive(VERIFIED.replace(confirmations=100))  # which count only where geometry is not asked
    drive.through(range(30))
    verdicts = drive.through(range(6))
    assert [matches(verdict) for verdict in verdicts] == [[number] for number in range(6)]
    assert {closure.inliers for verdict in verdicts for closure in verdict.closures} == {100}


@pytest.mark.parametrize(
    ("inliers", "coverage", "closes"), [(20, 1.0, True), (19, 1.0, False), (40, 0.5, True), (40, 0.49, False)]
)
def test_inliers_count_for_the_share_of_the_view_that_they_cover(inliers: int, coverage: float, closes: bool) -> None:
    drive = Drive(VERIFIED, always(inliers, coverage))
    drive.through(range(30))
    verdict = drive.through([5])[0]
    assert [closure.inliers for closure in verdict.closures] == [inliers] * closes
    assert reasons(verdict) == [Refusal.FEW_INLIERS] * (not closes)


def of_a_poster(query: float, match: float) -> Verification:
    """Say of two views that they are much alike in a part of the image."""
    return found(100, moved=query - match)._replace(spread=0.3)


def test_what_is_alike_in_a_part_of_the_view_alone_is_no_closure() -> None:
    drive = Drive(VERIFIED, of_a_poster)
    drive.through(range(30))
    assert reasons(drive.through([5])[0]) == [Refusal.FEW_INLIERS]


@pytest.mark.parametrize("within_window", [False, True])
def test_but_it_is_a_rival(within_window: bool) -> None:
    """A door that stands at the same pixels may be one of several, just as one that has moved in the image."""
    double = 1005

    def geometry(query: float, match: float) -> Verification:
        return of_a_poster(5, 5) if (query, match) == (5, double) else on_a_road(query, match)

    drive = Drive(VERIFIED, geometry)
    drive.through(range(30))
    drive.at(place(5), double)
    drive.through(range(60, 64 if within_window else 80))
    verdict = drive.through([5])[0]
    assert not verdict.closures
    assert set(reasons(verdict)) == {Refusal.AMBIGUOUS}


def test_what_a_robot_at_rest_sees_does_not_outdo_the_place_it_came_back_to() -> None:
    """The views since it came to rest are those with most evidence by far, and they are no loop."""
    at_rest = 1005

    def geometry(query: float, match: float) -> Verification:
        if query == at_rest:
            return found(100 if match == at_rest else 40 if match == 5 else 0)
        return on_a_road(query, match)

    drive = Drive(VERIFIED, geometry)
    drive.through(range(30))
    verdicts = [drive.at(place(5.4), at_rest) for _ in range(25)]
    assert matches(verdicts[0]) == matches(verdicts[-1]) == [5]


@pytest.mark.parametrize(("later", "closes"), [(None, False), (20, False), (3500, False), (3700, True)])
def test_in_the_same_light_what_has_other_colours_is_another_place(later: int | None, closes: bool) -> None:
    one, other = np.random.default_rng(0).integers(0, 256, (2, ROWS, COLUMNS), np.uint8)
    drive = Drive(VERIFIED)
    drive.colours = one
    drive.through(range(30))
    if later is not None:
        drive.begin_session(seconds_later=later)
    drive.colours = other
    verdict = drive.through([5])[0]
    assert matches(verdict) == [5] * closes
    assert (Refusal.FEW_INLIERS in reasons(verdict)) != closes


def test_geometry_knows_the_camera() -> None:
    drive = Drive(VERIFIED)
    drive.camera = Camera((640, 480), np.eye(3), np.zeros(4))
    drive.through(range(30))
    drive.through(range(6))
    assert drive.cameras == {drive.camera}


def test_nothing_is_verified_that_scores_too_low() -> None:
    drive = Drive(VERIFIED)
    drive.through(range(30))
    assert reasons(drive.through([60])[0]) == [Refusal.LOW_SCORE]
    assert drive.verified == 0


@pytest.mark.parametrize(("inliers", "rival"), [(24, False), (25, True)])
def test_the_place_with_most_evidence_is_the_match_unless_another_has_enough(inliers: int, rival: bool) -> None:
    other = 1005  # looks like place 5, not quite as much as that itself

    def geometry(query: float, match: float) -> Verification:
        return found(100) if (query, match) == (5, other) else found(inliers) if query == match else Verification()

    drive = Drive(VERIFIED, geometry)
    drive.through([*range(8), *range(50, 60)])
    drive.at(place(5, noise=0.02), other)
    drive.through(range(60, 75))
    verdict = drive.through([5])[0]
    assert matches(verdict) == [18] * (not rival)
    assert reasons(verdict) == ([Refusal.AMBIGUOUS] * 2 if rival else [Refusal.NOT_AMONG_BEST])


def test_what_geometry_tells_apart_is_no_rival() -> None:
    drive = Drive(VERIFIED)
    drive.through([*range(8), *range(50, 60)])
    drive.at(place(5), 1005)
    drive.through(range(60, 70))
    drive.at(place(5), 1005)  # within the exclusion window too
    drive.through([80, 81])
    verdict = drive.through([5])[0]
    assert matches(verdict) == [5]
    assert set(reasons(verdict)) <= {Refusal.FEW_INLIERS}


def test_what_scores_far_below_what_was_verified_is_not_tried() -> None:
    drive = Drive(VERIFIED.replace(min_score=0.3))
    drive.through(range(12))
    drive.through(range(50, 62))
    drive.at(place(5, noise=0.32), 5)
    drive.through(range(62, 75))
    verdict = drive.through([5])[0]
    assert matches(verdict) == [5]
    assert reasons(verdict) == [Refusal.NOT_AMONG_BEST]
    assert drive.verified == 1


def test_equal_doors_one_after_the_other_close_no_loop() -> None:
    doors = range(0, 300, 24)
    drive = Drive(VERIFIED, with_equal_doors(*doors))
    verdicts = []
    for door in doors:
        verdicts += [drive.at(place(ahead), door + ahead) for ahead in (0, 0.5, 1)]
        verdicts += [drive.at(place(50 + wall), wall) for wall in range(door + 5, door + 20, 5)]
    assert not any(verdict.closures for verdict in verdicts)
    assert Refusal.AMBIGUOUS in {reason for verdict in verdicts for reason in reasons(verdict)}


def known_places(drive: Drive, seen: Iterable[tuple[float, float]]) -> None:
    """Make an earlier session in which no loop was closed: what each keyframe looks like, and where it was taken."""
    config, drive.config = drive.config, CLOSES_NOTHING
    for looks, taken_at in seen:
        assert not drive.at(place(looks), taken_at).closures
    drive.config = config
    drive.begin_session(seconds_later=1000)


THERE_AND_BACK = [(float(at), float(at)) for at in [*range(14), *range(12, -1, -1)]]


def test_two_views_of_a_session_are_one_place_where_the_motion_between_them_leads_back() -> None:
    drive = Drive(VERIFIED)
    known_places(drive, THERE_AND_BACK)
    verdicts = drive.through([20, 3])
    assert sorted(matches(verdicts[-1])) == [3, 23]
    assert {verdict.match.session for verdict in verdicts[-1].closures} == {0}


def test_the_motion_leads_from_one_view_to_the_other_and_neither_is_that_of_the_query() -> None:
    def geometry(query: float, match: float) -> Verification:
        return found(100, moved=query - match) if abs(query - match) < 5 else Verification()

    drive = Drive(VERIFIED, geometry)
    known_places(drive, [(at, at) for at in (21.6, 20, 18, 16, 14, 16, 18, 20, 24.4, 28, 32, 36)])
    verdict = drive.through([23])[0]
    assert sorted(matches(verdict)) == [0, 8]


@pytest.mark.parametrize(("inliers", "rows"), [(49, 1), (50, 2)])
def test_a_view_with_half_of_the_evidence_is_published_too(inliers: int, rows: int) -> None:
    """Views of another map are no rivals, and one with little evidence would be a row all the same."""
    other = 1005

    def geometry(query: float, match: float) -> Verification:
        return found(inliers) if (query, match) == (5, other) else on_a_road(query, match)

    drive = Drive(VERIFIED, geometry)
    drive.through(range(50, 60))
    drive.at(place(5), other)
    drive.through(range(60, 70))
    drive.begin_session(seconds_later=20)
    drive.through([*range(8), *range(70, 90)])
    assert len(drive.through([5])[0].closures) == rows


def test_of_several_views_of_one_place_max_candidates_are_published() -> None:
    drive = Drive(VERIFIED.replace(max_candidates=1))
    known_places(drive, THERE_AND_BACK)
    verdict = drive.through([3])[0]
    assert len(verdict.closures) == 1
    assert reasons(verdict) == [Refusal.NOT_AMONG_BEST]


def test_where_the_motion_between_two_views_is_not_known_they_are_two_places() -> None:
    drive = Drive(VERIFIED)
    config, drive.config = drive.config, CLOSES_NOTHING
    for number, (looks, taken_at) in enumerate(THERE_AND_BACK):
        drive.has_features = number != 13
        drive.at(place(looks), taken_at)
    drive.config = config
    drive.begin_session(seconds_later=1000)
    verdict = drive.through([3])[0]
    assert not verdict.closures
    assert reasons(verdict) == [Refusal.AMBIGUOUS] * 2


def test_where_the_motion_leads_on_two_views_are_equal_doors() -> None:
    drive = Drive(VERIFIED, with_equal_doors(3, 23))
    known_places(drive, [(at - 20 if abs(at - 23) <= 1 else at, at) for at in range(30)])
    verdict = drive.through([3])[0]
    assert not verdict.closures
    assert reasons(verdict) == [Refusal.AMBIGUOUS] * 2


def test_views_of_several_maps_are_no_rivals_of_each_other() -> None:
    drive = Drive(VERIFIED)
    for _ in range(3):
        known_places(drive, [(at, at) for at in range(14)])
    verdict = drive.through([3])[0]
    assert len(matches(verdict)) == drive.config.max_candidates == 2
    assert {closure.match.session for closure in verdict.closures} <= {0, 1, 2}
    assert reasons(verdict) == [Refusal.NOT_AMONG_BEST]


def test_equal_doors_of_one_map_are_rivals_of_what_another_one_shows() -> None:
    drive = Drive(VERIFIED, with_equal_doors(3, 23))
    known_places(drive, [(at, at) for at in range(14)])
    known_places(drive, [(at - 20 if abs(at - 23) <= 1 else at, at) for at in range(30)])
    assert set(reasons(drive.through([3])[0])) == {Refusal.AMBIGUOUS}


def without_motion(query: float, match: float) -> Verification:
    """Say of two views on a road what `on_a_road` does, but for the motion."""
    return on_a_road(query, match)._replace(homography=None)


@pytest.mark.parametrize("leaves", [False, True])
def test_views_between_which_all_looks_alike_are_one_place(leaves: bool) -> None:
    drive = Drive(VERIFIED, without_motion)
    seen = [*range(6), *[5] * 8, *([40, 41] * leaves), *[5] * 8, *range(6, 20)]
    known_places(drive, [(at, at) for at in seen])
    verdict = drive.through([5])[0]
    assert len(verdict.closures) == (0 if leaves else 2)
    assert Refusal.AMBIGUOUS in reasons(verdict) or not leaves


def test_laps_that_were_closed_are_one_place() -> None:
    drive = Drive(VERIFIED, without_motion)
    laps = [drive.through(range(30)) for _ in range(4)]
    for lap in laps[1:]:
        assert all(verdict.closures for verdict in lap)


def test_laps_that_were_not_closed_are_several() -> None:
    drive = Drive(VERIFIED, always(0))
    for _ in range(2):
        drive.through(range(30))
    drive.geometry = without_motion
    assert set(reasons(drive.through(range(30))[-1])) == {Refusal.AMBIGUOUS}


@pytest.mark.parametrize(("inliers", "closes"), [(25, False), (24, True), (0, True)])
def test_what_was_passed_within_the_exclusion_window_may_be_a_rival(inliers: int, closes: bool) -> None:
    double = 1005

    def geometry(query: float, match: float) -> Verification:
        return found(inliers) if (query, match) == (5, double) else on_a_road(query, match)

    drive = Drive(VERIFIED, geometry)
    drive.through(range(30))
    drive.at(place(5), double)
    drive.through(range(60, 64))
    verdict = drive.through([5])[0]
    assert matches(verdict) == [5] * closes
    assert reasons(verdict) == [Refusal.AMBIGUOUS] * (not closes)


@pytest.mark.parametrize("followed", [True, False])
def test_what_the_motion_leads_back_to_is_where_the_robot_is_and_no_rival(followed: bool) -> None:
    """It turns about, and what it saw seconds ago is before it again; long ago it was here too."""
    drive = Drive(VERIFIED)
    drive.through(range(30))
    drive.config = CLOSES_NOTHING  # or loops would be closed meanwhile, which join it too
    drive.through([5, 7, 9, 11])
    drive.has_features = followed
    drive.through([11])
    drive.has_features = True
    drive.through([11, 9, 7])
    drive.config = VERIFIED
    verdict = drive.through([5])[0]
    assert matches(verdict) == [5] * followed
    assert reasons(verdict) == [Refusal.AMBIGUOUS] * (not followed)


def test_a_rival_that_cannot_be_looked_at_counts() -> None:
    drive = Drive(VERIFIED)
    drive.through(range(30))
    drive.has_features = False
    drive.at(place(5), 1005)
    drive.has_features = True
    drive.through(range(60, 64))
    assert reasons(drive.through([5])[0]) == [Refusal.AMBIGUOUS]


@pytest.mark.parametrize(("alike", "matched"), [(MOST_PLACES + 3, 5), (VERIFIED.verifications + 3, 30)])
@pytest.mark.parametrize(("noise", "closes"), [(0.32, True), (0.1, False)])
def test_what_is_not_looked_at_is_a_rival_only_with_a_score_of_one(
    alike: int, matched: int, noise: float, closes: bool
) -> None:
    """The best score, and most matches, has a double of the place that geometry refuses; others follow it."""
    true, double, other = 5, 1005, 2000

    def geometry(query: float, match: float) -> Verification:
        if query != true:
            return on_a_road(query, match)
        if match == double:
            return found(60, coverage=0.1)
        return found(50) if match == true else found(matched if match == other else 0, coverage=0.1)

    drive = Drive(VERIFIED.replace(min_score=0.3), geometry)
    drive.through(range(40, 80))
    drive.at(place(true, noise=0.0), double)
    drive.through(range(80, 90))
    drive.at(place(true, noise=0.01), true)
    for number in range(alike):
        drive.through(np.arange(100, 103) + 3.0 * number)
        drive.at(place(true, noise + 1e-4 * number), other)
    drive.through(range(300, 312))
    verdict = drive.at(place(true), true)
    assert bool(verdict.closures) == closes
    assert (Refusal.AMBIGUOUS in reasons(verdict)) != closes


@pytest.mark.parametrize(("coverage", "closes"), [(0.8, True), (0.9, False)])
def test_a_place_with_a_low_score_is_no_rival_unless_it_has_more_evidence(coverage: float, closes: bool) -> None:
    true, double, other = 5, 1005, 2000
    by_view: dict[float, Verification] = {
        true: found(45),
        double: found(60, coverage=0.1),
        other: found(55, coverage),
    }

    def geometry(query: float, match: float) -> Verification:
        return by_view.get(match, Verification()) if query == true else Verification()

    drive = Drive(VERIFIED.replace(min_score=0.3), geometry)
    drive.through(range(40, 80))
    for view, noise in ((double, 0.0), (true, 0.02), (other, 0.32)):
        drive.at(place(5, noise), view)
        drive.through(np.arange(100, 103) + noise)
    drive.through(range(300, 312))
    verdict = drive.at(place(5), true)
    assert [closure.inliers for closure in verdict.closures] == [45] * closes
    assert (Refusal.AMBIGUOUS in reasons(verdict)) != closes


@pytest.mark.parametrize(("verifications", "closes"), [(1, False), (2, True)])
def test_a_rival_for_which_no_verification_is_left_counts(verifications: int, closes: bool) -> None:
    """It has as many matches as the place itself, and geometry would say that they cover little."""
    double = 1005

    def geometry(query: float, match: float) -> Verification:
        return found(100, coverage=0.1) if (query, match) == (5, double) else on_a_road(query, match)

    drive = Drive(VERIFIED.replace(verifications=verifications), geometry)
    drive.through(range(30))
    assert matches(drive.through([8])[0]) == [8]
    drive.at(place(5), double)
    drive.through(range(60, 64))
    verdict = drive.through([5])[0]
    assert reasons(verdict) == [Refusal.AMBIGUOUS] * (not closes)
    assert matches(verdict) == [5] * closes


def test_a_view_that_never_changed_closes_no_loop() -> None:
    drive = Drive(VERIFIED)
    verdicts = drive.through([3.0] * 40)
    assert not any(verdict.closures for verdict in verdicts)
    assert Refusal.NEVER_LEFT in reasons(verdicts[-1])


def seen_six_times(drive: Drive) -> None:
    for _ in range(6):
        drive.through([5, 60, 61])
    drive.through(range(70, 82))


def test_verifications_are_counted() -> None:
    drive = Drive(VERIFIED.replace(verifications=3), always(100, coverage=0.1))
    seen_six_times(drive)
    assert reasons(drive.through([5])[0]) == [Refusal.FEW_INLIERS] * 3 + [Refusal.NOT_VERIFIED] * 3
    assert drive.verified == 3
    assert reasons(drive.through([5])[0])[:3] == [Refusal.FEW_INLIERS] * 3  # the next keyframe has its own


def test_each_map_has_its_verifications(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyframeDatabase, "maps", 2)
    drive = Drive(VERIFIED.replace(verifications=2), always(100, coverage=0.1))
    seen_six_times(drive)
    assert reasons(drive.through([5])[0]) == [Refusal.FEW_INLIERS] * 4 + [Refusal.NOT_VERIFIED] * 2


def test_the_clock_is_the_last_resort() -> None:
    drive = Drive(VERIFIED.replace(verification_time=0.25), always(100, coverage=0.1), seconds_each=0.1)
    seen_six_times(drive)
    assert reasons(drive.through([5])[0]) == [Refusal.FEW_INLIERS] * 3 + [Refusal.NOT_VERIFIED] * 3
    assert drive.verified == 3  # the third began in time
    drive.config = VERIFIED.replace(verification_time=0.0)
    assert reasons(drive.through([5])[0]) == [Refusal.NOT_VERIFIED]
    assert drive.verified == 0


def test_a_query_without_features_is_refused() -> None:
    drive = Drive(VERIFIED)
    drive.through(range(30))
    drive.has_features = False
    assert reasons(drive.through([5])[0]) == [Refusal.NOT_VERIFIED]


def test_a_keyframe_of_the_map_without_features_is_refused_and_others_are_tried() -> None:
    drive = Drive(VERIFIED)
    drive.through(range(12))
    drive.through(range(50, 62))
    drive.has_features = False
    drive.at(place(5), 5)
    drive.has_features = True
    drive.through(range(62, 75))
    verdict = drive.at(place(5), 5)
    assert matches(verdict) == [5]
    assert reasons(verdict) == [Refusal.NOT_VERIFIED]


@pytest.mark.parametrize("verify", [True, False])
def test_where_the_odometry_says_that_the_robot_is_elsewhere_no_loop_is_closed(verify: bool) -> None:
    """Two equal doors, forty metres apart; then the first one again."""
    config = VERIFIED.replace(verify=verify, confirmations=0, odometry_drift=0.1)
    drive = Drive(config, with_equal_doors(3, 43))
    drive.whereabouts = lambda at: Whereabouts(0, (at, 0.0, 0.0), 40.0)
    drive.through(range(30))
    verdict = drive.at(place(3), 43)
    assert not verdict.closures
    assert reasons(verdict) == [Refusal.ODOMETRY]
    drive.through(range(60, 72))
    verdict = drive.at(place(3), 3)
    assert matches(verdict) == [3]
    assert reasons(verdict) == [Refusal.ODOMETRY]
    drive.at(place(3), 43)
    drive.through(range(80, 84))
    assert 3 in matches(drive.at(place(3), 3))  # the other door within the exclusion window is no rival
    drive.config = config.replace(odometry_drift=0.0)  # which switches it off
    assert Refusal.ODOMETRY not in reasons(drive.at(place(3), 43))


def test_odometry_of_another_session_says_nothing() -> None:
    drive = Drive(VERIFIED.replace(odometry_drift=0.1))
    drive.whereabouts = lambda _: Whereabouts(0, (drive.seconds * 10.0, 0.0, 0.0), 0.0)
    drive.through(range(30))
    drive.begin_session()
    assert matches(drive.through([3])[0]) == [3]


def test_the_motion_from_keyframe_to_keyframe_is_followed() -> None:
    motions = {FEWEST_FOLLOWED: found(FEWEST_FOLLOWED, coverage=0.1, moved=2), FEWEST_FOLLOWED - 1: found(14, moved=2)}
    asked = []

    def verify(query: Features, match: Features, *_: Any) -> Verification:
        asked.append((query.size[0], match.size[0]))
        return motions.get(query.size[0], Verification())

    def keyframe(number: int, features: bool = True) -> Keyframe:
        some = SOME_FEATURES._replace(size=(number, 1)) if features else None
        return Keyframe(number, 0, number, place(number), some)

    closer = LoopCloser(verify)
    assert closer.follow(keyframe(1)).motion is None  # the first one
    motion = closer.follow(keyframe(FEWEST_FOLLOWED)).motion
    assert motion is not None
    assert motion.dtype == np.float32
    assert motion.tolist() == [[1, 0, 2 * PLACE], [0, 1, 0], [0, 0, 1]]
    assert closer.follow(keyframe(FEWEST_FOLLOWED - 1)).motion is None  # too few inliers
    assert closer.follow(keyframe(3)).motion is None
    assert asked == [(FEWEST_FOLLOWED, 1), (FEWEST_FOLLOWED - 1, FEWEST_FOLLOWED), (3, FEWEST_FOLLOWED - 1)]
    assert closer.follow(keyframe(4, features=False)).motion is None
    assert closer.follow(keyframe(FEWEST_FOLLOWED)).motion is None  # the one before has no features
    closer.forget()
    assert closer.follow(keyframe(FEWEST_FOLLOWED)).motion is None  # the one before is of another session
    assert len(asked) == 3


def test_every_reason_has_a_name_of_its_own() -> None:
    assert len({reason.value for reason in Refusal}) == len(Refusal) == 10
