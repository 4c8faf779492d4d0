# SPDX-License-Identifier: Apache-2.0
"""How well local features tell pairs of images that show one place from those that do not, without any threshold."""

from __future__ import annotations

import sys

import numpy as np
from tqdm import tqdm

from binvpr_ros.lab.evaluation.datasets.dataset import Dataset
from binvpr_ros.lab.evaluation.image_features import ImageFeatures
from binvpr_ros.lab.evaluation.similarities import Similarities
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.kinds import LocalFeatures

MOST_TRUE = 10
"""True references of a query that are verified: those that are most similar by the descriptor."""
SEED = 0


def verified_above_apart(dataset: Dataset, similarities: Similarities, kind: LocalFeatures) -> float | None:
    """Return the share of queries whose best true pair has more evidence than every pair that shows different places.

    Those are two for each query, the one that is most similar by the descriptor (`similarities` [Q,R]) and one by
    chance; what lies just beyond a query's place is left out. None where no query has a true reference, or where no
    reference is of another place.
    """
    rng = np.random.default_rng(SEED)
    references = ImageFeatures(dataset.references)
    of_true, of_apart = [], []
    progress = tqdm(
        range(len(dataset.queries)), desc=f"verify {dataset.name}", unit="query", leave=False, file=sys.stderr
    )
    for query in progress:
        row, ours = similarities.rows(query, query + 1)[0], kind.extract(dataset.queries[query])
        true = dataset.truth.of(query)
        if len(true):
            nearest = true[np.argsort(-row[true], kind="stable")[:MOST_TRUE]]
            of_true.append(max(verify(ours, references(int(reference), kind)).evidence for reference in nearest))
        apart = np.flatnonzero(dataset.truth.apart(query))
        if len(apart):
            hardest = apart[row[apart].argmax()]
            of_apart += [
                verify(ours, references(reference, kind)).evidence
                for reference in {int(hardest), int(rng.choice(apart))}
            ]
    if not of_true or not of_apart:
        return None
    return float((np.array(of_true) > max(of_apart)).mean())
