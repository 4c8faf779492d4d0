# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gtsam", reason="the extra slam is not installed")
from binvpr_ros.slam.file import GraphFile, GraphFileError
from binvpr_ros.slam.graph import PoseGraph

from .worlds import NOISE, closed, laps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A graph of two laps."""
    path = tmp_path / "graph.db"
    route, graph = laps(2), PoseGraph(path, NOISE)
    route.added_to(graph, closed(route))
    graph.close()
    return path


def test_what_is_written_is_read(path: Path) -> None:
    file = GraphFile(path)
    sessions, keyframes, constraints = file.read()
    route = laps(2)
    np.testing.assert_array_equal(sessions, [np.eye(4)])
    np.testing.assert_array_equal([row.stamp for row in keyframes], route.stamps)
    np.testing.assert_array_equal([row.pose for row in keyframes], route.odometry)
    for row, one in zip(constraints, closed(route), strict=True):
        assert (row.query, row.match) == (one.query_id, one.match_id)
        assert row.constraint.query_stamp == one.query_stamp
        np.testing.assert_array_equal(row.constraint.pose.covariance, one.pose.covariance)
        np.testing.assert_array_equal(row.constraint.pose.rotation, one.pose.rotation)
    file.close()


def test_two_nodes_cannot_have_one_graph(path: Path) -> None:
    file = GraphFile(path)
    with pytest.raises(GraphFileError, match="in use by another node; give each node a graph of its own"):
        GraphFile(path)
    file.close()
    GraphFile(path).close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE keyframes SET pose = x'00' WHERE id = 7",
        "UPDATE keyframes SET session = 3 WHERE id = 7",
        "UPDATE constraints SET query = 100000",
        "UPDATE constraints SET match = -1",
        "UPDATE constraints SET covariance = zeroblob(3)",
        "UPDATE constraints SET distance = 'far'",
        "UPDATE constraints SET query_id = 1.5",
        "UPDATE keyframes SET stamp = 1.5 WHERE id = 7",
        "UPDATE keyframes SET pose = zeroblob(128) WHERE id = 7",
        "DELETE FROM keyframes WHERE id = 7",
        "UPDATE sessions SET id = 5",
        "DROP TABLE sessions",
        "PRAGMA user_version = 99",
        "CREATE VIEW more AS SELECT 1",
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(path: Path, damage: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(GraphFileError, match=r"graph\.db .*; .*name"):
        PoseGraph(path, NOISE)


def test_any_other_file_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 100)
    before = path.read_bytes()
    with pytest.raises(GraphFileError, match="name a file that pose_graph made, or a new one"):
        GraphFile(path)
    assert path.read_bytes() == before
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(GraphFileError, match="is not a pose graph of this version; name another file"):
        GraphFile(other)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match="name a file in a writable folder"):
        GraphFile(tmp_path / "nowhere" / "graph.db")


@pytest.mark.parametrize("value", [1e300, 0.5])
def test_numbers_that_nobody_measured_are_refused_in_a_sentence(path: Path, value: float) -> None:
    pose = np.eye(4)
    pose[0, 0 if value < 1 else 3] = value
    connection = sqlite3.connect(path)
    connection.execute("UPDATE constraints SET pose = ? WHERE id = 3", (pose.tobytes(),))
    connection.execute("UPDATE constraints SET covariance = ? WHERE id = 3", (np.full((6, 6), 1e308).tobytes(),))
    connection.commit()
    connection.close()
    with np.errstate(all="ignore"), pytest.raises(GraphFileError, match=r"graph\.db cannot be .*; restore a copy"):
        PoseGraph(path, NOISE)
    GraphFile(path).close()  # it was closed


def test_numbers_that_are_not_finite_are_not_written(path: Path) -> None:
    file = GraphFile(path)
    _, keyframes, _ = file.read()
    with pytest.raises(ValueError, match="not finite; check odometry and constraints"):
        file.add_keyframe(keyframes[0]._replace(pose=np.full((4, 4), np.nan)), len(keyframes))
    assert len(file.read()[1]) == len(keyframes)
    file.close()


def test_nobody_else_gets_the_lock_of_the_file(path: Path) -> None:
    file = GraphFile(path)
    other = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()
    file.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="every folder is writable for root")
def test_a_folder_that_is_not_writable_is_said(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises(GraphFileError, match=r"the folder .* is not writable"):
            GraphFile(path)
    finally:
        path.parent.chmod(0o700)
