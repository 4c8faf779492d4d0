# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation import sequence_matching
from binvpr_ros.lab.evaluation.datasets import truth
from binvpr_ros.lab.evaluation.sequence_matching import FollowedSimilarities
from binvpr_ros.lab.evaluation.similarities import MatrixSimilarities


def match_sequences(
    similarities: NDArray[np.float32], candidates: NDArray[np.int64] | None, length: int
) -> NDArray[np.float32]:
    """Return what sequence_matching does of a whole matrix."""
    matched = sequence_matching.match_sequences(MatrixSimilarities(similarities), candidates, length)
    return np.concatenate([rows for _, rows in matched.blocks()])


def route(size: int, places: NDArray[np.int64], seed: int = 0) -> NDArray[np.float32]:
    """Return similarities in which the true place of a query is often not the most similar."""
    similarities = np.random.default_rng(seed).normal(0, 1, (len(places), size))
    similarities[np.arange(len(places)), places] += 2.5
    return similarities.astype(np.float32)


def right(similarities: NDArray[np.float32], places: NDArray[np.int64]) -> float:
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
    counts = np.maximum(np.arange(100) - 29, 0)
    candidates = np.arange(100) < counts[:, np.newaxis]
    matched = match_sequences(similarities, counts, 10)
    np.testing.assert_array_equal(np.isneginf(matched), ~candidates)
    spoilt = np.where(candidates, similarities, np.float32(1e6))
    np.testing.assert_array_equal(match_sequences(spoilt, counts, 10), matched)
    lost = np.where(candidates, similarities, -np.inf).astype(np.float32)
    np.testing.assert_array_equal(match_sequences(lost, counts, 10), matched)
    assert (np.abs(matched.argmax(axis=1) - places) <= 1)[60:].mean() > 0.9


def test_what_comes_later_changes_nothing() -> None:
    similarities = route(60, np.arange(60))
    np.testing.assert_array_equal(
        match_sequences(similarities[:40], None, 10), match_sequences(similarities, None, 10)[:40]
    )


def test_alike_references_and_few_of_anything_are_no_evidence() -> None:
    assert not match_sequences(np.full((5, 7), 0.3, np.float32), None, 3).any()
    assert match_sequences(np.ones((1, 1), np.float32), None, 10).tolist() == [[0]]
    assert np.isneginf(match_sequences(np.ones((2, 2), np.float32), np.zeros(2, np.int64), 2)).all()


def test_a_sequence_has_at_least_one_image() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        match_sequences(np.ones((2, 2), np.float32), None, 0)


def test_blocks_give_what_the_whole_matrix_does(monkeypatch: pytest.MonkeyPatch) -> None:
    similarities = route(60, np.arange(60))
    whole = match_sequences(similarities, np.arange(60), 10)
    monkeypatch.setattr(truth, "BLOCK_CELLS", 7 * 60)
    np.testing.assert_array_equal(match_sequences(similarities, np.arange(60), 10), whole)


def test_sequences_of_the_node_are_the_same_in_any_order_of_asking() -> None:
    similarities = MatrixSimilarities(route(40, np.maximum(np.arange(40) - 20, 0)))
    candidates = np.maximum(np.arange(40) - 5, 0)
    whole = FollowedSimilarities(similarities, candidates, 4).rows(0, 40)
    followed = FollowedSimilarities(similarities, candidates, 4)
    for start, stop in ((30, 40), (7, 9), (9, 20), (0, 40)):
        np.testing.assert_array_equal(followed.rows(start, stop), whole[start:stop])
