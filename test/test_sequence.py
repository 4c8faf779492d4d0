# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.sequence import SequenceMatcher

KEYFRAMES, REACH = 5, 3


def random_distances(seed: int, queries: int, references: int) -> NDArray[np.uint32]:
    return np.random.default_rng(seed).integers(0, 2048, (queries, references), np.uint32)


def followed(distances: NDArray[np.uint32], keyframes: int = KEYFRAMES, reach: int = REACH) -> NDArray[np.float32]:
    matcher, ids = SequenceMatcher(), np.arange(distances.shape[1], dtype=np.int32)
    return np.stack([matcher.follow(row, ids, nothing_of(row), keyframes, reach) for row in distances])


def nothing_of(row: NDArray[Any]) -> NDArray[np.bool_]:
    return np.zeros(row.shape, np.bool_)


@given(
    seed=st.integers(0, 2**32 - 1), queries=st.integers(1, 12), references=st.integers(1, 12),
    keyframes=st.integers(1, 9), reach=st.integers(0, 14),
)  # fmt: skip
def test_the_best_of_all_paths(seed: int, queries: int, references: int, keyframes: int, reach: int) -> None:
    distances = random_distances(seed, queries, references)
    paths = {direction: distances[0].astype(float) for direction in (1, -1)}
    for row, found in zip(distances, followed(distances, keyframes, reach), strict=True):
        for direction, path in paths.items():
            best = [
                min(
                    path[before]
                    for step in range(reach + 1)
                    if 0 <= (before := at - direction * step) < references
                )
                for at in range(references)
            ]  # fmt: skip
            paths[direction] = row / keyframes + np.array(best) * (1 - 1 / keyframes)
        np.testing.assert_allclose(found, np.minimum(paths[1], paths[-1]), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("way", [[5, 5, 5, 6, 9, 12, 13], [20, 17, 14, 14, 13, 12]])
def test_a_drive_at_any_speed_and_either_way(way: list[int]) -> None:
    """The last image is nearer to another place than to its own; those before it were near the way to its own."""
    distances = random_distances(0, len(way), 40) // 4 + 1000
    distances[np.arange(len(way)), way] = 1020
    distances[-1, 30] = 990
    assert distances[-1].argmin() == 30
    assert followed(distances)[-1].argmin() == way[-1]


def test_one_keyframe_alone_is_a_sequence_of_one() -> None:
    distances = random_distances(1, 4, 10)
    np.testing.assert_array_equal(followed(distances, keyframes=1), distances)


def test_keyframes_that_come_and_go_leave_the_others_as_they_are() -> None:
    distances, ids = random_distances(2, 8, 30), np.arange(30, dtype=np.int32)
    whole, changing = SequenceMatcher(), SequenceMatcher()
    there = ids < 20
    for number, row in enumerate(distances):
        if number == 3:
            there = (ids < 25) & (ids != 3)  # more, and one is forgotten
        elif number == 5:
            there = ids < 30
        expected = whole.follow(row, ids, nothing_of(row), KEYFRAMES, 0)
        found = changing.follow(row[there], ids[there], nothing_of(row[there]), KEYFRAMES, 0)
        old = there & (ids < 20) & (ids != 3)
        np.testing.assert_allclose(found[old[there]], expected[old])


def test_after_forgetting_the_next_keyframe_is_the_first() -> None:
    distances, ids = random_distances(3, 2, 10), np.arange(10, dtype=np.int32)
    matcher = SequenceMatcher()
    matcher.follow(distances[0], ids, nothing_of(ids), KEYFRAMES, REACH)
    matcher.forget()
    np.testing.assert_allclose(
        matcher.follow(distances[1], ids, nothing_of(ids), KEYFRAMES, 0), distances[1], rtol=1e-6
    )


def test_a_map_that_was_empty() -> None:
    matcher, none = SequenceMatcher(), np.empty(0, np.int32)
    assert matcher.follow(np.empty(0, np.uint32), none, nothing_of(none), KEYFRAMES, REACH).shape == (0,)
    found = matcher.follow(np.array([7, 9], np.uint32), np.array([4, 5], np.int32), np.zeros(2, np.bool_), KEYFRAMES, 0)
    np.testing.assert_array_equal(found, [7, 9])
    assert matcher.follow(np.empty(0, np.uint32), none, nothing_of(none), KEYFRAMES, REACH).shape == (0,)


@given(seed=st.integers(0, 2**32 - 1), keyframes=st.integers(2, 9), first=st.integers(1, 15))
def test_no_path_leads_through_the_present(seed: int, keyframes: int, first: int) -> None:
    """What lies before the present is found as if that were not in the map; the present has its own distances."""
    distances, ids = random_distances(seed, 6, 15), np.arange(15, dtype=np.int32)
    present, matcher, before = ids >= first, SequenceMatcher(), ids[:first]
    expected = followed(distances[:, :first], keyframes)
    for row, without in zip(distances, expected, strict=True):
        found = matcher.follow(row, ids, present, keyframes, REACH)
        np.testing.assert_array_equal(found[before], without)
        np.testing.assert_array_equal(found[first:], row[first:])
