# SPDX-License-Identifier: Apache-2.0
"""Files of poses: TUM trajectories, which evo reads, and g2o pose graphs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.slam.graph import Placed
from binvpr_ros.slam.poses import Transform, adjoints, carried, inverse, quaternion_of
from binvpr_ros.slam.solver import Factor, credible


def write_tum(path: Path, placed: Iterable[Placed]) -> None:
    """Write poses as lines of `stamp x y z qx qy qz qw`, in the order of their stamps; raises OSError."""
    lines = [
        f"{one.stamp // NANOSECONDS}.{one.stamp % NANOSECONDS:09d} {_numbers(one.pose)}"
        for one in sorted(placed, key=lambda one: one.stamp)
    ]
    _replace(path, lines)


def write_g2o(path: Path, placed: Iterable[Placed], factors: Iterable[Factor]) -> None:
    """Write a pose graph as vertices and edges of g2o (VERTEX_SE3:QUAT, EDGE_SE3:QUAT); raises OSError.

    A vertex is named by the number of its keyframe.
    """
    lines = [f"VERTEX_SE3:QUAT {one.number} {_numbers(one.pose)}" for one in placed]
    order = [3, 4, 5, 0, 1, 2]  # translation first
    upper = np.triu_indices(6)
    for factor in factors:
        information = np.linalg.inv(credible(factor.covariance))[np.ix_(order, order)]
        numbers = " ".join(f"{number:.9g}" for number in information[upper])
        lines.append(f"EDGE_SE3:QUAT {factor.start} {factor.end} {_numbers(factor.motion)} {numbers}")
    _replace(path, lines)


def of_robot(factor: Factor, mounting: Transform) -> Factor:
    """Return a motion of the camera as one of the robot, in whose frame the camera is at `mounting` [4,4]."""
    motion = mounting @ factor.motion @ inverse(mounting)
    return Factor(factor.start, factor.end, motion, carried(factor.covariance, adjoints(mounting)))


def _numbers(pose: Transform) -> str:
    return " ".join(f"{number:.9g}" for number in (*pose[:3, 3], *quaternion_of(pose)))


def _replace(path: Path, lines: list[str]) -> None:
    """Write a file whole, or leave it as it was."""
    whole = path.with_name(path.name + ".new")
    whole.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    whole.replace(path)
