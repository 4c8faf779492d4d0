# SPDX-License-Identifier: Apache-2.0
"""Where odometry says that the robot was at a stamp, and when odometry began anew."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.odometry import FASTEST, JUMP, STALE
from binvpr_ros.slam.poses import Transform, carried, interpolated, rotation_vectors, skew

LATEST = 4096
"""Latest odometry that is kept: 20 s at 200 Hz. A keyframe is announced a while after it was seen."""
FASTEST_TURN = 2 * math.pi
"""Radians a second, likewise."""
TURN_JUMP = 1.0
"""Radians that a robot may turn in any time without a jump."""
LONGEST_GAP = 2 * NANOSECONDS
"""Between two measurements, over which a pose is interpolated."""


class Measurement(NamedTuple):
    """What odometry says of the robot."""

    run: int  # counts how often odometry began anew
    stamp: int  # nanoseconds
    pose: Transform  # [4,4], of the robot in the odometry's frame
    covariance: NDArray[np.float64] | None  # [6,6] of x, y, z and rotations about x, y, z of that frame; None: not told


class OdometryRuns:
    """The latest odometry, in runs: a new one begins where odometry jumps in time or space, or changes its frame."""

    def __init__(self) -> None:
        self._frame = ""
        self._latest: deque[Measurement] = deque(maxlen=LATEST)

    def add(
        self, stamp: int, frame: str, pose: Transform, covariance: NDArray[np.float64] | None = None
    ) -> Measurement | None:
        """Take the pose [4,4] of the robot at `stamp` (nanoseconds) in `frame`; return it, or None where it is late.

        Late is at most STALE seconds before the latest; what is earlier than that belongs to a new run.
        """
        latest = self._latest[-1] if self._latest else None
        run = 0 if latest is None else latest.run
        if latest is not None:
            seconds = (stamp - latest.stamp) * 1e-9
            if frame == self._frame and -STALE < seconds <= 0:
                return None
            if frame != self._frame or seconds < 0 or _jumps(latest.pose, pose, seconds):
                run += 1
        self._frame = frame
        measurement = Measurement(run, stamp, pose, covariance)
        self._latest.append(measurement)
        return measurement

    @property
    def run(self) -> int:
        """The number of the present run."""
        return self._latest[-1].run if self._latest else 0

    def passed(self, stamp: int) -> bool:
        """Tell whether odometry of `stamp`, or of later, has come in the present run."""
        return bool(self._latest) and self._latest[-1].stamp >= stamp

    def at(self, stamp: int) -> Measurement | None:
        """Return where the robot was at `stamp`, by the latest run that tells; None where none does."""
        later: Measurement | None = None  # the one after, in the same run
        for one in reversed(self._latest):
            if one.stamp == stamp:
                return one
            if one.stamp > stamp:
                later = one
                continue
            if later is not None and later.run == one.run and later.stamp - one.stamp <= LONGEST_GAP:
                share = (stamp - one.stamp) / (later.stamp - one.stamp)
                return Measurement(one.run, stamp, interpolated(one.pose, later.pose, share), one.covariance)
            later = None
        return None


def _jumps(before: Transform, pose: Transform, seconds: float) -> bool:
    """Tell whether odometry cannot have gone on from one pose to the other; after a long gap it may have begun anew."""
    longest = 0.0 if seconds > LONGEST_GAP / NANOSECONDS else seconds
    step = math.dist(pose[:3, 3], before[:3, 3])
    turn = float(np.linalg.norm(rotation_vectors(before[:3, :3].T @ pose[:3, :3])))
    return step > max(FASTEST * longest, JUMP) or turn > max(FASTEST_TURN * longest, TURN_JUMP)


def growth(start: Measurement, end: Measurement) -> NDArray[np.float64] | None:
    """Return by what the covariance of odometry has grown from one measurement to another; None where it is not told.

    It is [6,6], of the robot's motion between them, as in poses.py. Where a driver fills in constants this is no
    covariance: whoever uses it has to check that.
    """
    if start.covariance is None or end.covariance is None or start.run != end.run:
        return None
    # A robot that was turned by a little has gone elsewhere since.
    carry = np.eye(6)
    carry[:3, 3:] = -skew(end.pose[:3, 3] - start.pose[:3, 3])
    grown = end.covariance - carried(start.covariance, carry)
    back = np.zeros((6, 6))
    back[:3, 3:] = back[3:, :3] = end.pose[:3, :3].T
    return carried(grown, back)
