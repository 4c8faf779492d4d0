# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.descriptor import hamming
from binvpr_ros.evaluation.baselines.bag_of_words import BRANCHES, BagOfWords, Vocabulary, cluster
from binvpr_ros.evaluation.methods import MethodError

Pictures = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def bow(world_images: Pictures) -> BagOfWords:
    method = BagOfWords()
    method.fit(world_images[:30])
    return method


@pytest.fixture(scope="module")
def features() -> NDArray[np.uint64]:
    return np.random.default_rng(1).integers(0, 2**64, (3000, 4), np.uint64)


def test_clusters_are_found(features: NDArray[np.uint64]) -> None:
    centres, members = features[:BRANCHES], np.repeat(np.arange(BRANCHES), 50)
    rng = np.random.default_rng(2)
    noise = np.packbits(rng.random((len(members), 256)) < 0.01, axis=1).view(np.uint64)
    found, nearest = cluster(centres[members] ^ noise, rng)
    assert len(np.unique(nearest * BRANCHES + members)) == BRANCHES
    assert all(hamming(found, centre).min() == 0 for centre in centres)


def test_fewer_features_than_branches_are_a_cluster_each(features: NDArray[np.uint64]) -> None:
    few = np.repeat(features[:4], 3, axis=0)
    centres, nearest = cluster(few, np.random.default_rng(0))
    np.testing.assert_array_equal(centres[nearest], few)
    assert len(np.unique(nearest)) == 4


def test_a_features_word_is_at_the_end_of_its_descent(features: NDArray[np.uint64]) -> None:
    vocabulary = Vocabulary.of_features(features, np.random.default_rng(0))
    expected = []
    for feature in features[:300]:
        node = 0
        while node >= 0:
            distances = [
                sum(int(a ^ b).bit_count() for a, b in zip(centre.tolist(), feature.tolist(), strict=True))
                for centre in vocabulary.centres[node]
            ]
            node = int(vocabulary.children[node, int(np.argmin(distances))])
        expected.append(-1 - node)
    assert vocabulary.words(features[:300]).tolist() == expected


def test_the_tree_has_each_word_and_each_node_once(features: NDArray[np.uint64]) -> None:
    vocabulary = Vocabulary.of_features(features, np.random.default_rng(0))
    below = np.sort(vocabulary.children, axis=None)
    words, nodes = below[below < 0], below[below >= 0]
    np.testing.assert_array_equal(-1 - words[::-1], np.arange(vocabulary.size))
    np.testing.assert_array_equal(nodes, np.arange(1, len(vocabulary.children)))
    assert vocabulary.size <= BRANCHES**4
    assert len(np.unique(vocabulary.words(features))) > 2000


def test_the_score_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    weights = rng.random((7, 40)) * (rng.random((7, 40)) < 0.3)
    weights[3] = 0
    queries, references = weights[:4].astype(np.float32), weights[2:].astype(np.float32)
    scores = BagOfWords().similarities(unit_sums(queries), unit_sums(references))
    for query, row in zip(queries, scores, strict=True):
        for reference, score in zip(references, row, strict=True):
            if query.any() and reference.any():
                difference = np.abs(query / query.sum() - reference / reference.sum()).sum()
                assert score == pytest.approx(1 - 0.5 * difference, abs=1e-6)
            else:
                assert score == 0


def unit_sums(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.maximum(rows.sum(axis=1, keepdims=True), np.float32(1e-12))


def test_weights_are_tf_idf(bow: BagOfWords, world_images: Pictures) -> None:
    vocabulary = bow._vocabulary
    assert vocabulary is not None
    words = [vocabulary.words(bow.features(image)) for image in world_images[:30]]
    expected = np.zeros(vocabulary.size)
    for word in np.unique(words[5]):
        shown_by = sum(word in of_image for of_image in words)
        expected[word] = np.mean(words[5] == word) * np.log(30 / shown_by)
    np.testing.assert_allclose(bow.describe(world_images[5]), expected / expected.sum(), atol=1e-6)


def test_an_image_is_most_similar_to_itself_and_then_to_its_neighbours(bow: BagOfWords, world_images: Pictures) -> None:
    rows = np.stack([bow.describe(image) for image in world_images[:30]])
    scores = bow.similarities(rows, rows)
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(30))
    np.testing.assert_allclose(np.diag(scores), 1, atol=1e-5)
    assert np.median(np.diag(scores, 1)) > 2 * np.median(scores)


def test_an_image_without_features_is_similar_to_none(bow: BagOfWords, world_images: Pictures) -> None:
    rows = np.stack([bow.describe(image) for image in (np.full((50, 60), 9, np.uint8), world_images[0])])
    assert not rows[0].any()
    assert bow.similarities(rows, rows)[0].tolist() == [0, 0]


def test_fitting_again_gives_the_same(world_images: Pictures) -> None:
    rows = []
    for _ in range(2):
        method = BagOfWords()
        method.fit(world_images[:5])
        rows.append(method.describe(world_images[0]))
    np.testing.assert_array_equal(rows[0], rows[1])


def test_no_more_features_are_trained_on_than_said(world_images: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BagOfWords, "TRAINING_FEATURES", 50)
    method = BagOfWords()
    method.fit(world_images[:5])
    row = method.describe(world_images[0])
    assert 0 < np.count_nonzero(row) <= 50


def test_a_thumbnail_is_enlarged_until_it_has_features(world_images: Pictures) -> None:
    method = BagOfWords()
    assert len(method.features(world_images[0][::4, ::4])) > 20


def test_what_cannot_be_done_is_said(world_images: Pictures) -> None:
    with pytest.raises(MethodError, match="call fit"):
        BagOfWords().describe(world_images[0])
    with pytest.raises(MethodError, match="no ORB features"):
        BagOfWords().fit([np.zeros((240, 320), np.uint8)])
