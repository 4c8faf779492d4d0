# SPDX-License-Identifier: Apache-2.0
"""Bag of words: which words of a vocabulary of ORB features an image shows, and how often."""

from __future__ import annotations

import sys
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.descriptor import Image, hamming
from binvpr_ros.evaluation.baselines.grey import grey
from binvpr_ros.evaluation.datasets.dataset import Images
from binvpr_ros.evaluation.methods import FLOAT_BITS, Method, MethodError, Similarities

Features = NDArray[np.uint64]
"""uint64, [N,4]: the 256 bits of ORB features (Rublee et al., ICCV 2011)."""

BRANCHES = 10
DEPTH = 4
ROUNDS = 10  # of k-majority, at most


class Vocabulary(NamedTuple):
    """A tree of binary centres whose leaves are words (Galvez-Lopez and Tardos, TRO 2012, section III)."""

    centres: NDArray[np.uint64]  # [nodes,10,4], of each node's children
    children: NDArray[np.int64]  # [nodes,10]: the child's node, or -1 - word where it is a leaf
    size: int  # words

    @classmethod
    def of_features(cls, features: Features, rng: np.random.Generator) -> Vocabulary:
        """Return the tree of at least one feature [N,4], made by k-majority on each level in turn."""
        centres: list[Features] = []
        children: list[NDArray[np.int64]] = []
        words = 0
        level = [features]  # of the nodes that are to come, in the order of their numbers
        for depth in range(1, DEPTH + 1):
            last_of_level = len(centres) + len(level)
            below: list[Features] = []
            for members in tqdm(level, desc=f"vocabulary, level {depth} of {DEPTH}", file=sys.stderr, leave=False):
                means, nearest = cluster(members, rng)
                row = np.empty(BRANCHES, np.int64)
                for branch in range(BRANCHES):
                    part = members[nearest == branch]
                    if depth < DEPTH and len(part) > 1:
                        row[branch] = last_of_level + len(below)
                        below.append(part)
                    else:
                        words += 1
                        row[branch] = -words
                centres.append(means)
                children.append(row)
            level = below
        return cls(np.stack(centres), np.stack(children), words)

    def words(self, features: Features) -> NDArray[np.int64]:
        """Return the word [N] of each feature [N,4]: on every level the nearest centre."""
        node = np.zeros(len(features), np.int64)
        for _ in range(DEPTH):
            inner = np.flatnonzero(node >= 0)
            at = node[inner]
            nearest = hamming(self.centres[at], features[inner, np.newaxis]).argmin(axis=1)
            node[inner] = self.children[at, nearest]
        return -1 - node


def cluster(features: Features, rng: np.random.Generator) -> tuple[Features, NDArray[np.intp]]:
    """Return 10 centres [10,4] of features [N,4], and for each feature the nearest.

    Seeds after k-means++ (Arthur and Vassilvitskii, SODA 2007), then rounds of k-majority: a centre's bits are those of
    most of its members. Where there are fewer than 10 different features the first centre is repeated; no feature is
    nearest to the copies.
    """
    centres = np.tile(features[rng.integers(len(features))], (BRANCHES, 1))
    squares = hamming(features, centres[0]).astype(np.float64) ** 2
    for branch in range(1, BRANCHES):
        if not squares.any():
            break
        centres[branch] = features[rng.choice(len(features), p=squares / squares.sum())]
        squares = np.minimum(squares, hamming(features, centres[branch]).astype(np.float64) ** 2)
    nearest = hamming(centres, features[:, np.newaxis]).argmin(axis=1)
    for _ in range(ROUNDS):
        for branch in np.unique(nearest):
            bits = np.unpackbits(features[nearest == branch].view(np.uint8), axis=1)
            centres[branch] = np.packbits(2 * bits.sum(axis=0) >= len(bits)).view(np.uint64)
        before, nearest = nearest, hamming(centres, features[:, np.newaxis]).argmin(axis=1)
        if (nearest == before).all():
            break
    return centres, nearest


class BagOfWords(Method):
    """DBoW2's way to compare images (Galvez-Lopez and Tardos, TRO 2012), its vocabulary trained on the references.

    500 ORB features an image, tf-idf weights, L1 score. The size that is stated is that of a sparse vector: for each
    feature the number of its word, 32 bits, and a weight, 32 bits.
    """

    name = "bow"
    FEATURES = 500  # of an image, at most
    TRAINING_FEATURES = 100_000  # at most
    LEAST_WIDTH = 320  # pixels; ORB's patch is 31 pixels wide, and smaller still on the upper of its 8 levels
    SEED = 0
    descriptor_bits = FEATURES * (32 + FLOAT_BITS)

    def __init__(self) -> None:
        self._orb = cv2.ORB.create(self.FEATURES)
        self._vocabulary: Vocabulary | None = None
        self._rarity = np.zeros(0, np.float32)

    def fit(self, references: Images) -> None:
        """Make the vocabulary of the references, and weigh each word by how few of them show it.

        Raises MethodError where no reference has a feature.
        """
        rng = np.random.default_rng(self.SEED)
        of_images = [
            self.features(image)
            for image in tqdm(references, desc="ORB features", unit="image", file=sys.stderr, leave=False)
        ]
        features = np.concatenate(of_images)
        if not len(features):
            raise MethodError("bow finds no ORB features in any reference; use images with more structure")
        if len(features) > self.TRAINING_FEATURES:
            features = features[rng.choice(len(features), self.TRAINING_FEATURES, replace=False)]
        self._vocabulary = Vocabulary.of_features(features, rng)
        shown_by = np.zeros(self._vocabulary.size)
        for one in of_images:
            shown_by[np.unique(self._vocabulary.words(one))] += 1
        # Words that no reference shows, because its feature was not drawn, cannot match.
        self._rarity = np.log(len(of_images) / np.where(shown_by, shown_by, len(of_images))).astype(np.float32)

    def describe(self, image: Image) -> NDArray[np.float32]:
        """Return the tf-idf weights [words] float32 of a uint8 image, [H,W,3] RGB or [H,W] grey; they sum to 1.

        All are 0 where the image has no feature; raises MethodError before `fit`.
        """
        if self._vocabulary is None:
            raise MethodError("bow has no vocabulary yet; call fit with the references first")
        words = self._vocabulary.words(self.features(image))
        weights = np.bincount(words, minlength=self._vocabulary.size).astype(np.float32) * self._rarity
        return weights / max(weights.sum(), np.float32(1e-12))

    def similarities(self, queries: NDArray[np.float32], references: NDArray[np.float32]) -> Similarities:
        """Return the L1 scores [Q,R], 0 to 1, of weights [Q,words] and [R,words] (the paper's equation 2).

        For weights that sum to 1 the score 1 - |v - w| / 2 is the sum of min(v, w), to which only the words that both
        show contribute.
        """
        inverted = np.ascontiguousarray(references.T)
        scores = np.empty((len(queries), len(references)), np.float32)
        for row, query in zip(scores, queries, strict=True):
            shown = np.flatnonzero(query)
            row[:] = np.minimum(inverted[shown], query[shown, np.newaxis]).sum(axis=0)
        return scores

    def features(self, image: Image) -> Features:
        """Return the ORB features [N,4] of a uint8 image, [H,W,3] RGB or [H,W] grey, enlarged where it is small."""
        pixels = grey(image)
        enlargement = self.LEAST_WIDTH / pixels.shape[1]
        if enlargement > 1:
            pixels = cv2.resize(pixels, None, fx=enlargement, fy=enlargement, interpolation=cv2.INTER_CUBIC)
        _, descriptors = self._orb.detectAndCompute(pixels, None)
        return np.zeros((0, 4), np.uint64) if descriptors is None else descriptors.view(np.uint64)
