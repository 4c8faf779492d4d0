# SPDX-License-Identifier: Apache-2.0
"""Transforms of geometry_msgs <-> matrices, and where /tf_static has a camera on its robot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, Vector3

from binvpr_ros.slam.poses import Transform as Matrix
from binvpr_ros.slam.poses import inverse, quaternion_of, transform_of

Statics = Mapping[str, tuple[str, Matrix]]
"""By the name of a frame its parent, and its pose [4,4] there."""


def matrix_of(transform: Transform) -> Matrix | None:
    """Return a geometry_msgs/Transform as a matrix [4,4]; None where it is not finite, or has no rotation."""
    position, quaternion = (
        [getattr(part, name) for name in names]
        for part, names in ((transform.translation, "xyz"), (transform.rotation, "xyzw"))
    )
    if not np.isfinite([*position, *quaternion]).all() or not any(quaternion):
        return None
    return transform_of(position, quaternion)


def message_of(matrix: Matrix) -> Transform:
    """Return a matrix [4,4] as a geometry_msgs/Transform."""
    return Transform(translation=Vector3(**_named("xyz", matrix[:3, 3])), rotation=_quaternion(matrix))


def pose_of(matrix: Matrix) -> Pose:
    """Return a matrix [4,4] as a geometry_msgs/Pose."""
    return Pose(position=Point(**_named("xyz", matrix[:3, 3])), orientation=_quaternion(matrix))


def pose_in(statics: Statics, child: str, frame: str) -> Matrix | None:
    """Return the pose [4,4] of the frame `child` in another one; None where static transforms do not join them."""
    above, there = _up(statics, child), _up(statics, frame)
    common = next((name for name in above if name in there), None)
    return None if common is None else inverse(there[common]) @ above[common]


def _up(statics: Statics, frame: str) -> dict[str, Matrix]:
    """Return the pose of a frame in itself, and in all frames above it, by their names."""
    poses = {frame: np.eye(4)}
    while frame in statics and statics[frame][0] not in poses:  # a circle ends it
        parent, pose = statics[frame]
        poses[parent] = pose @ poses[frame]
        frame = parent
    return poses


def _quaternion(matrix: Matrix) -> Quaternion:
    return Quaternion(**_named("xyzw", quaternion_of(matrix)))


def _named(names: str, numbers: np.ndarray) -> dict[str, float]:
    return dict(zip(names, map(float, numbers), strict=True))
