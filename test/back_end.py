# SPDX-License-Identifier: Apache-2.0
"""A small SLAM back end, as one that the node is made for: a pose graph that is closed by the node's candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from binvpr_ros.ros.messages import from_nanoseconds, rows_from_message, to_nanoseconds
from binvpr_ros.ros.node import EVERY_RESULT

Pose = NDArray[np.float64]
"""[4,4], from a frame's coordinates to another's, metres."""

ODOMETRY_SIGMAS = (0.01, 0.02)  # radians and metres, from one frame to the next
LOOP_SIGMAS = (0.03, 0.25)
"""Of a closure the rotation is measured; where a monocular pair stands it does not know, but that it is near."""
FEWEST_INLIERS = 20


@dataclass(frozen=True)
class Edge:
    """A measured motion between two keyframes, by their indices."""

    start: int
    end: int
    motion: Pose  # of `end` in the coordinates of `start`
    sigmas: tuple[float, float]


class BackEnd:
    """Keeps poses of keyframes by the stamps of their images, from odometry, and closes loops that the node suggests.

    It tells the node which images are its keyframes (parameter keyframe_source: topic). `image_at` returns the grey
    image of a stamp, `camera_matrix` [3,3] is its camera's.
    """

    def __init__(
        self, node: Node, camera_matrix: NDArray[np.float64], image_at: Callable[[int], NDArray[np.uint8]],
    ) -> None:  # fmt: skip
        self.stamps: list[int] = []
        self.poses: list[Pose] = []
        self.edges: list[Edge] = []
        self.suggested: list[tuple[int, int]] = []
        self._matrix, self._image_at = camera_matrix, image_at
        self._keyframe_stamps = node.create_publisher(Header, "keyframe_stamps", EVERY_RESULT)
        node.create_subscription(PointCloud2, "loop_closures", self._on_loop_closures, EVERY_RESULT)

    def add(self, stamp: int, motion: Pose | None) -> None:
        """Add a keyframe, moved from the one before as odometry says."""
        if motion is None:
            self.poses.append(np.eye(4))
        else:
            self.edges.append(Edge(len(self.poses) - 1, len(self.poses), motion, ODOMETRY_SIGMAS))
            self.poses.append(self.poses[-1] @ motion)
        self.stamps.append(stamp)
        self._keyframe_stamps.publish(Header(stamp=from_nanoseconds(stamp)))

    def close_loops(self) -> int:
        """Verify what the node suggested, put it into the graph, and solve that; return how many loops were closed."""
        closed = 0
        for query, match in self.suggested:
            # They name our own keyframes, so the stamps are equal: no other one is near.
            at, there = self.stamps.index(query), self.stamps.index(match)
            rotation = self._rotation(there, at)
            if rotation is not None:
                motion = np.eye(4)
                motion[:3, :3] = rotation
                self.edges.append(Edge(there, at, motion, LOOP_SIGMAS))
                closed += 1
        self.poses = _solve(self.poses, self.edges)
        return closed

    def _on_loop_closures(self, message: PointCloud2) -> None:
        query = to_nanoseconds(message.header.stamp)
        for row in rows_from_message(message):
            self.suggested.append((query, int(row["match_sec"]) * 10**9 + int(row["match_nanosec"])))

    def _rotation(self, start: int, end: int) -> NDArray[np.float64] | None:
        """Return the rotation [3,3] of keyframe `end` in `start`, from their images; None where they do not match."""
        orb: Any = cv2.ORB_create(1000)  # type: ignore[attr-defined]
        (ours, bits), (theirs, their_bits) = (
            orb.detectAndCompute(self._image_at(self.stamps[index]), None) for index in (end, start)
        )
        pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(bits, their_bits)
        here = np.array([ours[pair.queryIdx].pt for pair in pairs])
        there = np.array([theirs[pair.trainIdx].pt for pair in pairs])
        essential, mask = cv2.findEssentialMat(here, there, self._matrix, cv2.RANSAC, 0.999, 1.5)
        if essential is None or essential.shape != (3, 3):
            return None
        inliers, rotation, _, _ = cv2.recoverPose(essential, here, there, self._matrix, mask=mask)
        return np.asarray(rotation) if inliers >= FEWEST_INLIERS else None


def _solve(poses: list[Pose], edges: list[Edge], steps: int = 30) -> list[Pose]:
    """Return the poses that fit all edges best, the first one fixed: Gauss-Newton, wrong closures weighed down."""
    starts, ends = (np.array([getattr(edge, name) for edge in edges]) for name in ("start", "end"))
    measured = np.stack([edge.motion for edge in edges])
    inverse = Rotation.from_matrix(measured[:, :3, :3]).inv()
    sigmas = np.repeat([edge.sigmas for edge in edges], 3, axis=1)
    stacked = np.stack(poses)
    rotations, places = Rotation.from_matrix(stacked[:, :3, :3]), stacked[:, :3, 3].copy()
    rows = np.broadcast_to(6 * np.arange(len(edges))[:, None, None] + np.arange(6)[:, None], (len(edges), 6, 6))
    columns = [np.broadcast_to(6 * index[:, None, None] + np.arange(6), (len(edges), 6, 6)) for index in (starts, ends)]
    for _ in range(steps):
        back = rotations[starts].inv()
        between = back.apply(places[ends] - places[starts])
        turned = (inverse * (back * rotations[ends])).as_rotvec()
        residuals = np.hstack([turned, between - measured[:, :3, 3]]) / sigmas
        weights = 1 / np.sqrt(np.maximum(np.linalg.norm(residuals, axis=1), 3.0) / 3.0)  # Huber's
        # By a small turn of a pose on its right, and by its place.
        of_start, of_end = np.zeros((2, len(edges), 6, 6))
        of_start[:, :3, :3] = -(rotations[ends].inv() * rotations[starts]).as_matrix()
        of_start[:, 3:, :3] = _skew(between)
        of_start[:, 3:, 3:] = -back.as_matrix()
        of_end[:, :3, :3] = np.eye(3)
        of_end[:, 3:, 3:] = back.as_matrix()
        scale = (weights[:, None] / sigmas)[:, :, None]
        values = np.concatenate([(of_start * scale).ravel(), (of_end * scale).ravel()])
        places_of = (np.tile(rows.ravel(), 2), np.concatenate([column.ravel() for column in columns]))
        jacobian = csc_matrix((values, places_of), shape=(6 * len(edges), 6 * len(poses)))[:, 6:]
        step = spsolve(jacobian.T @ jacobian, -jacobian.T @ (residuals * weights[:, None]).ravel()).reshape(-1, 6)
        rotations = Rotation.concatenate([rotations[:1], rotations[1:] * Rotation.from_rotvec(step[:, :3])])
        places[1:] += step[:, 3:]
        if np.abs(step).max() < 1e-5:
            break
    solved = np.tile(np.eye(4), (len(poses), 1, 1))
    solved[:, :3, :3], solved[:, :3, 3] = rotations.as_matrix(), places
    return list(solved)


def _skew(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices [N,3,3] that stand for the cross products with vectors [N,3]."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
