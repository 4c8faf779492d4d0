# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED, Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.loop_closure import (
    NOT_VERIFIED,
    LoopCloser,
    LoopClosure,
    Refusal,
    Refused,
    Verdict,
    _Candidate,
    _reported,
    _Trial,
)
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.cells import Grids, shifted
from binvpr_ros.network.hamming import Descriptor, hamming

BITS = 1024
CONFIG = Config(
    exclusion_time=10.0, exclusion_keyframes=5, min_score=0.6, confirmations=2, confirmation_time=0.0,
    confirmation_window=3, max_candidates=2, verify=False,
)  # fmt: skip
VERIFIED = CONFIG.replace(verify=True, min_inliers=20, verification_time=60.0)
SOME_FEATURES = Features((1, 1), np.zeros((0, 2), np.uint16), np.zeros(0, np.uint8), np.zeros((0, 32), np.uint8))


def place(number: float, noise: float = 0.0) -> Descriptor:
    """Return the descriptor of a place on a road, where places d < 4 apart have a similarity of about 1 - d / 4."""
    rng = np.random.default_rng(0)
    segments = rng.integers(0, 2, (100, BITS), np.uint8)
    segment = np.floor(number / 4 + rng.random(BITS)).astype(
        int
    )  # Each bit changes once on the way to the next segment.
    flips = np.random.default_rng(int(number * 1000)).random(BITS) < noise
    return np.packbits(segments[segment, np.arange(BITS)] ^ flips).view(np.uint64)


class Drive:
    """Feeds places, one a second, to a LoopCloser, to which geometry says `inliers` of every pair."""

    def __init__(self, config: Config = CONFIG, inliers: int = 100, grids: Grids = ()) -> None:
        self.config = config
        self.features: Features | None = SOME_FEATURES
        self.inliers = inliers
        self.verified = 0
        self.closer = LoopCloser(self.verify)
        self.database = KeyframeDatabase(None, "", BITS // 64, grids=grids)
        self.seconds = 0

    def through(self, places: Iterable[float], noise: float = 0.0) -> list[Verdict]:
        return [self.at(place(number, noise)) for number in places]

    def verify(self, _query: Features, _match: Features, _camera: Camera | None) -> int:
        self.verified += 1
        return self.inliers

    def at(self, descriptor: Descriptor) -> Verdict:
        query = self.database.next_keyframe(self.seconds * NANOSECONDS, descriptor, self.features)
        verdict = self.closer.decide(query, self.database, self.config)
        closes = verdict.closures[0].match.id if verdict.closures else NOTHING_CLOSED
        self.database.add(dataclasses.replace(query, closes=closes))
        self.seconds += 1
        return verdict


def reasons(verdict: Verdict) -> list[Refusal]:
    return [refused.reason for refused in verdict.refused]


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
    assert [closure.match.id for closure in verdict.closures] == [38, 70]
    assert verdict.closures[0].score >= verdict.closures[1].score
    assert reasons(verdict) == [Refusal.NOT_AMONG_BEST]


def test_an_earlier_session_is_matched_at_once() -> None:
    drive = Drive()
    drive.through(range(20))
    drive.database.new_session()
    drive.closer.forget()
    drive.seconds += 10_000
    verdict = drive.through([5, 6, 7])[-1]
    assert [closure.match.id for closure in verdict.closures] == [7]
    assert (verdict.closures[0].query.session, verdict.closures[0].match.session) == (1, 0)


def test_a_robot_that_starts_where_it_stopped_the_day_before_finds_the_latest_keyframes_too() -> None:
    drive = Drive(CONFIG.replace(confirmations=0))
    drive.through(range(20))
    drive.database.new_session()
    drive.closer.forget()
    drive.seconds += 86_400
    verdicts = drive.through([19, 18, 17])
    assert [[closure.match.id for closure in verdict.closures[:1]] for verdict in verdicts] == [[19], [18], [17]]
    assert not any(verdict.closures for verdict in drive.through([50, 50, 50]))  # but none of its own session


def test_the_latest_keyframes_are_not_matched_where_only_the_session_is_another() -> None:
    drive = Drive(CONFIG.replace(confirmations=0))
    drive.through(range(20))
    drive.database.new_session()
    drive.closer.forget()
    assert not any(verdict.closures for verdict in drive.through([19, 19, 19]))


def test_the_window_holds_over_the_border_of_a_session() -> None:
    drive = Drive(CONFIG.replace(confirmations=0, exclusion_keyframes=0))
    drive.through(range(20))
    drive.database.new_session()
    drive.closer.forget()
    verdicts = drive.through([15] * 12)
    assert not any(verdict.closures for verdict in verdicts[:3])
    assert all(abs(c.query.stamp - c.match.stamp) >= 10 * NANOSECONDS for verdict in verdicts for c in verdict.closures)


def test_a_time_that_comes_again_is_not_the_present() -> None:
    """A simulation that is started anew: what the first session saw at these stamps is what is to be found."""
    drive = Drive(CONFIG.replace(confirmations=0, exclusion_keyframes=0))
    drive.through(range(40))
    drive.database.new_session()
    drive.closer.forget()
    drive.seconds = 0
    for number, verdict in enumerate(drive.through(range(20))):
        assert [(closure.match.id, closure.match.session) for closure in verdict.closures[:1]] == [(number, 0)]


def test_without_geometry_a_robot_that_stands_closes_no_loops() -> None:
    drive = Drive(CONFIG.replace(verify=False))
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
    assert drive.through([7])[0].closures[0].match.id == 7


def test_the_streak_must_last_for_a_while() -> None:
    drive = Drive(CONFIG.replace(confirmations=0, confirmation_time=3.0))
    drive.through(range(30))
    assert [len(verdict.closures) for verdict in drive.through([5, 6, 7, 8, 9])] == [0, 0, 0, 1, 1]


def test_forget_ends_all_streaks() -> None:
    drive = Drive()
    drive.through(range(30))
    drive.through([5, 6])
    drive.closer.forget()
    assert reasons(drive.through([7])[0]) == [Refusal.NOT_CONFIRMED]


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
    drive.database.new_session()
    drive.closer.forget()
    way = range(0, 60, 2)
    verdicts = [drive.at(misleading(number)) for number in way]
    best = [verdict.best.match if verdict.best else None for verdict in verdicts]
    found = [match is not None and abs(match.id - number) <= 1 for number, match in zip(way, best, strict=True)]
    assert sum(found) >= right
    assert (sum(found) < 10) == (keyframes == 1)
    closures = [closure for verdict in verdicts for closure in verdict.closures]
    assert len(closures) >= 10
    for closure in closures:
        own = hamming(closure.match.descriptor, closure.query.descriptor)
        assert closure.hamming == own  # of the two images, not of the sequence


class PlainLoopCloser(LoopCloser):
    """Decides as LoopCloser does, but reckons similarity and score of each keyframe, and sorts them."""

    def decide(
        self, query: Keyframe, database: KeyframeDatabase, config: Config, camera: Camera | None = None
    ) -> Verdict:
        assert camera is None
        previous, self._previous = self._previous, []
        if len(database) == 0:
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])
        distances = database.distances(query.descriptor)
        similarities = 1.0 - 2.0 * distances / (query.descriptor.size * 64)
        if database.sessions[-1] == query.session:
            self._neighbour_similarities.append(float(similarities[-1]))
        outside = self._outside(query, database, config)
        if not outside.any():
            return Verdict(refused=[Refused(Refusal.NO_HISTORY)])
        of_neighbours = self.LEAST_NEIGHBOUR_SIMILARITY
        if self._neighbour_similarities:
            of_neighbours = max(float(np.median(self._neighbour_similarities)), of_neighbours)
        of_others = min(float(np.median(similarities)), of_neighbours / 2)
        scores = (similarities - of_others) / (of_neighbours - of_others)
        all_bits = query.descriptor.size * 64
        by_distance = (1.0 - 2.0 * np.arange(all_bits + 1) / all_bits - of_others) / (of_neighbours - of_others)
        trial = _Trial(
            query, database, config, None, query.descriptor[None], by_distance, distances, self._verify, self._clock
        )
        scores[~outside] = -np.inf
        places = self._sorted_places(scores, query, database, config)
        if not places:
            best = int(scores.argmax())
            return Verdict(refused=[Refused(Refusal.LOW_SCORE, database.keyframe(best), _reported(scores[best]))])
        self._previous = [self._follow(place, previous, config) for place in places]
        verdict = Verdict()
        for place in self._previous:
            match, score = database.keyframe(place.position), _reported(place.score)
            lasted = query.stamp - place.since
            if place.streak <= config.confirmations or lasted < config.confirmation_time * NANOSECONDS:
                verdict.refused.append(Refused(Refusal.NOT_CONFIRMED, match, score))
            elif len(verdict.closures) == config.max_candidates:
                verdict.refused.append(Refused(Refusal.NOT_AMONG_BEST, match, score))
            elif (reason := trial.of(place, match)[0]) is not None:
                verdict.refused.append(Refused(reason, match, score))
            else:
                verdict.closures.append(LoopClosure(query, match, int(distances[place.position]), score))
        return verdict

    def _outside(self, query: Keyframe, database: KeyframeDatabase, config: Config) -> NDArray[np.bool_]:
        outside = np.abs(query.stamp - database.stamps) >= round(config.exclusion_time * NANOSECONDS)
        begun = min([query.stamp, *database.stamps[database.sessions == query.session].tolist()])
        for session in set(database.sessions.tolist()) - {query.session}:
            outside[(database.sessions == session) & (database.stamps[database.sessions == session].max() > begun)] = (
                True
            )
        outside &= (query.id - database.ids > config.exclusion_keyframes) | (database.sessions != query.session)
        return np.asarray(outside)

    def _sorted_places(
        self, scores: NDArray[np.float64], query: Keyframe, database: KeyframeDatabase, config: Config
    ) -> list[_Candidate]:
        places: list[_Candidate] = []
        for at in np.argsort(-scores, kind="stable"):
            id_, session, score = int(database.ids[at]), int(database.sessions[at]), float(scores[at])
            if score < config.min_score or len(places) == self.MOST_PLACES:
                break
            if all(p.session != session or abs(p.id - id_) > config.confirmation_window for p in places):
                places.append(_Candidate(int(at), id_, session, score, 1, query.stamp))
        return places


def facts(verdict: Verdict) -> list[tuple[Any, ...]]:
    """Return all that a verdict says, scores to the last bit."""
    closures = [(c.query.id, c.match.id, c.match.session, c.hamming, c.score, c.inliers) for c in verdict.closures]
    refusals = [(r.reason, r.match and (r.match.id, r.match.session, r.match.stamp), r.score) for r in verdict.refused]
    return [*closures, *refusals]


@given(
    config=st.builds(
        Config,
        verify=st.just(False),
        exclusion_time=st.sampled_from([0.0, 3.0, 10.0]),
        exclusion_keyframes=st.integers(0, 12),
        min_score=st.sampled_from([0.0, 0.2, 0.35, 0.6, 1.0]),
        confirmations=st.integers(0, 2),
        confirmation_time=st.sampled_from([0.0, 0.7, 2.0]),
        confirmation_window=st.integers(0, 6),
        max_candidates=st.integers(1, 3),
    ),
    words=st.integers(1, 17),
    places=st.integers(1, 40),
    noise=st.sampled_from([0.0, 0.02, 0.1, 0.4]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None)
def test_verdicts_are_those_of_the_plain_way(config: Config, words: int, places: int, noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (places, 64 * words), np.uint8)
    database = KeyframeDatabase(None, "", words)
    closers = LoopCloser(), PlainLoopCloser()
    stamp, at = int(rng.integers(2**62)), 0
    for _ in range(60):
        at = (at + 1) % places if rng.random() < 0.9 else int(rng.integers(places))
        stamp += round(rng.random() * NANOSECONDS)
        descriptor = np.packbits(bits[at] ^ (rng.random(64 * words) < noise * rng.random())).view(np.uint64)
        query = database.next_keyframe(stamp, descriptor)
        verdicts = [closer.decide(query, database, config) for closer in closers]
        assert facts(verdicts[0]) == facts(verdicts[1])
        database.add(query)
        if rng.random() < 0.03:  # a session that begins earlier than the last ended, or long after
            database.new_session()
            stamp += int(rng.integers(-40, 40)) * NANOSECONDS
            if rng.random() < 0.3:
                database.reset()
            for closer in closers:
                closer.forget()


def test_what_geometry_verifies_is_a_closure_with_its_inliers() -> None:
    drive = Drive(VERIFIED, inliers=20)
    drive.through(range(30))
    (closure,) = drive.through(range(6))[-1].closures
    assert (closure.match.id, closure.inliers) == (5, 20)


def test_what_geometry_does_not_verify_is_refused() -> None:
    drive = Drive(VERIFIED, inliers=19)
    drive.through(range(30))
    verdicts = drive.through(range(6))
    assert [reasons(verdict) for verdict in verdicts[2:]] == [[Refusal.FEW_INLIERS]] * 4
    assert not any(verdict.closures for verdict in verdicts)


def test_nothing_is_verified_that_was_refused_before() -> None:
    drive = Drive(VERIFIED)
    drive.through(range(30))
    drive.through([60, 61, 7, 62, 63])
    assert drive.verified == 0


def test_what_there_was_no_time_for_is_refused() -> None:
    drive = Drive(VERIFIED.replace(verification_time=0.0))
    drive.through(range(30))
    verdicts = drive.through(range(6))
    assert [reasons(verdict) for verdict in verdicts[2:]] == [[Refusal.NOT_VERIFIED]] * 4
    assert drive.verified == 0


def test_the_time_of_one_keyframe_is_enough_for_its_best_match() -> None:
    drive = Drive(VERIFIED.replace(verification_time=1e-9, max_places=3))
    for noise in (0.08, 0.0):
        drive.through(range(12), noise)
        drive.through(range(50, 70))
    verdict = drive.through([4, 5, 6])[-1]
    assert [closure.match.id for closure in verdict.closures] == [38]
    assert reasons(verdict) == [Refusal.NOT_VERIFIED]


@pytest.mark.parametrize("without", ["query", "map"])
def test_what_has_no_features_is_refused(without: str) -> None:
    drive = Drive(VERIFIED)
    drive.features = SOME_FEATURES if without == "query" else None
    drive.through(range(30))
    drive.features = None if without == "query" else SOME_FEATURES
    assert reasons(drive.through(range(6))[-1]) == [Refusal.NOT_VERIFIED]


def test_a_view_that_never_changed_closes_no_loop() -> None:
    drive = Drive(VERIFIED)
    verdicts = drive.through([3.0] * 40)
    assert not any(verdict.closures for verdict in verdicts)
    assert Refusal.NEVER_LEFT in reasons(verdicts[-1])


def test_equal_doors_one_after_the_other_close_no_loop() -> None:
    drive = Drive(VERIFIED.replace(max_places=1))
    corridor = [place for door in range(12) for place in (0, 0.5, 1, 1.5, *range(20 + 24 * door, 40 + 24 * door, 5))]
    verdicts = drive.through(corridor)
    assert not any(verdict.closures for verdict in verdicts)
    assert Refusal.AMBIGUOUS in {reason for verdict in verdicts for reason in reasons(verdict)}


def test_laps_that_were_closed_are_one_place() -> None:
    drive = Drive(VERIFIED.replace(max_places=1))
    verdicts = [drive.through(range(30)) for _ in range(4)]
    for lap in verdicts[1:]:
        assert all(verdict.closures for verdict in lap[2:])


def test_laps_that_were_not_closed_are_several() -> None:
    drive = Drive(VERIFIED.replace(max_places=1), inliers=0)
    for _ in range(2):
        drive.through(range(30))
    drive.inliers = 100
    assert set(reasons(drive.through(range(30))[-1])) == {Refusal.AMBIGUOUS}


def test_every_reason_has_a_name_of_its_own() -> None:
    assert len({reason.value for reason in Refusal}) == len(Refusal) == 9
