# SPDX-License-Identifier: Apache-2.0
"""Stretches of odometry between two joints; GTSAM's optimum of each single step is the oracle."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gtsam", reason="the extra slam is not installed")
import gtsam

from binvpr_ros.slam.poses import Transform, inverse, moved
from binvpr_ros.slam.stretches import Stretch, between

SIGMAS = np.repeat([0.02, 0.05], 3)


def steps(count: int, rng: np.random.Generator) -> list[Transform]:
    """Return motions ahead, with turns between them."""
    return [moved(np.concatenate([rng.normal(0, 0.3, 3), rng.normal([0.5, 0, 0], 0.1)])) for _ in range(count)]


def stretch_of(motions: list[Transform], start: int = 0, is_closed: bool = True) -> Stretch:
    stretch = Stretch(start)
    for motion in motions:
        stretch.extend(motion, np.diag(SIGMAS**2))
    stretch.is_closed = is_closed
    return stretch


def test_keyframes_between_joints_are_where_gtsam_has_them() -> None:
    rng = np.random.default_rng(0)
    motions = steps(8, rng)
    stretch = stretch_of(motions)
    start = moved(rng.normal(size=6))
    end = start @ stretch.motions[-1] @ moved(rng.normal(size=6) * SIGMAS)
    factors, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    fixed = gtsam.noiseModel.Isotropic.Sigma(6, 1e-6)
    factors.add(gtsam.PriorFactorPose3(0, gtsam.Pose3(start), fixed))
    factors.add(gtsam.PriorFactorPose3(8, gtsam.Pose3(end), fixed))
    values.insert(0, gtsam.Pose3(start))
    for number, motion in enumerate(motions, 1):
        noise = gtsam.noiseModel.Diagonal.Sigmas(SIGMAS)
        factors.add(gtsam.BetweenFactorPose3(number - 1, number, gtsam.Pose3(motion), noise))
        values.insert(number, gtsam.Pose3(start @ stretch.motions[number - 1]))
    best = gtsam.LevenbergMarquardtOptimizer(factors, values).optimize()
    found = between([stretch], {0: start, 8: end})
    assert list(found) == list(range(1, 8))
    for number, pose in found.items():
        np.testing.assert_allclose(pose, best.atPose3(number).matrix(), atol=1e-3)


def test_without_a_joint_at_the_end_odometry_goes_on() -> None:
    rng = np.random.default_rng(1)
    closed, still_open = stretch_of(steps(3, rng)), stretch_of(steps(2, rng), start=3, is_closed=False)
    joints = {0: np.eye(4), 3: closed.motions[-1]}
    found = between([closed, still_open, Stretch(7)], joints)
    assert list(found) == [1, 2, 4, 5]
    for number in (1, 2):
        np.testing.assert_allclose(found[number], closed.motion_to(number), atol=1e-12)
    np.testing.assert_allclose(found[5], joints[3] @ still_open.motions[1], atol=1e-12)
    assert between([Stretch(0)], {0: np.eye(4)}) == {}


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("at", [1, 4, 6])
def test_the_parts_of_a_stretch_say_what_it_said(at: int, is_closed: bool) -> None:
    rng = np.random.default_rng(2)
    motions = steps(6, rng)
    whole = stretch_of(motions, start=10, is_closed=is_closed)
    before, after = whole.split(10 + at)
    assert (before.start, before.end, before.is_closed) == (10, 10 + at, True)
    assert (after.start, after.end, after.is_closed) == (10 + at, 16, is_closed)
    for part, some in ((before, motions[:at]), (after, motions[at:])):
        expected = stretch_of(some)
        np.testing.assert_allclose(np.array(part.motions), np.array(expected.motions), atol=1e-12)
        np.testing.assert_allclose(np.array(part.noise), np.array(expected.noise), atol=1e-12)


def test_the_covariance_of_a_whole_stretch_is_on_its_right_as_of_a_step() -> None:
    motion = steps(1, np.random.default_rng(3))[0]
    found, covariance = stretch_of([motion]).whole()
    np.testing.assert_allclose(found, motion)
    np.testing.assert_allclose(covariance, np.diag(SIGMAS**2), atol=1e-12)
    np.testing.assert_allclose(inverse(found) @ motion, np.eye(4), atol=1e-12)
