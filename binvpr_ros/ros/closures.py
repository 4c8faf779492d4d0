# SPDX-License-Identifier: Apache-2.0
"""Read the topic `loop_closures`, for back ends and other nodes in Python."""

from __future__ import annotations

from typing import NamedTuple

from sensor_msgs.msg import PointCloud2

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.ros.messages import rows_from_message, to_nanoseconds


class LoopClosureRow(NamedTuple):
    """A row of the topic: an image was taken where an earlier keyframe was; docs/interfaces.md describes the fields."""

    query_stamp: int  # nanoseconds, of the image
    match_stamp: int  # nanoseconds, of the earlier keyframe's image
    query_id: int
    match_id: int
    query_session: int
    match_session: int
    hamming: int  # bits that differ
    score: float  # 0 to 1
    inliers: int  # -1: not verified by geometry

    @property
    def is_relocalisation(self) -> bool:
        """Whether the earlier keyframe is of another session, such as a drive of yesterday."""
        return self.match_session != self.query_session


def read_loop_closures(message: PointCloud2) -> list[LoopClosureRow]:
    """Return the rows of a message of `loop_closures`, best first; raises ValueError for any other point cloud."""
    query_stamp = to_nanoseconds(message.header.stamp)
    return [
        LoopClosureRow(
            query_stamp=query_stamp,
            match_stamp=int(row["match_sec"]) * NANOSECONDS + int(row["match_nanosec"]),
            query_id=int(row["query_id"]),
            match_id=int(row["match_id"]),
            query_session=int(row["query_session"]),
            match_session=int(row["match_session"]),
            hamming=int(row["hamming"]),
            score=float(row["score"]),
            inliers=int(row["inliers"]),
        )
        for row in rows_from_message(message)
    ]
