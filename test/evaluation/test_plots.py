# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.evaluation import plots
from binvpr_ros.evaluation.datasets import Options
from binvpr_ros.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.evaluation.metrics import PrecisionRecall, Retrieval

GREEN, RED = (44, 160, 44), (214, 39, 40)  # matplotlib's tab:green and tab:red


@pytest.fixture(scope="module")
def building() -> RenderedBuilding:
    return RenderedBuilding.make(Options(exclude_seconds=1.0), images=60)


@pytest.fixture(scope="module")
def similarities(building: RenderedBuilding) -> NDArray[np.float32]:
    noise = np.random.default_rng(0).random(building.truth.shape)
    return (building.truth * 0.5 + noise).astype(np.float32)


@pytest.fixture(scope="module")
def retrieval(building: RenderedBuilding, similarities: NDArray[np.float32]) -> Retrieval:
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
    plots.trajectory(tmp_path / "way.png", "hall", building, np.empty((0, 2), np.int64), np.empty(0, bool))
    assert pixels_of(tmp_path / "way.png", GREEN) < 50


def test_the_matrix_shows_right_and_wrong_matches(
    tmp_path: Path, building: RenderedBuilding, similarities: NDArray[np.float32], retrieval: Retrieval
) -> None:
    file = tmp_path / "matrix.png"
    plots.similarity_matrix(file, "hall", similarities, building, retrieval)
    assert pixels_of(file, GREEN) > 20
    assert pixels_of(file, RED) > 20


def test_the_pairs_are_the_images_of_the_data_set(
    tmp_path: Path, building: RenderedBuilding, similarities: NDArray[np.float32], retrieval: Retrieval
) -> None:
    file = tmp_path / "pairs.png"
    plots.match_pairs(file, "hall", building, similarities, retrieval)
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
    wrong = Retrieval.of_similarities(similarities, truth, np.ones_like(truth))
    assert plots.highest_apart(wrong, False, truth) == [2, 1, 0]


def test_the_way_shows_true_and_false_closures(tmp_path: Path, building: RenderedBuilding) -> None:
    pairs = np.array([[50, 5], [55, 10], [40, 20]])
    plots.trajectory(tmp_path / "way.png", "hall", building, pairs, np.array([True, True, False]))
    assert pixels_of(tmp_path / "way.png", GREEN) > 50
    assert pixels_of(tmp_path / "way.png", RED) > 50
