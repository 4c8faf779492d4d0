# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve

from binvpr_ros.lab.evaluation.datasets import truth as truth_module
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth
from binvpr_ros.lab.evaluation.metrics import PrecisionRecall, Retrieval, upper_bound
from binvpr_ros.lab.evaluation.similarities import MatrixSimilarities


def retrieve(
    similarities: NDArray[np.floating], true: NDArray[np.bool_], candidates: NDArray[np.int64] | None = None
) -> Retrieval:
    """Match similarities [Q,R]; without `candidates` [Q] every query with every reference."""
    counts = np.full(len(true), true.shape[1]) if candidates is None else candidates
    return Retrieval.of_similarities(MatrixSimilarities(similarities), PairTruth.of_matrix(true), counts)


def random_problem(
    seed: int, levels: int, some_candidates: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """Return similarities [20,15] of few levels (so that many are equal), truth [20,15] and candidates [20]."""
    rng = np.random.default_rng(seed)
    similarities = np.float32(1 / levels) * rng.integers(0, levels, (20, 15)).astype(np.float32)
    candidates = rng.integers(0, 16, 20) if some_candidates else np.full(20, 15)
    return similarities, (rng.random((20, 15)) < 0.15) & (np.arange(15) < candidates[:, None]), candidates


# Four queries: right at 0.9, wrong at 0.8, right at 0.7, and one of a new place that is matched at 0.6.
SCORES = np.array([0.9, 0.8, 0.7, 0.6])
CORRECT = np.array([True, False, True, False])


def test_the_curve_of_a_case_worked_by_hand() -> None:
    curve = PrecisionRecall.of_matches(SCORES, CORRECT, answerable=3)
    np.testing.assert_allclose(curve.thresholds, SCORES)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 1 / 2])
    np.testing.assert_allclose(curve.recall, [1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.area() == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert curve.recall_at_precision(1.0) == pytest.approx(1 / 3)
    assert curve.recall_at_precision(0.6) == pytest.approx(2 / 3)
    assert curve.f1.max() == pytest.approx(2 / 3)


def test_matches_of_equal_score_are_accepted_together() -> None:
    curve = PrecisionRecall.of_matches(np.array([0.9, 0.9, 0.5]), np.array([True, False, True]), answerable=3)
    np.testing.assert_allclose(curve.thresholds, [0.9, 0.5])
    np.testing.assert_allclose(curve.precision, [1 / 2, 2 / 3])
    assert curve.recall_at_precision(1.0) == 0


def test_a_wrong_match_on_top_leaves_no_recall_at_full_precision() -> None:
    curve = PrecisionRecall.of_matches(np.array([0.9, 0.8]), np.array([False, True]), answerable=2)
    assert curve.recall_at_precision(1.0) == 0


def test_nothing_to_match_is_no_error() -> None:
    curve = PrecisionRecall.of_matches(np.empty(0), np.empty(0, bool), answerable=0)
    assert curve.area() == 0
    assert curve.recall_at_precision(1.0) == 0


@given(st.integers(0, 10_000), st.sampled_from([3, 50, 100_000]))
def test_precision_and_recall_are_those_of_scikit_learn(seed: int, levels: int) -> None:
    similarities, true, candidates = random_problem(seed, levels)
    retrieval = retrieve(similarities, true, candidates)
    if not retrieval.correct.any():
        return
    curve = retrieval.precision_recall()
    precision, recall, thresholds = precision_recall_curve(retrieval.correct, retrieval.scores)
    right = retrieval.correct.sum() / retrieval.answerable  # scikit-learn's recall counts right matches alone
    by_threshold = dict(zip(thresholds, zip(precision, recall * right, strict=False), strict=False))
    for threshold, *point in zip(curve.thresholds, curve.precision, curve.recall, strict=True):
        if threshold in by_threshold:  # it leaves out thresholds beyond full recall
            np.testing.assert_allclose(point, by_threshold[threshold])
    expected = average_precision_score(retrieval.correct, retrieval.scores) * right
    assert curve.area() == pytest.approx(expected)


@given(st.integers(0, 10_000), st.sampled_from([3, 100_000]), st.sampled_from([1, 5, 10]))
def test_recall_at_n_is_that_of_a_sorted_list(seed: int, levels: int, n: int) -> None:
    similarities, true, candidates = random_problem(seed, levels, some_candidates=True)
    found, answerable = 0, 0
    for row, right, allowed in zip(similarities, true, candidates, strict=True):
        listed = [index for index in np.argsort(-row, kind="stable") if index < allowed]
        answerable += right.any()
        found += any(right[index] for index in listed[:n])
    retrieval = retrieve(similarities, true, candidates)
    assert retrieval.answerable == answerable
    assert retrieval.recall_at(n) == pytest.approx(found / max(answerable, 1))


def test_recall_at_1_is_where_the_curve_ends() -> None:
    similarities, true, candidates = random_problem(3, 100_000)
    retrieval = retrieve(similarities, true, candidates)
    assert retrieval.precision_recall().recall[-1] == pytest.approx(retrieval.recall_at(1))


def test_a_query_without_candidates_does_not_count_and_one_of_a_new_place_does() -> None:
    true = np.array([[False, False], [True, False], [False, False]])
    candidates = np.array([0, 1, 2])
    similarities = np.array([[0.9, 0.9], [0.5, 0.9], [0.1, 0.8]])
    retrieval = retrieve(similarities, true, candidates)
    assert retrieval.queries.tolist() == [1, 2]
    assert retrieval.matches.tolist() == [0, 1]
    assert retrieval.correct.tolist() == [True, False]
    assert retrieval.recall_at(1) == 1
    assert retrieval.figures()["recall_at_100_precision"] == 0  # the new place was matched at a higher score


def test_the_figures_of_perfect_similarities_are_all_one() -> None:
    true = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
    figures = retrieve(true.astype(np.float32), true).figures()
    assert set(figures.values()) == {1.0}


def test_figures_of_queries_without_any_true_reference_are_none() -> None:
    figures = retrieve(np.ones((2, 3)), np.zeros((2, 3), bool)).figures()
    assert set(figures.values()) == {None}


def test_similarities_that_are_no_numbers_or_of_another_shape_are_refused() -> None:
    true = np.ones((1, 1), bool)
    with pytest.raises(ValueError, match="not a number"):
        retrieve(np.array([[np.nan]]), true)
    with pytest.raises(ValueError, match="differ in shape"):
        retrieve(np.zeros((2, 1)), true)


def test_the_best_true_reference_is_known_though_another_one_is_matched() -> None:
    similarities = np.array([[0.9, 0.2, 0.5, 0.5], [0.1, 0.2, 0.3, 0.9]])
    true = np.array([[0, 1, 1, 1], [0, 0, 0, 0]], bool)
    found = retrieve(similarities, true)
    assert found.right.tolist() == [2, -1]
    assert found.right_scores.tolist() == [0.5, -np.inf]
    assert found.ranks.tolist() == [1, -1]


def test_blocks_give_what_the_whole_matrix_does(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(5, 3, some_candidates=True)
    whole = retrieve(*problem)
    monkeypatch.setattr(truth_module, "BLOCK_CELLS", 45)  # three queries at a time
    for one, other in zip(vars(whole).values(), vars(retrieve(*problem)).values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("events", "trials"), [(0, 1), (0, 1000), (1, 20), (7, 300), (19, 20)])
def test_the_upper_bound_is_that_of_clopper_and_pearson(events: int, trials: int) -> None:
    expected = binomtest(events, trials, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_bound(events, trials) == pytest.approx(expected, rel=1e-9)


def test_without_trials_nothing_is_known() -> None:
    assert upper_bound(0, 0) == upper_bound(3, 3) == 1
