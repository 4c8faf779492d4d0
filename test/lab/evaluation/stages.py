# SPDX-License-Identifier: Apache-2.0
"""What several tests of the evaluation share: images that nobody looks at, and stages made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.closure_stage import CLOSED, NOT_RETRIEVED, OUTCOMES, ClosureStage
from binvpr_ros.lab.evaluation.datasets.dataset import Images
from binvpr_ros.lab.evaluation.datasets.sequences import Relation


class NoImages(Images):
    """As many images as are wanted, of which only the number is looked at."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        return np.full((8, 8), index % 256, np.uint8)


def stage(
    closures: Sequence[tuple[int, int, Relation]] = (), revisits: Sequence[int] = (), keyframes: int = 8, **changes: Any
) -> ClosureStage:
    """Return a stage with these closures; a revisit is found where it is the query of a same one."""
    found = {query for query, _, relation in closures if relation == Relation.SAME}
    outcomes = [OUTCOMES.index(CLOSED if revisit in found else NOT_RETRIEVED) for revisit in revisits]
    facts: dict[str, Any] = {
        "keyframes": np.arange(keyframes),
        "closures": np.array([closure[:2] for closure in closures], np.int64).reshape(-1, 2),
        "relations": np.array([relation for _, _, relation in closures], np.int8),
        "inliers": np.full(len(closures), 50),
        "revisits": np.array(revisits, np.int64),
        "outcomes": np.array(outcomes, np.int8),
        "best_true": np.full((len(revisits), 2), -1),
        "keyframe_revisits": np.array(revisits, np.int64),
        "refusals": {},
        "images_refused": 0,
    }
    return ClosureStage(**facts | changes)
