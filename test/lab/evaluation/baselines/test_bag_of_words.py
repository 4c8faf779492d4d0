# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.baselines import vocabulary
from binvpr_ros.lab.evaluation.baselines.bag_of_words import BagOfWords
from binvpr_ros.lab.evaluation.baselines.vocabulary import WORD, Vocabulary, Words, orb_features
from binvpr_ros.lab.evaluation.methods import MethodError

from .listed_images import ListedImages

Pictures = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def bow(world_images: Pictures) -> BagOfWords:
    method = BagOfWords()
    method.fit(ListedImages(world_images[:30]))
    return method


def test_the_score_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((7, 40)) * (rng.random((7, 40)) < 0.3)
    dense[3] = 0
    dense /= np.maximum(dense.sum(axis=1, keepdims=True), 1e-12)
    rows = np.zeros((7, 50), WORD)
    for row, weights in zip(rows, dense, strict=True):
        shown = np.flatnonzero(weights)
        row["word"][: len(shown)], row["weight"][: len(shown)] = shown, weights[shown]
    scores = BagOfWords().similarities(rows[:4], rows[2:])
    assert scores.dtype == np.float32
    expected = 1 - 0.5 * np.abs(dense[:4, np.newaxis] - dense[2:]).sum(axis=2)
    expected[3], expected[:, 1] = 0, 0
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_blocks_of_queries_have_the_scores_of_all_at_once(bow: BagOfWords, world_images: Pictures) -> None:
    rows, others = described(bow, world_images[:12]), described(bow, world_images[20:30])
    whole = bow.similarities(rows, rows)
    np.testing.assert_array_equal(whole, np.vstack([bow.similarities(rows[at : at + 5], rows) for at in (0, 5, 10)]))
    np.testing.assert_array_equal(bow.similarities(rows, others)[:, :3], bow.similarities(rows, others[:3]))


def test_a_description_is_of_the_size_stated_whatever_the_image(bow: BagOfWords, world_images: Pictures) -> None:
    for image in (world_images[0], np.full((50, 60), 9, np.uint8)):
        row = bow.comparable(bow.describe(image))
        assert row.dtype == WORD
        assert row.nbytes * 8 == BagOfWords.descriptor_bits == 32_000


def test_a_description_has_each_word_once_with_its_weight(bow: BagOfWords, world_images: Pictures) -> None:
    row = bow.describe(world_images[5])
    made = Vocabulary.of_images(ListedImages(world_images[:30]))
    expected = made.weigh(made.tree.words(orb_features(world_images[5]).descriptors))
    np.testing.assert_array_equal(row[: len(expected)], expected)
    assert not row["weight"][len(expected) :].any()
    assert row["weight"].sum() == pytest.approx(1, abs=1e-5)


def test_an_image_is_most_similar_to_itself_and_then_to_its_neighbours(bow: BagOfWords, world_images: Pictures) -> None:
    rows = described(bow, world_images[:30])
    scores = bow.similarities(rows, rows)
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(30))
    np.testing.assert_allclose(np.diag(scores), 1, atol=1e-5)
    assert np.median(np.diag(scores, 1)) > 2 * np.median(scores)


def test_an_image_without_features_is_similar_to_none(bow: BagOfWords, world_images: Pictures) -> None:
    rows = described(bow, [np.full((50, 60), 9, np.uint8), world_images[0]])
    assert bow.similarities(rows, rows)[0].tolist() == [0, 0]


def test_fitting_again_gives_the_same(world_images: Pictures) -> None:
    rows = []
    for _ in range(2):
        method = BagOfWords()
        method.fit(ListedImages(world_images[:5]))
        rows.append(method.describe(world_images[0]))
    np.testing.assert_array_equal(rows[0], rows[1])


def test_no_more_features_are_trained_on_than_said(world_images: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "TRAINING_FEATURES", 50)
    method = BagOfWords()
    method.fit(ListedImages(world_images[:5]))
    row = method.describe(world_images[0])
    assert 0 < np.count_nonzero(row["weight"]) <= 50


def test_without_a_vocabulary_it_says_what_to_call(world_images: Pictures) -> None:
    with pytest.raises(MethodError, match="call fit"):
        BagOfWords().describe(world_images[0])


def described(method: BagOfWords, images: Pictures) -> Words:
    return np.stack([method.comparable(method.describe(image)) for image in images])
