# SPDX-License-Identifier: Apache-2.0
"""What local features add to a descriptor on pairs of images: how well they verify, and what they re-rank."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from binvpr_ros.lab.evaluation.datasets.dataset import Dataset
from binvpr_ros.lab.evaluation.image_features import ImageFeatures
from binvpr_ros.lab.evaluation.metrics import PrecisionRecall
from binvpr_ros.lab.evaluation.similarities import Similarities
from binvpr_ros.local_features.features import POSITION_STEPS, Features
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.kinds import LocalFeatures
from binvpr_ros.local_features.matching import nearest_two

MOST_TRUE = 10
"""True references of a query that are verified: those that are most similar by the descriptor."""
RERANKED = 20
"""References of a query that are put in a new order: those that are most similar by the descriptor."""
ALIKE = 80 / 256
"""Share of the bits beyond which features are not alike."""
DISPLACEMENT = 400 / 256
"""Share of the bits that differs more for a feature that moved by a side of the image; it goes by the square."""
SEED = 0


class LocalVerification(NamedTuple):
    """What local features say of the pairs of a data set."""

    above_apart: float | None  # None: there is nothing to compare with
    reranked_recall_at_1: float
    reranked_recall_at_100_precision: float

    def figures(self) -> dict[str, float]:
        """Return what `evaluate` reports, by name."""
        above = {} if self.above_apart is None else {"verified_above_apart": self.above_apart}
        return above | {name: value for name, value in self._asdict().items() if name != "above_apart"}


def verify_locally(dataset: Dataset, similarities: Similarities, kind: LocalFeatures) -> LocalVerification:
    """Return what local features of a `kind` say of a data set's pairs, given the descriptor's similarities [Q,R]."""
    evidence = _Evidence(dataset, kind)
    return LocalVerification(_above_apart(dataset, similarities, evidence), *_reranked(dataset, similarities, evidence))


class _Evidence:
    """What local features say of a query and a reference; those of an image are found once, as is a pair's evidence."""

    def __init__(self, dataset: Dataset, kind: LocalFeatures) -> None:
        self._queries, self._references = ImageFeatures(dataset.queries), ImageFeatures(dataset.references)
        self._kind = kind
        self._known: dict[tuple[int, int], float] = {}

    def likeness(self, query: int, reference: int) -> float:
        """Return how alike the two are."""
        return likeness(self._queries(query, self._kind), self._references(reference, self._kind))

    def __call__(self, query: int, reference: int) -> float:
        if (query, reference) not in self._known:
            found = verify(self._queries(query, self._kind), self._references(reference, self._kind))
            self._known[query, reference] = found.evidence
        return self._known[query, reference]


def likeness(query: Features, match: Features) -> float:
    """Return how alike two images are by their local features: 0 to 1, less where what is alike has moved.

    It is the mean over the query's features of how near the nearest of the match's is: 1 for the same at the same
    place, 0 beyond ALIKE. Unlike evidence it takes no geometry and no clear matches, so it also orders what does
    not verify.
    """
    if not len(query.descriptors) or not len(match.descriptors) or query.tag != match.tag:
        return 0.0
    found = nearest_two(query.descriptors, match.descriptors)
    moved = (query.positions - match.positions[found.nearest].astype(np.float64)) / POSITION_STEPS
    differing = found.distance / (8 * query.descriptors.shape[1]) + DISPLACEMENT * np.square(moved).sum(axis=1)
    return float(np.maximum(1 - differing / ALIKE, 0).mean())


def _reranked(dataset: Dataset, similarities: Similarities, evidence: _Evidence) -> tuple[float, float]:
    """Return recall at 1, and recall at 100% precision, where likeness orders the most similar references.

    Precision is that of the first of them by its evidence. Of several as alike, as where the query has no features, the
    more similar comes first.
    """
    scores, correct = np.zeros(len(dataset.queries)), np.zeros(len(dataset.queries), bool)
    queries = range(len(dataset.queries))
    for query in tqdm(queries, desc=f"re-rank {dataset.name}", unit="query", leave=False, file=sys.stderr):
        nearest = np.argsort(-similarities.rows(query, query + 1)[0], kind="stable")[:RERANKED]
        best = int(nearest[np.argmax([evidence.likeness(query, int(reference)) for reference in nearest])])
        scores[query], correct[query] = evidence(query, best), best in dataset.truth.of(query)
    answerable = int(dataset.truth.answerable.sum())
    curve = PrecisionRecall.of_matches(scores, correct, answerable)
    return float(correct.sum() / max(answerable, 1)), curve.recall_at_precision(1.0)


def _above_apart(dataset: Dataset, similarities: Similarities, evidence: _Evidence) -> float | None:
    """Return the share of queries whose best true pair has more evidence than every pair that shows different places.

    Those are two for each query, the one that is most similar by the descriptor (`similarities` [Q,R]) and one by
    chance; what lies just beyond a query's place is left out. None where no query has a true reference, or where no
    reference is of another place.
    """
    rng = np.random.default_rng(SEED)
    of_true, of_apart = [], []
    progress = tqdm(
        range(len(dataset.queries)), desc=f"verify {dataset.name}", unit="query", leave=False, file=sys.stderr
    )
    for query in progress:
        row = similarities.rows(query, query + 1)[0]
        true = dataset.truth.of(query)
        if len(true):
            nearest = true[np.argsort(-row[true], kind="stable")[:MOST_TRUE]]
            of_true.append(max(evidence(query, int(reference)) for reference in nearest))
        apart = np.flatnonzero(dataset.truth.apart(query))
        if len(apart):
            hardest = int(apart[row[apart].argmax()])
            of_apart += [evidence(query, reference) for reference in {hardest, int(rng.choice(apart))}]
    if not of_true or not of_apart:
        return None
    return float((np.array(of_true) > max(of_apart)).mean())
