# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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
    with pytest.raises(GraphFileError, match="is no pose graph of this version; name another file"):
        GraphFile(other)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match="name a file in a writable folder"):
        GraphFile(tmp_path / "nowhere" / "graph.db")
