# SPDX-License-Identifier: Apache-2.0
"""Match sequences of images where single ones do not tell places apart: SeqSLAM, and what the node does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.similarities import ComputedSimilarities, Similarities
from binvpr_ros.sequence import REACH, SequenceMatcher

WINDOW = 10  # references around each, over which contrast is made even
SPEEDS = np.linspace(0.8, 1.25, 10)  # references a query


def match_sequences(similarities: Similarities, candidates: NDArray[np.int64] | None, length: int) -> Similarities:
    """Return how similar the sequence of queries that ends at each query is to one that ends at each reference.

    After SeqSLAM (Milford and Wyeth, ICRA 2012, section III), over `similarities` [Q,R] of any kind, where both queries
    and references are in the order of their time. Along the references the contrast is made even: what counts is by how
    many deviations a reference stands out from its neighbours. The result [Q,R] is the mean of that over the last
    `length` queries (1 or more), along the best straight line that ends there, at 0.8 to 1.25 references a query.

    It differs from the paper in three ways. A line ends at its query and does not surround it, since a robot does not
    know what comes. Lines run backwards too: a camera that is panned, carried to and fro or looks sideways sees a place
    again in the other order. And only the first `candidates` [Q] references of each query (None: all) are matched: the
    result is -inf for all others. Where a line to a candidate passes others, or leaves the matrix, they count as 0, the
    value of an average reference: they speak neither for nor against. The first `length` - 1 queries thus score low:
    they have less evidence.

    Raises ValueError where `length` is less than 1.
    """
    if length < 1:
        raise ValueError(f"the sequence length is {length}; give 1 or more")
    queries, references = similarities.shape
    limits = np.full(queries, references, np.int64) if candidates is None else candidates
    reach = _round(SPEEDS[-1] * (length - 1))
    # Lines of speeds that are close pass the same references.
    lines = {tuple(_round(sign * speed * step) for step in range(length)) for speed in SPEEDS for sign in (1, -1)}

    def rows(start: int, stop: int) -> NDArray[np.float32]:
        first = max(start - length + 1, 0)
        allowed = np.arange(references) < limits[first:stop, None]
        evidence = _even_contrast(similarities.rows(first, stop), allowed)
        padded = np.pad(evidence, ((length - 1 - (start - first), 0), (reach, reach)))
        best = np.full((stop - start, references), -np.inf, np.float32)
        for line in lines:
            total = np.zeros_like(best)
            for step, moved in enumerate(line):
                row, column = length - 1 - step, reach - moved
                total += padded[row : row + len(best), column : column + references]
            np.maximum(best, total, out=best)
        return np.where(allowed[start - first :], best / np.float32(length), np.float32(-np.inf))

    return ComputedSimilarities(similarities.shape, rows)


class FollowedSimilarities(Similarities):
    """How similar the sequence that ends at each query is to the references [Q,R], with `sequence_keyframes`.

    As the node does it, where every image is a keyframe, and with its usual `confirmation_window`. What is beyond the
    first `candidates` [Q] references is the query's present.
    """

    def __init__(self, similarities: Similarities, candidates: NDArray[np.int64], keyframes: int) -> None:
        self.shape = similarities.shape
        self._similarities, self._candidates, self._keyframes = similarities, candidates, keyframes
        self._ids = np.arange(self.shape[1], dtype=np.int32)
        self._matcher, self._next = SequenceMatcher(), 0

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the similarities [B,R] of the queries from `start` to before `stop`; in order is fastest."""
        if start < self._next:
            self._matcher, self._next = SequenceMatcher(), 0
        for query in range(self._next, start):
            self._follow(query)
        return np.stack([self._follow(query) for query in range(start, stop)])

    def _follow(self, query: int) -> NDArray[np.float32]:
        present = self._ids >= self._candidates[query]
        distances = 1 - self._similarities.rows(query, query + 1)[0]
        self._next = query + 1
        return 1 - self._matcher.follow(distances, self._ids, present, self._keyframes, REACH)


def _round(value: float) -> int:
    return int(np.sign(value)) * int(abs(value) + 0.5)


def _even_contrast(similarities: NDArray[np.float32], candidates: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return similarities [Q,R] less the mean, over the deviation, of the candidates near each; 0 where it is none."""
    # A query's own mean taken off before keeps the sums of squares exact.
    count = np.maximum(candidates.sum(axis=1, keepdims=True), 1)
    values = np.where(candidates, similarities, 0).astype(np.float64)
    values = np.where(candidates, values - values.sum(axis=1, keepdims=True) / count, 0)
    number = np.maximum(_window_sums(candidates.astype(np.float64)), 1)
    mean = _window_sums(values) / number
    variance = np.maximum(_window_sums(values**2) / number - mean**2, 0)
    # Where all are alike, rounding is all that differs.
    floor = 1e-6 * np.abs(values).max(axis=1, keepdims=True, initial=0) + 1e-12
    even = (values - mean) / np.maximum(np.sqrt(variance), floor)
    return np.where(candidates, even, 0).astype(np.float32)


def _window_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each entry of rows [Q,R] the sum of those at most half a window away."""
    half = WINDOW // 2
    sums = np.pad(values, ((0, 0), (half + 1, half))).cumsum(axis=1)
    return sums[:, 2 * half + 1 :] - sums[:, : -2 * half - 1]
