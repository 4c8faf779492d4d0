# SPDX-License-Identifier: Apache-2.0
"""The pose graph on routes whose truth is known; GTSAM's batch optimum and evo's error are the oracles."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gtsam", reason="the extra slam is not installed")
import gtsam

from binvpr_ros.loop_constraint import LoopConstraint
from binvpr_ros.slam.file import GraphFileError
from binvpr_ros.slam.graph import Fate, OdometryNoise, PoseGraph
from binvpr_ros.slam.poses import Transform, inverse, rotation_of
from binvpr_ros.slam.solver import CAUCHY

from .worlds import NOISE, SIGMAS, Route, closed, constraint, error, laps

TEST = Path(__file__).resolve().parents[1]


def drifted(route: Route) -> float:
    return float(np.sqrt(np.mean(np.sum((route.odometry - route.truth)[:, :3, 3] ** 2, axis=1))))


def without_scale(constraints: list[LoopConstraint]) -> list[LoopConstraint]:
    """Return constraints of which only the direction is known, within three degrees."""
    result = []
    for one in constraints:
        direction = one.pose.translation / np.linalg.norm(one.pose.translation)
        covariance = np.diag(SIGMAS**2)
        covariance[:3, :3] = 0.05**2 * (np.eye(3) - np.outer(direction, direction))
        pose = dataclasses.replace(one.pose, translation=direction, covariance=covariance, scale_known=False)
        result.append(dataclasses.replace(one, pose=pose))
    return result


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [True, False], ids=["with scale", "without scale"])
def test_closures_take_the_drift_out(seed: int, scale: bool) -> None:
    route, graph = laps(seed=seed), PoseGraph(None, NOISE)
    constraints = closed(route, seed)
    route.added_to(graph, constraints if scale else without_scale(constraints))
    assert graph.counts[Fate.USED] >= 0.9 * len(constraints)
    assert error(graph, route) < drifted(route) / 4


def test_directions_that_are_hardly_known_move_nothing() -> None:
    """Views from one spot tell the rotation between them; their direction of travel is noise."""
    route = laps(bias=0.1)
    rng = np.random.default_rng(0)
    vague = []
    for one in without_scale(closed(route)):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        covariance = one.pose.covariance.copy()
        covariance[:3, :3] = np.eye(3) - np.outer(direction, direction)
        pose = dataclasses.replace(one.pose, translation=direction, covariance=covariance)
        vague.append(dataclasses.replace(one, pose=pose))
    graph = PoseGraph(None, NOISE)
    route.added_to(graph, vague)
    graph.settle()
    assert graph.counts[Fate.USED] == len(vague)
    _, loops = graph.factors()
    for loop in loops:
        assert np.linalg.eigvalsh(loop.covariance[3:, 3:])[1] > 100**2  # metres; across the direction, both ways
    assert error(graph, route) <= drifted(route)


@pytest.mark.parametrize("seed", range(3))
def test_false_closures_are_refused_though_some_agree_with_each_other(seed: int) -> None:
    route, graph = laps(seed=seed), PoseGraph(None, NOISE)
    rng = np.random.default_rng(seed)
    true = closed(route, seed)
    run = [
        constraint(route, 150 + step, 45 + step, rng, translation=np.zeros(3), rotation=np.eye(3)) for step in range(5)
    ]
    alone = constraint(route, 200, 20, rng, translation=np.zeros(3), rotation=rotation_of(np.array([0, 0, 2.0])))
    route.added_to(graph, [*true, *run, alone])
    refused = {one.constraint.query_id: one for one in graph.refused()}
    assert refused.keys() == {150, 151, 152, 153, 154, 200}
    assert refused[150].fate is Fate.OTHERS
    assert refused[200].fate is Fate.GRAPH  # by odometry it is possible, and no other is near it
    against = [one.query_id for one in refused[150].against]
    assert against
    assert set(against) <= {one.query_id for one in true}
    only_true = PoseGraph(None, NOISE)
    route.added_to(only_true, true)
    assert error(graph, route) == pytest.approx(error(only_true, route), abs=0.05)


def test_false_closures_that_came_first_are_used_no_more_once_true_ones_contradict_them() -> None:
    route, graph = laps(4), PoseGraph(None, NOISE)
    rng = np.random.default_rng(0)
    # Two metres off on the second lap, which odometry cannot tell, and which nothing contradicts yet.
    run = []
    for query in (100, 101, 102):
        shifted = inverse(route.truth[query - 80]) @ route.truth[query]
        run.append(constraint(route, query, query - 80, rng, translation=shifted[:3, 3] + [0.0, 2.0, 0.0]))
    true = [one for one in closed(route, every=2) if one.query_id > 102]
    route.added_to(graph, [*run, *true])
    assert {one.constraint.query_id for one in graph.refused()} == {100, 101, 102}
    only_true = PoseGraph(None, NOISE)
    route.added_to(only_true, true)
    assert error(graph, route) == pytest.approx(error(only_true, route), abs=0.05)


def test_what_is_settled_is_the_optimum_of_gtsam_by_itself() -> None:
    route, graph = laps(), PoseGraph(None, NOISE)
    route.added_to(graph, closed(route))
    before = error(graph, route)
    graph.settle()
    assert error(graph, route) == pytest.approx(before, abs=0.1)
    steps, loops = graph.factors()
    factors, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    factors.add(gtsam.PriorFactorPose3(0, gtsam.Pose3(route.odometry[0]), gtsam.noiseModel.Isotropic.Sigma(6, 1e-4)))
    for factor in steps:
        noise: Any = gtsam.noiseModel.Gaussian.Covariance(factor.covariance)
        factors.add(gtsam.BetweenFactorPose3(factor.start, factor.end, gtsam.Pose3(factor.motion), noise))
    cauchy = gtsam.noiseModel.mEstimator.Cauchy.Create(CAUCHY)
    for factor in loops:
        noise = gtsam.noiseModel.Robust.Create(cauchy, gtsam.noiseModel.Gaussian.Covariance(factor.covariance))
        factors.add(gtsam.BetweenFactorPose3(factor.start, factor.end, gtsam.Pose3(factor.motion), noise))
    for number, pose in enumerate(route.truth):
        values.insert(number, gtsam.Pose3(pose))
    best = gtsam.LevenbergMarquardtOptimizer(factors, values).optimize()
    for placed in graph.placed():
        np.testing.assert_allclose(placed.pose, best.atPose3(placed.number).matrix(), atol=2e-3)


def test_the_correction_takes_odometry_to_the_map() -> None:
    route, graph = laps(), PoseGraph(None, NOISE)
    np.testing.assert_array_equal(graph.correction, np.eye(4))
    route.added_to(graph, [])
    np.testing.assert_allclose(graph.correction, np.eye(4), atol=1e-6)
    graph = PoseGraph(None, NOISE)
    route.added_to(graph, closed(route))
    np.testing.assert_allclose(graph.correction @ route.odometry[-1], graph.placed()[-1].pose, atol=1e-9)
    off = np.linalg.norm((graph.correction @ route.odometry[-1] - route.truth[-1])[:3, 3])
    assert off < np.linalg.norm((route.odometry[-1] - route.truth[-1])[:3, 3]) / 3


def elsewhere(route: Route) -> Route:
    """Return a route whose odometry starts somewhere else, and turned."""
    start = np.eye(4)
    start[:3, :3], start[:3, 3] = rotation_of(np.array([0.0, 0.0, 1.0])), (30.0, -7.0, 0.0)
    return dataclasses.replace(route, odometry=start @ route.odometry)


def test_a_session_is_tied_to_the_map_by_two_closures_that_agree() -> None:
    first, second = laps(1), elsewhere(laps(1, seed=1, start=1000))
    graph, rng = PoseGraph(None, NOISE), np.random.default_rng(0)
    first.added_to(graph, [])
    second.added_to(graph, [constraint(second, 10, 10, rng, first)])
    assert graph.counts[Fate.WAITING] == 1
    assert len(graph.placed()) == len(first.stamps)
    # Until then the robot is where it was when the first session ended.
    np.testing.assert_allclose(graph.correction @ second.odometry[0], first.odometry[-1], atol=1e-6)
    assert graph.constrain(constraint(second, 40, 41, rng, first)) is Fate.USED
    assert graph.is_tied
    here = (graph.correction @ second.odometry[-1])[:3, 3]
    assert np.linalg.norm(here - second.truth[-1, :3, 3]) < np.linalg.norm(second.odometry[-1, :3, 3] - here) / 5


def test_two_closures_that_disagree_tie_nothing() -> None:
    first, second = laps(1), elsewhere(laps(1, seed=1, start=1000))
    graph, rng = PoseGraph(None, NOISE), np.random.default_rng(0)
    first.added_to(graph, [])
    second.added_to(
        graph, [constraint(second, 10, 10, rng, first), constraint(second, 12, 50, rng, first, translation=np.zeros(3))]
    )
    assert not graph.is_tied
    assert graph.counts[Fate.OTHERS] == 2


def test_keyframes_that_are_late_or_unknown_are_said_to_be() -> None:
    route, graph = laps(1), PoseGraph(None, NOISE)
    route.added_to(graph, [])
    assert not graph.add(int(route.stamps[5]), np.eye(4))
    one = constraint(route, 70, 3, np.random.default_rng(0))
    assert graph.constrain(dataclasses.replace(one, match_stamp=123)) is Fate.UNKNOWN
    assert graph.constrain(dataclasses.replace(one, query_stamp=123)) is Fate.UNKNOWN
    assert graph.counts[Fate.UNKNOWN] == 2
    assert graph.size == len(route.stamps)


def test_a_closure_of_two_keyframes_at_one_place_by_odometry_is_no_harm() -> None:
    """Of a direction nothing follows where the baseline is of length zero."""
    graph = PoseGraph(None, NOISE)
    graph.begin(np.eye(4))
    for stamp in range(40):
        graph.add(stamp, np.eye(4))
    route = Route(np.arange(40), np.tile(np.eye(4), (40, 1, 1)), np.tile(np.eye(4), (40, 1, 1)))
    (one,) = without_scale([constraint(route, 39, 2, np.random.default_rng(0))])
    assert graph.constrain(one) is Fate.USED
    graph.settle()
    poses = np.stack([placed.pose for placed in graph.placed()])
    np.testing.assert_allclose(poses, route.truth, atol=0.05)


@pytest.mark.parametrize("covariance", [np.zeros((6, 6)), np.full((6, 6), np.nan), 1e9 * np.eye(6), -np.eye(6)])
def test_a_covariance_that_cannot_be_true_is_not_used(covariance: np.ndarray) -> None:
    route, graph, told = laps(1), PoseGraph(None, NOISE), PoseGraph(None, NOISE)
    for one, noise in ((graph, None), (told, covariance)):
        one.begin(route.odometry[0])
        for stamp, pose in zip(route.stamps.tolist(), route.odometry, strict=True):
            one.add(stamp, pose, noise)
    np.testing.assert_array_equal(told.factors()[0][3].covariance, graph.factors()[0][3].covariance)


def test_a_covariance_that_odometry_tells_is_used() -> None:
    route, graph = laps(1), PoseGraph(None, NOISE)
    graph.begin(route.odometry[0])
    covariance = np.diag([1e-5] * 3 + [1e-4] * 3)
    for stamp, pose in zip(route.stamps.tolist(), route.odometry, strict=True):
        graph.add(stamp, pose, covariance)
    assert np.all(np.diag(graph.factors()[0][3].covariance) >= np.diag(covariance))
    assert np.all(np.diag(graph.factors()[0][3].covariance) < 2 * np.diag(covariance))


def poses(graph: PoseGraph) -> Transform:
    graph.settle()
    return np.stack([placed.pose for placed in graph.placed()])


def test_a_graph_goes_on_from_its_file(tmp_path: Path) -> None:
    route, path = laps(), tmp_path / "graph.db"
    constraints = closed(route)
    whole = PoseGraph(None, NOISE)
    route.added_to(whole, constraints)
    first = PoseGraph(path, NOISE)
    half = len(route.stamps) // 2
    dataclasses.replace(
        route, stamps=route.stamps[:half], truth=route.truth[:half], odometry=route.odometry[:half]
    ).added_to(first, constraints)
    first.close()
    second = PoseGraph(path, NOISE)
    assert second.size == half
    for stamp, pose in zip(route.stamps[half:].tolist(), route.odometry[half:], strict=True):
        second.add(stamp, pose)
        for one in constraints:
            if one.query_stamp == stamp:
                second.constrain(one)
    assert second.counts == whole.counts
    np.testing.assert_allclose(poses(second), poses(whole), atol=1e-3)
    second.close()


DRIVER = """
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, sys.argv[1])
from slam.worlds import NOISE, closed, laps
from binvpr_ros.slam.graph import PoseGraph
route, graph = laps(), PoseGraph(Path(sys.argv[2]), NOISE)
constraints = closed(route)
if graph.session < 0:
    graph.begin(route.odometry[0])
for stamp, pose in list(zip(route.stamps.tolist(), route.odometry))[graph.size:]:
    graph.add(stamp, pose)
    for one in constraints:
        if one.query_stamp == stamp:
            graph.constrain(one)
    print(graph.size, flush=True)
"""


def test_a_graph_that_was_killed_comes_to_the_same_result(tmp_path: Path) -> None:
    route, path = laps(), tmp_path / "graph.db"
    command = [sys.executable, "-c", DRIVER, str(TEST), str(path)]
    for at in (60, 130, 190):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any(int(line) >= at for line in process.stdout)
            process.kill()
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    whole, resumed = PoseGraph(None, NOISE), PoseGraph(path, NOISE)
    route.added_to(whole, closed(route))
    # A constraint may be lost with the kill that came between its keyframe and itself.
    assert resumed.counts.total() >= whole.counts.total() - 3
    if resumed.counts == whole.counts:
        np.testing.assert_allclose(poses(resumed), poses(whole), atol=1e-3)
    assert error(resumed, route) == pytest.approx(error(whole, route), abs=0.1)
    resumed.close()


def test_noise_by_the_rule_is_half_of_the_share_after_a_metre() -> None:
    step = np.eye(4)
    step[0, 3] = 1.0
    deviations = np.sqrt(np.diag(OdometryNoise(0.05, 1.0).of_step(step, None)))
    np.testing.assert_allclose(deviations, [np.deg2rad(0.5)] * 3 + [0.025] * 3, rtol=0.01)


def test_the_first_session_with_a_keyframe_is_the_maps(tmp_path: Path) -> None:
    """Odometry came before the camera, and jumped before it did."""
    route, path = laps(2), tmp_path / "graph.db"
    for runs in (1, 2):
        graph = PoseGraph(path, NOISE)
        graph.begin(np.eye(4))
        graph.settle()
        assert (graph.session, graph.is_tied, graph.factors()) == (0, False, ([], []))
        if runs == 2:
            route.added_to(graph, closed(route))
            assert graph.is_tied
            assert error(graph, route) < 0.5
        graph.close()
    again = PoseGraph(path, NOISE)
    assert (again.session, again.size, again.is_tied) == (0, len(route.stamps), True)
    assert again.counts[Fate.USED] == len(closed(route))
    again.close()


def test_a_file_whose_first_session_is_empty_is_read(tmp_path: Path) -> None:
    route, path = laps(1), tmp_path / "graph.db"
    graph = PoseGraph(path, NOISE)
    route.added_to(graph, [])
    graph.close()
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO sessions SELECT 2, start FROM sessions")
    connection.execute("UPDATE keyframes SET session = 1")
    connection.commit()
    connection.close()
    graph = PoseGraph(path, NOISE)
    assert graph.is_tied
    assert len(graph.placed()) == len(graph.factors()[0]) + 1 == len(route.stamps)
    graph.close()


def test_an_exact_constraint_can_be_solved() -> None:
    route, graph = laps(1), PoseGraph(None, NOISE)
    route.added_to(graph, [])
    assert (
        graph.constrain(constraint(route, 79, 78, np.random.default_rng(0), covariance=np.zeros((6, 6)))) is Fate.USED
    )
    graph.settle()


def test_a_keyframe_of_no_session_is_refused() -> None:
    with pytest.raises(ValueError, match="no session has begun"):
        PoseGraph(None, NOISE).add(1, np.eye(4))


def test_a_constraint_that_cannot_be_judged_is_not_kept(tmp_path: Path) -> None:
    route, path = laps(2), tmp_path / "graph.db"
    graph = PoseGraph(path, NOISE)
    constraints = closed(route)
    route.added_to(graph, constraints[1:])
    broken = np.diag([1e-3] * 5 + [np.inf])
    first = dataclasses.replace(constraints[0], pose=dataclasses.replace(constraints[0].pose, covariance=broken))
    for covariance in (broken, np.full((6, 6), 1e300)):
        with contextlib.suppress(ValueError, RuntimeError), np.errstate(all="ignore"):
            graph.constrain(dataclasses.replace(first, pose=dataclasses.replace(first.pose, covariance=covariance)))
    graph.close()
    again = PoseGraph(path, NOISE)
    assert again.counts[Fate.USED] >= len(constraints) - 1
    again.close()


def test_a_disk_that_is_full_costs_no_session(tmp_path: Path) -> None:
    """The file is held at its size as by a full disk; what failed is tried again when there is space."""
    route, path = laps(1), tmp_path / "graph.db"
    graph = PoseGraph(path, NOISE)
    graph.begin(route.odometry[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(GraphFileError, match="check the disk and its space"):
            route.added_to(graph, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    written = graph.size
    for stamp, pose in zip(route.stamps.tolist()[written:], route.odometry[written:], strict=True):
        assert graph.add(stamp, pose)
    graph.close()
    again = PoseGraph(path, NOISE)
    assert (again.size, again.session, again.is_tied) == (len(route.stamps), 0, True)
    again.close()
