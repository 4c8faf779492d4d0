# SPDX-License-Identifier: Apache-2.0
"""DBoW2's own loop detection, which a user would run instead of this package's node.

The scheme of Galvez-Lopez and Tardos, "Bags of Binary Words for Fast Place Recognition in Image Sequences" (TRO 2012),
with the default parameters of its authors' DLoopDetector (those for images at 1 Hz, whatever the drive's rate), and the
direct index level of its demo.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.baselines.vocabulary import (
    FEATURES,
    WORD,
    InvertedIndex,
    LocalFeatures,
    Vocabulary,
    Words,
    orb_features,
)
from binvpr_ros.lab.evaluation.datasets.dataset import Images

MOST_RESULTS = 50  # images with the highest scores that a query looks at
ALPHA = 0.3  # least normalised score
LEAST_ETA = 0.005  # of the score with the image before, by which scores are normalised
INTRAGROUP_GAP = 3  # images; matches this far apart or farther belong to different islands
GROUP_DISTANCE = 3  # images, at most, between the islands of consecutive queries
QUERY_DISTANCE = 2  # images, at most, between consecutive queries
CONSISTENT_MATCHES = 3  # k: earlier queries in a row with consistent islands
DIRECT_INDEX_LEVEL = 2  # above the leaves
NEIGHBOUR_RATIO = 0.6  # at most, of the distances to the nearest and the second nearest feature
FEWEST_INLIERS = 12
MOST_ITERATIONS = 500
EPIPOLAR_PIXELS = 2.0
SEED = 0

_ITERATIONS_AT_ONCE = 50

Points = NDArray[np.float32]
"""float32, [N,2]: x and y in pixels."""


class Loop(NamedTuple):
    """A detected loop."""

    match: int  # number of the earlier image; images count from 0
    inliers: int  # matches of features that obey one fundamental matrix


class Detections(NamedTuple):
    """The loops of a drive of N images."""

    pairs: NDArray[np.int64]  # [C,2]: number of the image, and of the earlier image that it matches
    inliers: NDArray[np.int64]  # [C]
    milliseconds: NDArray[np.float64]  # [N]: time to describe, look up, check and store each image


class Island(NamedTuple):
    """A group of matches near each other in the drive (section V-B)."""

    first: int
    last: int
    score: float  # sum of the scores of its matches
    best: int  # image with the highest score


class Entry(NamedTuple):
    """What the database keeps of an image for verification; `nodes` is the direct index (section IV)."""

    features: LocalFeatures
    nodes: NDArray[np.int64]  # [N]: node of each feature at DIRECT_INDEX_LEVEL


class TemporalWindow:
    """The queries in a row whose islands are consistent (section V-C)."""

    def __init__(self) -> None:
        self._last: tuple[int, Island] | None = None
        self._earlier = 0

    def add(self, query: int, island: Island) -> int:
        """Add a query by its number and its island; return how many queries in a row before it are consistent."""
        if self._last is not None and (
            query - self._last[0] <= QUERY_DISTANCE and distance(island, self._last[1]) <= GROUP_DISTANCE
        ):
            self._earlier += 1
        else:
            self._earlier = 0
        self._last = query, island
        return self._earlier


class LoopDetector:
    """DLoopDetector: finds the earlier image of a drive that shows the place of the newest.

    It differs from DLoopDetector in three ways. Images are excluded by their age rather than their number. The words
    come from the given vocabulary, far smaller than the published one of a million words. The fundamental matrix has
    rank 2 and nothing else imposed on it, where DVision also makes its two singular values equal, and tries fewer
    samples when there are few matches.
    """

    name = "dbow2"
    descriptor_bits = FEATURES * WORD.itemsize * 8  # the words; the features kept for verification come on top

    def __init__(self, vocabulary: Vocabulary, exclusion_time: float) -> None:
        """Start without images; an image cannot match those of the last `exclusion_time` seconds."""
        self._vocabulary = vocabulary
        self._exclusion = round(exclusion_time * 1e9)
        self._index = InvertedIndex()
        self._entries: list[Entry] = []
        self._stamps: list[int] = []
        self._window = TemporalWindow()
        self._rng = np.random.default_rng(SEED)

    def process(self, image: Image, stamp: int) -> Loop | None:
        """Return the loop that a uint8 image, [H,W,3] RGB or [H,W] grey, closes, and add the image to the database.

        Stamps are in nanoseconds and ascend.
        """
        features = orb_features(image)
        path = self._vocabulary.tree.descend(features.descriptors)
        words = self._vocabulary.weigh(-1 - path[:, -1])
        entry = Entry(features, path[:, -1 - DIRECT_INDEX_LEVEL])
        loop = None
        island = self._best_island(words, stamp)
        if island is not None and self._window.add(len(self._entries), island) >= CONSISTENT_MATCHES:
            inliers = self._verify(entry, self._entries[island.best])
            loop = Loop(island.best, inliers) if inliers else None
        self._index.add(words)
        self._entries.append(entry)
        self._stamps.append(stamp)
        return loop

    def _best_island(self, words: Words, stamp: int) -> Island | None:
        """Return the island with the highest score among images that are old enough."""
        scores = self._index.scores(words)
        old_enough = bisect_right(self._stamps, stamp - self._exclusion)
        if not old_enough:
            return None
        matches = normalised_matches(scores[:old_enough], eta=float(scores[-1]))
        return max(islands(matches, scores[matches]), key=lambda island: island.score, default=None)

    def _verify(self, query: Entry, match: Entry) -> int:
        """Return how many matches of features obey one fundamental matrix, or 0 where fewer than 12 do (V-D)."""
        ours, theirs = direct_index_matches(query, match)
        return epipolar_inliers(match.features.points[theirs], query.features.points[ours], self._rng)


def detect(images: Images, stamps: Sequence[int], exclusion_time: float) -> Detections:
    """Return the loops of a drive: images, uint8, [H,W,3] RGB or [H,W] grey, with ascending stamps in nanoseconds.

    An image cannot match those of the last `exclusion_time` seconds. The vocabulary is made of the drive's own images,
    which is in the method's favour, and is not counted in the times: the published one, with a million words, is too
    large to ship. Raises MethodError where no image has a feature.
    """
    detector = LoopDetector(Vocabulary.of_images(images), exclusion_time)
    pairs, inliers = [], []
    milliseconds = np.empty(len(images))
    progress = tqdm(images, desc=detector.name, unit="image", leave=False, file=sys.stderr)
    for number, (image, stamp) in enumerate(zip(progress, stamps, strict=True)):
        start = time.perf_counter()
        loop = detector.process(image, int(stamp))
        milliseconds[number] = (time.perf_counter() - start) * 1e3
        if loop is not None:
            pairs.append((number, loop.match))
            inliers.append(loop.inliers)
    return Detections(np.array(pairs, np.int64).reshape(-1, 2), np.array(inliers, np.int64), milliseconds)


def normalised_matches(scores: NDArray[np.float32], eta: float) -> NDArray[np.intp]:
    """Return the images, in order, that match a query by its `scores` [K] (section V-A).

    Of the MOST_RESULTS best they are those whose score is at least ALPHA when divided by `eta`, the query's score with
    the image before it. None match where `eta` is below LEAST_ETA: the image before shows too little of the same.
    """
    if eta < LEAST_ETA:
        return np.empty(0, np.intp)
    best = np.argsort(-scores, kind="stable")[:MOST_RESULTS]
    return np.sort(best[scores[best] >= ALPHA * eta])


def islands(images: NDArray[np.intp], scores: NDArray[np.float32]) -> list[Island]:
    """Return the islands of matches with ascending numbers `images` [M] and their `scores` [M] (section V-B)."""
    ends = np.flatnonzero(np.diff(images) >= INTRAGROUP_GAP) + 1
    parts = zip(np.split(images, ends), np.split(scores, ends), strict=True)
    return [
        Island(int(some[0]), int(some[-1]), float(theirs.sum()), int(some[theirs.argmax()]))
        for some, theirs in parts
        if some.size
    ]


def distance(island: Island, other: Island) -> int:
    """Return how many images apart two islands are; 0 or less where they overlap."""
    return max(island.first - other.last, other.first - island.last)


def direct_index_matches(query: Entry, match: Entry) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which features [M] of the query match which [M] of the other image, compared only within one node.

    A feature of the match takes the nearest of the query's where the second nearest is clearly farther; of several that
    take the same, the nearest keeps it.
    """
    if min(len(query.nodes), len(match.nodes)) < FEWEST_INLIERS:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    of_match, of_query = (entry.features.descriptors.view(np.uint8) for entry in (match, query))
    same_node = (match.nodes[:, np.newaxis] == query.nodes).astype(np.uint8)
    # A neighbour that the node does not have is at a distance of 2**31 - 1, with the index -1.
    distances, nearest = cv2.batchDistance(
        of_match, of_query, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=2, mask=same_node
    )
    first, second = distances.T.astype(np.int64)
    # Of two that are equal to the feature, neither is clearly nearer.
    theirs = np.flatnonzero((nearest[:, 0] >= 0) & (first <= NEIGHBOUR_RATIO * second) & (second > 0))
    theirs = theirs[np.argsort(first[theirs], kind="stable")]
    ours, kept = np.unique(nearest[theirs, 0].astype(np.intp), return_index=True)
    return ours, theirs[kept]


def epipolar_inliers(points: Points, others: Points, rng: np.random.Generator) -> int:
    """Return how many `points` [M,2] are near the epipolar lines of their matches, `others` [M,2], in pixels.

    RANSAC with fundamental matrices from 8 matches (the normalised eight-point algorithm: Hartley, TPAMI 1997); the
    search ends when FEWEST_INLIERS are found. 0 where fewer are.
    """
    count = len(points)
    if count < FEWEST_INLIERS:
        return 0
    these, scale = _normalised(points)
    those, _ = _normalised(others)
    equations = (these[:, :, np.newaxis] * those[:, np.newaxis]).reshape(count, 9)
    for _ in range(MOST_ITERATIONS // _ITERATIONS_AT_ONCE):
        samples = rng.random((_ITERATIONS_AT_ONCE, count)).argsort(axis=1)[:, :8]
        matrices = np.linalg.svd(equations[samples])[2][:, 8].reshape(-1, 3, 3)
        left, values, right = np.linalg.svd(matrices)
        values[:, 2] = 0
        lines = (left * values[:, np.newaxis]) @ right @ those.T  # [I,3,M]
        distances = np.abs((these.T * lines).sum(axis=1))  # not yet divided by the lengths of the lines' normals
        near = distances <= EPIPOLAR_PIXELS * scale * np.linalg.norm(lines[:, :2], axis=1)
        inliers = int(near.sum(axis=1).max())
        if inliers >= FEWEST_INLIERS:
            return inliers
    return 0


def _normalised(points: Points) -> tuple[NDArray[np.float64], float]:
    """Return points [M,2] as homogeneous coordinates [M,3] with mean 0 and deviation 1, and the scale."""
    centred = points.astype(np.float64) - points.mean(axis=0)
    scale = 1 / max(float(centred.std()), 1e-9)
    return np.column_stack([centred * scale, np.ones(len(points))]), scale
