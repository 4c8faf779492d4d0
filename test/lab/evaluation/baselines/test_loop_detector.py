# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.baselines.loop_detector import (
    CONSISTENT_MATCHES,
    FEWEST_INLIERS,
    MOST_RESULTS,
    Detections,
    Entry,
    Island,
    LoopDetector,
    TemporalWindow,
    detect,
    direct_index_matches,
    distance,
    epipolar_inliers,
    islands,
    normalised_matches,
)
from binvpr_ros.lab.evaluation.baselines.vocabulary import LocalFeatures, Vocabulary
from binvpr_ros.lab.evaluation.methods import MethodError
from binvpr_ros.recordings.world import Pose, World, drive

from .listed_images import ListedImages

Pictures = list[NDArray[np.uint8]]

IMAGES = 180
STEP = 300_000_000  # nanoseconds
EXCLUSION_TIME = 10.0  # seconds


@pytest.fixture(scope="module")
def stops() -> list[tuple[Pose, float, float]]:
    return list(drive(IMAGES))


@pytest.fixture(scope="module")
def images(stops: list[tuple[Pose, float, float]]) -> Pictures:
    world = World()
    return [world.render(*stop) for stop in stops]


@pytest.fixture(scope="module")
def detections(images: Pictures) -> Detections:
    return detect(ListedImages(images), stamps(images), EXCLUSION_TIME)


def stamps(images: Pictures) -> list[int]:
    return [7 + STEP * number for number in range(len(images))]


def test_scores_are_normalised_by_that_with_the_image_before() -> None:
    scores = np.array([0.05, 0.061, 0.0, 0.3, 0.059], np.float32)
    assert normalised_matches(scores, 0.2).tolist() == [1, 3]  # at least 0.3 x 0.2
    assert normalised_matches(scores, 0.1).tolist() == [0, 1, 3, 4]
    assert normalised_matches(scores, 1.0).tolist() == [3]
    assert normalised_matches(scores, 0.0049).size == 0
    assert normalised_matches(np.zeros(3, np.float32), 0.5).size == 0


def test_no_more_than_the_best_images_match() -> None:
    scores = np.linspace(0.5, 1, 80, dtype=np.float32)
    assert normalised_matches(scores, 0.5).tolist() == list(range(80 - MOST_RESULTS, 80))


def test_matches_near_each_other_are_one_island() -> None:
    found = islands(np.array([3, 5, 6, 9, 20]), np.array([0.25, 0.5, 0.125, 0.75, 0.5], np.float32))
    assert found == [Island(3, 6, 0.875, 5), Island(9, 9, 0.75, 9), Island(20, 20, 0.5, 20)]
    assert islands(np.empty(0, np.intp), np.empty(0, np.float32)) == []


@pytest.mark.parametrize(("first", "last", "expected"), [(14, 20, 2), (1, 6, 4), (12, 13, 0), (5, 30, -7)])
def test_islands_are_so_many_images_apart(first: int, last: int, expected: int) -> None:
    assert distance(island(first, last), island(10, 12)) == expected
    assert distance(island(10, 12), island(first, last)) == expected


def test_consistent_queries_in_a_row_are_counted() -> None:
    window = TemporalWindow()
    assert window.add(100, island(10, 12)) == 0
    assert window.add(101, island(15, 16)) == 1  # 3 images on
    assert window.add(103, island(12, 13)) == 2  # a query was without an island; backwards is as good
    assert window.add(104, island(17, 20)) == 0  # 4 images on
    assert window.add(105, island(18, 19)) == 1
    assert window.add(108, island(18, 19)) == 0  # two queries were without an island


def island(first: int, last: int) -> Island:
    return Island(first, last, 1.0, first)


def test_features_match_within_a_node_where_one_is_clearly_nearer() -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.integers(0, 2**64, (20, 4), np.uint64)
    nodes = np.arange(20) % 5
    query = entry(descriptors, nodes)
    ours, theirs = direct_index_matches(query, entry(descriptors[::-1].copy(), nodes[::-1]))
    np.testing.assert_array_equal(ours, np.arange(20))
    np.testing.assert_array_equal(theirs, np.arange(20)[::-1])

    moved = np.where(np.arange(20) == 7, 9, nodes)  # the only one of its node in the one image, none in the other
    assert 7 not in direct_index_matches(query, entry(descriptors, moved))[1]

    twice = descriptors.copy()
    twice[5] = twice[0]  # of the same node: neither of the query's is the nearer
    assert 0 not in direct_index_matches(entry(twice, nodes), query)[1]

    rivals = descriptors.copy()
    rivals[5] = descriptors[0] ^ np.uint64(1)  # wants feature 0 of the query too, and is farther
    ours, theirs = direct_index_matches(query, entry(rivals, nodes))
    assert theirs[ours == 0].tolist() == [0]
    assert 5 not in theirs


def test_a_feature_that_is_the_only_one_of_its_node_matches_at_any_distance() -> None:
    descriptors = np.random.default_rng(0).integers(0, 2**64, (FEWEST_INLIERS, 4), np.uint64)
    nodes = np.arange(FEWEST_INLIERS)
    ours, theirs = direct_index_matches(entry(~descriptors, nodes), entry(descriptors, nodes))
    np.testing.assert_array_equal(ours, theirs)
    assert len(ours) == FEWEST_INLIERS


def test_images_with_few_features_do_not_match() -> None:
    few = entry(np.zeros((0, 4), np.uint64), np.zeros(0, np.int64))
    many = entry(np.zeros((30, 4), np.uint64), np.zeros(30, np.int64))
    assert all(some.size == 0 for pair in ((few, many), (many, few)) for some in direct_index_matches(*pair))


def entry(descriptors: NDArray[np.uint64], nodes: NDArray[np.int64]) -> Entry:
    return Entry(LocalFeatures(np.zeros((len(nodes), 2), np.float32), descriptors), nodes)


def test_matches_of_two_views_obey_a_fundamental_matrix() -> None:
    rng = np.random.default_rng(3)
    points, others = two_views(rng, 40)
    points[:15] = rng.uniform(0, 480, (15, 2))
    assert epipolar_inliers(points, others, np.random.default_rng(0)) >= FEWEST_INLIERS
    assert epipolar_inliers(points, others, np.random.default_rng(0)) == epipolar_inliers(
        points, others, np.random.default_rng(0)
    )


def test_all_matches_of_two_views_are_near_their_epipolar_lines() -> None:
    points, others = two_views(np.random.default_rng(3), 40)
    assert epipolar_inliers(points, others, np.random.default_rng(0)) == 40
    assert epipolar_inliers(points[:12], others[:12], np.random.default_rng(0)) == 12
    assert epipolar_inliers(points[:11], others[:11], np.random.default_rng(0)) == 0


def test_matches_by_chance_obey_none() -> None:
    rng = np.random.default_rng(4)
    points, others = rng.uniform(0, 480, (2, 25, 2)).astype(np.float32)
    assert epipolar_inliers(points, others, rng) == 0
    assert epipolar_inliers(np.ones_like(points), np.ones_like(points), rng) in (0, 25)


def two_views(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where two cameras, moved and turned, see points in space, [count,2] each, in pixels."""
    space = rng.uniform((-2, -2, 4), (2, 2, 8), (count, 3))
    turn = np.array([[np.cos(0.1), 0, np.sin(0.1)], [0, 1, 0], [-np.sin(0.1), 0, np.cos(0.1)]])
    moved = space @ turn + (1, 0.2, 0.1)
    first, second = ((300 * view[:, :2] / view[:, 2:] + 240).astype(np.float32) for view in (space, moved))
    return first, second


def test_it_finds_true_loops_of_a_drive_and_no_false_ones(
    detections: Detections, stops: list[tuple[Pose, float, float]]
) -> None:
    assert len(detections.pairs) > 20
    assert all(stops[query][0].same_place(stops[match][0]) for query, match in detections.pairs.tolist())
    assert (detections.inliers >= FEWEST_INLIERS).all()
    assert len(detections.inliers) == len(detections.pairs)
    assert len(detections.milliseconds) == IMAGES


def test_the_same_drive_gives_the_same_loops(images: Pictures, detections: Detections) -> None:
    again = detect(ListedImages(images), stamps(images), EXCLUSION_TIME)
    np.testing.assert_array_equal(again.pairs, detections.pairs)
    np.testing.assert_array_equal(again.inliers, detections.inliers)


def test_only_images_older_than_the_exclusion_time_match(images: Pictures) -> None:
    def loops_of_one_view(exclusion_time: float) -> list[tuple[int, int]]:
        detector = LoopDetector(vocabulary, exclusion_time)
        found = [detector.process(images[0], stamp) for stamp in stamps([images[0]] * 30)]
        return [(number, loop.match) for number, loop in enumerate(found) if loop]

    vocabulary = Vocabulary.of_images(ListedImages(images[::6]))
    loops = loops_of_one_view(3.0)
    assert loops[0] == (10 + CONSISTENT_MATCHES, 0)  # image 10 is the first that may match any
    assert all(query - match >= 10 for query, match in loops)
    assert not loops_of_one_view(9.0)


def test_an_image_without_features_closes_no_loop_and_breaks_nothing(images: Pictures) -> None:
    detector = LoopDetector(Vocabulary.of_images(ListedImages(images[:10])), 0.0)
    blank = np.full((240, 320), 90, np.uint8)
    drive_with_gaps = [blank, *images[:5], blank, blank, *images[:5]]
    found = [
        detector.process(image, stamp) for image, stamp in zip(drive_with_gaps, stamps(drive_with_gaps), strict=True)
    ]
    assert [found[number] for number in (0, 6, 7)] == [None] * 3


def test_a_drive_without_features_has_no_vocabulary() -> None:
    with pytest.raises(MethodError, match="without ORB features"):
        detect(ListedImages([np.zeros((240, 320), np.uint8)] * 2), [0, 1], 1.0)
