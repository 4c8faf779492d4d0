# SPDX-License-Identifier: Apache-2.0
"""The transforms against GTSAM's and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from binvpr_ros.loop_constraint import RelativePose
from binvpr_ros.slam.poses import (
    FORWARD_CAMERA,
    adjoints,
    carried,
    differences,
    interpolated,
    inverse,
    measured,
    moved,
    quaternion_of,
    rotation_of,
    rotation_vectors,
    transform_of,
    twists_of,
)

gtsam = pytest.importorskip("gtsam", reason="the extra slam is not installed")
ANGLES = (0, 1e-13, 1e-9, 1e-4, 0.1, 1, 3, np.pi - 1e-4, np.pi - 1e-9, np.pi)


def some(angle: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
    pose[:3, 3] = rng.normal(size=3)
    return pose


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("seed", range(5))
def test_rotations_and_their_vectors_are_those_of_scipy(angle: float, seed: int) -> None:
    pose = some(angle, seed)
    vector = rotation_vectors(pose)
    np.testing.assert_allclose(Rotation.from_rotvec(vector).as_matrix(), pose[:3, :3], atol=1e-7)
    np.testing.assert_allclose(rotation_of(vector), pose[:3, :3], atol=1e-7)
    np.testing.assert_allclose(transform_of(pose[:3, 3], quaternion_of(pose)), pose, atol=1e-9)


@pytest.mark.parametrize("angle", ANGLES)
def test_inverses_and_adjoints_are_those_of_gtsam(angle: float) -> None:
    poses = np.stack([some(angle, seed) for seed in range(3)])
    for pose, back, adjoint in zip(poses, inverse(poses), adjoints(poses), strict=True):
        np.testing.assert_allclose(back, gtsam.Pose3(pose).inverse().matrix(), atol=1e-9)
        np.testing.assert_allclose(adjoint, gtsam.Pose3(pose).AdjointMap(), atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.01, 1.0, 3.1])
def test_twists_are_those_of_gtsam(angle: float) -> None:
    axes = np.random.default_rng(4).normal(size=(5, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    twists = np.concatenate([angle * axes, 3 * axes[::-1]], axis=1)
    for twist, transform, back in zip(twists, moved(twists), twists_of(moved(twists)), strict=True):
        np.testing.assert_allclose(transform, gtsam.Pose3.Expmap(twist).matrix(), atol=1e-9)
        np.testing.assert_allclose(back, twist, atol=1e-8)


def test_halfway_between_two_poses() -> None:
    start, end = some(0.2, 1), some(0.9, 2)
    half = interpolated(start, end, 0.5)
    np.testing.assert_allclose(half[:3, 3], (start[:3, 3] + end[:3, 3]) / 2)
    first, second = (rotation_vectors(inverse(one) @ other) for one, other in ((start, half), (half, end)))
    np.testing.assert_allclose(first, second, atol=1e-9)
    np.testing.assert_allclose(interpolated(start, end, 0.0), start, atol=1e-12)
    np.testing.assert_allclose(interpolated(start, end, 1.0), end, atol=1e-9)


def test_the_forward_camera_sees_what_is_ahead_at_its_z() -> None:
    ahead, left, up = np.array([1, 0, 0, 0]), np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0])
    to_camera = inverse(FORWARD_CAMERA)
    np.testing.assert_array_equal(to_camera @ ahead, [0, 0, 1, 0])
    np.testing.assert_array_equal(to_camera @ left, [-1, 0, 0, 0])
    np.testing.assert_array_equal(to_camera @ up, [0, -1, 0, 0])


def test_the_covariance_of_a_relative_pose_is_that_of_the_twist_on_its_right() -> None:
    rng = np.random.default_rng(0)
    deviations = np.array([0.01, 0.03, 0.02, 0.001, 0.004, 0.002])
    pose = some(1.2, 3)
    relative = RelativePose(pose[:3, :3], pose[:3, 3], np.diag(deviations**2), True, 50)
    motion, covariance = measured(relative)
    true = np.tile(np.eye(4), (20_000, 1, 1))
    errors = rng.normal(size=(len(true), 6)) * deviations
    true[:, :3, :3] = Rotation.from_rotvec(errors[:, 3:]).as_matrix() @ pose[:3, :3]
    true[:, :3, 3] = pose[:3, 3] + errors[:, :3]
    np.testing.assert_allclose(np.cov(differences(inverse(motion) @ true).T), covariance, atol=2e-5)
    np.testing.assert_allclose(carried(covariance, np.eye(6)), covariance)
