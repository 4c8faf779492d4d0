# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import numpy as np
import pytest

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.slam.odometry import LATEST, Measurement, OdometryRuns, growth
from binvpr_ros.slam.poses import Transform, adjoints, carried, inverse, rotation_of


def at(x: float, yaw: float = 0.0) -> Transform:
    pose = np.eye(4)
    pose[0, 3] = x
    pose[:3, :3] = rotation_of(np.array([0, 0, yaw]))
    return pose


def driven(seconds: float = 10.0, speed: float = 1.0) -> OdometryRuns:
    odometry = OdometryRuns()
    for stamp in range(0, round(seconds * NANOSECONDS), NANOSECONDS // 10):
        odometry.add(stamp, "odom", at(speed * stamp / NANOSECONDS))
    return odometry


def test_a_pose_is_interpolated_at_a_stamp() -> None:
    odometry = driven()
    found = odometry.at(round(3.14 * NANOSECONDS))
    assert found is not None
    assert found.pose[0, 3] == pytest.approx(3.14)
    exact = odometry.at(2 * NANOSECONDS)
    assert exact is not None
    assert exact.pose[0, 3] == pytest.approx(2.0)


@pytest.mark.parametrize("stamp", [-1, 11 * NANOSECONDS])
def test_nothing_is_known_outside_its_time(stamp: int) -> None:
    assert driven().at(stamp) is None


def test_two_publishers_cost_no_time() -> None:
    odometry = OdometryRuns()
    for number in range(LATEST):
        odometry.add(NANOSECONDS + number * NANOSECONDS // 200, "ab"[number % 2], at(0.0))
    started = time.perf_counter()
    for _ in range(10):
        assert odometry.at(NANOSECONDS + 1234) is None
    assert time.perf_counter() - started < 0.5


def test_nothing_is_known_in_a_gap() -> None:
    odometry = driven()
    odometry.add(20 * NANOSECONDS, "odom", at(10.0))
    assert odometry.at(15 * NANOSECONDS) is None


@pytest.mark.parametrize(
    ("stamp", "frame", "x"),
    [(10, "odom", -9.0), (10, "map", 9.9), (-100, "odom", 9.9), (1000, "odom", 0.0)],
    ids=["leaps", "another frame", "a bag that starts again", "a leap and a pause"],
)
def test_a_new_run_begins(stamp: int, frame: str, x: float) -> None:
    odometry = driven()
    measurement = odometry.add(stamp * NANOSECONDS, frame, at(x))
    assert measurement is not None
    assert measurement.run == odometry.run == 1


def test_a_run_goes_on_after_a_pause_at_rest() -> None:
    odometry = driven()
    assert odometry.add(1000 * NANOSECONDS, "odom", at(9.8)) is not None
    assert odometry.run == 0
    odometry.add(1001 * NANOSECONDS, "odom", at(9.8, 3.0))
    assert odometry.run == 0
    odometry.add(round(1001.1 * NANOSECONDS), "odom", at(9.8, 0.0))
    assert odometry.run == 1


def test_a_late_measurement_is_left_out() -> None:
    odometry = driven()
    assert odometry.add(round(9.8 * NANOSECONDS), "odom", at(9.8)) is None
    assert odometry.run == 0


def test_of_two_runs_with_the_same_stamps_the_latest_tells() -> None:
    odometry = driven()
    for stamp in range(0, 5 * NANOSECONDS, NANOSECONDS // 10):
        odometry.add(stamp, "odom", at(100 + stamp / NANOSECONDS))
    for stamp, run, x in ((2, 1, 102.0), (8, 0, 8.0)):
        found = odometry.at(stamp * NANOSECONDS)
        assert found is not None
        assert (found.run, found.pose[0, 3]) == (run, pytest.approx(x))


def test_what_a_covariance_has_grown_by_is_that_of_the_step() -> None:
    step, noise = at(1.0, 0.3), np.diag([1e-4, 2e-4, 3e-4, 1e-3, 2e-3, 4e-3])
    pose, of_twist = at(5.0, 1.1), np.diag([1e-3] * 6)

    def told(where: Transform, covariance: np.ndarray) -> np.ndarray:
        """Return the covariance of a twist on a pose's right as ROS has it: x, y, z, about axes of the fixed frame."""
        forth = np.zeros((6, 6))
        forth[:3, 3:] = forth[3:, :3] = where[:3, :3]
        return carried(covariance, forth)

    after = pose @ step
    total = carried(of_twist, adjoints(inverse(step))) + noise
    start = Measurement(0, 0, pose, told(pose, of_twist))
    end = Measurement(0, 1, after, told(after, total))
    grown = growth(start, end)
    assert grown is not None
    np.testing.assert_allclose(grown, noise, atol=1e-12)
    assert growth(start, end._replace(run=1)) is None
