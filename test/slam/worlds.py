# SPDX-License-Identifier: Apache-2.0
"""Routes with their truth, the odometry that drifts along them, and loop constraints, true and false."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.loop_constraint import LoopConstraint, RelativePose
from binvpr_ros.slam.graph import OdometryNoise, PoseGraph
from binvpr_ros.slam.poses import Transform, inverse, rotation_of

NOISE = OdometryNoise(0.05, 1.0)
SIGMAS = np.repeat([0.03, np.deg2rad(0.7)], 3)
"""Of loop constraints: metres, radians."""


@dataclass(frozen=True, eq=False)
class Route:
    """N keyframes: where they are, and where odometry has them."""

    stamps: NDArray[np.int64]  # [N], nanoseconds
    truth: Transform  # [N,4,4]
    odometry: Transform  # [N,4,4]

    def added_to(self, graph: PoseGraph, constraints: list[LoopConstraint]) -> None:
        """Drive along the route: each constraint comes with the keyframe of its query."""
        graph.begin(self.odometry[0])
        for stamp, pose in zip(self.stamps.tolist(), self.odometry, strict=True):
            graph.add(stamp, pose)
            for constraint in constraints:
                if constraint.query_stamp == stamp:
                    graph.constrain(constraint)


def laps(count: int = 3, seed: int = 0, bias: float = 1.0, side: int = 20, start: int = 0) -> Route:
    """Return laps of a square, 40 m each; odometry is off by 2% of the way and 0.5 degrees a metre, always alike."""
    rng = np.random.default_rng(seed)
    steps = []
    for number in range(4 * side * count):
        step = np.eye(4)
        step[0, 3] = 10 / side
        if number % side == side - 1:
            step[:3, :3] = rotation_of(np.array([0, 0, np.pi / 2]))
        steps.append(step)
    off = np.eye(4)
    axes = rng.normal(size=(2, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    off[:3, :3] = rotation_of(bias * np.deg2rad(0.5) * 10 / side * axes[0])
    off[:3, 3] = bias * 0.02 * 10 / side * axes[1]
    truth, odometry = [np.eye(4)], [np.eye(4)]
    for step in steps[:-1]:
        truth.append(truth[-1] @ step)
        odometry.append(odometry[-1] @ step @ off)
    stamps = (start + np.arange(len(steps))) * NANOSECONDS // 2
    return Route(stamps, np.stack(truth), np.stack(odometry))


def constraint(
    route: Route, query: int, match: int, rng: np.random.Generator, other: Route | None = None, **changes: Any
) -> LoopConstraint:
    """Return a true constraint between two keyframes, as far as its noise lets it; `changes` are those of its pose."""
    earlier = route if other is None else other
    motion = inverse(earlier.truth[match]) @ route.truth[query]
    errors = rng.normal(size=6) * SIGMAS
    pose = RelativePose(
        rotation_of(errors[3:]) @ motion[:3, :3], motion[:3, 3] + errors[:3], np.diag(SIGMAS**2), True, 100
    )
    sessions = (0, 0) if other is None else (1, 0)
    stamps = int(route.stamps[query]), int(earlier.stamps[match])
    return LoopConstraint(query, match, *sessions, *stamps, replace(pose, **changes))


def closed(route: Route, seed: int = 0, every: int = 4) -> list[LoopConstraint]:
    """Return constraints of every so many keyframes after the first lap, with one that is about as far in the lap."""
    rng = np.random.default_rng(seed)
    lap = 80
    return [
        constraint(route, query, query - lap + int(rng.integers(-1, 2)), rng)
        for query in range(lap + 1, len(route.stamps), every)
    ]


def error(graph: PoseGraph, route: Route) -> float:
    """Return the root mean square of the distances between the graph's poses and the truth, metres."""
    truth = dict(zip(route.stamps.tolist(), route.truth, strict=True))
    offsets = [placed.pose[:3, 3] - truth[placed.stamp][:3, 3] for placed in graph.placed()]
    return float(np.sqrt(np.mean(np.sum(np.square(offsets), axis=1))))
