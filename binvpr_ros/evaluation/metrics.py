# SPDX-License-Identifier: Apache-2.0
"""How well similarities tell places: Recall@N, and precision and recall over the score of the best match.

A query that has a true reference among its candidates is *answerable*. Recall counts answerable queries alone: it is
the share of them whose match is right, so the curve of a method ends at its Recall@1, and the area under it is at most
that. (Curves whose recall counts right matches alone end at 1, however few they are.) Precision counts every query that
has candidates: a match given to one that shows a new place is false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """The best match of each query that has candidates, and the rank of its best true reference."""

    queries: NDArray[np.int64]  # [M], indices of the queries that have candidates
    matches: NDArray[np.int64]  # [M], the most similar candidate; the first of equals
    scores: NDArray[np.float64]  # [M], its similarity
    correct: NDArray[np.bool_]  # [M]
    ranks: NDArray[np.int64]  # [M], how many candidates come before the best true one; -1: there is no true one

    @classmethod
    def of_similarities(
        cls, similarities: NDArray[np.floating], truth: NDArray[np.bool_], candidates: NDArray[np.bool_]
    ) -> Retrieval:
        """Match each query of similarities [Q,R] with its candidates [Q,R]; `truth` [Q,R] lies within these."""
        if similarities.shape != truth.shape or candidates.shape != truth.shape:
            raise ValueError(f"similarities {similarities.shape}, truth {truth.shape} and candidates differ in shape")
        if np.isnan(similarities).any():
            raise ValueError("some similarities are not a number")
        queries = np.flatnonzero(candidates.any(axis=1))
        matches, ranks = np.empty(len(queries), np.int64), np.full(len(queries), -1, np.int64)
        scores, correct = np.empty(len(queries)), np.zeros(len(queries), bool)
        for place, query in enumerate(queries):
            row = np.where(candidates[query], similarities[query], -np.inf)
            matches[place] = row.argmax()
            scores[place] = row[matches[place]]
            true = np.flatnonzero(truth[query] & candidates[query])
            if not len(true):
                continue
            correct[place] = truth[query, matches[place]]
            best = true[row[true].argmax()]
            ranks[place] = (row > row[best]).sum() + (row[:best] == row[best]).sum()
        return cls(queries, matches, scores, correct, ranks)

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
