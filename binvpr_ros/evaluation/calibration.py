# SPDX-License-Identifier: Apache-2.0
"""Thresholds from a drive instead of from a guess: the highest recall at which no closure is false."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from binvpr_ros.config import Config
from binvpr_ros.evaluation.closure_stage import ClosureStage, Drive

MIN_SCORES = [round(step / 20, 2) for step in range(1, 13)]
MIN_INLIERS = [15, 20, 25, 30, 35, 40, 45, 50]
"""Which values of the parameters `min_score` and `min_inliers` are tried."""
MATCHED_WITH = ("exclusion_time", "shift_cells", "sequence_keyframes")
"""Parameters on which depends what setting is found."""


@dataclass(frozen=True)
class Calibration:
    """The setting for which the first half of the revisits of a drive gave the highest recall at a precision of 1."""

    min_score: float
    min_inliers: int
    first_half: ClosureStage  # with that setting
    second_half: ClosureStage
    config: Config  # with which the drive was matched

    @property
    def parameters(self) -> dict[str, float | int]:
        """The parameters of the node that were found, by name."""
        return {"min_score": self.min_score, "min_inliers": self.min_inliers}

    def write(self, file: Path, comments: list[str], model: Path | None = None) -> None:
        """Write the setting as a params file of ROS, under `comments`, with that for which alone it is good.

        `model` is the model file, where it is not the packaged one.
        """
        lines = [f"# {comment}" for comment in comments] + ["/**:", "  ros__parameters:"]
        parameters = {**self.parameters, **{name: getattr(self.config, name) for name in MATCHED_WITH}}
        if model is not None:
            parameters["model"] = json.dumps(str(model.absolute()))  # which YAML takes for what it is
        lines += [f"    {name}: {value}" for name, value in parameters.items()]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def calibrate(drive: Drive) -> Calibration | None:
    """Try every setting on `drive`; where two are equally good the stricter one is taken.

    None where no setting closes a loop without a false one.

    The drive is cut where half of its revisits lie before. Each keyframe is matched against all that came before it, as
    on a robot; the setting is found on the closures of the first half of the revisits, and only scored on the second.
    """
    best: tuple[tuple[float, int, float], ClosureStage, ClosureStage] | None = None
    settings = list(itertools.product(MIN_SCORES, MIN_INLIERS))
    for min_score, min_inliers in tqdm(settings, desc="settings", leave=False, file=sys.stderr):
        stage = drive.through(drive.config.replace(min_score=min_score, min_inliers=min_inliers))
        if not len(stage.revisits):
            break
        first, second = stage.halves()
        if first.precision != 1.0 or not first.recall:
            continue
        rank = (first.recall, min_inliers, min_score)
        if best is None or rank > best[0]:
            best = rank, first, second
    if best is None:
        return None
    (_, min_inliers, min_score), first, second = best
    return Calibration(min_score, min_inliers, first, second, drive.config)


def sentence(what: str, stage: ClosureStage) -> str:
    """Say in one line what a stage gave."""
    shares = ["-" if share is None else f"{share:.3f}" for share in (stage.precision, stage.recall)]
    return (
        f"{what}: {len(stage.true)} closures, {stage.true.sum()} true (precision {shares[0]}); "
        f"{len(stage.revisits)} revisits (recall {shares[1]})"
    )
