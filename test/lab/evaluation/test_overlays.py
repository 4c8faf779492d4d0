# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import Options
from binvpr_ros.lab.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.lab.evaluation.overlays import OVERLAYS, overlaid


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("size", [(48, 64), (240, 320), (77, 131)])
def test_an_overlay_covers_a_part_of_any_image_and_stays_there(name: str, size: tuple[int, int]) -> None:
    (covered, by), (later, by_later) = (OVERLAYS[name](size, number) for number in (0, 900))
    assert covered.shape == size
    assert by.shape == (*size, 3)
    assert 0.02 < covered.mean() < 0.3
    np.testing.assert_array_equal(covered, later)
    if name != "clock":
        np.testing.assert_array_equal(by[covered], by_later[covered])


def test_the_seconds_of_the_clock_go_on() -> None:
    first, later = (OVERLAYS["clock"]((240, 320), number)[1] for number in (0, 15))
    assert (first != later).any()


def test_a_drive_with_an_overlay_is_the_same_drive_elsewhere() -> None:
    drive = RenderedBuilding.make(Options())
    decked = overlaid(drive, "deck")
    assert decked.name == f"{drive.name}, deck"
    assert decked.place == drive.place
    before, after = drive.queries[7], decked.queries[7]
    top = round(0.75 * len(before))
    np.testing.assert_array_equal(after[:top], before[:top])
    assert (after[top:] != before[top:]).mean() > 0.9
