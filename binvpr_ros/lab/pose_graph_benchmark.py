# SPDX-License-Identifier: Apache-2.0
"""How long pose_graph takes for a keyframe in a large graph, and whether one that was killed comes to the same result.

    python -m binvpr_ros.lab.pose_graph_benchmark --json OUT.json

A robot drives at random through the corridors of a building. Where it drives along a corridor again, some keyframes
close a loop with one earlier drive along it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import PoseGraphConfig
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.machine import machine
from binvpr_ros.loop_constraint import LoopConstraint, RelativePose
from binvpr_ros.slam.graph import Fate, OdometryNoise, PoseGraph
from binvpr_ros.slam.poses import Transform, inverse, rotation_of

KEYFRAMES, CLOSURES = 14_400, 2_000
CELLS, CELL, STOPS = 12, 5.0, 10
"""Of the building: corridors each way, metres between two of them, and keyframes on the way from one to the next."""
DRIFT, TURN = 0.02, np.deg2rad(0.5)
"""Of its odometry: a share of the way and radians for each metre, of a sign that changes every metre."""
SIGMAS = np.repeat([0.03, np.deg2rad(0.7)], 3)
"""Of constraints: metres, radians."""
LATEST = 1000
"""Keyframes at the end of the drive, whose time is told."""


class Drive(NamedTuple):
    """A drive of N keyframes."""

    truth: Transform  # [N,4,4]
    odometry: Transform  # [N,4,4]
    constraints: dict[int, LoopConstraint]  # by the number of the query

    @property
    def stamps(self) -> list[int]:
        """Return their stamps [N], nanoseconds."""
        return [number * NANOSECONDS // 2 for number in range(len(self.truth))]


def building_drive(keyframes: int = KEYFRAMES, closures: int = CLOSURES, seed: int = 0) -> Drive:
    """Return a drive through the building, the same for each seed."""
    rng = np.random.default_rng(seed)
    truth = np.stack([pose for pose, _ in zip(_route(rng), range(keyframes), strict=False)])
    odometry = [truth[0]]
    for motion in inverse(truth[:-1]) @ truth[1:]:
        way = float(np.linalg.norm(motion[:3, 3]))
        off = np.eye(4)
        off[:3, :3] = rotation_of(rng.normal(0, TURN * np.sqrt(way) / 3, 3))
        off[:3, 3] = rng.normal(0, DRIFT * np.sqrt(way) / 3, 3)
        odometry.append(odometry[-1] @ motion @ off)
    matches = _matches(truth, rng)
    queries = rng.choice(sorted(matches), min(closures, len(matches)), replace=False)
    constraints = {int(query): _constraint(truth, int(query), matches[query], rng) for query in sorted(queries)}
    return Drive(truth, np.stack(odometry), constraints)


def _route(rng: np.random.Generator) -> Iterator[Transform]:
    """Yield poses along corridors, with a turn at random at each crossing, but never back."""
    at, ahead = np.array([CELLS // 2, CELLS // 2]), np.array([1, 0])
    while True:
        ways = [np.array(way) for way in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        ways = [way for way in ways if ((at + way >= 0) & (at + way <= CELLS)).all() and (way != -ahead).any()]
        ahead = ways[rng.integers(len(ways))]
        for stop in range(STOPS):
            pose = np.eye(4)
            pose[:2, 3] = (at + ahead * stop / STOPS) * CELL
            pose[:3, :3] = rotation_of(np.array([0, 0, np.arctan2(ahead[1], ahead[0])]))
            yield pose
        at = at + ahead


def _matches(truth: Transform, rng: np.random.Generator) -> dict[int, int]:
    """Return an earlier keyframe for each one whose place was seen before, of one earlier drive along its corridor."""
    drives: dict[tuple[float, ...], list[int]] = {}  # the first keyframes, by where they are
    matches: dict[int, int] = {}
    for start in range(0, len(truth), STOPS):
        earlier = drives.setdefault(tuple(np.round(truth[start], 3).ravel().tolist()), [])
        if earlier:
            other = earlier[rng.integers(len(earlier))]
            matches |= {start + stop: other + stop for stop in range(min(STOPS, len(truth) - start))}
        earlier.append(start)
    return matches


def _constraint(truth: Transform, query: int, match: int, rng: np.random.Generator) -> LoopConstraint:
    motion = inverse(truth[match]) @ truth[query]
    errors = rng.normal(size=6) * SIGMAS
    pose = RelativePose(
        rotation_of(errors[3:]) @ motion[:3, :3], motion[:3, 3] + errors[:3], np.diag(SIGMAS**2), True, 50
    )
    return LoopConstraint(query, match, 0, 0, query * NANOSECONDS // 2, match * NANOSECONDS // 2, pose)


def drive_along(drive: Drive, path: Path, stop: int, tell: bool = False) -> tuple[PoseGraph, NDArray[np.float64]]:
    """Go on with the graph in a file up to a keyframe; return it and the milliseconds [K,2] that each keyframe took.

    They are those of the clock, and of the processor, which other programs on the machine lengthen less. With `tell`
    the number of each keyframe that is in the graph is printed.
    """
    config = PoseGraphConfig()
    graph = PoseGraph(path, OdometryNoise(config.odometry_drift, config.odometry_turn))
    if graph.session < 0:
        graph.begin(drive.odometry[0])
    stamps, times = drive.stamps, []
    newest = graph.size - 1
    told = sum(number <= newest for number in drive.constraints)
    if newest in drive.constraints and graph.counts.total() < told:  # killed between a keyframe and its constraint
        graph.constrain(drive.constraints[newest])
    for number in range(graph.size, stop):
        started = time.perf_counter(), time.process_time()
        graph.add(stamps[number], drive.odometry[number])
        if number in drive.constraints:
            graph.constrain(drive.constraints[number])
        _ = graph.correction
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
        if tell:
            print(number, flush=True)
    return graph, np.array(times).reshape(-1, 2) * 1e3


def settled(graph: PoseGraph) -> NDArray[np.float64]:
    """Return the positions [N,3] of a graph, when nothing changes any more; closes it."""
    graph.settle()
    positions = np.stack([one.pose[:3, 3] for one in graph.placed()])
    graph.close()
    return positions


def killed(keyframes: int, closures: int, path: Path, at: int) -> None:
    """Drive along in another process, and kill that at a keyframe."""
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else "binvpr_ros.lab.pose_graph_benchmark"]
    command += ["--keyframes", str(keyframes), "--closures", str(closures), "--graph", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:
            if int(line) >= at:
                process.kill()
                break


def measure(keyframes: int, closures: int) -> dict[str, Any]:
    """Return the figures: times at the end, the error, and by how much a graph that was killed differs."""
    drive = building_drive(keyframes, closures)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder, "whole.db"), Path(folder, "broken.db")
        graph, times = drive_along(drive, whole, keyframes)
        used = graph.counts[Fate.USED]
        positions = settled(graph)
        started = time.perf_counter()
        PoseGraph(whole, OdometryNoise(PoseGraphConfig().odometry_drift, PoseGraphConfig().odometry_turn)).close()
        opening = time.perf_counter() - started
        killed(keyframes, closures, broken, keyframes // 2)
        resumed = settled(drive_along(drive, broken, keyframes)[0])
    closing = [number for number in drive.constraints if number >= keyframes - LATEST]
    return {
        "keyframes": keyframes,
        "closures": len(drive.constraints),
        "closures_used": used,
        "updates": _figures(times[-LATEST:]),
        "updates_with_a_closure": _figures(times[closing]),
        "opening_s": opening,
        "odometry_error_m": _rms(drive.odometry[:, :3, 3] - drive.truth[:, :3, 3]),
        "error_m": _rms(positions - drive.truth[:, :3, 3]),
        "resumed_differs_m": float(np.abs(resumed - positions).max()),
        "machine": machine(),
    }


def _figures(times: NDArray[np.float64]) -> dict[str, float]:
    """Return what is reported of times [K,2]."""
    return {
        f"{name}_{kind}ms": round(float(of(times[:, column])), 2)
        for column, kind in enumerate(("", "cpu_"))
        for name, of in (("median", np.median), ("p95", lambda some: np.percentile(some, 95)))
    }


def _rms(offsets: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.sum(np.square(offsets), axis=1))))


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="pose_graph_benchmark", description="Time pose_graph in a large graph.")
    parser.add_argument("--keyframes", type=int, default=KEYFRAMES, help="of the drive (%(default)s)")
    parser.add_argument("--closures", type=int, default=CLOSURES, help="of the drive (%(default)s)")
    parser.add_argument("--graph", type=Path, help="only drive along with the graph in this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    choices = parser.parse_args()
    if choices.graph:
        drive = building_drive(choices.keyframes, choices.closures)
        drive_along(drive, choices.graph, choices.keyframes, tell=True)[0].close()
        return 0
    figures = measure(choices.keyframes, choices.closures)
    text = json.dumps(figures, indent=2)
    print(text, file=sys.stderr)
    if choices.json:
        choices.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
