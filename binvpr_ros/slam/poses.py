# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms as matrices [...,4,4], many at a time.

A small motion is a twist [6]: rotation, then translation, as in GTSAM. A covariance [6,6] is of the twist by which a
transform is off on its right: true = measured exp(twist).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from binvpr_ros.loop_constraint import RelativePose, quaternion_from_rotation, rotation_from_quaternion

Transform = NDArray[np.float64]
"""[4,4], from a frame's coordinates to another's, metres."""
FORWARD_CAMERA: Transform = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""The pose, in a robot's base frame (x ahead, y left, z up), of a camera there that looks ahead (x right, y down)."""


def transform_of(position: ArrayLike, quaternion: ArrayLike) -> Transform:
    """Return the transform of a position [3] and a quaternion [4], x, y, z, w, of any length but zero."""
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation_from_quaternion(quaternion), position
    return transform


def quaternion_of(transform: Transform) -> NDArray[np.float64]:
    """Return the unit quaternion [4], x, y, z, w, of a transform's rotation."""
    return quaternion_from_rotation(transform[:3, :3])


def inverse(transforms: Transform) -> Transform:
    """Return the inverses of transforms [...,4,4]."""
    result = np.zeros_like(transforms)
    result[..., :3, :3] = np.swapaxes(transforms[..., :3, :3], -1, -2)
    result[..., :3, 3] = -(result[..., :3, :3] @ transforms[..., :3, 3, None])[..., 0]
    result[..., 3, 3] = 1
    return result


def rotation_vectors(transforms: Transform) -> NDArray[np.float64]:
    """Return the rotations of transforms [...,4,4] as vectors [...,3], radians."""
    m = transforms[..., :3, :3]
    sines = np.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1) / 2
    sine = np.linalg.norm(sines, axis=-1)
    angle = np.arctan2(sine, (np.trace(m, axis1=-2, axis2=-1) - 1) / 2)
    # Near half a turn the axis is in the symmetric part: m + 1 is twice its outer product.
    outer = (m + np.swapaxes(m, -1, -2)) / 2 + np.eye(3)
    column = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    axis = np.take_along_axis(outer, column[..., None, None], axis=-1)[..., 0]
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    axis *= np.where(np.sum(axis * sines, axis=-1, keepdims=True) < 0, -1.0, 1.0)
    usual = sines * (angle / np.where(sine < 1e-12, 1.0, sine))[..., None]
    usual = np.where((sine < 1e-12)[..., None], sines, usual)
    return np.where((angle > np.pi - 1e-3)[..., None], axis * angle[..., None], usual)


def differences(transforms: Transform) -> NDArray[np.float64]:
    """Return how far transforms [...,4,4] are from the identity: rotation vectors and translations [...,6]."""
    return np.concatenate([rotation_vectors(transforms), transforms[..., :3, 3]], axis=-1)


def skew(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices [...,3,3] of the cross products with vectors [...,3]."""
    result = np.zeros((*vectors.shape, 3))
    x, y, z = np.moveaxis(vectors, -1, 0)
    result[..., 0, 1], result[..., 0, 2], result[..., 1, 2] = -z, y, -x
    return result - np.swapaxes(result, -1, -2)


def adjoints(transforms: Transform) -> NDArray[np.float64]:
    """Return the matrices [...,6,6] that take twists on the right of transforms [...,4,4] to their left."""
    rotations = transforms[..., :3, :3]
    result = np.zeros((*transforms.shape[:-2], 6, 6))
    result[..., :3, :3] = result[..., 3:, 3:] = rotations
    result[..., 3:, :3] = skew(transforms[..., :3, 3]) @ rotations
    return result


def carried(covariances: NDArray[np.float64], jacobians: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return covariances [...,6,6] of twists, carried over by Jacobians [...,6,6]."""
    return jacobians @ covariances @ np.swapaxes(jacobians, -1, -2)


def interpolated(start: Transform, end: Transform, share: float) -> Transform:
    """Return the transform at a share of the way from one to another: straight ahead, and turning evenly."""
    turn = rotation_vectors(start[:3, :3].T @ end[:3, :3])
    result = np.eye(4)
    result[:3, :3] = start[:3, :3] @ rotation_of(share * turn)
    result[:3, 3] = (1 - share) * start[:3, 3] + share * end[:3, 3]
    return result


def rotation_of(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation matrices [...,3,3] of rotation vectors [...,3], radians (Rodrigues' formula)."""
    angles = np.linalg.norm(vectors, axis=-1)[..., None, None]
    turns = skew(vectors)
    # sin(a) / a and (1 - cos(a)) / a^2, and no division by zero
    return np.eye(3) + np.sinc(angles / np.pi) * turns + np.sinc(angles / 2 / np.pi) ** 2 / 2 * (turns @ turns)


def moved(twists: NDArray[np.float64]) -> Transform:
    """Return the transforms [...,4,4] of twists [...,6]: the exponential map of SE(3)."""
    result = np.zeros((*twists.shape[:-1], 4, 4))
    result[..., :3, :3] = rotation_of(twists[..., :3])
    result[..., :3, 3] = (_screws(twists[..., :3]) @ twists[..., 3:, None])[..., 0]
    result[..., 3, 3] = 1
    return result


def twists_of(transforms: Transform) -> NDArray[np.float64]:
    """Return the twists [...,6] of transforms [...,4,4]: the logarithm, of turns by less than a whole one."""
    vectors = rotation_vectors(transforms)
    shifts = np.linalg.solve(_screws(vectors), transforms[..., :3, 3, None])[..., 0]
    return np.concatenate([vectors, shifts], axis=-1)


def _screws(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices [...,3,3] that take the translations of twists with these rotations [...,3] to transforms."""
    angles = np.linalg.norm(vectors, axis=-1)[..., None, None]
    turns = skew(vectors)
    # (1 - cos(a)) / a^2 and (1 - sin(a) / a) / a^2, of which the second is 1/6 where it is lost in rounding
    second = np.where(angles < 1e-3, 1 / 6, (1 - np.sinc(angles / np.pi)) / np.maximum(angles, 1e-3) ** 2)
    return np.eye(3) + np.sinc(angles / 2 / np.pi) ** 2 / 2 * turns + second * (turns @ turns)


def measured(pose: RelativePose) -> tuple[Transform, NDArray[np.float64]]:
    """Return a relative pose as a transform, and its covariance [6,6] as this module has it."""
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = pose.rotation, pose.translation
    back = pose.rotation.T  # from the match's axes, in which its covariance is, to the query's
    jacobian = np.zeros((6, 6))
    jacobian[:3, 3:] = jacobian[3:, :3] = back
    return transform, carried(pose.covariance, jacobian)
