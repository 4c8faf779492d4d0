# SPDX-License-Identifier: Apache-2.0
"""What an experiment has come to so far: a folder with a line of `results.csv` for each run, and outcomes of cells."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from binvpr_ros.lab.training.paper.experiments import VANISHED, VANISHING_FACTOR, Cell
from binvpr_ros.lab.training.recipes import Recipe
from binvpr_ros.lab.training.state import replace_table

BLIND = 1e-6
"""Change of the classifier's input from image to image below which it is the same for all, but for rounding."""


class ReproduceError(RuntimeError):
    """The results cannot be read, or are of something else; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """A training of a cell that is done; `accuracy` is a share of the validation images, of so many classes.

    `change` is that of the classifier's input from image to image at the end (Signal.change).
    """

    row: str
    column: str
    rate: float
    seed: int
    accuracy: float
    images: int
    classes: int
    change: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What the runs of a cell came to: the mean over the seeds at the best learning rate, in percent."""

    accuracy: float
    standard_error: float  # of a share of so many validation images; what seeds differ by is not in it
    vanished: bool
    blind: bool  # its answer is the same for every image
    overflowed: bool  # its answer is no number
    seeds: int

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Outcome | None:
        """Return the outcome of one cell's runs; None where there are none."""
        if not runs:
            return None
        best = _best_runs(runs)
        share = float(np.mean([run.accuracy for run in best]))
        error = math.sqrt(share * (1 - share) / runs[0].images)
        changes = np.array([run.change for run in best])
        blind, overflowed = bool((changes < BLIND).all()), bool(np.isnan(changes).all())
        return cls(100 * share, 100 * error, share < VANISHING_FACTOR / runs[0].classes, blind, overflowed, len(best))

    def __str__(self) -> str:
        if self.blind or self.overflowed:
            return f"{VANISHED} [{'blind' if self.blind else 'overflow'}]"
        figure = f"{self.accuracy:.1f} ± {self.standard_error:.1f}" + (
            f", {self.seeds} seeds" if self.seeds > 1 else ""
        )
        return f"{VANISHED} [{figure}]" if self.vanished else figure


def _best_runs(runs: Sequence[Run]) -> list[Run]:
    """Return those of a cell's runs, at least one, that have the learning rate with the best mean over the seeds."""
    by_rate: dict[float, list[Run]] = {}
    for run in runs:
        by_rate.setdefault(run.rate, []).append(run)
    return max(by_rate.values(), key=lambda some: float(np.mean([run.accuracy for run in some])))


class Results:
    """The folder of an experiment: what was asked for, and a line for each run that is done; raises ReproduceError."""

    COLUMNS = tuple(field.name for field in dataclasses.fields(Run))

    def __init__(self, work: Path, settings: dict[str, object]) -> None:
        self.work = work
        self._path = work / "results.csv"
        asked, settings = work / "settings.json", json.loads(json.dumps(settings))
        work.mkdir(parents=True, exist_ok=True)
        if not asked.exists():
            asked.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        try:
            before = dict(json.loads(asked.read_text(encoding="utf-8")))
            self.runs = self._read()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReproduceError(f"{work} cannot be read ({error}); name another --work, or remove it") from None
        if before != settings:
            changed = [name for name, value in settings.items() if before.get(name) != value]
            raise ReproduceError(
                f"{work} holds results of other settings ({', '.join(changed)}); name another --work, or remove it"
            )

    def _read(self) -> list[Run]:
        if not self._path.exists():
            return []
        kinds = (str, str, float, int, float, int, int, float, int, float)
        with self._path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["seconds"]]  # a line may have been cut by a kill
        return [Run(*(kind(row[name]) for kind, name in zip(kinds, self.COLUMNS, strict=True))) for row in rows]

    def of(self, cell: Cell) -> list[Run]:
        """Return the runs of a cell."""
        return [run for run in self.runs if (run.row, run.column) == (cell.row, cell.column)]

    def holds(self, cell: Cell, recipe: Recipe, seed: int) -> bool:
        """Say whether a run is done."""
        return any((run.rate, run.seed) == (recipe.stages[0].start, seed) for run in self.of(cell))

    def add(self, run: Run) -> None:
        """Keep a run."""
        self.runs.append(run)
        replace_table(self._path, self.COLUMNS, map(dataclasses.astuple, self.runs))


def folder_of(work: Path, cell: Cell, rate: float, seed: int) -> Path:
    """Return where the log, the signals and the curves of a run are."""
    return work / "runs" / file_name(f"{cell.row}_{cell.column}_{rate:g}_{seed}")


def file_name(text: str) -> str:
    """Return a text as a part of a file's name."""
    return re.sub(r"[^\w.+-]+", "_", text)
