# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros import lce_delegate
from binvpr_ros.images import Image
from binvpr_ros.lce_delegate import NearestTwo
from binvpr_ros.local_features import matching
from binvpr_ros.local_features.matching import mutual_matches, nearest_two, nearest_two_numpy
from binvpr_ros.local_features.orb import extract

from .views import seen

Rows = NDArray[np.uint8]


def drawn(rng: np.random.Generator, count: int, size: int, distinct: int) -> Rows:
    """Return rows of a few `distinct` ones, each with a bit changed."""
    rows = rng.integers(0, 256, (distinct, size), np.uint8)[rng.integers(0, distinct, count)]
    rows[np.arange(count), rng.integers(0, size, count)] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)
    return rows


def by_the_book(query: Rows, match: Rows, most_bits: int, ratio: float) -> list[tuple[int, int]]:
    """Return what `mutual_matches` does, pair by pair."""
    bits = [[int.from_bytes((a ^ b).tobytes(), "little").bit_count() for b in match] for a in query]
    pairs = []
    for ours, row in enumerate(bits):
        for theirs, distance in enumerate(row):
            column = [other[theirs] for other in bits]
            nearest = row.index(min(row)) == theirs and column.index(min(column)) == ours
            clear = all(distance <= ratio * other for i, other in enumerate(row) if i != theirs)
            if nearest and clear and distance <= most_bits:
                pairs.append((ours, theirs))
    return pairs


def by_opencv(these: Rows, those: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distances and the indices [N,2] of the nearest two."""
    distances, indices = cv2.batchDistance(these, those, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=2)
    return distances, indices


def assert_same(found: NearestTwo, right: NearestTwo) -> None:
    for name in NearestTwo._fields:
        assert getattr(found, name).dtype == getattr(right, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(right, name), name)


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library be one that was not compiled."""

    def refuse(*_: Any) -> None:
        raise lce_delegate.DelegateError("the Larq delegate was not compiled; install a C++ compiler")

    monkeypatch.setattr(lce_delegate, "nearest_two", refuse)


@pytest.mark.parametrize("compiled", [True, False])
def test_pairs_are_those_of_the_definition(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        without_library(monkeypatch)
    rng = np.random.default_rng(0)
    for n, m, size, distinct in ((0, 5, 32, 4), (5, 0, 32, 4), (1, 1, 32, 1), (9, 1, 32, 1), (40, 30, 32, 20),
                                 (30, 40, 64, 9), (50, 50, 8, 50)):  # fmt: skip
        both = drawn(rng, n + m, size, distinct)
        for most_bits in (0, 2, 64, 8 * size):
            for ratio in (0.1, 0.5, 0.85, 1.0):
                ours, theirs = mutual_matches(both[:n], both[n:], most_bits, ratio)
                assert ours.dtype == theirs.dtype == np.intp
                assert list(zip(ours, theirs, strict=True)) == by_the_book(both[:n], both[n:], most_bits, ratio)


@given(st.integers(0, 90), st.integers(0, 90), st.sampled_from([8, 32, 64]), st.integers(1, 40), st.integers(0, 2**32))
@settings(deadline=None)
def test_numpy_alone_finds_the_same(n: int, m: int, size: int, distinct: int, seed: int) -> None:
    both = drawn(np.random.default_rng(seed), n + m, size, distinct)
    assert_same(nearest_two_numpy(both[:n], both[n:]), nearest_two(both[:n], both[n:]))


@pytest.mark.parametrize("rows_at_a_time", [0.5, 1, 7, 199, 200])
def test_numpy_compares_block_by_block(rows_at_a_time: float, monkeypatch: pytest.MonkeyPatch) -> None:
    both = drawn(np.random.default_rng(1), 300, 32, 30)
    whole = nearest_two_numpy(both[:200], both[200:])
    monkeypatch.setattr(matching, "BLOCK_BITS", int(rows_at_a_time * 100 * 256))
    assert_same(nearest_two_numpy(both[:200], both[200:]), whole)


def test_pairs_are_those_of_opencv_but_for_ties(scene: Image) -> None:
    a, b = (extract(seen(scene, *view)).descriptors for view in ((600, 450), (620, 470, 1.1, 8)))
    distances, nearest = by_opencv(a, b)
    back_distances, back = by_opencv(b, a)
    clear = np.flatnonzero(back_distances[:, 0] < back_distances[:, 1])  # of several as near OpenCV may take another
    found = nearest_two(a, b)
    np.testing.assert_array_equal(np.stack([found.distance, found.second], axis=1), distances)
    np.testing.assert_array_equal(found.back[clear], back[clear, 0])

    near = (distances[:, 0] <= 64) & (distances[:, 0] <= 0.85 * distances[:, 1])
    ours = np.flatnonzero(near & (back[nearest[:, 0], 0] == np.arange(len(a))))
    theirs = nearest[ours, 0]
    found_ours, found_theirs = mutual_matches(a, b, 64, 0.85)
    assert len(found_ours) > 100
    kept, found_kept = np.isin(theirs, clear), np.isin(found_theirs, clear)
    np.testing.assert_array_equal(found_ours[found_kept], ours[kept])
    np.testing.assert_array_equal(found_theirs[found_kept], theirs[kept])


def test_rows_that_cannot_be_matched_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be matched"):
        mutual_matches(np.zeros((3, 32), np.uint8), np.zeros((3, 64), np.uint8), 64, 0.85)
