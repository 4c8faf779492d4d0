# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from binvpr_ros.odometry import RADIUS, Odometry, Whereabouts, too_far

SECOND = 1_000_000_000


def driven(*positions: tuple[float, float, float], rate: float = 10.0) -> Odometry:
    odometry = Odometry()
    for number, position in enumerate(positions):
        odometry.add(round(number / rate * SECOND), "odom", position)
    return odometry


def test_the_way_is_counted_however_it_bends() -> None:
    square = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)]
    here = driven(*square).at(round(0.4 * SECOND))
    assert here == Whereabouts(0, (0.0, 0.0, 0.0), 4.0)


def test_a_robot_that_trembles_travels_nowhere() -> None:
    rng = np.random.default_rng(0)
    here = driven(*(tuple(rng.normal(0, 0.005, 3).tolist()) for _ in range(500))).at(50 * SECOND)
    assert here is not None
    assert here.travelled < 0.5


def test_a_slow_robot_travels_all_the_same() -> None:
    here = driven(*((0.01 * number, 0.0, 0.0) for number in range(201))).at(20 * SECOND)
    assert here is not None
    assert here.travelled == pytest.approx(2.0, abs=0.05)


def test_old_odometry_says_nothing() -> None:
    odometry = driven((0.0, 0.0, 0.0))
    assert Odometry().at(0) is None
    assert odometry.at(SECOND // 4) is not None
    assert odometry.at(SECOND) is None


@pytest.mark.parametrize("position", [(math.nan, 0.0, 0.0), (math.inf, 0.0, 0.0)])
def test_no_number_is_ignored(position: tuple[float, float, float]) -> None:
    odometry = driven((1.0, 0.0, 0.0))
    odometry.add(SECOND // 10, "odom", position)
    here = odometry.at(0)
    assert here is not None
    assert here.position == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("stamp", "frame", "position"),
    [(SECOND, "map", (1.0, 0.0, 0.0)), (-SECOND, "odom", (1.0, 0.0, 0.0)), (SECOND // 10, "odom", (900.0, 0.0, 0.0))],
)
def test_odometry_that_starts_anew_is_another_run(stamp: int, frame: str, position: tuple[float, float, float]) -> None:
    odometry = driven((1.0, 0.0, 0.0))
    before = odometry.at(0)
    odometry.add(stamp, frame, position)
    after = odometry.at(stamp)
    assert before is not None
    assert after is not None
    assert (before.run, after.run, after.travelled) == (0, 1, 0.0)


def test_further_away_than_drift_explains_is_too_far() -> None:
    here = Whereabouts(1, (0.0, 0.0, 0.0), 100.0)
    others = np.array(
        [
            [1, 9.0, 0, 0, 20.0],  # 80 m of way, 8 m of drift, and the radius
            [1, 9.1, 0, 0, 20.0],
            [1, RADIUS, 0, 0, 100.0],
            [0, 500.0, 0, 0, 90.0],  # of another run
            [np.nan] * 5,
        ]
    )
    assert too_far(here, others, 0.1).tolist() == [False, True, False, False, False]


def test_a_late_pose_is_ignored() -> None:
    odometry = driven((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, 0.0, 0.0))
    odometry.add(round(0.15 * SECOND), "odom", (1.5, 0.0, 0.0))
    assert odometry.at(round(0.2 * SECOND)) == Whereabouts(0, (2.0, 0.0, 0.0), 2.0)


def test_an_image_that_was_in_work_for_a_while_gets_the_pose_of_its_time() -> None:
    odometry = driven(*((0.1 * number, 0.0, 0.0) for number in range(50)))
    here = odometry.at(SECOND)
    assert here is not None
    assert here.position[0] == pytest.approx(1.0)
