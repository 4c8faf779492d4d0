# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from binvpr_ros.lab.evaluation import plots
from binvpr_ros.lab.evaluation.datasets import Options
from binvpr_ros.lab.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.lab.evaluation.datasets.sequences import Relation
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth
from binvpr_ros.lab.evaluation.metrics import PrecisionRecall, Retrieval
from binvpr_ros.lab.evaluation.similarities import MatrixSimilarities

from .stages import stage

GREEN, ORANGE, RED = (44, 160, 44), (255, 127, 14), (214, 39, 40)  # matplotlib's tab:green, tab:orange, tab:red


@pytest.fixture(scope="module")
def building() -> RenderedBuilding:
    return RenderedBuilding.make(Options(exclude_seconds=1.0), images=60)


@pytest.fixture(scope="module")
def similarities(building: RenderedBuilding) -> MatrixSimilarities:
    noise = np.random.default_rng(0).random(building.truth.shape)
    return MatrixSimilarities(building.truth.dense() * 0.5 + noise)


@pytest.fixture(scope="module")
def retrieval(building: RenderedBuilding, similarities: MatrixSimilarities) -> Retrieval:
    found = Retrieval.of_similarities(similarities, building.truth, building.candidates)
    assert found.correct.any()
    assert not found.correct.all()
    return found


def pixels_of(file: Path, colour: tuple[int, int, int]) -> int:
    """Return how many pixels of a picture have about the colour (RGB)."""
    picture = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB).astype(int)
    return int((np.abs(picture - colour).max(axis=2) < 12).sum())


def test_the_curves_of_all_methods_are_in_one_picture(tmp_path: Path) -> None:
    curve = PrecisionRecall(*np.array([[0.9, 0.5], [1.0, 0.5], [0.2, 0.6]]))
    other = PrecisionRecall(*np.array([[0.9, 0.5], [0.9, 0.4], [0.3, 0.7]]))
    file = tmp_path / "curves.png"
    plots.precision_recall(file, "hall", {"ours": curve, "hog": other}, {"ours": curve})
    assert pixels_of(file, (31, 119, 180)) > 100  # the first two colours of matplotlib's cycle
    assert pixels_of(file, (255, 127, 14)) > 100
    assert pixels_of(file, (0, 0, 0)) > 100


def test_recall_over_time_has_a_panel_a_data_set(tmp_path: Path) -> None:
    points = {f"hall {number}": {"ours": (2.0, 0.9), "hog": (20.0, 0.5)} for number in range(4)}
    plots.recall_over_time(tmp_path / "four.png", points)
    plots.recall_over_time(tmp_path / "one.png", {"hall": {"ours": (2.0, 0.9)}})
    four, one = (pixels_of(tmp_path / f"{name}.png", (31, 119, 180)) for name in ("four", "one"))
    assert four > 1.8 * one > 20  # a dot in each panel, and one in the legend
    assert pixels_of(tmp_path / "four.png", (255, 127, 14)) > 40
    assert pixels_of(tmp_path / "one.png", (255, 127, 14)) == 0


def test_a_data_set_without_any_closure_has_a_picture_too(tmp_path: Path, building: RenderedBuilding) -> None:
    none = PrecisionRecall(*np.empty((3, 0)))
    plots.precision_recall(tmp_path / "curves.png", "hall", {"ours": none}, {"ours": none})
    plots.trajectory(tmp_path / "way.png", "hall", building, np.empty((0, 2), np.int64), np.empty(0, np.int8))
    assert pixels_of(tmp_path / "way.png", GREEN) < 50


def test_the_matrix_shows_right_and_wrong_matches(
    tmp_path: Path, building: RenderedBuilding, similarities: MatrixSimilarities, retrieval: Retrieval
) -> None:
    file = tmp_path / "matrix.png"
    plots.similarity_matrix(file, "hall", similarities, building, retrieval)
    assert pixels_of(file, GREEN) > 20
    assert pixels_of(file, RED) > 20


def test_the_pairs_are_the_images_of_the_data_set(
    tmp_path: Path, building: RenderedBuilding, retrieval: Retrieval
) -> None:
    file = tmp_path / "pairs.png"
    plots.match_pairs(file, "hall", building, retrieval)
    picture = cv2.imread(str(file))
    assert np.mean(np.asarray(picture).min(axis=2) < 250) > 0.2


def test_matches_that_are_shown_are_the_highest_of_their_kind_and_apart(
    building: RenderedBuilding, retrieval: Retrieval
) -> None:
    shown = plots.highest_apart(retrieval, True, building.truth)
    scores = retrieval.scores[shown]
    assert retrieval.correct[shown].all()
    assert scores[0] == retrieval.scores[retrieval.correct].max()
    assert (np.diff(scores) <= 0).all()
    assert np.diff(sorted(shown)).min(initial=99) > 1


def test_wrong_matches_beside_a_right_one_are_shown_last() -> None:
    truth = np.zeros((3, 100), bool)
    truth[[0, 1, 2], 50] = True
    similarities = np.zeros((3, 100))
    similarities[0, 52], similarities[1, 5], similarities[2, 90] = 0.9, 0.7, 0.8
    pairs = PairTruth.of_matrix(truth)
    wrong = Retrieval.of_similarities(MatrixSimilarities(similarities), pairs, np.full(3, 100))
    assert plots.highest_apart(wrong, False, pairs) == [2, 1, 0]


def test_the_way_shows_what_closures_join(tmp_path: Path, building: RenderedBuilding) -> None:
    pairs = np.array([[50, 5], [55, 10], [40, 20], [30, 10]])
    relations = np.array([Relation.SAME, Relation.SAME, Relation.APART, Relation.NEAR], np.int8)
    plots.trajectory(tmp_path / "way.png", "hall", building, pairs, relations)
    for colour in (GREEN, RED, ORANGE):
        assert pixels_of(tmp_path / "way.png", colour) > 50


def test_a_thinned_truth_has_every_true_pair_in_its_cell() -> None:
    matrix = np.random.default_rng(0).random((11, 8)) < 0.1
    cells = plots.thinned(PairTruth.of_matrix(matrix), 3)
    expected = [[matrix[row : row + 3, column : column + 3].any() for column in (0, 3, 6)] for row in (0, 3, 6, 9)]
    assert cells.tolist() == expected


def test_the_fates_of_the_revisits_are_a_bar_for_each_method(tmp_path: Path) -> None:
    closed = stage([(5, 0, Relation.SAME)], revisits=[5])
    plots.outcomes(tmp_path / "all.png", "hall", {"ours": closed, "hog": closed})
    plots.outcomes(tmp_path / "none.png", "hall", {"ours": stage(revisits=[5]), "hog": stage(revisits=[5])})
    assert pixels_of(tmp_path / "all.png", GREEN) > 5000
    assert pixels_of(tmp_path / "none.png", GREEN) == 0


def test_the_worst_closures_and_missed_revisits_are_shown_as_images(tmp_path: Path, building: RenderedBuilding) -> None:
    closures = [(query, query - 30, Relation.APART) for query in range(40, 60)]
    some = stage(closures, revisits=[50, 55], best_true=np.array([[50, 3], [-1, -1]]))
    plots.closure_pairs(tmp_path / "pairs.png", "hall", building, some)
    plots.closure_pairs(tmp_path / "nothing.png", "hall", building, stage())
    dark = [
        np.mean(np.asarray(cv2.imread(str(tmp_path / name))).min(axis=2) < 250) for name in ("pairs.png", "nothing.png")
    ]
    assert dark[0] > 0.2
    assert dark[1] < 0.05
