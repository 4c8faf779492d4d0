# SPDX-License-Identifier: Apache-2.0
"""The files that are written, read by those who read them: evo and GTSAM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

gtsam = pytest.importorskip("gtsam", reason="the extra slam is not installed")
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.slam.graph import PoseGraph
from binvpr_ros.slam.poses import FORWARD_CAMERA, inverse
from binvpr_ros.slam.solver import LEAST_SIGMA
from binvpr_ros.slam.trajectory import of_robot, write_g2o, write_tum

from .worlds import NOISE, closed, laps


@pytest.fixture
def graph() -> PoseGraph:
    route, graph = laps(2), PoseGraph(None, NOISE)
    route.added_to(graph, closed(route))
    graph.settle()
    return graph


def test_evo_reads_the_trajectory(graph: PoseGraph, tmp_path: Path) -> None:
    file_interface = pytest.importorskip("evo.tools.file_interface", reason="evo is not installed")
    write_tum(tmp_path / "some.tum", graph.placed())
    read = file_interface.read_tum_trajectory_file(str(tmp_path / "some.tum"))
    np.testing.assert_allclose(read.timestamps, [one.stamp / NANOSECONDS for one in graph.placed()])
    np.testing.assert_allclose(read.poses_se3, [one.pose for one in graph.placed()], atol=1e-6)


def test_gtsam_reads_the_graph_and_finds_it_solved(graph: PoseGraph, tmp_path: Path) -> None:
    steps, loops = graph.factors()
    mounting = FORWARD_CAMERA.copy()
    mounting[:3, 3] = 0.2, 0.0, 0.5
    placed = [one._replace(pose=one.pose @ inverse(mounting)) for one in graph.placed()]
    factors = [of_robot(one, mounting) for one in (*steps, *loops)]
    write_g2o(tmp_path / "some.g2o", placed, factors)
    read, values = gtsam.readG2o(str(tmp_path / "some.g2o"), True)
    assert read.size() == len(factors)
    np.testing.assert_allclose(values.atPose3(7).matrix(), placed[7].pose, atol=1e-6)
    for number, factor in enumerate(factors):
        edge = read.at(number)
        np.testing.assert_allclose(edge.measured().matrix(), factor.motion, atol=1e-6)
        information = np.linalg.inv(factor.covariance)
        np.testing.assert_allclose(edge.noiseModel().information(), information, atol=1e-5 * np.abs(information).max())
    assert read.error(values) < 6 * len(factors)


def test_an_exact_constraint_is_written_with_the_least_noise(graph: PoseGraph, tmp_path: Path) -> None:
    exact = graph.factors()[1][0]._replace(covariance=np.zeros((6, 6)))
    write_g2o(tmp_path / "some.g2o", graph.placed(), [exact])
    read, _ = gtsam.readG2o(str(tmp_path / "some.g2o"), True)
    np.testing.assert_allclose(read.at(0).noiseModel().sigmas(), LEAST_SIGMA)


def test_a_file_is_written_whole_or_left_as_it_was(graph: PoseGraph, tmp_path: Path) -> None:
    write_tum(tmp_path / "some.tum", graph.placed())
    with pytest.raises(OSError, match="nowhere"):
        write_tum(tmp_path / "nowhere" / "some.tum", graph.placed())
    assert [path.name for path in tmp_path.iterdir()] == ["some.tum"]
