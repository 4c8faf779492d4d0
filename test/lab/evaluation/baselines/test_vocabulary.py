# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.baselines import vocabulary as module
from binvpr_ros.lab.evaluation.baselines.vocabulary import (
    BRANCHES,
    DEPTH,
    FEATURES,
    WORD,
    InvertedIndex,
    Tree,
    Vocabulary,
    Words,
    cluster,
    orb_features,
)
from binvpr_ros.lab.evaluation.methods import MethodError
from binvpr_ros.network.hamming import hamming

from .listed_images import ListedImages

Pictures = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def features() -> NDArray[np.uint64]:
    return np.random.default_rng(1).integers(0, 2**64, (3000, 4), np.uint64)


@pytest.fixture(scope="module")
def tree(features: NDArray[np.uint64]) -> Tree:
    return Tree.of_features(features, np.random.default_rng(0))


def words(weights: dict[int, float]) -> Words:
    return np.array(list(weights.items()), WORD)


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


def test_a_features_path_follows_the_nearest_centres_down_to_its_word(tree: Tree, features: NDArray[np.uint64]) -> None:
    expected = []
    for feature in features[:300]:
        path = [0]
        while len(path) <= DEPTH:
            node = path[-1]
            if node >= 0:
                distances = [
                    sum(int(a ^ b).bit_count() for a, b in zip(centre.tolist(), feature.tolist(), strict=True))
                    for centre in tree.centres[node]
                ]
                node = int(tree.children[node, int(np.argmin(distances))])
            path.append(node)
        expected.append(path[1:])
    assert tree.descend(features[:300]).tolist() == expected
    assert tree.words(features[:300]).tolist() == [-1 - path[-1] for path in expected]


def test_the_tree_has_each_word_and_each_node_once(tree: Tree, features: NDArray[np.uint64]) -> None:
    below = np.sort(tree.children, axis=None)
    leaves, nodes = below[below < 0], below[below >= 0]
    np.testing.assert_array_equal(-1 - leaves[::-1], np.arange(tree.size))
    np.testing.assert_array_equal(nodes, np.arange(1, len(tree.children)))
    assert tree.size <= BRANCHES**DEPTH
    assert len(np.unique(tree.words(features))) > 2000


def test_weights_are_tf_idf_worked_by_hand(tree: Tree) -> None:
    vocabulary = Vocabulary(tree, np.array([0.5, 2.0, 0.0, 1.0], np.float32))
    # Three features of word 3, one of word 0, one of word 2, which every image shows: 3, 0.5 and 0, of 3.5 in all.
    weighed = vocabulary.weigh(np.array([3, 0, 3, 2, 3]))
    assert weighed["word"].tolist() == [0, 3]
    assert weighed["weight"] == pytest.approx([0.5 / 3.5, 3 / 3.5])
    assert vocabulary.weigh(np.array([2, 2])).size == 0
    assert vocabulary.weigh(np.empty(0, np.int64)).size == 0


def test_a_words_rarity_says_how_few_images_show_it(world_images: Pictures) -> None:
    images = world_images[:30]
    vocabulary = Vocabulary.of_images(ListedImages(images))
    shown = [set(vocabulary.tree.words(orb_features(image).descriptors).tolist()) for image in images]
    for word in list(shown[5])[:50]:
        assert vocabulary.rarity[word] == pytest.approx(np.log(30 / sum(word in one for one in shown)))


def test_scores_are_worked_by_hand() -> None:
    index = InvertedIndex([words({1: 0.5, 2: 0.5}), words({}), words({2: 1.0})])
    index.add(words({1: 0.25, 7: 0.75, 0: 0.0}))
    # 1 - (|0.2 - 0.5| + |0.8 - 0.5|) / 2 = 0.7 with the first, 1 - (0.2 + 0.2) / 2 = 0.8 with the third.
    assert index.scores(words({1: 0.2, 2: 0.8})).tolist() == pytest.approx([0.7, 0, 0.8, 0.2])
    assert index.scores(words({5: 1.0})).tolist() == [0, 0, 0, 0]
    assert index.scores(words({})).tolist() == [0, 0, 0, 0]
    assert InvertedIndex().scores(words({1: 1.0})).size == 0


def test_of_equally_strong_features_no_more_are_kept_than_said() -> None:
    image = np.tile(np.random.default_rng(0).integers(0, 255, (16, 16), np.uint8), (30, 40))
    found = cv2.ORB_create(FEATURES).detect(image)  # type: ignore[attr-defined]
    assert len(found) > FEATURES
    points, descriptors = orb_features(image)
    assert points.shape == (FEATURES, 2)
    assert descriptors.shape == (FEATURES, 4)
    first, last = points[0], points[-1]
    assert first.tolist() == list(found[0].pt)
    assert last.tolist() == list(found[-1].pt)  # of the coarsest level


def test_a_thumbnail_is_enlarged_until_it_has_features(world_images: Pictures) -> None:
    assert len(orb_features(world_images[0][::4, ::4]).points) > 20


def test_an_image_without_structure_has_no_features() -> None:
    points, descriptors = orb_features(np.full((50, 60), 9, np.uint8))
    assert points.shape == (0, 2)
    assert descriptors.shape == (0, 4)


def test_of_many_images_some_are_looked_at_spread_evenly(
    world_images: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Vocabulary.of_images(ListedImages(world_images[:31:15]))
    monkeypatch.setattr(module, "TRAINING_IMAGES", 3)
    found = Vocabulary.of_images(ListedImages(world_images[:31]))
    np.testing.assert_array_equal(found.tree.centres, expected.tree.centres)
    np.testing.assert_array_equal(found.rarity, expected.rarity)


def test_images_without_features_make_no_vocabulary() -> None:
    with pytest.raises(MethodError, match="without ORB features"):
        Vocabulary.of_images(ListedImages([np.zeros((240, 320), np.uint8)]))
