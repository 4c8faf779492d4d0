# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from random_features import random_features

from binvpr_ros.config import Config
from binvpr_ros.lab.evaluation import closure_stage
from binvpr_ros.lab.evaluation.closure_stage import OUTCOMES, Drive, Run, _SimilarityDatabase
from binvpr_ros.lab.evaluation.closure_stage import hold_against_truth as hold
from binvpr_ros.lab.evaluation.datasets import Options
from binvpr_ros.lab.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.lab.evaluation.datasets.sequences import ListedSequence, PosedSequence, Relation
from binvpr_ros.lab.evaluation.datasets.truth import ViewTruth
from binvpr_ros.lab.evaluation.similarities import MatrixSimilarities
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import NO_PAIRS, Features, Pairs
from binvpr_ros.local_features.geometry import Verification
from binvpr_ros.local_features.kinds import open_local_features
from binvpr_ros.loop_closure import Refusal
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.recognizer import PlaceRecognizer

from .stages import NoImages

IMAGES = 300
SAME, NEAR, APART = Relation.SAME, Relation.NEAR, Relation.APART


@pytest.fixture(scope="module")
def building() -> RenderedBuilding:
    return RenderedBuilding.make(Options(exclude_seconds=5.0), images=IMAGES)


@pytest.fixture(scope="module")
def drive(building: RenderedBuilding, model: Path) -> Drive:
    network = DescriptorNetwork(model)
    drive = Drive(
        network,
        building,
        [network.describe(image) for image in building.queries],
        open_local_features(Config.local_features),
    )
    drive.config = drive.config.replace(verification_time=60.0)  # what is tested here is the same on every machine
    return drive


def line(xs: Sequence[float], headings: Sequence[float] | None = None, step: float = 10.0) -> PosedSequence:
    """Return a drive along a line, an image every `step` seconds, at `xs` (metres) with `headings` (degrees)."""
    turns = np.deg2rad(headings or [0.0] * len(xs))
    rotations = np.zeros((len(xs), 3, 3))
    rotations[:, 1, 1] = 1
    rotations[:, 0, 0] = rotations[:, 2, 2] = np.cos(turns)
    rotations[:, 0, 2] = np.sin(turns)
    rotations[:, 2, 0] = -rotations[:, 0, 2]
    positions = np.array([(x, 0, 0) for x in xs], float)
    stamps = (np.arange(len(xs)) * step * 1e9).astype(np.int64)
    options = Options(radius=1.0, angle=30.0, exclude_seconds=15.0)
    return PosedSequence.from_poses("line", NoImages(len(xs)), stamps, positions, rotations, options, optical=True)


def views(drive: PosedSequence) -> ViewTruth:
    """Return the truth of a drive as what it is."""
    assert isinstance(drive.truth, ViewTruth)
    return drive.truth


def test_what_is_near_counts_neither_way() -> None:
    drive = line([0, 9, 20, 30, 0.5, 2, 8, 20], headings=[0] * 7 + [90])
    pairs = [(4, 0), (5, 0), (6, 0), (6, 1), (7, 2)]
    stage = hold(drive, Run(list(range(8)), pairs, [50] * 5))
    assert stage.relations.tolist() == [SAME, NEAR, APART, SAME, APART]
    assert stage.precision == 0.5
    figures = stage.figures()
    assert [figures[f"closures{kind}"] for kind in ("", "_same", "_near", "_apart")] == [5, 2, 1, 2]


def test_a_near_closure_that_does_not_obey_the_poses_is_apart() -> None:
    drive = line([0, 9, 20, 2, 0.5])
    run = Run(list(range(5)), [(3, 0), (4, 0)], [50, 50])
    assert hold(drive, run, np.array([False, False])).relations.tolist() == [APART, SAME]
    assert hold(drive, run, np.array([True, True])).relations.tolist() == [NEAR, SAME]


def test_revisits_are_all_images_and_a_closure_within_a_second_finds_them() -> None:
    drive = line([0, 9, 20, 30] + [0] * 6, step=0.6)
    drive = dataclasses.replace(drive, truth=dataclasses.replace(views(drive), candidates=np.full(10, 4)))
    stage = hold(drive, Run([0, 3, 7], [(7, 0)], [50]))
    assert stage.revisits.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert stage.found.tolist() == [False] * 6 + [True] * 3 + [False]  # 0.6 s before and after, not 1.2
    assert stage.recall == 0.3
    assert stage.keyframe_revisits.tolist() == [0, 3, 7]
    assert stage.keyframe_recall == 1 / 3


def test_the_fate_of_the_true_candidate_that_came_farthest_counts() -> None:
    drive = line([0, 9, 20, 30, 0, 9, 20, 30, 40])
    refused = [
        (4, 0, "few_inliers"), (4, 0, "ambiguous"), (4, 0, "not_verified"), (4, 1, "never_left"),  # that is elsewhere
        (5, 1, "low_score"), (6, 3, "few_inliers"),
    ]  # fmt: skip
    stage = hold(drive, Run(list(range(9)), [(7, 3)], [50], refused, Counter(low_score=2)))
    fates = dict(zip(stage.revisits.tolist(), [OUTCOMES[outcome] for outcome in stage.outcomes], strict=True))
    assert fates == {4: "ambiguous", 5: "low_score", 6: "not_retrieved", 7: "closed"}
    assert stage.best_true.tolist() == [[4, 0], [5, 1], [-1, -1], [7, 3]]
    outcomes = stage.figures()["revisit_outcomes"]
    assert sum(outcomes.values()) == len(stage.revisits)
    assert [name for name, count in outcomes.items() if count] == ["closed", "ambiguous", "low_score", "not_retrieved"]


def test_outcomes_are_in_the_order_of_the_stage() -> None:
    """What scores is tried, what is tried and verifies may be refused for what lies around it."""
    without_match = {Refusal.FEATURELESS, Refusal.NO_HISTORY}
    reasons = {
        reason.value for reason in set(Refusal) - without_match - {Refusal.ODOMETRY}
    }  # of which drives have none
    assert set(OUTCOMES) == {"closed", "not_retrieved"} | reasons
    assert len(OUTCOMES) == len(set(OUTCOMES))
    stage = (
        "not_retrieved",
        "low_score",
        "not_among_best",
        "not_verified",
        "few_inliers",
        "never_left",
        "ambiguous",
        "closed",
    )
    assert [outcome for outcome in OUTCOMES if outcome in stage] == list(stage)


def test_a_drive_without_revisits_has_no_recall_and_shows_its_closures() -> None:
    stage = hold(line([0, 9, 20, 30]), Run([0, 1, 2, 3], [(3, 0)], [50]))
    assert (stage.recall, stage.keyframe_recall, stage.precision) == (None, None, 0.0)
    assert stage.figures()["closures_apart"] == 1
    none = hold(line([0, 9]), Run())
    assert (none.precision, none.recall) == (None, None)


def test_a_stretch_of_a_drive_has_its_own_closures_and_revisits() -> None:
    stage = hold(line([0, 9, 20, 30, 0, 9]), Run(list(range(6)), [(3, 1), (4, 0), (5, 1)], [50, 50, 50]))
    some = stage.between(4, 5)
    assert (some.closures.tolist(), some.revisits.tolist(), some.recall) == ([[4, 0]], [4], 1.0)


def test_a_list_of_loops_takes_the_place_of_poses() -> None:
    stamps = (np.arange(100) * 1e9).astype(np.int64)
    loops = ListedSequence.from_pairs("listed", NoImages(100), stamps, np.array([(80, 10), (20, 81)]), Options())
    stage = hold(loops, Run(list(range(100)), [(80, 10), (81, 11), (80, 50)], [9, 9, 9]))
    assert stage.revisits.tolist() == [80, 81]
    assert stage.relations.tolist() == [SAME, NEAR, APART]
    assert stage.recall == 1.0


def test_another_method_is_driven_with_the_same_keyframes_and_verification(
    building: RenderedBuilding, drive: Drive
) -> None:
    stage = drive.through(drive.config)
    same_place = dataclasses.replace(views(building), candidates=None).dense()
    oracle = drive.with_similarities(MatrixSimilarities(same_place.astype(np.float32))).through(drive.config)
    assert oracle.keyframes.tolist() == stage.keyframes.tolist()
    assert oracle.precision == 1.0
    blind = drive.with_similarities(MatrixSimilarities(np.eye(IMAGES, dtype=np.float32))).through(drive.config)
    assert not len(blind.closures)


def test_of_two_matches_above_the_similarity_of_neighbours_the_better_one_is_nearer() -> None:
    row = np.array([[-1.5, 0.0, 0.5, 0.9, 1.0, 1.1, 1.5, 3.0, 0.0]], np.float64)
    similarities = MatrixSimilarities(np.repeat(row * 2 + 5, 9, axis=0))
    database = _SimilarityDatabase(similarities, (5.0, 2.0), np.arange(9), words=16)
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
    recognizer.camera = building.camera
    expected, keyframes = [], []
    index_at = {int(stamp): index for index, stamp in enumerate(building.stamps)}
    for index, image in enumerate(building.queries):
        recognition = recognizer.process(image, int(building.stamps[index]))
        expected += [(index, index_at[closure.match.stamp]) for closure in recognition.verdict.closures]
        keyframes += [index] if recognition.keyframe else []
    assert stage.closures.tolist() == [list(pair) for pair in expected]
    assert stage.keyframes.tolist() == keyframes
    assert len(expected) >= 10
    assert stage.true.sum() >= 10


def test_the_clock_of_verification_stands_still(drive: Drive) -> None:
    whole = drive.through(drive.config)
    assert "not_verified" not in whole.refusals
    hurried = drive.through(drive.config.replace(verification_time=1e-9))  # this machine may be slow
    assert hurried.closures.tolist() == whole.closures.tolist()
    none = drive.through(drive.config.replace(verification_time=0.0))
    assert set(none.refusals) <= {"not_verified", "low_score", "no_history"}
    assert not len(none.closures)


def test_what_was_verified_is_known_by_the_features_themselves(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map keeps copies, with fewer features, which go with the map: another one may lie where one lay."""
    asked: list[int] = []

    def verify(
        _query: Features,
        match: Features,
        camera: Camera | None,
        match_camera: Camera | None,
        pairs: Pairs,
        least: float,
    ) -> Verification:
        assert camera is match_camera is None
        assert pairs is NO_PAIRS
        assert least == 0
        asked.append(len(match.positions))
        return Verification((np.arange(len(match.positions)), np.arange(len(match.positions))))

    monkeypatch.setattr(closure_stage, "verify", verify)
    fresh = Drive(drive.network, drive.sequence, drive._descriptions, drive.local_features)
    query = random_features(0, 5)
    for count in range(1, 50):  # each copy is gone when the next is made
        assert fresh._verify(query, random_features(1, 50).fewer(count), None, None, NO_PAIRS, 0.0).inliers == count
        assert fresh._verify(query, random_features(1, 50).fewer(count), None, None, NO_PAIRS, 0.0).inliers == count
    assert asked == list(range(1, 50))


def test_the_curve_passes_through_what_the_node_does(drive: Drive) -> None:
    curve = drive.precision_recall()
    stage = drive.through(drive.config)
    at = int(np.flatnonzero(curve.thresholds == drive.config.min_score)[0])
    assert (curve.precision[at], curve.recall[at]) == (stage.precision, stage.recall)
    assert (np.diff(curve.thresholds) < 0).all()
    assert curve.recall[-1] >= curve.recall[0]


def test_near_closures_are_held_against_the_epipolar_geometry_of_the_true_poses(
    building: RenderedBuilding, drive: Drive
) -> None:
    # With a radius this small every closure is near; what the poses do not explain is apart.
    narrow: dict[str, Any] = {"radius": 1e-3, "angle": 1e-3, "apart_radius": 50.0, "apart_angle": 180.0}
    strict = dataclasses.replace(building, truth=dataclasses.replace(views(building), **narrow))
    judged_right = Drive(drive.network, strict, drive._descriptions, drive.local_features)
    stage = judged_right.through(drive.config)
    assert (stage.relations == NEAR).sum() >= 10
    # As if the camera had looked up by 30 degrees from the middle of the drive on.
    pitch, _ = cv2.Rodrigues(np.array([np.deg2rad(30), 0, 0]))
    tilted = np.where(np.arange(IMAGES)[:, None, None] < IMAGES // 2, strict.rotations, strict.rotations @ pitch)
    judged_wrong = Drive(
        drive.network, dataclasses.replace(strict, rotations=tilted), drive._descriptions, drive.local_features
    )
    wrong = judged_wrong.through(drive.config)
    assert (wrong.relations == APART).mean() > 0.9
    assert (stage.relations == APART).mean() < 0.1


def test_in_the_map_of_another_drive_every_closure_counts(drive: Drive) -> None:
    # Against a map of itself a drive closes nearly everything, which shows that the map is searched.
    trials = drive.against(drive, drive.config)
    assert trials.keyframes == len(drive.through(drive.config).keyframes)
    assert len({query for query, _, _ in trials.closures}) > trials.keyframes / 2
    assert all(abs(query - match) < 20 for query, match, _ in trials.closures[:5])


def test_two_earlier_maps_of_a_place_close_as_much_as_one(drive: Drive) -> None:
    found = drive.in_earlier_maps(drive.config)
    assert min(found.one, found.other) >= 10
    assert max(found.one, found.other) <= found.either <= found.one + found.other
    assert found.both >= 0.9 * found.either


def test_relative_poses_are_held_against_the_truth(drive: Drive) -> None:
    stage = drive.through(drive.config, poses=True)
    figures = stage.figures()["relative_pose"]
    with_scale, without = figures["with_scale"], figures["without_scale"]
    assert with_scale["number"] == len(stage.constraints) >= 10
    assert without["number"] >= 10
    assert with_scale["median_metres"] < 0.02
    assert with_scale["median_rotation_degrees"] < 0.5
    assert without["median_rotation_degrees"] < 2
    assert drive.through(drive.config).figures()["relative_pose"] is None
