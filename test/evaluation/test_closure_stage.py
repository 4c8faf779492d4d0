# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.descriptor import DescriptorNetwork
from binvpr_ros.evaluation.closure_stage import ClosureStage, Drive, _SimilarityDatabase
from binvpr_ros.evaluation.datasets import Options
from binvpr_ros.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.recognizer import PlaceRecognizer

IMAGES = 300


@pytest.fixture(scope="module")
def building() -> RenderedBuilding:
    return RenderedBuilding.make(Options(exclude_seconds=5.0), images=IMAGES)


@pytest.fixture(scope="module")
def drive(building: RenderedBuilding, model: Path) -> Drive:
    network = DescriptorNetwork(model)
    return Drive(network, building, [network.describe(image) for image in building.queries])


def test_the_figures_of_a_case_worked_by_hand() -> None:
    stage = ClosureStage(
        keyframes=np.arange(8),
        closures=np.array([[5, 0], [5, 1], [6, 2], [7, 3]]),
        true=np.array([True, False, True, False]),
        revisits=np.array([4, 5, 6, 7]),
        refusals={"low_score": 2},
        images_refused=0,
    )
    assert stage.precision == 0.5
    assert stage.recall == 0.5  # of 4, 5, 6 and 7, the closures of 5 and 6 are true
    assert stage.figures()["closures_true"] == 2


def test_a_stage_without_closures_has_no_recall_and_no_precision() -> None:
    none = np.empty((0, 2), np.int64)
    stage = ClosureStage(np.arange(3), none, np.empty(0, bool), np.array([2]), {"no_history": 3}, 0)
    assert (stage.precision, stage.recall) == (None, 0.0)


def test_the_halves_meet_at_the_revisit_in_the_middle() -> None:
    stage = ClosureStage(
        keyframes=np.arange(8),
        closures=np.array([[5, 0], [5, 1], [6, 2], [7, 3]]),
        true=np.array([True, False, True, False]),
        revisits=np.array([4, 5, 6, 7]),
        refusals={},
        images_refused=0,
    )
    first, second = stage.halves()
    assert (first.revisits.tolist(), second.revisits.tolist()) == ([4, 5], [6, 7])
    assert (first.closures.tolist(), second.closures.tolist()) == ([[5, 0], [5, 1]], [[6, 2], [7, 3]])
    assert (first.recall, first.precision, second.recall, second.precision) == (0.5, 0.5, 0.5, 0.5)


def test_another_method_is_driven_with_the_same_keyframes_and_verification(
    building: RenderedBuilding, drive: Drive
) -> None:
    stage = drive.through(drive.config)
    oracle = drive.with_similarities(building.same_place.astype(np.float32)).through(drive.config)
    assert oracle.keyframes.tolist() == stage.keyframes.tolist()
    assert oracle.precision == 1.0
    blind = drive.with_similarities(np.eye(IMAGES, dtype=np.float32)).through(drive.config)
    assert not len(blind.closures)


def test_of_two_matches_above_the_similarity_of_neighbours_the_better_one_is_nearer() -> None:
    similarities = np.array([[-1.5, 0.0, 0.5, 0.9, 1.0, 1.1, 1.5, 3.0, 0.0]], np.float64)
    database = _SimilarityDatabase(np.repeat(similarities, 9, axis=0), {stamp: stamp for stamp in range(9)}, words=16)
    nothing = np.zeros(16, np.uint64)
    for stamp in range(8):
        database.add(database.next_keyframe(stamp, nothing))
    query = database.next_keyframe(8, nothing)
    distances = database.distances(query.descriptor[None])
    assert distances.tolist()[:4] == [1024, 512, 256, 51]
    assert (np.diff(distances.astype(int)) < 0).all()


def test_the_closures_are_those_of_the_node(building: RenderedBuilding, drive: Drive) -> None:
    stage = drive.through(drive.config)
    recognizer = PlaceRecognizer(drive.config)
    expected, keyframes = [], []
    index_at = {int(stamp): index for index, stamp in enumerate(building.stamps)}
    for index, image in enumerate(building.queries):
        recognition = recognizer.process(image, int(building.stamps[index]))
        expected += [(index, index_at[closure.match.stamp]) for closure in recognition.verdict.closures]
        keyframes += [index] if recognition.keyframe else []
    assert stage.closures.tolist() == [list(pair) for pair in expected]
    assert stage.keyframes.tolist() == keyframes
    assert len(expected) >= 10
    assert stage.true.tolist() == [bool(building.same_place[pair]) for pair in expected]


def test_revisits_are_keyframes_with_an_older_one_at_their_place(building: RenderedBuilding, drive: Drive) -> None:
    stage = drive.through(drive.config)
    expected = [
        query
        for query in stage.keyframes
        if any(
            building.same_place[query, other] and building.stamps[query] - building.stamps[other] >= 5e9
            for other in stage.keyframes
        )
    ]
    assert stage.revisits.tolist() == expected
    assert 0 < len(expected) < len(stage.keyframes)


def test_the_curve_passes_through_what_the_node_does(drive: Drive) -> None:
    curve = drive.precision_recall()
    stage = drive.through(drive.config)
    at = int(np.flatnonzero(curve.thresholds == drive.config.min_score)[0])
    assert (curve.precision[at], curve.recall[at]) == (stage.precision, stage.recall)
    assert (np.diff(curve.thresholds) < 0).all()
    assert curve.recall[-1] >= curve.recall[0]
