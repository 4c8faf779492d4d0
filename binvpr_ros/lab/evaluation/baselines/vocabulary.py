# SPDX-License-Identifier: Apache-2.0
"""ORB features, the vocabulary of words that they are quantised to, and the index that finds images by their words.

The scheme of Galvez-Lopez and Tardos, "Bags of Binary Words for Fast Place Recognition in Image Sequences" (TRO 2012).
"""

from __future__ import annotations

import sys
from array import array
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.baselines.grey import grey
from binvpr_ros.lab.evaluation.datasets.dataset import Images
from binvpr_ros.lab.evaluation.methods import MethodError
from binvpr_ros.network.hamming import hamming

Features = NDArray[np.uint64]
"""uint64, [N,4]: the 256 bits of ORB features (Rublee et al., ICCV 2011)."""

Words = NDArray[np.void]
"""WORD, [W]: the different words of an image and their weights, which sum to 1. Padding has weight 0."""

WORD = np.dtype([("word", np.uint32), ("weight", np.float32)])

FEATURES = 500  # of an image, at most
LEAST_WIDTH = 320  # pixels; ORB's patch is 31 pixels wide, and smaller still on the upper of its 8 levels
BRANCHES = 10
DEPTH = 4
ROUNDS = 10  # of k-majority, at most
TRAINING_IMAGES = 2_000  # at most, spread evenly over those given
TRAINING_FEATURES = 100_000  # at most
SEED = 0

# OpenCV 4.5 has only the function, and OpenCV's stubs have only the class.
_ORB: Any = cv2.ORB_create(FEATURES)  # type: ignore[attr-defined]


class LocalFeatures(NamedTuple):
    """The N ORB features of an image, at most FEATURES."""

    points: NDArray[np.float32]  # [N,2], x and y in pixels of the image in which they were found
    descriptors: Features  # [N,4]


def orb_features(image: Image) -> LocalFeatures:
    """Return the ORB features of a uint8 image, [H,W,3] RGB or [H,W] grey; an image that is small is enlarged first."""
    pixels = grey(image)
    enlargement = LEAST_WIDTH / pixels.shape[1]
    if enlargement > 1:
        pixels = cv2.resize(pixels, None, fx=enlargement, fy=enlargement, interpolation=cv2.INTER_CUBIC)
    found, descriptors = _ORB.detectAndCompute(pixels, None)
    if descriptors is None:
        return LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 4), np.uint64))
    points = np.array([feature.pt for feature in found], np.float32)
    if len(points) > FEATURES:
        # ORB returns more than it is asked for where the last ones are equally strong. They are in the order of its
        # levels, all of which are kept.
        some = np.linspace(0, len(points) - 1, FEATURES).round().astype(int)
        points, descriptors = points[some], descriptors[some]
    return LocalFeatures(points, descriptors.view(np.uint64))


class Tree(NamedTuple):
    """A tree of binary centres whose leaves are words (section III)."""

    centres: NDArray[np.uint64]  # [nodes,10,4], of each node's children
    children: NDArray[np.int64]  # [nodes,10]: the child's node, or -1 - word where it is a leaf
    size: int  # words

    @classmethod
    def of_features(cls, features: Features, rng: np.random.Generator) -> Tree:
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

    def descend(self, features: Features) -> NDArray[np.int64]:
        """Return the node that each feature [N,4] reaches on each level, [N,DEPTH]: that of the nearest centre.

        From the level of its word on, a feature has -1 - word.
        """
        path = np.zeros((len(features), DEPTH), np.int64)
        node = np.zeros(len(features), np.int64)
        for level in range(DEPTH):
            inner = np.flatnonzero(node >= 0)
            at = node[inner]
            nearest = hamming(self.centres[at], features[inner, np.newaxis]).argmin(axis=1)
            node[inner] = self.children[at, nearest]
            path[:, level] = node
        return path

    def words(self, features: Features) -> NDArray[np.int64]:
        """Return the word [N] of each feature [N,4]."""
        return -1 - self.descend(features)[:, -1]


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


class Vocabulary(NamedTuple):
    """The words of a tree, and how rare each is (section III)."""

    tree: Tree
    rarity: NDArray[np.float32]  # [words]: the inverse document frequency, log(images / images that show the word)

    @classmethod
    def of_images(cls, images: Images) -> Vocabulary:
        """Return the vocabulary of images, of which TRAINING_IMAGES at most are looked at.

        The same images give the same vocabulary. Raises MethodError where they have no features.
        """
        rng = np.random.default_rng(SEED)
        chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), TRAINING_IMAGES)).round().astype(int))
        of_images = [
            orb_features(images[index]).descriptors
            for index in tqdm(chosen.tolist(), desc="ORB features", unit="image", file=sys.stderr, leave=False)
        ]
        features = np.concatenate(of_images)
        if not len(features):
            raise MethodError("a vocabulary cannot be made of images without ORB features; use images with more detail")
        if len(features) > TRAINING_FEATURES:
            features = features[rng.choice(len(features), TRAINING_FEATURES, replace=False)]
        tree = Tree.of_features(features, rng)
        shown_by = np.zeros(tree.size)
        for descriptors in of_images:
            shown_by[np.unique(tree.words(descriptors))] += 1
        # A word that no image shows, because its feature was not drawn, has no weight.
        return cls(tree, np.log(len(of_images) / np.where(shown_by, shown_by, len(of_images))).astype(np.float32))

    def weigh(self, words: NDArray[np.int64]) -> Words:
        """Return the tf-idf weights [W] of an image from the word [N] of each of its features; words ascend."""
        different, counts = np.unique(words, return_counts=True)
        weights = counts.astype(np.float32) * self.rarity[different]
        shown = weights > 0
        weighed = np.empty(np.count_nonzero(shown), WORD)
        weighed["word"] = different[shown]
        weighed["weight"] = weights[shown] / weights.sum() if shown.any() else 0
        return weighed


class InvertedIndex:
    """Which images show each word, and with what weight (section IV). Images are numbered as they are added, from 0."""

    def __init__(self, images: Iterable[Words] = ()) -> None:
        self._images: defaultdict[int, array[int]] = defaultdict(lambda: array("i"))  # by word
        self._weights: defaultdict[int, array[float]] = defaultdict(lambda: array("f"))  # in the same order
        self._count = 0
        for words in images:
            self.add(words)

    def add(self, words: Words) -> None:
        """Add an image by its words."""
        for word, weight in words[words["weight"] > 0].tolist():
            self._images[word].append(self._count)
            self._weights[word].append(weight)
        self._count += 1

    def scores(self, words: Words) -> NDArray[np.float32]:
        """Return the L1 score [images], 0 to 1, of an image's words with each image of the index (equation 2).

        For weights that sum to 1 the score 1 - |v - w| / 2 is the sum of min(v, w), to which only the words that both
        show contribute.
        """
        shared = [(word, weight) for word, weight in words.tolist() if weight > 0 and word in self._images]
        if not shared:
            return np.zeros(self._count, np.float32)
        images = [np.frombuffer(self._images[word], np.int32) for word, _ in shared]
        smaller = [np.minimum(np.frombuffer(self._weights[word], np.float32), weight) for word, weight in shared]
        scores = np.bincount(np.concatenate(images), np.concatenate(smaller), self._count)
        return scores.astype(np.float32)
