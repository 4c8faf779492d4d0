# SPDX-License-Identifier: Apache-2.0
"""What closing loops does to a drifting odometry: the trajectory error of drives before and after pose_graph.

    python -m binvpr_ros.lab.evaluation.trajectory DRIVE ... --json OUT.json --picture OUT.png

The closures are those that the recognizer finds. Their relative poses are those that it measures, with scale where the
drive has depth images; and beside that the true ones with the noise that their covariance states, and false ones among
them. The odometry is made from the truth: it is off by a share of the way and by degrees for each metre,
in a direction that a seed chooses and that stays, as a wheel of the wrong size or a biased gyroscope does; such errors
add up faster than noise that changes its sign.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from binvpr_ros.config import Config, PoseGraphConfig, model_path
from binvpr_ros.lab.evaluation.closure_stage import Drive
from binvpr_ros.lab.evaluation.datasets import DatasetError, Options, PosedSequence, open_dataset
from binvpr_ros.lab.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.lab.evaluation.datasets.sequences import Relation
from binvpr_ros.lab.evaluation.measurement import describe
from binvpr_ros.lab.evaluation.methods import BinaryNetwork
from binvpr_ros.local_features.kinds import open_local_features
from binvpr_ros.loop_constraint import LoopConstraint, RelativePose
from binvpr_ros.slam.graph import Fate, OdometryNoise, PoseGraph
from binvpr_ros.slam.poses import Transform, inverse, rotation_of

DRIFT, TURN = 0.02, 0.5
"""Of the odometry that is made: a share of the way, and degrees for each metre."""
SIGMAS = np.repeat([0.03, np.deg2rad(0.7)], 3)
"""Of relative poses with scale: metres, radians."""
DIRECTION_SIGMA = 0.05  # radians, of those without
FALSE_SHARE = 0.05
SHORTEST_RUN = 3
"""False closures in a run that agree with each other, however few closures there are."""


class Closed(NamedTuple):
    """A drive with its closures, as indices into its keyframes."""

    name: str
    stamps: NDArray[np.int64]  # [K], of the keyframes, nanoseconds
    truth: Transform  # [K,4,4], of the camera
    frames: Transform  # [N,4,4], of all images, between which odometry goes
    keyframes: NDArray[np.int64]  # [K], among the images
    closures: NDArray[np.int64]  # [C,2], query and match
    apart: NDArray[np.bool_]  # [C], closures of places apart, which are false
    measured: list[LoopConstraint]  # as the node publishes them


@dataclass(frozen=True)
class Outcome:
    """The absolute trajectory error of one seed, metres, and what became of the closures."""

    seed: int
    before: float
    after: float
    closures: int
    false: int
    used: int
    false_used: int


def closed_drive(sequence: PosedSequence, method: BinaryNetwork) -> Closed:
    """Drive through with the recognizer, and return what it closes; raises DatasetError where the axis is unknown."""
    if not sequence.optical:
        raise DatasetError(f"the camera's axis in {sequence.name} is not known; give --camera-axis")
    _, _, described = describe(method, sequence.queries, sequence.name)
    stage = (drive := Drive(method.network, sequence, described, method.local_features)).through(
        drive.config, poses=True
    )
    frames = np.tile(np.eye(4), (len(sequence.stamps), 1, 1))
    left, _, right = np.linalg.svd(sequence.rotations)  # files round: the nearest rotations
    frames[:, :3, :3], frames[:, :3, 3] = left @ right, sequence.positions
    closures = np.searchsorted(stage.keyframes, stage.closures)
    known = (stage.keyframes[closures] == stage.closures).all(axis=1)
    return Closed(
        sequence.name, sequence.stamps[stage.keyframes], frames[stage.keyframes], frames, stage.keyframes,
        closures[known], (stage.relations == Relation.APART)[known], stage.constraints,
    )  # fmt: skip


def drifting(frames: Transform, rng: np.random.Generator, drift: float = DRIFT, turn: float = TURN) -> Transform:
    """Return an odometry [N,4,4] of poses [N,4,4] that is off by a share of the way and by degrees for each metre."""
    axes = rng.normal(size=(2, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    poses = [frames[0]]
    for motion in inverse(frames[:-1]) @ frames[1:]:
        way = float(np.linalg.norm(motion[:3, 3]))
        off = np.eye(4)
        off[:3, :3] = rotation_of(np.deg2rad(turn) * way * axes[0])
        off[:3, 3] = drift * way * axes[1]
        poses.append(poses[-1] @ motion @ off)
    return np.stack(poses)


def trajectory_error(estimated: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the absolute trajectory error: the root mean square of the offsets between positions [N,3], aligned.

    They are aligned by the rotation and translation that fit best (Umeyama, PAMI 1991, without the scale).
    """
    return float(np.sqrt(np.mean(np.sum(np.square(aligned(estimated, true) - true), axis=1))))


def aligned(estimated: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions [N,3], rotated and moved to where they fit the true ones [N,3] best."""
    ours, theirs = estimated - estimated.mean(axis=0), true - true.mean(axis=0)
    left, _, right = np.linalg.svd(theirs.T @ ours)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    return ours @ (left @ sign @ right).T + true.mean(axis=0)


def constraint_of(
    drive: Closed, query: int, match: int, motion: Transform, rng: np.random.Generator, scale: bool
) -> LoopConstraint:
    """Return the motion [4,4] between two keyframes as a constraint, with noise; without `scale` its direction only."""
    errors = rng.normal(size=6) * SIGMAS
    rotation, translation, sigmas = rotation_of(errors[3:]) @ motion[:3, :3], motion[:3, 3] + errors[:3], SIGMAS
    covariance = np.diag(np.square(sigmas))
    if not scale:
        direction = motion[:3, 3] + DIRECTION_SIGMA * np.linalg.norm(motion[:3, 3]) * rng.normal(size=3)
        translation = direction / max(float(np.linalg.norm(direction)), 1e-9)
        across = np.eye(3) - np.outer(translation, translation)
        covariance[:3, :3] = DIRECTION_SIGMA**2 * across
    pose = RelativePose(rotation, translation, covariance, scale, 50)
    return LoopConstraint(query, match, 0, 0, int(drive.stamps[query]), int(drive.stamps[match]), pose)


def true_constraints(drive: Closed, rng: np.random.Generator, scale: bool = True) -> Iterator[LoopConstraint]:
    """Yield the closures of a drive as constraints; one of places apart claims that they are one place."""
    for (query, match), apart in zip(drive.closures.tolist(), drive.apart.tolist(), strict=True):
        motion = np.eye(4) if apart else inverse(drive.truth[match]) @ drive.truth[query]
        yield constraint_of(drive, query, match, motion, rng, scale)


def false_constraints(drive: Closed, rng: np.random.Generator) -> Iterator[LoopConstraint]:
    """Yield false closures, a twentieth of the true ones: half by themselves, half in a run whose poses agree.

    Those of a run claim that a stretch of the route is another one, each by the same rigid motion.
    """
    count = len(drive.keyframes)
    half = FALSE_SHARE * len(drive.closures) / 2
    for _ in range(max(1, round(half))):
        query = int(rng.integers(count // 3, count))
        match = int(rng.integers(0, query - count // 6))
        claimed = np.eye(4)
        claimed[:3, 3] = rng.normal(0, 0.3, 3)
        yield constraint_of(drive, query, match, claimed, rng, True)
    length = max(SHORTEST_RUN, round(half))
    query = int(rng.integers(count // 2, max(count - length, count // 2 + 1)))
    match = int(rng.integers(0, max(count // 3 - length, 1)))
    onto = drive.truth[match] @ inverse(drive.truth[query])
    for step in range(min(length, count - query)):
        motion = inverse(drive.truth[match + step]) @ onto @ drive.truth[query + step]
        yield constraint_of(drive, query + step, match + step, motion, rng, True)


def closing(
    drive: Closed, odometry: Transform, constraints: Sequence[LoopConstraint]
) -> tuple[Transform, dict[int, Fate]]:
    """Drive along with a pose graph as the node does; return the corrected keyframes [K,4,4] and the fates."""
    config = PoseGraphConfig()
    graph = PoseGraph(None, OdometryNoise(config.odometry_drift, config.odometry_turn))
    waiting: dict[int, list[tuple[int, LoopConstraint]]] = {}
    for number, constraint in enumerate(constraints):
        waiting.setdefault(constraint.query_stamp, []).append((number, constraint))
    order = []
    graph.begin(odometry[0])
    for stamp, pose in zip(drive.stamps.tolist(), odometry[drive.keyframes], strict=True):
        graph.add(stamp, pose)
        for number, constraint in waiting.get(stamp, ()):
            graph.constrain(constraint)
            order.append(number)
    graph.settle()
    fates = {number: graph.fate(place) for place, number in enumerate(order)}
    return np.stack([one.pose for one in graph.placed()]), fates


def trial(drive: Closed, seed: int, kind: str) -> tuple[Outcome, Transform, Transform]:
    """Close the loops of a drive once; return what came of it, the odometry [K,4,4] and the corrected poses [K,4,4]."""
    rng = np.random.default_rng(seed)
    odometry = drifting(drive.frames, rng)
    scale, false = KINDS[kind]
    true = drive.measured if scale is None else list(true_constraints(drive, rng, scale))
    wrong = list(false_constraints(drive, rng)) if false else []
    apart = _apart(drive, true)
    corrected, fates = closing(drive, odometry, [*true, *wrong])
    before, after = (
        trajectory_error(poses[:, :3, 3], drive.truth[:, :3, 3]) for poses in (odometry[drive.keyframes], corrected)
    )
    used = [fates[number] is Fate.USED for number in range(len(fates))]
    outcome = Outcome(
        seed, before, after, len(true), len(wrong) + sum(apart), sum(used),
        sum(used[len(true) :]) + sum(one and other for one, other in zip(used, apart, strict=False)),
    )  # fmt: skip
    return outcome, odometry[drive.keyframes], corrected


def _apart(drive: Closed, constraints: Sequence[LoopConstraint]) -> list[bool]:
    """Return which constraints [C] join places apart."""
    false = {tuple(drive.stamps[pair].tolist()) for pair in drive.closures[drive.apart]}
    return [(one.query_stamp, one.match_stamp) in false for one in constraints]


KINDS: dict[str, tuple[bool | None, bool]] = {
    "as measured": (None, False),
    "as measured, 5% false": (None, True),
    "with scale": (True, False),
    "without scale": (False, False),
    "with scale, 5% false": (True, True),
}


def measure(drives: Sequence[Closed], seeds: int) -> dict[str, dict[str, list[Outcome]]]:
    """Return the outcomes by drive and by kind of constraints."""
    return {
        drive.name: {kind: [trial(drive, seed, kind)[0] for seed in range(seeds)] for kind in KINDS}
        for drive in tqdm(drives, desc="closing", leave=False, file=sys.stderr)
    }


def table(outcomes: dict[str, dict[str, list[Outcome]]]) -> Table:
    """Return the medians, and the worst seed, as a table."""
    result = Table("drive", "constraints", "closures", "ATE before", "after", "worst ratio", "false used")
    for name, kinds in outcomes.items():
        for kind, some in kinds.items():
            before, after = (float(np.median([getattr(one, when) for one in some])) for when in ("before", "after"))
            worst = max(one.after / one.before for one in some)
            result.add_row(
                name, kind, str(some[0].closures), f"{before:.3f} m", f"{after:.3f} m", f"{worst:.2f}",
                f"{sum(one.false_used for one in some)} of {sum(one.false for one in some)}",
            )  # fmt: skip
    return result


def picture(file: Path, drive: Closed, odometry: Transform, corrected: Transform) -> None:
    """Draw the three routes from above: the truth, the odometry, and the corrected one, each aligned with the truth."""
    true = drive.truth[:, :3, 3]
    _, _, axes_of_plane = np.linalg.svd(true - true.mean(axis=0), full_matrices=False)
    wide, high = np.ptp((true - true.mean(axis=0)) @ axes_of_plane[:2].T, axis=0)
    figure = Figure(figsize=(8, 8 * max(0.4, high / wide) + 1), layout="constrained")
    axes = figure.subplots()
    routes: tuple[tuple[str, NDArray[np.float64], dict[str, Any]], ...] = (
        ("truth", true, {"color": "black", "linewidth": 3, "alpha": 0.35}),
        ("odometry", aligned(odometry[:, :3, 3], true), {"color": "tab:red", "linewidth": 1.2}),
        ("corrected", aligned(corrected[:, :3, 3], true), {"color": "tab:green", "linewidth": 1.2}),
    )
    for label, positions, style in routes:
        across, along = ((positions - true.mean(axis=0)) @ axes_of_plane[:2].T).T
        error = "" if label == "truth" else f": {np.sqrt(np.mean(np.sum((positions - true) ** 2, axis=1))):.2f} m off"
        axes.plot(across, along, label=f"{label}{error}", **style)
    axes.set(
        aspect="equal",
        xlabel="metres",
        ylabel="metres",
        title=f"{drive.name} from above, {len(drive.closures)} closures",
    )
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=3, frameon=False)
    figure.savefig(file, dpi=120)


def main() -> int:
    """Measure the drives that the command line names, or the rendered building."""
    parser = argparse.ArgumentParser(
        prog="trajectory", description="Measure how much closing loops reduces the trajectory error of drives."
    )
    parser.add_argument(
        "drives", nargs="*", type=Path, help="folders of drives with poses; none: the rendered building"
    )
    parser.add_argument("--seeds", type=int, default=10, help="simulated odometries per drive (default %(default)s)")
    parser.add_argument("--camera-axis", default="", help="axis of the poses' frame along which the camera looks")
    parser.add_argument("--json", type=Path, help="write all outcomes to this file")
    parser.add_argument("--picture", type=Path, help="draw the routes of the last drive")
    choices = parser.parse_args()
    config = Config()
    method = BinaryNetwork(model_path(config), config, open_local_features(config.local_features, config.threads))
    options = Options(camera_axis=choices.camera_axis)
    drives = []
    try:
        sequences: list[Any] = [open_dataset(path, options) for path in choices.drives]
        for sequence in sequences or [RenderedBuilding.make(options)]:
            if not isinstance(sequence, PosedSequence):
                raise DatasetError(f"{sequence.name} is no drive with poses; name one")
            drives.append(closed_drive(sequence, method))
    except DatasetError as error:
        print(f"trajectory: {error}", file=sys.stderr)
        return 1
    outcomes = measure(drives, choices.seeds)
    Console().print(table(outcomes))
    if choices.json:
        rows = {
            name: {kind: [asdict(one) for one in some] for kind, some in kinds.items()}
            for name, kinds in outcomes.items()
        }
        choices.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if choices.picture:
        _, odometry, corrected = trial(drives[-1], 0, "as measured, 5% false")
        picture(choices.picture, drives[-1], odometry, corrected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
