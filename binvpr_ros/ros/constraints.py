# SPDX-License-Identifier: Apache-2.0
"""Read the topic `loop_constraints`, for pose graphs and other nodes in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.loop_constraint import LoopConstraint, RelativePose, rotation_from_quaternion
from binvpr_ros.ros.messages import constraint_rows_from_message

LENGTH_TOLERANCE = 1e-3
"""By which a quaternion, or a direction, may fail to be of length one."""
COVARIANCE_TOLERANCE = 1e-6
"""Of its largest entry, or of 1 where that is less, by which a covariance may fail to be symmetric, and positive
semidefinite."""

FARTHEST = 1e5
"""Metres between two cameras beyond which nobody has measured anything."""
LARGEST_VARIANCE = 1e8
"""Likewise, of an entry of a covariance: 10 km squared."""


def read_loop_constraints(message: PointCloud2) -> list[LoopConstraint]:
    """Return the rows of a message of `loop_constraints`, best first.

    Raises ValueError for any other point cloud, and for numbers that are no pose or no covariance.
    """
    return [_constraint(row) for row in constraint_rows_from_message(message)]


def _constraint(row: NDArray[Any]) -> LoopConstraint:
    query, match = (int(row[f"{name}_sec"]) * NANOSECONDS + int(row[f"{name}_nanosec"]) for name in ("query", "match"))
    return LoopConstraint(
        query_id=int(row["query_id"]),
        match_id=int(row["match_id"]),
        query_session=int(row["query_session"]),
        match_session=int(row["match_session"]),
        query_stamp=query,
        match_stamp=match,
        pose=pose_from_row(row, int(row["scale_known"]), int(row["inliers"])),
    )


def pose_from_row(row: NDArray[Any], scale_known: int, inliers: int) -> RelativePose:
    """Return the pose in a row, whose scale is known (1) or not (0); raises ValueError where its numbers are none."""
    translation = np.array([row[name] for name in ("x", "y", "z")], np.float64)
    quaternion = np.array([row[name] for name in ("qx", "qy", "qz", "qw")], np.float64)
    covariance = np.array(row["covariance"], np.float64).reshape(6, 6)
    if not all(np.isfinite(numbers).all() for numbers in (translation, quaternion, covariance)):
        raise ValueError("a loop constraint holds numbers that are not finite; check its publisher")
    if np.abs(translation).max() > FARTHEST or np.abs(covariance).max() > LARGEST_VARIANCE:
        raise ValueError(
            f"a loop constraint is farther than {FARTHEST:.0e} m, or its covariance larger than {LARGEST_VARIANCE:.0e};"
            " check its publisher"
        )
    with np.errstate(over="ignore"):
        of_quaternion, of_translation = np.linalg.norm(quaternion), np.linalg.norm(translation)
    if abs(of_quaternion - 1) > LENGTH_TOLERANCE:
        raise ValueError("the quaternion of a loop constraint is not of length one; check its publisher")
    if scale_known not in (0, 1):
        raise ValueError(f"scale_known of a loop constraint is {scale_known}, not 0 or 1; check its publisher")
    if not scale_known and abs(of_translation - 1) > LENGTH_TOLERANCE:
        raise ValueError("the direction of a loop constraint without scale is not of length one; check its publisher")
    largest = max(float(np.abs(covariance).max()), np.finfo(np.float64).tiny)
    scaled = covariance / largest
    asymmetry = np.abs(scaled - scaled.T).max()
    least = np.linalg.eigvalsh((scaled + scaled.T) / 2).min()
    if asymmetry > COVARIANCE_TOLERANCE or -least > COVARIANCE_TOLERANCE * min(1.0, 1 / largest):
        raise ValueError(
            "the covariance of a loop constraint is not symmetric and positive semidefinite; check its publisher"
        )
    return RelativePose(rotation_from_quaternion(quaternion), translation, covariance, bool(scale_known), inliers)
