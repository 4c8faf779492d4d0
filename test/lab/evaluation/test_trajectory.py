# SPDX-License-Identifier: Apache-2.0
"""Trajectory errors; evo is their oracle."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("gtsam", reason="the extra slam is not installed")
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation import trajectory
from binvpr_ros.lab.evaluation.trajectory import (
    KINDS,
    Closed,
    aligned,
    drifting,
    picture,
    trajectory_error,
    trial,
    true_constraints,
)
from binvpr_ros.lab.pose_graph_benchmark import building_drive
from binvpr_ros.slam.poses import inverse, rotation_of


@pytest.fixture(scope="module")
def drive() -> Closed:
    """Every third image of a drive through corridors is a keyframe, and thirty of these close a loop."""
    truth = building_drive(600, 0).truth
    keyframes = np.arange(0, len(truth), 3)
    offsets = np.linalg.norm(truth[keyframes, None, :3, 3] - truth[None, keyframes, :3, 3], axis=2)
    pairs = np.argwhere((offsets < 1.0) & np.tri(len(keyframes), k=-20, dtype=bool))
    chosen = np.random.default_rng(0).choice(pairs, 30, replace=False)
    drive = Closed(
        "corridors", keyframes * NANOSECONDS, truth[keyframes], truth, keyframes, chosen[np.argsort(chosen[:, 0])],
        np.zeros(30, bool), [],
    )  # fmt: skip
    return drive._replace(measured=list(true_constraints(drive, np.random.default_rng(9), True)))


def test_the_error_is_that_of_evo() -> None:
    metrics = pytest.importorskip("evo.core.metrics", reason="evo is not installed")
    from evo.core.trajectory import PosePath3D

    rng = np.random.default_rng(0)
    true = rng.normal(size=(50, 3)) * [10, 5, 1]
    estimated = (true + rng.normal(size=true.shape)) @ rotation_of(np.array([0.1, 2.0, 0.4])).T + [5, 6, 7]

    def path(positions: NDArray[np.float64]) -> PosePath3D:
        return PosePath3D(positions_xyz=positions, orientations_quat_wxyz=np.tile([1.0, 0, 0, 0], (len(positions), 1)))

    truth, other = path(true), path(estimated)
    other.align(truth)
    metric = metrics.APE(metrics.PoseRelation.translation_part)
    metric.process_data((truth, other))
    assert trajectory_error(estimated, true) == pytest.approx(metric.get_statistic(metrics.StatisticsType.rmse))
    np.testing.assert_allclose(aligned(estimated, true), other.positions_xyz, atol=1e-9)


def test_odometry_is_off_by_its_share_of_the_way() -> None:
    truth = np.tile(np.eye(4), (101, 1, 1))
    truth[:, 0, 3] = np.linspace(0, 10, 101)
    odometry = drifting(truth, np.random.default_rng(0), drift=0.02, turn=0.0)
    assert np.linalg.norm((odometry[-1] - truth[-1])[:3, 3]) == pytest.approx(0.2)
    turned = drifting(truth, np.random.default_rng(0), drift=0.0, turn=0.5)
    angle = np.arccos((np.trace(inverse(truth[-1])[:3, :3] @ turned[-1, :3, :3]) - 1) / 2)
    assert np.rad2deg(angle) == pytest.approx(5.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_closing_loops_at_least_halves_the_error(drive: Closed, kind: str, seed: int) -> None:
    outcome, _, _ = trial(drive, seed, kind)
    assert outcome.after < outcome.before / 2
    assert outcome.false == (4 if "false" in kind else 0)
    assert outcome.used >= 0.9 * outcome.closures


def test_the_routes_are_drawn(drive: Closed, tmp_path: Path) -> None:
    _, odometry, corrected = trial(drive, 0, "with scale")
    picture(tmp_path / "routes.png", drive, odometry, corrected)
    assert (tmp_path / "routes.png").stat().st_size > 10_000


def test_what_is_no_drive_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["trajectory", "/nowhere"])
    assert trajectory.main() == 1
    assert "trajectory: /nowhere does not exist; name a folder or a bag" in capsys.readouterr().err
