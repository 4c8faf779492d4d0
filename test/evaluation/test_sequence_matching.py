# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.evaluation.methods import Similarities
from binvpr_ros.evaluation.sequence_matching import match_sequences


def route(size: int, places: NDArray[np.int64], seed: int = 0) -> Similarities:
    """Return similarities in which the true place of a query is often not the most similar."""
    similarities = np.random.default_rng(seed).normal(0, 1, (len(places), size))
    similarities[np.arange(len(places)), places] += 2.5
    return similarities.astype(np.float32)


def right(similarities: Similarities, places: NDArray[np.int64]) -> float:
    return float((np.abs(similarities.argmax(axis=1) - places) <= 1)[9:].mean())


@pytest.mark.parametrize(
    "places",
    [
        np.arange(100),
        np.arange(100) + 40,
        np.arange(140)[::-1],
        np.round(1.25 * np.arange(100)).astype(np.int64),
        np.round(0.8 * np.arange(100)).astype(np.int64),
    ],
    ids=["same", "later", "backwards", "faster", "slower"],
)
def test_sequences_are_found_where_single_images_fail(places: NDArray[np.int64]) -> None:
    similarities = route(150, places)
    assert right(similarities, places) < 0.7
    assert right(match_sequences(similarities, None, 10), places) > 0.9


def test_a_matrix_worked_by_hand() -> None:
    # In each row one reference of 3 stands out: (1 - 1/3) / (sqrt(2) / 3) = sqrt(2) deviations; others by -sqrt(1/2).
    similarities = np.eye(3, dtype=np.float32)
    high, low = np.sqrt(2), -np.sqrt(0.5)
    # Lines of two queries come from the reference before, or from that behind; outside of the matrix is 0.
    expected = np.array([
        [high, low, low],
        [low, high + high, low],
        [low + high, low + low, high + high],
    ]) / 2  # fmt: skip
    np.testing.assert_allclose(match_sequences(similarities, None, 2), expected, atol=1e-5)


def test_a_single_image_counts_by_how_far_it_stands_out() -> None:
    similarities = route(50, np.arange(50))
    matched = match_sequences(similarities, None, 1)
    window = similarities[20, 15:26].astype(float)
    assert matched[20, 20] == pytest.approx((window[5] - window.mean()) / window.std(), rel=1e-4)
    np.testing.assert_allclose(match_sequences(similarities * 3 + 100, None, 1), matched, atol=1e-3)


def test_only_candidates_are_matched_and_none_of_the_others_count() -> None:
    places = np.arange(100) - 50
    similarities = route(100, np.maximum(places, 0))
    candidates = np.arange(100)[:, np.newaxis] - np.arange(100) >= 30
    matched = match_sequences(similarities, candidates, 10)
    np.testing.assert_array_equal(np.isneginf(matched), ~candidates)
    spoilt = np.where(candidates, similarities, np.float32(1e6))
    np.testing.assert_array_equal(match_sequences(spoilt, candidates, 10), matched)
    lost = np.where(candidates, similarities, -np.inf).astype(np.float32)
    np.testing.assert_array_equal(match_sequences(lost, candidates, 10), matched)
    assert (np.abs(matched.argmax(axis=1) - places) <= 1)[60:].mean() > 0.9


def test_what_comes_later_changes_nothing() -> None:
    similarities = route(60, np.arange(60))
    np.testing.assert_array_equal(
        match_sequences(similarities[:40], None, 10), match_sequences(similarities, None, 10)[:40]
    )


def test_alike_references_and_few_of_anything_are_no_evidence() -> None:
    assert not match_sequences(np.full((5, 7), 0.3, np.float32), None, 3).any()
    assert match_sequences(np.ones((1, 1), np.float32), None, 10).tolist() == [[0]]
    assert np.isneginf(match_sequences(np.ones((2, 2), np.float32), np.zeros((2, 2), np.bool_), 2)).all()


def test_a_sequence_has_at_least_one_image() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        match_sequences(np.ones((2, 2), np.float32), None, 0)


def test_a_long_drive_takes_seconds() -> None:
    similarities = route(1200, np.arange(1200))
    start = time.perf_counter()
    match_sequences(similarities, None, 10)
    assert time.perf_counter() - start < 5
