# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.evaluation.world import World, drive


def test_the_drive_is_the_worlds() -> None:
    building = RenderedBuilding.make(Options(exclude_seconds=1), images=60)
    stops = list(drive(60))
    assert len(building.queries) == 60
    np.testing.assert_array_equal(building.queries[7], World().render(*stops[7]))
    assert building.queries[7] is building.queries[7]
    assert building.stamps[[0, 3, 15]].tolist() == [0, 200_000_000, 10**9]
    expected = [[a.same_place(b) for b, _, _ in stops] for a, _, _ in stops]
    np.testing.assert_array_equal(building.same_place, expected)
    np.testing.assert_array_equal(building.truth, np.tril(expected, -15))
    assert building.truth.any()


def test_a_drive_needs_two_images() -> None:
    with pytest.raises(DatasetError, match="1 images make no drive"):
        RenderedBuilding.make(Options(), images=1)
