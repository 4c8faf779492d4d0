# SPDX-License-Identifier: Apache-2.0
"""Two real nodes, a real server: closures between them on both topics, and diagnostics."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("asyncpg", reason="the extra `fleet` is not installed")

from fleet_server import Site
from robot import Robot
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.loop_constraint import RelativePose
from binvpr_ros.ros.closures import read_loop_closures
from binvpr_ros.ros.fleet_closures import read_fleet_closures
from binvpr_ros.ros.messages import FOREIGN, from_nanoseconds, message_from_fleet_closures, own_rows_of
from binvpr_ros.ros.node import EVERY_RESULT

UUID = "12345678-1234-5678-1234-56781234567a"


def test_a_row_says_what_a_closure_does_and_is_one_of_the_own_topic_too() -> None:
    pose = RelativePose(np.eye(3), np.array([1.0, 2.0, 3.0]), np.eye(6), True, 44)
    closures = [
        FleetClosure(1, 2, 3 * 10**9, "böb", UUID, 5, 6, 7 * 10**9 + 8, True, 9, 0.5, 10, pose),
        FleetClosure(1, 2, 3 * 10**9, "", UUID, 2**31 - 1, 6, -5, False, 9, 0.25, -1),
    ]
    header = Header(stamp=from_nanoseconds(3 * 10**9), frame_id="camera")
    message = message_from_fleet_closures(header, closures, lambda _: 4)
    assert (message.point_step, message.header.frame_id) == (480, "camera")
    rows = read_fleet_closures(message)
    for row, closure in zip(rows, closures, strict=True):
        assert row.closure._replace(pose=None) == closure._replace(pose=None)
        assert (row.match_id, row.match_session) == (FOREIGN + closure.match_id, FOREIGN + 4)
    assert rows[1].closure.pose is None
    found = rows[0].closure.pose
    assert found is not None
    assert (found.scale_known, found.inliers) == (True, 44)
    assert np.allclose(found.rotation, np.eye(3))
    assert found.translation.tolist() == [1.0, 2.0, 3.0]
    own = read_loop_closures(own_rows_of(message))
    assert [(one.query_id, one.match_id, one.match_stamp, one.inliers) for one in own] == [
        (1, FOREIGN + 5, 7 * 10**9 + 8, 10), (1, 2**32 - 1, -5, -1),
    ]  # fmt: skip
    assert all(one.is_relocalisation for one in own)
    with pytest.raises(ValueError, match="no table of closures with a fleet's map"):
        read_fleet_closures(own_rows_of(message))


@pytest.mark.usefixtures("ros")
def test_a_robot_finds_itself_in_what_another_has_seen(
    site_of_model: Site, world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    def arguments(name: str) -> list[str]:
        site = site_of_model
        values = {"database": tmp_path / f"{name}.db", "fleet": site.url(name), "fleet_site": site.name,
                  "keyframe_distance": 0.0, "keyframe_min_interval": 0.0}  # fmt: skip
        return [argument for key, value in values.items() for argument in ("-p", f"{key}:={value}")]

    images = world_images[:12]
    alice = Robot(tmp_path, *arguments("alice"), namespace="/alice", topic="/alice/camera")
    try:
        stamps = alice.show(images, time.time() - 1000)
        alice.wait(lambda: alice.listener.diagnostics.get("fleet_lag_keyframes") == "0", "all is sent")
        alice.wait(lambda: alice.listener.diagnostics.get("fleet_connected") == "True", "it is connected")
    finally:
        alice.close()
    bob = Robot(tmp_path, *arguments("bob"), namespace="/bob", topic="/bob/camera")
    try:
        closures: list[PointCloud2] = []
        bob.listener.node.create_subscription(PointCloud2, "fleet_closures", closures.append, EVERY_RESULT)
        bob.show(images, time.time())
        bob.wait(lambda: len(closures) >= 10, "closures with alice's map come")
        bob.wait(lambda: bob.count("fleet_closures") >= 10, "they are counted")
        rows = [row for message in closures for row in read_fleet_closures(message)]
        assert {row.closure.robot for row in rows} == {"alice"}
        assert {row.closure.match_stamp for row in rows} <= set(stamps)
        assert all(row.closure.other_clock and row.closure.inliers > 0 for row in rows)
        own = [row for message in bob.listener.closures for row in read_loop_closures(message)]
        matches = {(row.match_id, row.match_session) for row in own}
        assert {(row.match_id, row.match_session) for row in rows} <= matches
        assert bob.listener.diagnostics["fleet_keyframes"] == f"{len(images)} of 1 map, mirrored"
        site_of_model.rows("ALTER ROLE bob NOLOGIN")
        site_of_model.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bob'")
        bob.wait(lambda: "refuses the user" in bob.listener.diagnostics["fleet_refused"], "diagnostics say why")
        assert bob.listener.diagnostics["fleet_connected"] == "False"
    finally:
        site_of_model.rows("ALTER ROLE bob LOGIN")
        bob.close()


def test_without_the_parameter_nothing_more_is_imported_and_without_asyncpg_it_is_said_what_to_do(
    tmp_path: Path,
) -> None:
    code = "import sys, binvpr_ros.ros.node, binvpr_ros.ros.live; print('asyncpg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    code = "import sys; sys.modules['asyncpg'] = None; from binvpr_ros.ros.node import main; sys.exit(main())"
    arguments = ["--ros-args", "-p", f"database:={tmp_path}/none.db", "-p", "fleet:=postgresql://alice@/fleet"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "fleet needs asyncpg, which is not installed; run" in done.stderr
