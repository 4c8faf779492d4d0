# SPDX-License-Identifier: Apache-2.0
"""A loop that a robot closes to what another one has seen."""

from __future__ import annotations

from typing import NamedTuple

from binvpr_ros.loop_constraint import RelativePose


class FleetClosure(NamedTuple):
    """A loop that a keyframe of this robot closes to one of another map of the fleet."""

    query_id: int  # as in the topic of the own closures, and the session likewise
    query_session: int
    query_stamp: int  # nanoseconds
    robot: str  # whose map it is
    map_uuid: str
    match_id: int  # in that map, and the session likewise
    match_session: int
    match_stamp: int  # nanoseconds
    other_clock: bool  # that `match_stamp` is of another robot's clock
    hamming: int  # bits that differ
    score: float  # 0 to 1
    inliers: int  # -1: not verified by geometry
    pose: RelativePose | None = None  # None where it is not known
