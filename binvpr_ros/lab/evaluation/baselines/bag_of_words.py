# SPDX-License-Identifier: Apache-2.0
"""Bag of words: which words of a vocabulary of ORB features an image shows, and how often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.baselines.vocabulary import (
    FEATURES,
    WORD,
    InvertedIndex,
    Vocabulary,
    Words,
    orb_features,
)
from binvpr_ros.lab.evaluation.datasets.dataset import Images
from binvpr_ros.lab.evaluation.methods import Method, MethodError


class BagOfWords(Method):
    """DBoW2's way to compare images (Galvez-Lopez and Tardos, TRO 2012), its vocabulary trained on the references.

    500 ORB features an image, tf-idf weights, L1 score. A description is a sparse vector, 32 bits each for the number
    of a word and for its weight: 4 kB an image.
    """

    name = "bow"
    descriptor_bits = FEATURES * WORD.itemsize * 8

    def __init__(self) -> None:
        self._vocabulary: Vocabulary | None = None
        self._indexed: Words | None = None
        self._index = InvertedIndex()

    def fit(self, references: Images) -> None:
        """Make the vocabulary of the references; raises MethodError where no reference has a feature."""
        self._vocabulary = Vocabulary.of_images(references)

    def describe(self, image: Image) -> Words:
        """Return the words [500] of a uint8 image, [H,W,3] RGB or [H,W] grey, padded with weights of 0.

        All weights are 0 where the image has no feature; raises MethodError before `fit`.
        """
        if self._vocabulary is None:
            raise MethodError("bow has no vocabulary yet; call fit with the references first")
        words = self._vocabulary.weigh(self._vocabulary.tree.words(orb_features(image).descriptors))
        description = np.zeros(FEATURES, WORD)
        description[: len(words)] = words
        return description

    def comparable(self, description: Words) -> Words:
        """Return a description, WORD [500], as it is."""
        return description

    def similarities(self, queries: Words, references: Words) -> NDArray[np.float32]:
        """Return the L1 scores, float32 [B,R], 0 to 1, of words [B,W] and [R,W] (the paper's equation 2).

        The index of the references' words, about 4 kB each, is kept: the next block of queries may have the same ones.
        """
        if self._indexed is not references:
            self._indexed, self._index = references, InvertedIndex(references)
        scores = np.empty((len(queries), len(references)), np.float32)
        for row, query in zip(scores, queries, strict=True):
            row[:] = self._index.scores(query)
        return scores
