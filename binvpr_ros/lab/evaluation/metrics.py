# SPDX-License-Identifier: Apache-2.0
"""How well similarities tell places: Recall@N, and precision and recall over the score of the best match.

A query that has a true reference among its candidates is *answerable*. Recall counts answerable queries alone: it is
the share of them whose match is right, so the curve of a method ends at its Recall@1, and the area under it is at most
that. (Curves whose recall counts right matches alone end at 1, however few they are.) Precision counts every query that
has candidates: a match given to one that shows a new place is false.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.truth import Truth
from binvpr_ros.lab.evaluation.similarities import Similarities


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall [T] for thresholds [T] on the score, from the strictest to the loosest."""

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @classmethod
    def of_matches(cls, scores: NDArray[np.floating], correct: NDArray[np.bool_], answerable: int) -> PrecisionRecall:
        """Make the curve of one match a query, from scores [Q], which are `correct` [Q], and the `answerable` queries.

        Matches of equal score are accepted together: no threshold separates them.
        """
        order = np.argsort(-scores, kind="stable")
        scores, true = scores[order].astype(np.float64), np.cumsum(correct[order])
        last_of_equals = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(scores) else np.empty(0, int)
        accepted = last_of_equals + 1
        true = true[last_of_equals]
        return cls(scores[last_of_equals], true / accepted, true / max(answerable, 1))

    def area(self) -> float:
        """Return the area under the curve as a sum of steps: the mean of the precisions at which recall is gained."""
        return float((np.diff(self.recall, prepend=0.0) * self.precision).sum())

    def recall_at_precision(self, precision: float) -> float:
        """Return the highest recall at which the precision is at least `precision`; 0 where it never is."""
        return float(self.recall[self.precision >= precision].max(initial=0.0))

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean [T] of precision and recall."""
        both = self.precision + self.recall
        means: NDArray[np.float64] = 2 * self.precision * self.recall / np.maximum(both, 1e-12)
        return means


@dataclass(frozen=True)
class Retrieval:
    """The best match of each query that has candidates, its best true reference, and the rank of that."""

    queries: NDArray[np.int64]  # [M], indices of the queries that have candidates
    matches: NDArray[np.int64]  # [M], the most similar candidate; the first of equals
    scores: NDArray[np.float64]  # [M], its similarity
    correct: NDArray[np.bool_]  # [M]
    ranks: NDArray[np.int64]  # [M], how many candidates come before the best true one; -1: there is no true one
    right: NDArray[np.int64]  # [M], the best true candidate; -1: there is none
    right_scores: NDArray[np.float64]  # [M], its similarity; -inf: there is none

    @classmethod
    def of_similarities(cls, similarities: Similarities, truth: Truth, candidates: NDArray[np.int64]) -> Retrieval:
        """Match each query of similarities [Q,R] with the first `candidates` [Q] references."""
        if similarities.shape != truth.shape or len(candidates) != truth.shape[0]:
            raise ValueError(f"similarities {similarities.shape}, truth {truth.shape} and candidates differ in shape")
        parts = [
            cls._of_block(start, rows, truth.rows(start, start + len(rows)), candidates[start : start + len(rows)])
            for start, rows in similarities.blocks()
        ]
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    @staticmethod
    def _of_block(
        start: int, rows: NDArray[np.float32], true: NDArray[np.bool_], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[Any], ...]:
        """Return the fields of the queries from `start` on, of similarities [B,R]."""
        if np.isnan(rows).any():
            raise ValueError("some similarities are not a number")
        last = int(candidates.max(initial=0))
        rows, true = rows[:, :last], true[:, :last]
        places = np.arange(last)
        allowed = places < candidates[:, None]
        some = np.flatnonzero(candidates)
        values = np.where(allowed, rows, -np.inf)[some]
        true = (true & allowed)[some]
        matches = values.argmax(axis=1) if len(some) else np.empty(0, np.int64)
        numbers = np.arange(len(some))
        of_true = np.where(true, values, -np.inf)
        right = of_true.argmax(axis=1) if len(some) else np.empty(0, np.int64)
        best = of_true[numbers, right] if len(some) else np.empty(0)
        answerable = true.any(axis=1)
        before = (values > best[:, None]) | ((values == best[:, None]) & (places < right[:, None]))
        return (
            start + some,
            matches,
            values[numbers, matches].astype(np.float64),
            true[numbers, matches],
            np.where(answerable, before.sum(axis=1), -1),
            np.where(answerable, right, -1),
            best.astype(np.float64),
        )

    @property
    def answerable(self) -> int:
        """Return the number of queries that have a true reference among their candidates."""
        return int((self.ranks >= 0).sum())

    def recall_at(self, n: int) -> float:
        """Return Recall@N: the share of the answerable queries with a true reference among the `n` most similar."""
        return float(((self.ranks >= 0) & (self.ranks < n)).sum() / max(self.answerable, 1))

    def precision_recall(self) -> PrecisionRecall:
        """Return the curve over the score of the best match."""
        return PrecisionRecall.of_matches(self.scores, self.correct, self.answerable)

    def figures(self, recalls: Sequence[int] = (1, 5, 10)) -> dict[str, float | None]:
        """Return what `evaluate` reports, by name: shares between 0 and 1, or None where no query is answerable."""
        curve = self.precision_recall()
        figures = {
            **{f"recall_at_{n}": self.recall_at(n) for n in recalls},
            "auc_pr": curve.area(),
            "recall_at_100_precision": curve.recall_at_precision(1.0),
            "recall_at_99_precision": curve.recall_at_precision(0.99),
            "f1_max": float(curve.f1.max(initial=0.0)),
        }
        return {name: value if self.answerable else None for name, value in figures.items()}


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """Return the rate that `events` in independent `trials` do not exceed with this confidence.

    The one-sided bound of Clopper and Pearson (Biometrika 1934); 1 where there were no trials.
    """
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        logs = [
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            + k * math.log(rate) + (trials - k) * math.log1p(-rate)
            for k in range(events + 1)
        ]  # fmt: skip
        if sum(map(math.exp, logs)) > 1 - confidence:
            low = rate
        else:
            high = rate
    return high
