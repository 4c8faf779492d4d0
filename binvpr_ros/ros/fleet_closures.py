# SPDX-License-Identifier: Apache-2.0
"""Read the topic `fleet_closures`, for back ends and other nodes in Python."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from sensor_msgs.msg import PointCloud2

from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.ros.constraints import pose_from_row
from binvpr_ros.ros.messages import fleet_rows_from_message, to_nanoseconds


class FleetClosureRow(NamedTuple):
    """A row of the topic: what it says, and by which ids `loop_closures` has it too."""

    closure: FleetClosure
    match_id: int
    match_session: int


def read_fleet_closures(message: PointCloud2) -> list[FleetClosureRow]:
    """Return the rows of a message of `fleet_closures`, best first.

    Raises ValueError for any other point cloud, and for numbers that are no pose or no covariance.
    """
    query_stamp = to_nanoseconds(message.header.stamp)
    return [
        FleetClosureRow(
            FleetClosure(
                query_id=int(row["query_id"]),
                query_session=int(row["query_session"]),
                query_stamp=query_stamp,
                robot=row["robot"].tobytes().rstrip(b"\0").decode(errors="replace"),
                map_uuid=str(uuid.UUID(bytes=row["map"].tobytes())),
                match_id=int(row["map_keyframe"]),
                match_session=int(row["map_session"]),
                match_stamp=int(row["match_sec"]) * NANOSECONDS + int(row["match_nanosec"]),
                other_clock=bool(row["other_clock"]),
                hamming=int(row["hamming"]),
                score=float(row["score"]),
                inliers=int(row["inliers"]),
                pose=pose_from_row(row, int(row["pose_known"]) - 1, int(row["pose_inliers"]))
                if row["pose_known"]
                else None,
            ),
            int(row["match_id"]),
            int(row["match_session"]),
        )
        for row in fleet_rows_from_message(message)
    ]
