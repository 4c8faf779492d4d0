# SPDX-License-Identifier: Apache-2.0
"""Poses of made-up scenes, whose truth is known."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import MILLIMETRES, NO_PAIRS, POSITION_STEPS, Features, Pairs
from binvpr_ros.local_features.pose import (
    ALIKE_WITH_DEPTH,
    ALIKE_WITHOUT,
    DEPTH_NOISE,
    PIXEL_NOISE,
    relative_pose,
)
from binvpr_ros.loop_constraint import RelativePose

Array = NDArray[np.float64]
SIZE = 480, 360
CAMERA = Camera(SIZE, np.array([[400.0, 0, 239.5], [0, 400, 179.5], [0, 0, 1]]), np.zeros(5))
WIDE = Camera((960, 720), np.array([[500.0, 0, 470], [0, 505, 365], [0, 0, 1]]), np.array([-0.2, 0.05, 0, 0]))
CHI_SQUARE_95 = {5: 11.07, 6: 12.59}
ASIDE = np.array([0.5, 0.05, 0.1])


class Scene(NamedTuple):
    """Two views of points, and the truth."""

    query: Features
    match: Features
    pairs: Pairs
    rotation: Array
    translation: Array

    def pose(self, camera: Camera = CAMERA) -> RelativePose | None:
        return relative_pose(self.query, self.match, camera, camera, self.pairs, self.pairs)

    def without_depths(self) -> Scene:
        return self._replace(query=self.query._replace(depths=None), match=self.match._replace(depths=None))


def features(pixels: Array, depths: Array | None, size: tuple[int, int]) -> Features:
    positions = np.clip(pixels / size * POSITION_STEPS, 0, POSITION_STEPS - 1).astype(np.uint16)
    count = len(pixels)
    millimetres = None if depths is None else np.rint(depths * MILLIMETRES).astype(np.uint16)
    nothing = np.zeros(count, np.uint8), np.zeros((count, 32), np.uint8)
    return Features(SIZE, positions, *nothing, depths=millimetres)


def scene(
    seed: int,
    *,
    translation: Array = ASIDE,
    turn: float = 0.2,
    count: int = 120,
    noise: float = 1.0,
    outliers: float = 0.0,
    depth: tuple[float, float] = (1.5, 5.0),
    plane: bool = False,
    camera: Camera = CAMERA,
) -> Scene:
    """Make a scene whose `noise` is so many times what a pose expects, with a share of wrong matches."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    rotation = np.asarray(cv2.Rodrigues(turn * axis / np.linalg.norm(axis))[0], np.float64)
    rays = rng.uniform((-0.45, -0.35), (0.45, 0.35), (20 * count, 2))
    far = rng.uniform(*depth, len(rays))
    if plane:
        normal = np.array([0.3, -0.2, 1.0])
        far = 0.5 * sum(depth) / (np.column_stack([rays, np.ones(len(rays))]) @ normal)
    points = np.column_stack([rays, np.ones(len(rays))]) * far[:, np.newaxis]
    there = points @ rotation.T + translation
    here_pixels, there_pixels = (
        cv2.projectPoints(some, np.zeros(3), np.zeros(3), camera.matrix, camera.coefficients)[0].reshape(-1, 2)
        for some in (points, there)
    )
    seen = (there[:, 2] > 0.3) & ((there_pixels > 5) & (there_pixels < np.array(camera.size) - 5)).all(axis=1)
    seen &= ((here_pixels > 5) & (here_pixels < np.array(camera.size) - 5)).all(axis=1)
    chosen = np.flatnonzero(seen)[:count]
    assert len(chosen) == count
    deviation = noise * PIXEL_NOISE * camera.size[0] / SIZE[0]
    wrong = rng.random(count) < outliers
    views = []
    for pixels, its in ((here_pixels, points), (there_pixels, there)):
        measured = pixels[chosen] + rng.normal(0, deviation, (count, 2))
        if its is there:
            measured[wrong] += rng.uniform(20, 100, (wrong.sum(), 2)) * rng.choice([-1, 1], (wrong.sum(), 2))
        depths = its[chosen, 2]
        depths = depths + noise * (DEPTH_NOISE[0] + DEPTH_NOISE[1] * depths**2) * rng.normal(size=count)
        views.append(features(measured, depths, camera.size))
    pairs = np.arange(count), np.arange(count)
    return Scene(views[0], views[1], pairs, rotation, np.asarray(translation, np.float64))


def turned(pose: RelativePose, rotation: Array) -> Array:
    """Return the rotation [3], in radians, by which a pose is off."""
    return np.asarray(cv2.Rodrigues(rotation @ pose.rotation.T)[0], np.float64).ravel()


def degrees_between(one: Array, other: Array) -> float:
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def mahalanobis(pose: RelativePose, truth: Scene) -> float:
    """Return the squared distance of the truth, of 6 numbers, or of 5 where the scale is unknown."""
    if pose.scale_known:
        off = np.concatenate([truth.translation - pose.translation, turned(pose, truth.rotation)])
        return float(off @ np.linalg.solve(pose.covariance, off))
    tangent = np.linalg.svd(pose.translation[np.newaxis])[2][1:]
    across = tangent @ (truth.translation / np.linalg.norm(truth.translation))
    angle = np.deg2rad(degrees_between(pose.translation, truth.translation))
    off = np.concatenate([across / max(float(np.linalg.norm(across)), 1e-12) * angle, turned(pose, truth.rotation)])
    chosen = np.zeros((5, 6))
    chosen[:2, :3], chosen[2:, 3:] = tangent, np.eye(3)
    return float(off @ np.linalg.solve(chosen @ pose.covariance @ chosen.T, off))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("camera", [CAMERA, WIDE], ids=["pinhole", "distorted"])
def test_with_depths_the_pose_is_found(seed: int, camera: Camera) -> None:
    truth = scene(seed, camera=camera)
    pose = truth.pose(camera)
    assert pose is not None
    assert pose.scale_known
    assert pose.inliers >= 100
    assert np.linalg.norm(pose.translation - truth.translation) < 0.03
    assert np.rad2deg(np.linalg.norm(turned(pose, truth.rotation))) < 0.5
    np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("side", ["query", "match"])
def test_the_depths_of_one_view_are_enough(side: str) -> None:
    truth = scene(3)
    truth = truth._replace(**{side: getattr(truth, side)._replace(depths=None)})
    pose = truth.pose()
    assert pose is not None
    assert pose.scale_known
    assert np.linalg.norm(pose.translation - truth.translation) < 0.05
    both = scene(3).pose()
    assert both is not None
    assert np.trace(both.covariance) < np.trace(pose.covariance)


def test_exchanged_views_have_the_inverse_pose() -> None:
    truth = scene(4)
    pose = truth.pose()
    back = relative_pose(truth.match, truth.query, CAMERA, CAMERA, truth.pairs, truth.pairs)
    assert pose is not None
    assert back is not None
    np.testing.assert_allclose(back.rotation, pose.rotation.T, atol=2e-4)
    np.testing.assert_allclose(back.translation, -pose.rotation.T @ pose.translation, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_wrong_matches_are_left_out(seed: int) -> None:
    truth = scene(seed, outliers=0.3)
    pose = truth.pose()
    assert pose is not None
    assert pose.scale_known
    assert pose.inliers <= 100
    assert np.linalg.norm(pose.translation - truth.translation) < 0.05
    direction = truth.without_depths().pose()
    assert direction is not None
    assert not direction.scale_known
    assert degrees_between(direction.translation, truth.translation) < 6


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("translation", [ASIDE, np.array([0.0, 0.1, 0.9]), np.array([0.1, 0.0, -0.6])])
def test_without_depths_the_direction_is_found(seed: int, translation: Array) -> None:
    truth = scene(seed, translation=translation).without_depths()
    pose = truth.pose()
    assert pose is not None
    assert not pose.scale_known
    assert np.linalg.norm(pose.translation) == pytest.approx(1)
    assert degrees_between(pose.translation, truth.translation) < 6
    assert np.rad2deg(np.linalg.norm(turned(pose, truth.rotation))) < 1.5
    # Along itself a direction does not vary.
    np.testing.assert_allclose(pose.covariance @ np.concatenate([pose.translation, np.zeros(3)]), 0, atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_a_plane_is_no_trap(seed: int) -> None:
    truth = scene(seed, plane=True).without_depths()
    pose = truth.pose()
    assert pose is not None
    # Two poses explain a plane; the other must be within what is said to be possible.
    assert mahalanobis(pose, truth) < 2 * CHI_SQUARE_95[5]
    with_depths = scene(seed, plane=True).pose()
    assert with_depths is not None
    assert with_depths.scale_known
    assert np.linalg.norm(with_depths.translation - truth.translation) < 0.05


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("far", [False, True])
def test_without_parallax_the_direction_is_unknown_and_the_rotation_good(seed: int, far: bool) -> None:
    truth = scene(seed, depth=(40.0, 60.0)) if far else scene(seed, translation=np.zeros(3))
    pose = truth.without_depths().pose()
    assert pose is not None
    assert not pose.scale_known
    assert np.rad2deg(np.sqrt(np.linalg.eigvalsh(pose.covariance[:3, :3])[-1])) > 30
    assert np.rad2deg(np.linalg.norm(turned(pose, truth.rotation))) < 1.5


def test_a_few_depths_or_far_ones_tell_no_scale() -> None:
    truth = scene(1)
    assert truth.query.depths is not None
    few = np.where(np.arange(120) < 8, truth.query.depths, 0).astype(np.uint16)
    pose = truth._replace(query=truth.query._replace(depths=few), match=truth.match._replace(depths=None)).pose()
    assert pose is not None
    assert not pose.scale_known
    together = scene(1, count=400)
    assert together.query.depths is not None
    points = together.query.points(np.arange(400), SIZE)
    near = np.linalg.norm(points - np.median(points, axis=0), axis=1) < 30
    some = np.where(near, together.query.depths, 0).astype(np.uint16)
    pose = together._replace(
        query=together.query._replace(depths=some), match=together.match._replace(depths=None)
    ).pose()
    assert pose is not None
    assert not pose.scale_known


def test_too_few_matches_tell_nothing() -> None:
    truth = scene(1)
    few = truth.pairs[0][:11], truth.pairs[1][:11]
    assert relative_pose(truth.query, truth.match, CAMERA, CAMERA, few, few) is None
    assert relative_pose(truth.query, truth.match, CAMERA, CAMERA, NO_PAIRS, NO_PAIRS) is None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["one pixel", "line", "noise", "depth zero"])
def test_nonsense_raises_nothing(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    here, there = rng.uniform(0, 360, (2, 60, 2))
    if kind == "one pixel":
        here[:] = there[:] = 100
    elif kind == "line":
        here[:, 1] = there[:, 1] = here[:, 0]
    depths = np.zeros(60) if kind == "depth zero" else rng.uniform(0.001, 65, 60)
    pairs = np.arange(60), np.arange(60)
    pose = relative_pose(features(here, depths, SIZE), features(there, None, SIZE), CAMERA, CAMERA, pairs, pairs)
    if pose is not None:
        assert np.isfinite(pose.covariance).all()
        assert np.linalg.eigvalsh(pose.covariance).min() > -1e-9


@pytest.mark.parametrize("depths", [True, False], ids=["with depths", "without"])
def test_what_no_pose_explains_widens_the_covariance(depths: bool) -> None:
    """As a rolling shutter or a lens that is not calibrated leaves it: here three times the usual noise."""

    def spread(noise: float) -> float:
        deviations = []
        for seed in range(5):
            views = scene(seed, noise=noise)
            pose = (views if depths else views.without_depths()).pose()
            assert pose is not None
            deviations.append(np.sqrt(np.trace(pose.covariance[3:, 3:])))
        return float(np.median(deviations))

    assert spread(3.0) > 2 * spread(1.0)


@pytest.mark.parametrize(("depths", "alike", "numbers"), [(True, ALIKE_WITH_DEPTH, 6), (False, ALIKE_WITHOUT, 5)])
def test_the_covariance_is_true(depths: bool, alike: float, numbers: int) -> None:
    # The noise of made-up matches is independent, so that each of them counts.
    squares = []
    for seed in range(200 if depths else 80):
        truth = scene(seed) if depths else scene(seed).without_depths()
        pose = truth.pose()
        assert pose is not None
        assert pose.scale_known == depths
        squares.append(mahalanobis(pose, truth) * alike)
    assert np.median(squares) == pytest.approx(numbers - 0.67, rel=0.4)
    assert np.mean(np.array(squares) < CHI_SQUARE_95[numbers]) >= 0.9
