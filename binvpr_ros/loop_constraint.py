# SPDX-License-Identifier: Apache-2.0
"""The relative pose of a loop closure, with its covariance: what a pose graph takes as a constraint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class RelativePose:
    """The pose of the query's camera in the frame of the match's: p_match = rotation p_query + translation.

    Both frames are optical: x right, y down, z forward. `translation` is in metres, or of length one where the scale
    is unknown: then it is the direction of travel. `covariance` is of x, y, z, and of a small rotation w about the
    match's fixed axes x, y, z (radians), by which the true rotation is exp(w) rotation. Where the scale is unknown it
    is of the direction alone, so that it is singular along the translation.
    """

    rotation: NDArray[np.float64]  # [3,3]
    translation: NDArray[np.float64]  # [3]
    covariance: NDArray[np.float64]  # [6,6]
    scale_known: bool
    inliers: int  # matches that the pose rests on


@dataclass(frozen=True, eq=False)
class LoopConstraint:
    """A relative pose between two keyframes, and which they are; a row of the topic `loop_constraints`."""

    query_id: int
    match_id: int
    query_session: int
    match_session: int
    query_stamp: int  # nanoseconds
    match_stamp: int  # nanoseconds
    pose: RelativePose


def quaternion_from_rotation(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit quaternion [4], x, y, z, w with w at least 0, of a rotation matrix [3,3]."""
    # Its products are the entries of a symmetric matrix, whose largest eigenvalue belongs to it; no case divides by 0
    # (Bar-Itzhack, Journal of Guidance, Control, and Dynamics 23(6), 2000).
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    products = np.array([
        [xx - yy - zz, xy + yx, xz + zx, zy - yz],
        [xy + yx, yy - xx - zz, yz + zy, xz - zx],
        [xz + zx, yz + zy, zz - xx - yy, yx - xy],
        [zy - yz, xz - zx, yx - xy, xx + yy + zz],
    ])  # fmt: skip
    quaternion: NDArray[np.float64] = np.linalg.eigh(products)[1][:, -1]
    return quaternion if quaternion[3] >= 0 else -quaternion


def rotation_from_quaternion(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Return the rotation matrix [3,3] of a quaternion [4], x, y, z, w, of any length but zero."""
    x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
