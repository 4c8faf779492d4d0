# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gtsam", reason="the extra slam is not installed")
from binvpr_ros.lab.pose_graph_benchmark import building_drive, drive_along, measure
from binvpr_ros.slam.poses import inverse


def test_the_drive_is_the_same_each_time_and_its_closures_are_true() -> None:
    drive, again = building_drive(500, 60), building_drive(500, 60)
    np.testing.assert_array_equal(drive.odometry, again.odometry)
    assert drive.constraints.keys() == again.constraints.keys()
    for query, one in drive.constraints.items():
        motion = inverse(drive.truth[one.match_id]) @ drive.truth[query]
        np.testing.assert_allclose(one.pose.translation, motion[:3, 3], atol=0.2)


def test_a_graph_that_was_killed_before_a_constraint_takes_it_when_it_goes_on(tmp_path: Path) -> None:
    drive = building_drive(500, 60)
    query = sorted(drive.constraints)[5]
    graph, _ = drive_along(drive, tmp_path / "graph.db", query)
    graph.add(drive.stamps[query], drive.odometry[query])
    graph.close()
    for _ in range(2):  # and only once
        graph, _ = drive_along(drive, tmp_path / "graph.db", query + 1)
        assert graph.counts.total() == 6
        graph.close()


@pytest.mark.timeout(600)
def test_a_graph_that_was_killed_comes_to_the_same_result() -> None:
    figures = measure(500, 60)
    assert figures["resumed_differs_m"] < 0.01
    assert figures["closures_used"] == figures["closures"]
    assert figures["updates"]["p95_ms"] >= figures["updates"]["median_ms"] > 0
