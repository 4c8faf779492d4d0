# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, Images
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth
from binvpr_ros.lab.evaluation.local_verification import LocalVerification, likeness, verify_locally
from binvpr_ros.lab.evaluation.similarities import MatrixSimilarities
from binvpr_ros.local_features import orb
from binvpr_ros.local_features.geometry import verify


class Pictures(Images):
    """Images in memory."""

    def __init__(self, images: list[NDArray[np.uint8]]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        return self._images[index]


def hall(queries: list[NDArray[np.uint8]], references: list[NDArray[np.uint8]], true: list[list[int]]) -> Dataset:
    return Dataset("hall", Pictures(queries), Pictures(references), PairTruth(true, len(references)))


def test_a_true_pair_must_beat_every_pair_of_different_places(world_images: list[NDArray[np.uint8]]) -> None:
    places = [world_images[place] for place in (0, 12, 24, 36)]
    flat = np.full_like(places[0], 128)
    blind = MatrixSimilarities(np.zeros((4, 4)))
    own: list[list[int]] = [[0], [1], [2], [3]]
    assert verify_locally(hall(places, places, own), blind, orb).above_apart == 1.0
    # Two of the queries show nothing that could be verified.
    assert verify_locally(hall([*places[:2], flat, flat], places, own), blind, orb).above_apart == 0.5
    # One image stands under two places: the pair that is called different verifies best of all.
    assert (
        verify_locally(
            hall(places, [*places[:3], places[0]], own), MatrixSimilarities(np.eye(4)[::-1]), orb
        ).above_apart
        == 0.0
    )


def test_where_there_is_nothing_to_compare_with_there_is_no_share(world_images: list[NDArray[np.uint8]]) -> None:
    one = [world_images[0]]
    assert verify_locally(hall(one, one, [[0]]), MatrixSimilarities(np.ones((1, 1))), orb).above_apart is None
    assert verify_locally(hall(one, one, [[]]), MatrixSimilarities(np.ones((1, 1))), orb).above_apart is None


def test_what_lies_just_beyond_a_place_is_not_called_different() -> None:
    truth = PairTruth([[4, 5, 6], [0], []], 12)
    assert np.flatnonzero(truth.apart(0)).tolist() == [0, 1, 9, 10, 11]
    assert np.flatnonzero(truth.apart(1)).tolist() == list(range(1, 12))
    assert truth.apart(2).all()


def test_local_features_order_the_most_similar_references(world_images: list[NDArray[np.uint8]]) -> None:
    """The descriptor is wrong about all, and sure of it; the last query shows nothing, and stays as it was."""
    places = [world_images[place] for place in (0, 12, 24, 36)]
    own: list[list[int]] = [[0], [1], [2], [3]]
    wrong = MatrixSimilarities(1 - np.eye(4))
    found = verify_locally(hall(places, places, own), wrong, orb)
    assert found == LocalVerification(1.0, 1.0, 1.0)
    flat = np.full_like(places[0], 128)
    found = verify_locally(hall([*places[:3], flat], places, own), wrong, orb)
    assert (found.reranked_recall_at_1, found.reranked_recall_at_100_precision) == (0.75, 0.75)


def test_what_is_alike_and_where_it_was_is_more_alike(world_images: list[NDArray[np.uint8]]) -> None:
    image, other = world_images[0], world_images[24]
    found = orb.extract(image)
    moved = orb.extract(np.roll(image, image.shape[1] // 8, axis=1))
    farther = orb.extract(np.roll(image, image.shape[1] // 4, axis=1))
    alike = [likeness(found, some) for some in (found, moved, farther)]
    assert alike[0] == pytest.approx(1, abs=1e-5)
    assert alike == sorted(alike, reverse=True)
    assert likeness(found, orb.extract(other)) < alike[1]


def test_nothing_is_like_an_image_without_features(world_images: list[NDArray[np.uint8]]) -> None:
    some, none = orb.extract(world_images[0]), orb.extract(np.full_like(world_images[0], 128))
    assert not len(none.descriptors)
    assert likeness(some, none) == likeness(none, some) == 0


def test_references_of_which_none_verifies_are_ordered_too(world_images: list[NDArray[np.uint8]]) -> None:
    """Small images, whose few features are too few for geometry."""
    places = [world_images[place][60:140, 100:220] for place in (0, 12, 24, 36)]
    darker = [(place * 0.8).astype(np.uint8) for place in places]
    features = [[orb.extract(image) for image in images] for images in (darker, places)]
    assert max(verify(one, other).evidence for one, other in itertools.product(*features)) < Config.min_inliers
    own: list[list[int]] = [[0], [1], [2], [3]]
    found = verify_locally(hall(darker, places, own), MatrixSimilarities(1 - np.eye(4)), orb)
    assert found.reranked_recall_at_1 >= 0.75  # the descriptor alone has 0
