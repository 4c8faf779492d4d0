# SPDX-License-Identifier: Apache-2.0
"""Drives in maps of other places, where every closure is false."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from binvpr_ros.lab.evaluation.closure_stage import Drive, Trials
from binvpr_ros.lab.evaluation.metrics import upper_bound


@dataclass(frozen=True)
class Negatives:
    """One method, its drives each in the map of each other place, and drives that come back to nothing in their own."""

    method: str
    trials: list[Trials]

    @property
    def keyframes(self) -> int:
        """Return how many keyframes were held against a map: the number of trials."""
        return sum(trial.keyframes for trial in self.trials)

    @property
    def false_keyframes(self) -> int:
        """Return how many of them have a closure, one or more."""
        return sum(len({query for query, _, _ in trial.closures}) for trial in self.trials)

    @property
    def upper_bound(self) -> float:
        """Return the rate of keyframes with a false closure that is not exceeded, with 95% confidence.

        It takes keyframes as independent; those of one drive are less than that.
        """
        return upper_bound(self.false_keyframes, self.keyframes)

    def figures(self) -> dict[str, Any]:
        """Return what `evaluate` reports, by name."""
        return {
            "method": self.method,
            "keyframes": self.keyframes,
            "false_keyframes": self.false_keyframes,
            "false_rate_upper_bound": round(self.upper_bound, 6),
            "trials": [
                {"drive": one.drive, "map": one.map, "keyframes": one.keyframes, "closures": len(one.closures)}
                for one in self.trials
            ],
        }


def run_negatives(method: str, drives: Sequence[Drive]) -> Negatives:
    """Hold each of the drives of a method against a map of each other, if that is of another place.

    A drive that never revisits a place is held against itself too: there closures of places apart are false.
    """
    trials = []
    pairs = [
        (one, other) for one, other in itertools.product(drives, drives)
        if one.sequence.place != other.sequence.place or (one is other and not one.sequence.truth.answerable.any())
    ]  # fmt: skip
    for one, other in tqdm(pairs, desc=f"{method}: maps of other places", leave=False, file=sys.stderr):
        if one is other:
            stage, name = one.through(one.config), one.sequence.name
            closures = np.column_stack([stage.closures, stage.inliers])[stage.apart].tolist()
            trials.append(Trials(name, name, len(stage.keyframes), [(a, b, c) for a, b, c in closures]))
        else:
            trials.append(one.against(other, one.config))
    return Negatives(method, trials)
