# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from binvpr_ros.lab.evaluation.closure_stage import ClosureStage, Trials
from binvpr_ros.lab.evaluation.datasets.sequences import Relation
from binvpr_ros.lab.evaluation.metrics import upper_bound
from binvpr_ros.lab.evaluation.negatives import Negatives, run_negatives

from .stages import stage


class Drive:
    """A drive of four keyframes, the last of which closes a false loop, and into every map two keyframes do."""

    config = None

    def __init__(self, name: str, place: str, comes_back: bool = True) -> None:
        truth = SimpleNamespace(answerable=np.array([comes_back]))
        self.sequence = SimpleNamespace(name=name, place=place, truth=truth)

    def through(self, _config: Any) -> ClosureStage:
        return stage([(3, 0, Relation.APART), (2, 1, Relation.NEAR)], keyframes=4)

    def against(self, other: Drive, _config: Any) -> Trials:
        return Trials(self.sequence.name, other.sequence.name, 4, [(1, 0, 50), (1, 2, 50), (2, 0, 50)])


def test_each_drive_is_held_against_maps_of_other_places_alone() -> None:
    drives: list[Any] = [Drive("a", "a"), Drive("b1", "b"), Drive("b2", "b", comes_back=False)]
    found = run_negatives("ours", drives)
    assert [(one.drive, one.map) for one in found.trials] == [
        ("a", "b1"), ("a", "b2"), ("b1", "a"), ("b2", "a"), ("b2", "b2"),
    ]  # fmt: skip
    assert found.trials[-1].closures == [(3, 0, 50)]
    assert found.keyframes == 20
    assert found.false_keyframes == 4 * 2 + 1


def test_the_bound_is_that_of_keyframes_with_a_false_closure() -> None:
    trials = [Trials("a", "b", 300, [(1, 0, 50), (1, 2, 50)]), Trials("b", "a", 700, [])]
    assert Negatives("ours", trials).upper_bound == upper_bound(1, 1000)
