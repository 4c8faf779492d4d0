# SPDX-License-Identifier: Apache-2.0
"""Thresholds from drives instead of from a guess: the highest recall at which no closure joins places apart.

Closures in maps of other places are false too. A setting is never scored on what it was chosen on: each place is left
out in turn, a setting chosen on all others, and scored on that one. Of one place alone each half of the revisits is
left out in turn.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from binvpr_ros.config import Config
from binvpr_ros.lab.evaluation.closure_stage import ClosureStage, Drive
from binvpr_ros.local_features.kinds import NAMES

MIN_SCORES = [round(step / 20, 2) for step in range(13)]
MIN_INLIERS = [8, 10, 12, 15, 20, 25, 30]
"""Which values of the parameters `min_score` and `min_inliers` are tried."""
MATCHED_WITH = ("exclusion_time", "shift_cells", "sequence_keyframes")
"""Parameters on which depends what setting is found."""


class Setting(NamedTuple):
    """Values of the parameters that are chosen, ordered so that the larger tuple is the stricter setting."""

    min_inliers: int
    min_score: float

    def __str__(self) -> str:
        return f"min_score {self.min_score:g}, min_inliers {self.min_inliers}"


class Part(NamedTuple):
    """A drive, or a stretch of one, with what each setting gives there."""

    name: str
    drive: str
    fold: str  # parts of one fold are left out together
    stages: dict[Setting, ClosureStage]


@dataclass(frozen=True)
class Calibration:
    """The setting that was chosen on all parts, and for each part the one that was chosen without its fold.

    The latter is None where no setting closes loops of the others without joining places apart.
    """

    setting: Setting
    parts: list[Part]
    held_out: list[Setting | None]
    config: Config  # with which the drives were matched

    def table(self, method: str) -> Table:
        """Return the figures of each part with the setting chosen without it, and with the one chosen on all."""
        table = Table(
            title=f"{escape(method)}: leave one place out", title_justify="left", title_style="bold",
            caption=f"in brackets: with the result, {self.setting}", caption_justify="left", box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0), show_edge=False,
        )  # fmt: skip
        table.add_column("drive", overflow="fold")
        for heading in ("score", "inliers", "same", "near", "apart", "recall"):
            table.add_column(heading, justify="right", no_wrap=True)
        for part, setting in zip(self.parts, self.held_out, strict=True):
            result = _figures(part.stages[self.setting])
            chosen = _figures(part.stages[setting]) if setting else ["-"] * len(result)
            names = [f"{setting.min_score:g}", str(setting.min_inliers)] if setting else ["-", "-"]
            cells = [f"{one} ({other})" for one, other in zip(chosen, result, strict=True)]
            table.add_row(escape(part.name), *names, *cells)
        return table

    def write(self, file: Path, comments: list[str], model: Path | None = None) -> None:
        """Write the setting as a params file of ROS, under `comments`, with that for which alone it is good.

        `model` is the model file, where it is not the packaged one.
        """
        lines = [f"# {comment}" for comment in comments] + ["/**:", "  ros__parameters:"]
        parameters = {
            "min_score": self.setting.min_score,
            "min_inliers": self.setting.min_inliers,
            **{name: getattr(self.config, name) for name in MATCHED_WITH},
        }
        kind = self.config.local_features
        parameters["local_features"] = json.dumps(kind if kind in NAMES else str(Path(kind).absolute()))
        if model is not None:
            parameters["model"] = json.dumps(str(model.absolute()))  # which YAML takes for what it is
        lines += [f"    {name}: {value}" for name, value in parameters.items()]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def sentences(self) -> list[str]:
        """Return a line for each part: what the setting chosen without it gave."""
        return [
            f"{part.name}, held out: {setting or 'no setting'}"
            + (f", {sentence(part.stages[setting])}" if setting else "")
            for part, setting in zip(self.parts, self.held_out, strict=True)
        ]


def calibrate(drives: Sequence[Drive]) -> Calibration | None:
    """Try every setting on the drives; None where none closes a loop without joining places apart."""
    settings = [Setting(*pair) for pair in itertools.product(MIN_INLIERS, MIN_SCORES)]
    parts: list[Part] = []
    with tqdm(total=len(settings) * len(drives), desc="settings", leave=False, file=sys.stderr) as bar:
        for drive in drives:
            stages = {}
            for setting in settings:
                stages[setting] = drive.through(drive.config.replace(**setting._asdict()))
                bar.update()
            parts.append(Part(drive.sequence.name, drive.sequence.name, drive.sequence.place, stages))
    if len({part.fold for part in parts}) == 1:
        parts = [half for part in parts for half in _halves(part)]
    by_name = {drive.sequence.name: drive for drive in drives}

    @functools.cache
    def closes_other_places(setting: Setting, names: frozenset[str]) -> bool:
        config = setting._asdict()
        return any(
            by_name[one].against(by_name[other], by_name[one].config.replace(**config)).closures
            for one, other in itertools.permutations(sorted(names), 2)
            if by_name[one].sequence.place != by_name[other].sequence.place
        )

    chosen = choose(parts, closes_other_places)
    if chosen is None:
        return None
    held_out = [choose([other for other in parts if other.fold != part.fold], closes_other_places) for part in parts]
    return Calibration(chosen, parts, held_out, drives[0].config)


def choose(parts: Sequence[Part], closes_other_places: Callable[[Setting, frozenset[str]], bool]) -> Setting | None:
    """Return the setting of the highest mean recall at which no closure of any part joins places apart.

    Nor may it close any drive in the map of another place, which is asked of the best ones only: that takes longer. Of
    two that are equally good the stricter one is taken; None where there is none with any recall.
    """
    ranked: list[tuple[float, Setting]] = []
    for setting in parts[0].stages if parts else ():
        stages = [part.stages[setting] for part in parts]
        recalls = [stage.recall for stage in stages if stage.recall is not None]
        if any(recalls) and not any(stage.apart.any() for stage in stages):
            ranked.append((float(np.mean(recalls)), setting))
    names = frozenset(part.drive for part in parts)
    return next((one for _, one in sorted(ranked, reverse=True) if not closes_other_places(one, names)), None)


def _halves(part: Part) -> list[Part]:
    """Return a drive as two parts, cut where half of its revisits lie before."""
    first = next(iter(part.stages.values()))
    revisits = first.revisits
    border = int(revisits[len(revisits) // 2]) if len(revisits) else 0
    end = sys.maxsize
    return [
        Part(
            f"{part.name}, {name}", part.drive, name, {key: stage.between(*span) for key, stage in part.stages.items()}
        )
        for name, span in (("first half", (0, border)), ("second half", (border, end)))
    ]


def _figures(stage: ClosureStage) -> list[str]:
    figures = stage.figures()
    recall = figures["closure_recall"]
    counts = [str(figures[name]) for name in ("closures_same", "closures_near", "closures_apart")]
    return [*counts, "-" if recall is None else f"{recall:.3f}"]


def sentence(stage: ClosureStage) -> str:
    """Say in one line what a stage gave."""
    same, near, apart, recall = _figures(stage)
    return f"closures {same} same, {near} near, {apart} apart; recall {recall} of {len(stage.revisits)} revisits"
