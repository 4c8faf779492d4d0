# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import Config, model_path
from binvpr_ros.lab.evaluation.baselines.words import BITS, WORDS, Words, WordsAndBits
from binvpr_ros.lab.evaluation.methods import MethodError
from binvpr_ros.network.descriptor import DescriptorNetwork

from .listed_images import ListedImages

Pictures = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def words(world_images: Pictures) -> Words:
    method = Words()
    method.fit(ListedImages(world_images[:12]))
    return method


def described(method: Words, images: Pictures) -> NDArray[np.float32]:
    return np.stack([method.comparable(method.describe(image)) for image in images])


def test_an_image_is_most_like_its_own_place_in_other_light(words: Words, world_images: Pictures) -> None:
    places = world_images[::6]
    darker = [(image * 0.6).astype(np.uint8) for image in places]
    similarities = words.similarities(described(words, darker), described(words, places))
    assert (similarities.argmax(axis=1) == np.arange(len(places))).all()


def test_every_word_of_a_description_weighs_the_same(words: Words, world_images: Pictures) -> None:
    row = words.describe(world_images[3])
    assert row.shape == (WORDS * BITS,)
    assert row.dtype == np.float32
    assert row.nbytes * 8 == Words.descriptor_bits
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)
    parts = np.linalg.norm(row.reshape(WORDS, BITS), axis=1)
    np.testing.assert_allclose(parts[parts > 0], parts.max(), rtol=1e-4)


def test_the_same_references_make_the_same_words(words: Words, world_images: Pictures) -> None:
    again = Words()
    again.fit(ListedImages(world_images[:12]))
    np.testing.assert_array_equal(again.describe(world_images[20]), words.describe(world_images[20]))


def test_without_words_or_enough_features_there_is_a_sentence(world_images: Pictures) -> None:
    method = Words()
    with pytest.raises(MethodError, match="call fit"):
        method.describe(world_images[0])
    with pytest.raises(MethodError, match="use images with more detail"):
        method.fit(ListedImages([world_images[0][:8, :8]]))


def test_words_beside_bits_are_the_mean_of_both(words: Words, world_images: Pictures) -> None:
    both = WordsAndBits()
    both.fit(ListedImages(world_images[:12]))
    some = world_images[20:24]
    network = DescriptorNetwork(model_path(Config()))
    signs = np.stack([np.unpackbits(network.describe(image).descriptor.view(np.uint8)) for image in some]) * 2.0 - 1
    bits = signs @ signs.T / signs.shape[1]
    rows, of_both = described(words, some), described(both, some)
    mean = (words.similarities(rows, rows) + bits) / 2
    np.testing.assert_allclose(both.similarities(of_both, of_both), mean, atol=1e-5)
    assert both.descriptor_bits == words.descriptor_bits + signs.shape[1]
