# SPDX-License-Identifier: Apache-2.0
"""The relative pose of two views of one place, from the matches of their local features.

With depths of either view the pose has its scale: it is found from three points and more (SQPnP in RANSAC; Terzakis and
Lourakis, ECCV 2020), and refined by Gauss-Newton. Each match is weighed by what it measures: its two pixels, and one
depth or both, whose noise is propagated to first order.

Without depths there is a rotation and a direction of travel, that of the least epipolar error (Sampson's distance;
Hartley and Zisserman, Multiple View Geometry, section 11.4.3). Views from nearby have little parallax, and show few
surfaces, so that several directions, each with a rotation of its own, explain them nearly as well, and sampling eight
points or five finds one of them by luck. So all directions are tried, and those that explain the matches best are
refined. The covariance is that of them all, each weighed by its likelihood.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import MILLIMETRES, Features, Pairs
from binvpr_ros.loop_constraint import RelativePose

Array = NDArray[np.float64]
Motion = tuple[Array, Array]
"""Rotation [3,3] and translation [3], from the query's frame to the match's."""

PIXEL_NOISE = 0.8
"""Deviation of a feature, in pixels of the image in which it was found (measured at true poses of rendered views)."""
DEPTH_NOISE = 0.003, 0.002
"""Deviation of a depth d: the first, in metres, and the second, in 1/m, times its square."""
FEWEST_MATCHES = 12
"""That a pose rests on."""
LEAST_SPREAD = 0.04
"""Deviation of the directions to points with depth, across where they spread least: on a line they turn about it."""
MOST_DEVIATION = 0.1
"""Of the translation, in depths of the scene: beyond, the scale is not known."""
MOST_TURN = 0.3
"""Deviation of the rotation, in radians, beyond which matches tell nothing."""
LINEAR = 2.0
"""Mahalanobis distance squared, for each number that a match measures, from which on it weighs less (Cauchy)."""
GATES = np.array([np.inf, 13.3, 18.4, 22.7])
"""Mahalanobis distance squared of a match that is wrong, by how many numbers it measures: twice the 99% of chi-square,
as features move where the view changes."""
MEDIANS = np.array([np.inf, 0.455, 1.386, 2.366])
"""Of chi-square, by how many numbers a match measures."""
ALIKE_WITH_DEPTH = 4.0
ALIKE_WITHOUT = 14.0
"""Matches that count as one: features stand close together, and what moves one of them moves its neighbours (chosen on
rendered buildings, so that 95% of the errors are within what is stated for 95%: docs/evaluate.md)."""
DIRECTIONS = 48
"""Over half a sphere, some 18 degrees apart: between two of them there is no other minimum."""
ANNEALING = (100.0, 30.0, 10.0, 10.0, 3.0, 3.0)
"""Of LINEAR, while a rotation is sought for a direction: first all matches have their say."""
MOST_ANNEALED = 160
"""Matches that take part in that."""
REFINED = 8
"""Directions that are refined, of twice as many, each of which is tried both ways."""
LEAST_LIKELY = 1e-4
"""Likelihood of a direction, of the best one's, below which it is left out."""
LONGEST_STEP = 0.3
"""Radians by which a rotation is changed at once, while it is sought."""
SAME = 0.02
"""By which numbers of two poses differ that are one minimum."""
UNKNOWN = 1e3
"""Metres: the deviation of a depth that is not known."""
BEHIND = 1e-3
"""Depth that a point gets which would be behind the camera."""
TINY = 1e-24
"""Added to what is divided by."""


def relative_pose(
    query: Features,
    match: Features,
    camera: Camera,
    match_camera: Camera,
    inliers: Pairs,
    matches: Pairs,
) -> RelativePose | None:
    """Return the pose of the query's camera in the frame of the match's; None where the matches do not tell.

    `inliers` [M] are those of the `matches` [K] that geometry has verified. A pose begins with them, and may rest on
    other matches too, since they were chosen for lying near one plane.
    """
    verified = _Measured.of(query, match, camera, match_camera, inliers)
    if len(verified.here) < FEWEST_MATCHES:
        return None
    try:
        pose = None
        if np.count_nonzero(verified.has_depth) >= FEWEST_MATCHES:
            pose = _with_scale(verified, _Measured.of(query, match, camera, match_camera, matches))
        return pose or _without_scale(verified)
    except np.linalg.LinAlgError:  # of matches that leave the pose free, such as those of one spot
        return None


class _Measured(NamedTuple):
    """What M matches measure: rays as points of the plane one ahead of the camera, and depths in metres."""

    here: Array  # [M,2], of the query
    there: Array  # [M,2], of the match
    depth_here: Array  # [M], NaN unknown
    depth_there: Array  # [M]
    noise_here: float  # deviation of rays
    noise_there: float

    @classmethod
    def of(cls, query: Features, match: Features, camera: Camera, match_camera: Camera, pairs: Pairs) -> _Measured:
        sides = (query, camera, pairs[0]), (match, match_camera, pairs[1])
        here, there = (its.rays(some.points(chosen, its.size)).astype(np.float64) for some, its, chosen in sides)
        depth_here, depth_there = (_metres(some, chosen) for some, _, chosen in sides)
        noise_here, noise_there = (
            PIXEL_NOISE * its.size[0] / some.size[0] / its.focal_length for some, its, _ in sides
        )
        # A lens may be such that a pixel at its edge has no ray.
        usable: NDArray[np.bool_] = np.isfinite(np.concatenate([here, there], axis=1)).all(axis=1)
        return cls(here, there, depth_here, depth_there, noise_here, noise_there).only(usable)

    def only(self, chosen: NDArray[np.bool_]) -> _Measured:
        here, there, depth_here, depth_there = (part[chosen] for part in self[:4])
        return _Measured(here, there, depth_here, depth_there, self.noise_here, self.noise_there)

    def swapped(self) -> _Measured:
        """Return the same with query and match exchanged."""
        return _Measured(self.there, self.here, self.depth_there, self.depth_here, self.noise_there, self.noise_here)

    @property
    def has_depth(self) -> NDArray[np.bool_]:
        """Which matches [M] have a depth, of the one view or of both."""
        return np.isfinite(self.depth_here) | np.isfinite(self.depth_there)


def _metres(features: Features, chosen: NDArray[np.intp]) -> Array:
    if features.depths is None:
        return np.full(len(chosen), np.nan)
    depths = features.depths[chosen].astype(np.float64)
    return np.where(depths > 0, depths, np.nan) / MILLIMETRES


def _misfit(residuals: Array, measured: NDArray[np.intp]) -> float:
    """Return by how much the squares of residuals [M,R] exceed those of normal noise, at least 1.

    A lens or a depth camera that is not calibrated, or a rolling shutter, bends a view, so that no pose fits it. What
    is left over tells by how much (the variance of unit weight of an adjustment; by the median, as matches are wrong).
    """
    return max(1.0, float(np.median((residuals**2).sum(axis=1) / MEDIANS[measured])))


# With scale


def _with_scale(verified: _Measured, every: _Measured) -> RelativePose | None:
    """Return the pose with its scale; None where depths are too few, or too far off, to tell it."""
    motion = _from_points(verified)
    if motion is None:
        return None
    motion = _refined(motion, verified.only(verified.has_depth))
    every = every.only(every.has_depth)
    used = every
    for _ in range(2):
        residuals, _, measured = _reprojection(motion, every)
        used = every.only((residuals**2).sum(axis=1) < GATES[measured])
        if len(used.here) < FEWEST_MATCHES:
            return None
        motion = _refined(motion, used)
    residuals, jacobians, measured = _reprojection(motion, used)
    information, _ = _normal_equations(residuals, jacobians, measured)
    rotation, translation = motion
    covariance = ALIKE_WITH_DEPTH * _misfit(residuals, measured) * _inverse(information + 1e-9 * np.eye(6))
    deviation = np.sqrt(np.linalg.eigvalsh(covariance[:3, :3])[-1])
    depth = np.nanmedian(np.concatenate([used.depth_here, used.depth_there]))
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(used.here.T))[0])
    if not (deviation < MOST_DEVIATION * depth and spread > LEAST_SPREAD):
        return None
    return RelativePose(rotation, translation, (covariance + covariance.T) / 2, True, len(used.here))


def _from_points(measured: _Measured) -> Motion | None:
    """Return a first pose from the points of the view in which more depths are known; None where they have none."""
    swap = np.isfinite(measured.depth_there).sum() > np.isfinite(measured.depth_here).sum()
    sides = measured.swapped() if swap else measured
    sides = sides.only(np.isfinite(sides.depth_here))
    if len(sides.here) < FEWEST_MATCHES:
        return None
    points = _homogeneous(sides.here) * sides.depth_here[:, np.newaxis]
    try:
        found, turn, shift, _ = cv2.solvePnPRansac(
            points, sides.there, np.eye(3), None, iterationsCount=300, confidence=0.999,
            reprojectionError=4 * sides.noise_there, flags=cv2.SOLVEPNP_SQPNP,
        )  # fmt: skip
    except cv2.error:  # how it reports points that admit none
        return None
    if not found or not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    rotation, translation = _exponential(turn), np.asarray(shift, np.float64).ravel()
    return (rotation.T, -rotation.T @ translation) if swap else (rotation, translation)


def _refined(motion: Motion, measured: _Measured) -> Motion:
    """Return the pose that fits all matches best, none of which has much of a say where it does not fit."""
    rotation, translation = motion
    for _ in range(15):
        information, gradient = _normal_equations(*_reprojection((rotation, translation), measured))
        step = -_solved(information + 1e-9 * np.eye(6), gradient)
        rotation, translation = _exponential(step[3:]) @ rotation, translation + step[:3]
        if np.abs(step).max() < 1e-5:  # which is far below what any depth is known by
            break
    return rotation, translation


def _normal_equations(residuals: Array, jacobians: Array, measured: NDArray[np.intp]) -> tuple[Array, Array]:
    """Return J^T W J and J^T W r of residuals [M,R] and their derivatives [M,R,P]; see LINEAR for the weights."""
    squares = (residuals**2).sum(axis=1)
    roots = np.sqrt(1 / (1 + squares / (LINEAR * np.maximum(measured, 1))))
    rows = (jacobians * roots[:, np.newaxis, np.newaxis]).reshape(-1, jacobians.shape[2])
    return rows.T @ rows, rows.T @ (residuals * roots[:, np.newaxis]).ravel()


def _reprojection(motion: Motion, measured: _Measured) -> tuple[Array, Array, NDArray[np.intp]]:
    """Return for matches that have a depth how far off they are.

    These are residuals [M,3] of unit variance, their derivatives [M,3,6] by the translation and a rotation about the
    match's axes, and how many numbers [M] each match measures: 3 with both depths, 2 with one.
    """
    rotation, translation = motion
    forth = np.isfinite(measured.depth_here)
    residuals, jacobians = np.zeros((len(forth), 3)), np.zeros((len(forth), 3, 6))
    one = measured.only(forth)
    points = _homogeneous(one.here) * one.depth_here[:, np.newaxis]
    turned = points @ rotation.T
    by_motion = np.concatenate([np.broadcast_to(np.eye(3), (len(points), 3, 3)), -_skew(turned)], axis=2)
    residuals[forth], jacobians[forth] = _projected(one, turned + translation, rotation, by_motion)
    # The others have the depth of the match alone, and are projected into the query.
    other = measured.only(~forth).swapped()
    away = _homogeneous(other.here) * other.depth_here[:, np.newaxis] - translation
    back = rotation.T
    by_motion = np.concatenate([np.broadcast_to(-back, (len(away), 3, 3)), back @ _skew(away)], axis=2)
    residuals[~forth], jacobians[~forth] = _projected(other, away @ rotation, back, by_motion)
    return residuals, jacobians, 2 + (forth & np.isfinite(measured.depth_there))


def _projected(measured: _Measured, seen: Array, rotation: Array, by_motion: Array) -> tuple[Array, Array]:
    """Return residuals [M,3] and derivatives [M,3,6] of points, known in one view, as the other sees them.

    `seen` [M,3] are they in the other's frame, into which `rotation` leads; `by_motion` [M,3,6] are their derivatives.
    """
    depth = np.maximum(seen[:, 2], BEHIND)
    project = np.zeros((len(seen), 3, 3))
    project[:, [0, 1], [0, 1]] = 1 / depth[:, np.newaxis]
    project[:, :2, 2] = -seen[:, :2] / depth[:, np.newaxis] ** 2
    project[:, 2, 2] = 1
    known = np.isfinite(measured.depth_there)
    depth_there = np.where(known, measured.depth_there, depth)
    residuals = np.column_stack([seen[:, :2] / depth[:, np.newaxis] - measured.there, depth - depth_there])
    # Of a point: across the ray by the pixel's noise, along it by the depth's.
    ray = _homogeneous(measured.here) @ rotation.T
    across = (measured.noise_here * measured.depth_here)[:, np.newaxis, np.newaxis] ** 2
    along = _depth_noise(measured.depth_here)[:, np.newaxis, np.newaxis] ** 2
    noise = across * (rotation[:, :2] @ rotation[:, :2].T) + along * ray[:, :, np.newaxis] * ray[:, np.newaxis]
    covariance = project @ noise @ project.transpose(0, 2, 1)
    covariance[:, [0, 1], [0, 1]] += measured.noise_there**2
    covariance[:, 2, 2] += np.where(known, _depth_noise(depth_there), UNKNOWN) ** 2
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    return (whiten @ residuals[:, :, np.newaxis])[:, :, 0], whiten @ project @ by_motion


def _depth_noise(depth: Array) -> Array:
    return DEPTH_NOISE[0] + DEPTH_NOISE[1] * depth**2


# Without scale


def _without_scale(measured: _Measured) -> RelativePose | None:
    """Return rotation and direction of travel; None where the matches have no direction that explains them."""
    starts = sorted(_directions(measured), key=lambda one: _cost(one, measured))
    refined = sorted((_refined_direction(one, measured) for one in starts[:REFINED]), key=lambda one: one[1])
    minima: list[tuple[Motion, float]] = []
    for motion, cost in refined:
        if all(max(np.abs(motion[part] - one[part]).max() for part in (0, 1)) > SAME for one, _ in minima):
            minima.append((motion, cost))
    (rotation, direction), least = minima[0]
    tangent = _tangent(direction)
    covariance, total = np.zeros((5, 5)), 0.0
    for motion, cost in minima:
        likelihood = np.exp((least - cost) / (2 * ALIKE_WITHOUT))
        if likelihood < LEAST_LIKELY:
            break
        own = np.eye(5)  # from the tangent of this direction to that of the best
        own[:2, :2] = tangent.T @ _tangent(motion[1])
        apart = np.concatenate([_angle(direction, motion[1], tangent), _logarithm(motion[0] @ rotation.T)])
        covariance += likelihood * (own @ _covariance(motion, measured) @ own.T + np.outer(apart, apart))
        total += likelihood
    whole = np.zeros((6, 5))
    whole[:3, :2], whole[3:, 2:] = tangent, np.eye(3)
    residuals = _Epipolar((rotation, direction), measured).residuals
    agreeing = int(np.count_nonzero((residuals**2).sum(axis=1) < GATES[1]))
    misfit = _misfit(residuals[:, :1], np.ones(len(residuals), np.intp))
    covariance = misfit * whole @ (covariance / total) @ whole.T
    if agreeing < FEWEST_MATCHES or np.linalg.eigvalsh(covariance[3:, 3:])[-1] > MOST_TURN**2:
        return None
    return RelativePose(rotation, direction, (covariance + covariance.T) / 2, False, agreeing)


def _directions(measured: _Measured) -> list[Motion]:
    """Return the directions, both ways, that explain the matches best, each with the rotation that goes with it."""
    if len(measured.here) > MOST_ANNEALED:
        chosen = np.zeros(len(measured.here), bool)
        chosen[np.linspace(0, len(chosen) - 1, MOST_ANNEALED).astype(int)] = True
        measured = measured.only(chosen)
    here, there = _homogeneous(measured.here), _homogeneous(measured.there)
    moments = _cross(there, HALF_SPHERE[:, np.newaxis])  # [D,M,3]
    rotations = np.tile(_rotation_alone(here, there), (DIRECTIONS, 1, 1))

    def residuals() -> tuple[Array, Array, Array]:
        turned = here @ rotations.transpose(0, 2, 1)
        lines, back = here @ (_skew(HALF_SPHERE) @ rotations).transpose(0, 2, 1), moments @ rotations
        noise = measured.noise_there**2 * (lines[..., :2] ** 2).sum(axis=2)
        noise += measured.noise_here**2 * (back[..., :2] ** 2).sum(axis=2)
        deviations = np.sqrt(noise + TINY)
        return (moments * turned).sum(axis=2) / deviations, turned, deviations

    for linear in ANNEALING:
        distances, turned, deviations = residuals()
        roots = np.sqrt(1 / (1 + distances**2 / linear))
        rows = _cross(turned, moments) * (roots / deviations)[..., np.newaxis]
        transposed = rows.transpose(0, 2, 1)
        gradient = transposed @ (roots * distances)[..., np.newaxis]
        steps = -_solved(transposed @ rows + 1e-6 * np.eye(3), gradient)[..., 0]
        lengths = np.linalg.norm(steps, axis=1, keepdims=True)
        steps *= np.minimum(1, LONGEST_STEP / np.maximum(lengths, 1e-12))
        rotations = np.stack([_exponential(step) for step in steps]) @ rotations
    costs = np.log1p(residuals()[0] ** 2 / LINEAR).sum(axis=1)
    best = np.argsort(costs, kind="stable")[:REFINED]
    return [(rotations[number], sign * HALF_SPHERE[number]) for number in best for sign in (1.0, -1.0)]


def _half_sphere(count: int) -> Array:
    """Return so many unit vectors [N,3], spread evenly over half a sphere (a Fibonacci spiral)."""
    height = (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    return np.column_stack([radius * np.cos(turn), radius * np.sin(turn), height])


HALF_SPHERE = _half_sphere(DIRECTIONS)


def _rotation_alone(here: Array, there: Array) -> Array:
    """Return the rotation [3,3] that brings rays [M,3] nearest to others, robustly (Kabsch's, reweighted)."""
    ours, theirs = (rays / np.linalg.norm(rays, axis=1, keepdims=True) for rays in (here, there))
    weights = np.ones((len(ours), 1))
    rotation = np.eye(3)
    for _ in range(5):
        left, _, right = np.linalg.svd((theirs * weights).T @ ours)
        rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        squares = ((theirs - ours @ rotation.T) ** 2).sum(axis=1, keepdims=True)
        weights = 1 / (1 + squares / max(float(np.median(squares)), 1e-12))
    return rotation


def _refined_direction(motion: Motion, measured: _Measured) -> tuple[Motion, float]:
    """Return the rotation and the direction that are a minimum of the cost, and that cost (Levenberg-Marquardt)."""
    cost, damping = _cost(motion, measured), 1e-3
    one_each = np.ones(len(measured.here), np.intp)
    for _ in range(12):
        rotation, direction = motion
        tangent = _tangent(direction)
        epipolar = _Epipolar(motion, measured)
        information, gradient = _normal_equations(epipolar.residuals, epipolar.jacobians(tangent), one_each)
        for _ in range(4):
            step = -_solved(information + damping * np.diag(np.diag(information) + 1e-9), gradient)
            there = direction + tangent @ step[:2]
            moved = _exponential(step[2:]) @ rotation, there / np.linalg.norm(there)
            lower = _cost(moved, measured)
            if lower < cost:
                break
            damping *= 10
        else:
            break
        gained, motion, cost, damping = cost - lower, moved, lower, max(damping / 10, 1e-9)
        if gained < 1e-3:
            break
    return motion, cost


def _cost(motion: Motion, measured: _Measured) -> float:
    """Return twice the negative logarithm of the likelihood, up to a constant."""
    squares = (_Epipolar(motion, measured).residuals ** 2).sum(axis=1)
    return float(LINEAR * np.log1p(squares / LINEAR).sum())


class _Epipolar:
    """How far M matches are from obeying a motion without scale.

    `residuals` [M,2] are of unit variance: the first is Sampson's distance, the second how far a point would be beyond
    infinity, 0 where it is not.
    """

    def __init__(self, motion: Motion, measured: _Measured) -> None:
        rotation, direction = motion
        self._here, self._there = _homogeneous(measured.here), _homogeneous(measured.there)
        self._rotation = rotation
        self._noises = measured.noise_here, measured.noise_there
        self._turned = self._here @ rotation.T
        self._moments = self._there @ -_skew(direction).T  # there x direction
        lines, back = self._turned @ _skew(direction).T, self._moments @ rotation
        self.variances = measured.noise_there**2 * (lines[:, :2] ** 2).sum(axis=1)
        self.variances += measured.noise_here**2 * (back[:, :2] ** 2).sum(axis=1) + TINY
        self._depth = np.maximum(self._turned[:, 2:], BEHIND)
        self._infinity = self._turned[:, :2] / self._depth
        along = (direction[:2] - self._infinity * direction[2]) / self._depth
        self._along = along / (np.sqrt((along**2).sum(axis=1, keepdims=True)) + TINY)
        self._noise_of_parallax = np.hypot(measured.noise_here, measured.noise_there)
        parallax = ((measured.there - self._infinity) * self._along).sum(axis=1)
        self.residuals = np.empty((len(parallax), 2))
        self.residuals[:, 0] = (self._there * lines).sum(axis=1) / np.sqrt(self.variances)
        self.residuals[:, 1] = np.minimum(parallax, 0) / self._noise_of_parallax

    def jacobians(self, tangent: Array) -> Array:
        """Return the derivatives [M,2,5] by the direction, in its `tangent` [3,2], and by a rotation."""
        found = np.zeros((len(self._here), 2, 5))
        deviations = np.sqrt(self.variances)[:, np.newaxis]
        found[:, 0, :2] = _cross(self._turned, self._there) @ tangent / deviations
        found[:, 0, 2:] = _cross(self._turned, self._moments) / deviations
        pull = np.empty_like(self._turned)  # of the parallax, by the turned ray
        pull[:, :2], pull[:, 2] = self._along, -(self._along * self._infinity).sum(axis=1)
        pull /= self._depth * self._noise_of_parallax
        found[:, 1, 2:] = np.where(self.residuals[:, 1:] < 0, -_cross(self._turned, pull), 0)
        return found

    def told_by_noise(self, tangent: Array) -> Array:
        """Return the information [2,2] about the direction that the noise of the matches alone would give."""
        weights = 1 / (1 + (self.residuals**2).sum(axis=1) / LINEAR) / self.variances
        told = np.zeros((2, 2))
        for moved, noise in (
            (_skew(self._turned), self._noises[1]),
            (_skew(self._there) @ self._rotation, self._noises[0]),
        ):
            rows = (tangent.T @ moved[:, :, :2]) * noise * np.sqrt(weights)[:, np.newaxis, np.newaxis]
            told += (rows @ rows.transpose(0, 2, 1)).sum(axis=0)
        return told


def _covariance(motion: Motion, measured: _Measured) -> Array:
    """Return the covariance [5,5] of a direction, in its tangent, and of a rotation, at a minimum."""
    tangent = _tangent(motion[1])
    epipolar = _Epipolar(motion, measured)
    information, _ = _normal_equations(
        epipolar.residuals, epipolar.jacobians(tangent), np.ones(len(measured.here), np.intp)
    )
    # Of two views without parallax each match would tell a direction, that of its noise. What noise alone would tell
    # is taken off again.
    rest = information[:2, 2:] @ np.linalg.solve(information[2:, 2:] + 1e-9 * np.eye(3), information[2:, :2])
    values, vectors = np.linalg.eigh(information[:2, :2] - rest - epipolar.told_by_noise(tangent))
    information[:2, :2] = rest + (vectors * np.maximum(values, 0)) @ vectors.T
    information /= ALIKE_WITHOUT
    return _inverse(information + np.eye(5))  # nothing is off by much more than a radian


def _tangent(direction: Array) -> Array:
    """Return two unit vectors [3,2] across a direction [3], and across each other."""
    return np.linalg.svd(direction[np.newaxis])[2][1:].T


def _angle(direction: Array, other: Array, tangent: Array) -> Array:
    """Return the way [2], in radians, from one direction to another in the tangent of the first."""
    across = tangent.T @ other
    length = float(np.linalg.norm(across))
    return across / max(length, 1e-12) * np.arctan2(length, direction @ other)


def _homogeneous(rays: Array) -> Array:
    found = np.ones((len(rays), 3))
    found[:, :2] = rays
    return found


def _cross(one: Array, other: Array) -> Array:
    """Return the cross products [...,3] of vectors; NumPy's own takes several times as long for so few."""
    (x, y, z), (u, v, w) = (np.moveaxis(some, -1, 0) if some.ndim > 1 else some for some in (one, other))
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=-1)


def _skew(vectors: Array) -> Array:
    """Return the matrices [...,3,3] that multiply as the cross product with vectors [...,3] does."""
    found = np.zeros((*vectors.shape, 3))
    found[..., 2, 1], found[..., 0, 2], found[..., 1, 0] = np.moveaxis(vectors, -1, 0)
    return found - found.swapaxes(-1, -2)


def _solved(matrix: Array, values: Array) -> Array:
    return np.asarray(np.linalg.solve(matrix, values), np.float64)


def _inverse(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _exponential(turn: Array) -> Array:
    return np.asarray(cv2.Rodrigues(np.asarray(turn, np.float64))[0], np.float64)


def _logarithm(rotation: Array) -> Array:
    return np.asarray(cv2.Rodrigues(rotation)[0], np.float64).ravel()
