# SPDX-License-Identifier: Apache-2.0
"""Match sequences of images where single ones do not tell places apart: SeqSLAM, and what the node does."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.config import Config
from binvpr_ros.evaluation.methods import Similarities
from binvpr_ros.sequence import SequenceMatcher

WINDOW = 10  # references around each, over which contrast is made even
SPEEDS = np.linspace(0.8, 1.25, 10)  # references a query


def match_sequences(similarities: Similarities, candidates: NDArray[np.bool_] | None, length: int) -> Similarities:
    """Return how similar the sequence of queries that ends at each query is to one that ends at each reference.

    After SeqSLAM (Milford and Wyeth, ICRA 2012, section III), over `similarities` [Q,R] of any kind, where both queries
    and references are in the order of their time. Along the references the contrast is made even: what counts is by how
    many deviations a reference stands out from its neighbours. The result float32 [Q,R] is the mean of that over the
    last `length` queries (1 or more), along the best straight line that ends there, at 0.8 to 1.25 references a query.

    It differs from the paper in three ways. A line ends at its query and does not surround it, since a robot does not
    know what comes. Lines run backwards too: a camera that is panned, carried to and fro or looks sideways sees a place
    again in the other order. And `candidates` bool [Q,R] (None: all) limit the matches: the result is -inf for all
    others. Where a line to a candidate passes others, or leaves the matrix, they count as 0, the value of an average
    reference: they speak neither for nor against. The first `length` - 1 queries thus score low: they have less
    evidence.

    Raises ValueError where `length` is less than 1.
    """
    if length < 1:
        raise ValueError(f"the sequence length is {length}; give 1 or more")
    if candidates is None:
        candidates = np.ones(similarities.shape, np.bool_)
    evidence = _even_contrast(similarities, candidates)
    queries, references = evidence.shape
    reach = _round(SPEEDS[-1] * (length - 1))
    padded = np.pad(evidence, ((length - 1, 0), (reach, reach)))
    best = np.full(evidence.shape, -np.inf, np.float32)
    # Lines of speeds that are close pass the same references.
    lines = {tuple(_round(sign * speed * step) for step in range(length)) for speed in SPEEDS for sign in (1, -1)}
    for line in tqdm(lines, desc="sequences", unit="line", leave=False, file=sys.stderr):
        total = np.zeros_like(best)
        for step, moved in enumerate(line):
            row, column = length - 1 - step, reach - moved
            total += padded[row : row + queries, column : column + references]
        np.maximum(best, total, out=best)
    return np.where(candidates, best / np.float32(length), np.float32(-np.inf))


def follow_sequences(similarities: Similarities, candidates: NDArray[np.bool_], keyframes: int) -> Similarities:
    """Return how similar the sequence that ends at each query is to the references [Q,R], with `sequence_keyframes`.

    As the node does it, where every image is a keyframe, and with its usual `confirmation_window`. What is no
    candidate [Q,R] is the query's present.
    """
    matcher, reach = SequenceMatcher(), Config.confirmation_window
    ids = np.arange(similarities.shape[1], dtype=np.int32)
    rows = zip(similarities, ~candidates, strict=True)
    return np.stack([1 - matcher.follow(1 - row, ids, present, keyframes, reach) for row, present in rows])


def _round(value: float) -> int:
    return int(np.sign(value)) * int(abs(value) + 0.5)


def _even_contrast(similarities: Similarities, candidates: NDArray[np.bool_]) -> Similarities:
    """Return similarities [Q,R] less the mean, over the deviation, of the candidates near each; 0 where it is none."""
    # A query's own mean taken off before keeps the sums of squares exact.
    count = np.maximum(candidates.sum(axis=1, keepdims=True), 1)
    values = np.where(candidates, similarities, 0).astype(np.float64)
    values = np.where(candidates, values - values.sum(axis=1, keepdims=True) / count, 0)
    number = np.maximum(_window_sums(candidates.astype(np.float64)), 1)
    mean = _window_sums(values) / number
    variance = np.maximum(_window_sums(values**2) / number - mean**2, 0)
    # Where all are alike, rounding is all that differs.
    floor = 1e-6 * np.abs(values).max(initial=0) + 1e-12
    even = (values - mean) / np.maximum(np.sqrt(variance), floor)
    return np.where(candidates, even, 0).astype(np.float32)


def _window_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each entry of rows [Q,R] the sum of those at most half a window away."""
    half = WINDOW // 2
    sums = np.pad(values, ((0, 0), (half + 1, half))).cumsum(axis=1)
    return sums[:, 2 * half + 1 :] - sums[:, : -2 * half - 1]
