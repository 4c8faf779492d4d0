# SPDX-License-Identifier: Apache-2.0
"""What a fleet's map has like a query is decided by the code that decides over the own map."""

from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, Keyframe
from binvpr_ros.loop_closure import LoopCloser
from binvpr_ros.maps.fleet.found import FoundKeyframes, OwnKeyframes, Stretch, best_sessions, own_query
from binvpr_ros.maps.fleet.rows import OtherMap
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.store import UNKNOWN_MOTION, UNKNOWN_WHEREABOUTS, Columns
from binvpr_ros.network.hamming import nearest_view

WORDS = 32
PLACES = np.random.default_rng(0).integers(0, 2**64, (40, WORDS), np.uint64)


def columns(places: list[int], start: int) -> Columns:
    """Return keyframes that pass places, one each two seconds, in one session."""
    count = len(places)
    return Columns(
        np.arange(count, dtype=np.int32), np.zeros(count, np.int32), start + np.arange(count) * 2 * NANOSECONDS,
        np.full(count, -1, np.int32), np.repeat(UNKNOWN_MOTION, count, axis=0),
        np.repeat(UNKNOWN_WHEREABOUTS, count, axis=0), PLACES[places],
    )  # fmt: skip


def own_map(places: list[int], start: int) -> OwnKeyframes | None:
    """Return the robot's own map, which has passed places; None before the first."""
    if not places:
        return None
    return OwnKeyframes(columns(places, start), slice(None), 1, lambda _: None, lambda _: None, lambda _: True)


def stretch(number: int, places: range, query: Keyframe, start: int = 0) -> Stretch:
    """Return a session of a map that passes places, one each two seconds."""
    keyframes = columns(list(places), start)
    distances = nearest_view(keyframes.descriptors, query.descriptor)
    return Stretch(OtherMap(number, f"robot{number}", Identity.new()), keyframes, distances)


@pytest.mark.parametrize("clocks_apart", [0, 5, 10**6])
def test_without_geometry_a_drive_along_anothers_way_closes_loops_whatever_the_clocks(clocks_apart: int) -> None:
    closer, config = LoopCloser(), Config(verify=False, exclusion_time=86400.0, exclusion_keyframes=1_000_000)
    passed: list[int] = []
    closed = []
    for number, place in enumerate(range(5, 15)):
        stamp = (clocks_apart + 2 * number) * NANOSECONDS
        query = own_query(Keyframe(number, 0, stamp, PLACES[place]))
        found = FoundKeyframes(
            [stretch(7, range(30), query), stretch(3, range(20, 40), query)],
            nearest_view(PLACES, query.descriptor), own_map(passed, clocks_apart * NANOSECONDS), (),
            lambda _whose, _number: None,
        )  # fmt: skip
        assert (len(found), found.foreign, found.maps) == (50 + len(passed), 50, 2 + bool(passed))
        verdict = closer.decide(query, found, config)
        closed += [(number, *found.origin(one.match)[1:]) for one in verdict.closures]
        passed.append(place)
    assert closed == [(number, number + 5, 0) for number in range(2, 10)]  # after two that confirm them


def test_the_own_keyframe_before_is_no_match() -> None:
    query = own_query(Keyframe(1, 0, 10**9, PLACES[0]))
    typical = np.array([1024], np.uint32)
    found = FoundKeyframes([stretch(1, range(10, 20), query)], typical, own_map([0], 0), (), lambda *_: None)
    config = Config(verify=False, confirmations=0, exclusion_time=86400.0, exclusion_keyframes=1_000_000)
    assert not LoopCloser().decide(query, found, config).closures
    assert found.features(own_query(Keyframe(0, 0, 0, PLACES[0]))) is None


def test_the_sessions_with_the_nearest_keyframes_are_taken() -> None:
    sessions = np.repeat(np.arange(20), 5)
    distances = np.full(100, 900, np.uint32)
    for rank, session in enumerate((17, 3, 9, 0, 12, 5, 1, 19, 8)):
        distances[session * 5 + 2] = 10 + rank
    assert [span.start // 5 for span in best_sessions(distances, sessions)] == [17, 3, 9, 0, 12, 5, 1, 19]
    assert best_sessions(np.empty(0, np.uint32), np.empty(0, np.int64)) == []
