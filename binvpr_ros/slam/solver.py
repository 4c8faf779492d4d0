# SPDX-License-Identifier: Apache-2.0
"""The poses of keyframes that fit odometry and loop constraints best, kept up by GTSAM's iSAM2.

Only joints are in iSAM2: keyframes at the ends of loops, and a few others. What odometry says between two joints is one
factor, as the keyframes there add nothing else to it; where they are follows from the poses of the joints. So most
keyframes cost next to nothing, and a loop has fewer poses to change.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import gtsam
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.slam.poses import Transform, differences, inverse
from binvpr_ros.slam.stretches import Stretch, between

RELINEARIZE = 0.1
"""Metres and radians by which an estimate must have moved before factors are linearised anew."""
CAUCHY = 5.0
"""Standard deviations from which a constraint counts less; at twice as many a fifth of its weight is left."""
ANCHOR = 1e-4
"""Metres and radians by which the first keyframe may move: it makes the map's frame."""
LEAST_SIGMA = 5e-4
"""Radians and metres: no measurement is better, whatever its covariance says; GTSAM cannot solve for one of 1e-4."""
EVERY = 20
"""Keyframes whose numbers are multiples of it are joints in any case: noise is added up to first order, and stretches
stay short. It takes the number, so that a graph that is read from its file has the same joints."""
MOST_WAITING = 4
"""Loops that wait for the next one, if they say what is known already: those of one place come one after the other."""


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
    """Estimates the poses of keyframes; those of a session have numbers that follow each other."""

    def __init__(self) -> None:
        parameters = gtsam.ISAM2Params()
        parameters.setRelinearizeThreshold(RELINEARIZE)
        parameters.relinearizeSkip = 1
        parameters.enablePartialRelinearizationCheck = True
        self._isam = gtsam.ISAM2(parameters)
        self._anchor: tuple[int, Transform] | None = None
        self._loops: list[Factor] = []
        self._waiting: list[Factor] = []  # loops that iSAM2 has not been told of
        self._joints: list[int] = []  # in order
        self._stretches: dict[int, Stretch] = {}  # by the joint at their start: each joint has one
        self._new: dict[int, Transform] = {}  # joints that are not in iSAM2 yet, where they are guessed
        self._replaced: list[int] = []  # factors in iSAM2 of stretches that are split since

    @classmethod
    def of(cls, knowledge: Knowledge) -> Solver:
        """Solve all at once, from guesses that may be far off; it takes a second for each 10,000 keyframes."""
        solver = cls()
        solver._take(knowledge)
        for loop in knowledge.loops:
            for number in (loop.start, loop.end):
                solver._join(number, knowledge.guesses[number])
        solver._loops += knowledge.loops
        solver._optimize(solver._new)
        return solver

    def add(self, knowledge: Knowledge) -> None:
        """Add to what is known, and bring the estimates up to date where that changes them by more than noise."""
        begins = len(knowledge.guesses) > len(knowledge.steps)
        self._take(knowledge)
        self._waiting += knowledge.loops
        if begins or len(self._waiting) > MOST_WAITING or not all(self._agrees(loop) for loop in knowledge.loops):
            self._update()

    def _take(self, knowledge: Knowledge) -> None:
        """Take over what odometry says."""
        if knowledge.anchor is not None:
            self._anchor = knowledge.anchor, knowledge.guesses[knowledge.anchor]
        for number in sorted(knowledge.guesses.keys() - {step.end for step in knowledge.steps}):
            insort(self._joints, number)
            self._stretches[number], self._new[number] = Stretch(number), knowledge.guesses[number]
        for step in knowledge.steps:
            self._around(step.start).extend(step.motion, credible(step.covariance))
            if step.end % EVERY == 0:
                self._join(step.end, knowledge.guesses[step.end])

    def _agrees(self, loop: Factor) -> bool:
        """Tell whether the estimates are within the noise of a loop already."""
        error = differences(inverse(loop.motion) @ inverse(self.pose(loop.start)) @ self.pose(loop.end))
        return float(error @ np.linalg.solve(credible(loop.covariance), error)) < len(error)

    def _around(self, number: int) -> Stretch:
        """Return the stretch with a keyframe, which begins there where it is a joint."""
        return self._stretches[self._joints[bisect_right(self._joints, number) - 1]]

    def _join(self, number: int, guess: Transform) -> None:
        """Make a keyframe a joint, where it is none."""
        stretch = self._around(number)
        if stretch.start == number:
            return
        if stretch.factor is not None:
            self._replaced.append(stretch.factor)
        for part in stretch.split(number):
            self._stretches[part.start] = part
        insort(self._joints, number)
        self._new[number] = guess

    def settle(self) -> None:
        """Optimise until nothing changes any more; it takes a second for each 10,000 keyframes."""
        if self._joints:
            self._join_waiting()
            self._loops += self._waiting
            self._waiting = []
            self._optimize(self._poses_of_joints())

    def _optimize(self, guesses: Mapping[int, Transform]) -> None:
        closed = [one for one in self._stretches.values() if one.is_closed]
        factors = self._factors(closed, self._loops, anchored=True)
        best = gtsam.LevenbergMarquardtOptimizer(factors, _values(guesses)).optimize()
        self._isam, self._replaced = gtsam.ISAM2(self._isam.params()), []
        self._tell(factors, closed, best)

    def _join_waiting(self) -> None:
        for loop in self._waiting:
            for number in (loop.start, loop.end):
                self._join(number, self.pose(number))

    def _update(self) -> None:
        """Tell iSAM2 what is new."""
        self._join_waiting()
        loops, self._waiting = self._waiting, []
        self._loops += loops
        closed = [one for one in self._stretches.values() if one.is_closed and one.factor is None]
        anchored = self._anchor is not None and self._anchor[0] in self._new
        self._tell(self._factors(closed, loops, anchored), closed, _values(self._new))

    def _factors(
        self, stretches: Sequence[Stretch], loops: Sequence[Factor], anchored: bool
    ) -> gtsam.NonlinearFactorGraph:
        """Return factors of stretches, of loops, and of the anchor, in this order."""
        factors = gtsam.NonlinearFactorGraph()
        for stretch in stretches:
            factors.add(_between(Factor(stretch.start, stretch.end, *stretch.whole()), _gaussian))
        for loop in loops:
            factors.add(_between(loop, _robust))
        if anchored and self._anchor is not None:
            fixed = gtsam.noiseModel.Isotropic.Sigma(6, ANCHOR)
            factors.add(gtsam.PriorFactorPose3(self._anchor[0], gtsam.Pose3(self._anchor[1]), fixed))
        return factors

    def _tell(self, factors: gtsam.NonlinearFactorGraph, stretches: Sequence[Stretch], values: gtsam.Values) -> None:
        """Give factors to iSAM2, the first of which are those of `stretches`, and guesses of the joints in them."""
        changes = gtsam.ISAM2UpdateParams()
        changes.removeFactorIndices = self._replaced
        numbers = self._isam.update(factors, values, changes).getNewFactorsIndices()
        for stretch, number in zip(stretches, numbers, strict=False):
            stretch.factor = number
        self._new, self._replaced = {}, []

    def pose(self, number: int) -> Transform:
        """Return the pose [4,4] of a keyframe, in the map's frame."""
        stretch = self._around(number)
        start = self._pose_of_joint(stretch.start)
        if number == stretch.start:
            return start
        if not stretch.is_closed:
            return start @ stretch.motion_to(number)
        return between([stretch], {one: self._pose_of_joint(one) for one in (stretch.start, stretch.end)})[number]

    def _pose_of_joint(self, number: int) -> Transform:
        if number in self._new:
            return self._new[number]
        return np.asarray(self._isam.calculateEstimatePose3(number).matrix())

    def _poses_of_joints(self) -> dict[int, Transform]:
        values = self._isam.calculateEstimate()
        rows = gtsam.utilities.extractPose3(values)  # in the order of the keys: rotation by rows, translation
        result = np.tile(np.eye(4), (len(rows), 1, 1))
        result[:, :3, :3], result[:, :3, 3] = rows[:, :9].reshape(-1, 3, 3), rows[:, 9:]
        return dict(zip(values.keys(), result, strict=True)) | self._new

    def poses(self) -> dict[int, Transform]:
        """Return the poses of all keyframes by their numbers, in the order of these."""
        joints = self._poses_of_joints()
        return dict(sorted((joints | between(list(self._stretches.values()), joints)).items()))


def _values(poses: Mapping[int, Transform]) -> gtsam.Values:
    values = gtsam.Values()
    for number, pose in poses.items():
        values.insert(number, gtsam.Pose3(pose))
    return values


def _between(factor: Factor, noise: Callable[[NDArray[np.float64]], gtsam.noiseModel.Base]) -> gtsam.BetweenFactorPose3:
    motion = gtsam.Pose3(factor.motion)
    return gtsam.BetweenFactorPose3(factor.start, factor.end, motion, noise(factor.covariance))


def credible(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a covariance [6,6] whose deviation is in no direction below LEAST_SIGMA; it has an inverse."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    result: NDArray[np.float64] = (vectors * np.maximum(values, LEAST_SIGMA**2)) @ vectors.T
    return result


def _gaussian(covariance: NDArray[np.float64]) -> gtsam.noiseModel.Base:
    return gtsam.noiseModel.Gaussian.Covariance(credible(covariance))


def _robust(covariance: NDArray[np.float64]) -> gtsam.noiseModel.Base:
    return gtsam.noiseModel.Robust.Create(gtsam.noiseModel.mEstimator.Cauchy.Create(CAUCHY), _gaussian(covariance))
