# SPDX-License-Identifier: Apache-2.0
"""The poses of keyframes that fit odometry and loop constraints best, kept up by GTSAM's iSAM2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import gtsam
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.slam.poses import Transform

RELINEARIZE = 0.1
"""Metres and radians by which an estimate must have moved before factors are linearised anew."""
CAUCHY = 5.0
"""Standard deviations from which a constraint counts less; at twice as many a fifth of its weight is left."""
ANCHOR = 1e-4
"""Metres and radians by which the first keyframe may move: it makes the map's frame."""
LEAST_SIGMA = 5e-4
"""Radians and metres: no measurement is better, whatever its covariance says; GTSAM cannot solve for one of 1e-4."""


class Factor(NamedTuple):
    """What is known of the motion from one keyframe to another, by their numbers."""

    start: int
    end: int
    motion: Transform  # of `end` in the frame of `start`
    covariance: NDArray[np.float64]  # [6,6], as in poses.py


@dataclass(frozen=True)
class Knowledge:
    """What a solver is told: about where keyframes are, by their numbers, and what is known of their motions."""

    guesses: Mapping[int, Transform]  # [4,4], of keyframes that are new
    steps: Sequence[Factor] = ()  # by odometry
    loops: Sequence[Factor] = ()
    anchor: int | None = None  # the keyframe that stays where it is guessed


class Solver:
    """Estimates the poses of keyframes."""

    def __init__(self) -> None:
        parameters = gtsam.ISAM2Params()
        parameters.setRelinearizeThreshold(RELINEARIZE)
        parameters.relinearizeSkip = 1
        self._isam = gtsam.ISAM2(parameters)
        self._factors = gtsam.NonlinearFactorGraph()

    @classmethod
    def of(cls, knowledge: Knowledge) -> Solver:
        """Solve all at once, from guesses that may be far off; it takes seconds for each 10,000 keyframes."""
        solver = cls()
        values, solver._factors = _translated(knowledge)
        solver._optimize(values)
        return solver

    def add(self, knowledge: Knowledge) -> None:
        """Add to what is known, and bring the estimates up to date where that changes them."""
        values, new = _translated(knowledge)
        self._factors.push_back(new)
        self._isam.update(new, values)

    def settle(self) -> None:
        """Optimise until nothing changes any more; it takes a second for each 10,000 keyframes."""
        if self._factors.size():
            self._optimize(self._isam.calculateEstimate())

    def _optimize(self, values: gtsam.Values) -> None:
        optimized = gtsam.LevenbergMarquardtOptimizer(self._factors, values).optimize()
        self._isam = gtsam.ISAM2(self._isam.params())
        self._isam.update(self._factors, optimized)

    def pose(self, number: int) -> Transform:
        """Return the pose [4,4] of a keyframe, in the map's frame."""
        return np.asarray(self._isam.calculateEstimatePose3(number).matrix())

    def poses(self) -> dict[int, Transform]:
        """Return the poses of all keyframes by their numbers."""
        values = self._isam.calculateEstimate()
        rows = gtsam.utilities.extractPose3(values)  # in the order of the keys: rotation by rows, translation
        result = np.tile(np.eye(4), (len(rows), 1, 1))
        result[:, :3, :3], result[:, :3, 3] = rows[:, :9].reshape(-1, 3, 3), rows[:, 9:]
        return dict(zip(values.keys(), result, strict=True))


def _translated(knowledge: Knowledge) -> tuple[gtsam.Values, gtsam.NonlinearFactorGraph]:
    values, factors = gtsam.Values(), gtsam.NonlinearFactorGraph()
    for number, pose in knowledge.guesses.items():
        values.insert(number, gtsam.Pose3(pose))
    if knowledge.anchor is not None:
        guess = gtsam.Pose3(knowledge.guesses[knowledge.anchor])
        fixed = gtsam.noiseModel.Isotropic.Sigma(6, ANCHOR)
        factors.add(gtsam.PriorFactorPose3(knowledge.anchor, guess, fixed))
    for some, noise_of in ((knowledge.steps, _gaussian), (knowledge.loops, _robust)):
        for one in some:
            noise = noise_of(one.covariance)
            factors.add(gtsam.BetweenFactorPose3(one.start, one.end, gtsam.Pose3(one.motion), noise))
    return values, factors


def credible(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a covariance [6,6] whose deviation is in no direction below LEAST_SIGMA; it has an inverse."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    result: NDArray[np.float64] = (vectors * np.maximum(values, LEAST_SIGMA**2)) @ vectors.T
    return result


def _gaussian(covariance: NDArray[np.float64]) -> gtsam.noiseModel.Base:
    return gtsam.noiseModel.Gaussian.Covariance(credible(covariance))


def _robust(covariance: NDArray[np.float64]) -> gtsam.noiseModel.Base:
    return gtsam.noiseModel.Robust.Create(gtsam.noiseModel.mEstimator.Cauchy.Create(CAUCHY), _gaussian(covariance))
