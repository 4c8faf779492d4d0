# SPDX-License-Identifier: Apache-2.0
"""`train_offline reproduce`: run an experiment of the paper, and show each figure beside the published one.

Every cell of a table is one run of training or more. What is done is kept in `results.csv`: the same command goes on
with the next run, and with one that was killed where its last state is.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import keras
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.stats import spearmanr
from tqdm import tqdm

from binvpr_ros.training.data import TrainingDataError, TrainingImages, shrink
from binvpr_ros.training.experiments import (
    EXPERIMENTS,
    RESTORED,
    VANISHED,
    VANISHING_FACTOR,
    Cell,
    Experiment,
    published,
)
from binvpr_ros.training.places365 import categories, stand_ins
from binvpr_ros.training.recipes import Recipe, Stage, recipe_of
from binvpr_ros.training.signals import Signals, draw_signals, read_signals
from binvpr_ros.training.state import StateError, replace_table
from binvpr_ros.training.trainer import SEEDS, Trainer, use_all_devices

NOT_RUN = "-"
PANELS_A_ROW = 4
RUNS_A_PROCESS = 8
"""TensorFlow keeps some 400 MB of each network that was trained: a process for a whole grid would have no end."""
SIGNAL_IMAGES = 16
"""Validation images for which it is seen what reaches the layers."""
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
    seeds: int

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Outcome | None:
        """Return the outcome of one cell's runs; None where there are none."""
        if not runs:
            return None
        best = best_runs(runs)
        share = float(np.mean([run.accuracy for run in best]))
        error = math.sqrt(share * (1 - share) / runs[0].images)
        blind = all(run.change < BLIND for run in best)
        return cls(100 * share, 100 * error, share < VANISHING_FACTOR / runs[0].classes, blind, len(best))

    def __str__(self) -> str:
        if self.blind:
            return f"{VANISHED} [blind]"
        figure = f"{self.accuracy:.1f} ± {self.standard_error:.1f}" + (
            f", {self.seeds} seeds" if self.seeds > 1 else ""
        )
        return f"{VANISHED} [{figure}]" if self.vanished else figure


def best_runs(runs: Sequence[Run]) -> list[Run]:
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


@dataclass(frozen=True)
class Groups:
    """Where the images of the paper's groups of classes are, and what is taken of them."""

    data: Path
    size: int  # pixels
    per_class: int  # training images of each class, at most; 0: all
    with_stand_ins: bool

    def __post_init__(self) -> None:
        for part in ("train", "val"):
            if not (self.data / part).is_dir():
                raise TrainingDataError(
                    f"{self.data} has no folder {part}; give one that holds train/<class>/ and val/<class>/"
                )


@cache
def images_of(groups: Groups, group: str) -> tuple[TrainingImages, TrainingImages]:
    """Return the images of a group for training, and all for validation; raises TrainingDataError."""
    names = categories(group)
    if groups.with_stand_ins:
        there = {path.name for path in (groups.data / "train").iterdir()}
        names = [name for name in stand_ins(group) if name in there]
        if len(names) < 2:
            raise TrainingDataError(f"{groups.data} has {len(names)} classes of {group}; two are needed")
    train = TrainingImages.of_classes(groups.data / "train", groups.size, groups.per_class, names)
    return train, TrainingImages.of_classes(groups.data / "val", groups.size, 0, names)


def recipe_for(cell: Cell, rate: float | None, choices: argparse.Namespace) -> Recipe:
    """Return the authors' preset for a cell, with what of it was chosen otherwise."""
    preset = recipe_of("paper", cell.preset)
    rate = preset.stages[0].start if rate is None else rate
    stage = Stage(choices.size, choices.epochs or preset.stages[0].epochs, rate, 0.0 if choices.decay else rate)
    return dataclasses.replace(preset, stages=(stage,), batch=choices.batch or preset.batch)


def folder_of(work: Path, cell: Cell, rate: float, seed: int) -> Path:
    """Return where the log, the signals and the curves of a run are."""
    return work / "runs" / _file_name(f"{cell.row}_{cell.column}_{rate:g}_{seed}")


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text)


def train(cell: Cell, recipe: Recipe, seed: int, groups: Groups, work: Path) -> Run:
    """Train a cell's network, and return what came out."""
    rate = recipe.stages[0].start
    name = f"{cell.row}, {cell.column}"
    folder = folder_of(work, cell, rate, seed)
    folder.mkdir(parents=True, exist_ok=True)
    images, validation = images_of(groups, cell.group)
    keras.backend.clear_session()
    use_all_devices()
    some = np.linspace(0, len(validation.images) - 1, SIGNAL_IMAGES).round().astype(int)
    seen = np.stack([shrink(image, recipe.stages[0].size) for image in validation.images[some]]).astype(np.float32)
    signals = Signals(folder, seen, validation.labels[some])
    trainer = Trainer(name, cell.network, recipe, images, validation, folder, seed=seed, watch=signals.take)
    trainer.run()
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        log = list(csv.DictReader(file))
    accuracy = float(log[-1]["val_accuracy"])  # a stage ends with a validation
    _, classifier = read_signals(signals.path)[-1]
    return Run(
        cell.row, cell.column, rate, seed, accuracy, len(validation.images), len(validation.classes),
        change=float(f"{classifier.change:.3g}"), steps=int(log[-1]["step"]),
        seconds=round(sum(float(line["seconds"]) for line in log), 1),
    )  # fmt: skip


class Report:
    """An experiment's figures, each beside the published one."""

    def __init__(self, name: str, experiment: Experiment, conditions: str, cells: Sequence[Cell]) -> None:
        self.name, self.title, self.with_means, self.conditions = name, experiment.title, experiment.means, conditions
        self.rows = list(dict.fromkeys(cell.row for cell in cells))
        self.columns = list(dict.fromkeys(cell.column for cell in cells))
        self._cells = {(cell.row, cell.column): cell for cell in cells}

    def text(self, results: Results, row: str, column: str) -> str:
        """Return ours and, in brackets, the paper's."""
        cell = self._cells.get((row, column))
        if cell is None:
            return ""
        outcome, paper = Outcome.of(results.of(cell)), published(self.name, row, column)
        shown = f"{paper:.2f}" if isinstance(paper, float) else paper or "not stated"
        return f"{outcome or NOT_RUN} ({shown})"

    def print(self, results: Results) -> None:
        """Print the table."""
        headings, *lines = self._lines(results)
        table = Table(title=escape(f"{self.name}: {self.title}"), caption=escape(self._caption(results)),
                      box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")  # fmt: skip
        for heading in headings:
            table.add_column(heading, no_wrap=True)
        for line in lines:
            table.add_row(*map(escape, line))
        Console(width=max(100, 20 + 28 * len(self.columns))).print(table)

    def write(self, results: Results) -> None:
        """Write the table as Markdown and as a picture into the folder of the results."""
        headings, *lines = self._lines(results)
        table = [f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *lines)]
        page = "\n".join([f"**{self.name}.** {self.title}.", "", *table, "", self._caption(results)]) + "\n"
        (results.work / f"{self.name}.md").write_text(page, encoding="utf-8")
        (self._draw_against if self.with_means else self._draw)(results, results.work / f"{self.name}.png")

    def _lines(self, results: Results) -> list[list[str]]:
        """Return the table's headings and lines."""
        lines = [["", *self.columns]]
        lines += [[row, *(self.text(results, row, column) for column in self.columns)] for row in self.rows]
        if self.with_means:
            learnt = {place: ours for place, ours, _ in self._learnt(results)}
            for row, line in zip(self.rows, lines[1:], strict=True):
                line.append(_mean([ours for place, ours in learnt.items() if place[0] == row]))
            lines[0].append("mean")
            lines.append(
                [
                    "mean",
                    *(_mean([ours for place, ours in learnt.items() if place[1] == one]) for one in self.columns),
                    "",
                ]
            )
        return lines

    def _learnt(self, results: Results) -> list[tuple[tuple[str, str], float, float | str | None]]:
        """Return for each cell that learns its row and column, our figure, and the paper's."""
        outcomes = [(place, Outcome.of(results.of(cell))) for place, cell in self._cells.items()]
        return [
            (place, outcome.accuracy, published(self.name, *place))
            for place, outcome in outcomes
            if outcome and not outcome.vanished
        ]

    def _caption(self, results: Results) -> str:
        said = (
            f"Top-1 accuracy, %, ± one standard error, and in brackets the paper's. {VANISHED}: less than"
            f" {VANISHING_FACTOR} times chance; blind: the answer is the same for every image. {self.conditions}"
        )
        if not self.with_means:
            return said
        both = [(ours, paper) for _, ours, paper in self._learnt(results) if isinstance(paper, float)]
        correlation = f"{spearmanr(both).statistic:.2f}" if len(both) > 1 else NOT_RUN
        return (
            f"{said} Means are of what learns. Rank correlation (Spearman's) with the paper, of the {len(both)} that"
            f" learn in both: {correlation}."
        )

    def draw_signals(self, results: Results, column: str) -> None:
        """Draw what reaches the layers of a column's networks, of each its first run: so at one learning rate."""
        runs = {}
        for row in self.rows:
            cell = self._cells.get((row, column))
            if cell and (done := results.of(cell)):
                runs[row] = folder_of(results.work, cell, done[0].rate, done[0].seed) / Signals.FILE
        title = f"{self.name}, {column}: what reaches each layer at the end\n{self.conditions}"
        draw_signals(runs, title, results.work / f"signals_{_file_name(column)}.png")

    def _draw_against(self, results: Results, file: Path) -> None:
        """Draw our figure over the paper's, a colour for each column; what does not learn is on the border."""
        figure = Figure(figsize=(7.5, 7), layout="constrained")
        axes = figure.subplots()
        both = [paper for _, _, paper in self._learnt(results) if isinstance(paper, float)]
        border = min(both, default=50.0) - 5
        colours = colormaps["turbo"](np.linspace(0, 1, len(self.columns)))
        for number, (column, colour) in enumerate(zip(self.columns, colours, strict=True)):
            for row in self.rows:
                outcome = Outcome.of(results.of(self._cells[row, column]))
                paper = published(self.name, row, column)
                if outcome is None or paper is None:
                    continue
                # Those that do not learn in the paper would all have one place.
                x, mark = (paper, "o") if isinstance(paper, float) else (border + 0.3 * number, "x")
                axes.errorbar(x, outcome.accuracy, yerr=outcome.standard_error, fmt=mark, color=colour,
                              elinewidth=0.5, markersize=5, label=column if row == self.rows[0] else None)  # fmt: skip
        axes.set_xlabel(f"the paper's top-1 accuracy, % (crosses at the left: {VANISHED})")
        axes.set_ylabel("here, ± one standard error")
        axes.grid(alpha=0.3)
        axes.legend(title="activations", fontsize=8)
        figure.suptitle(f"{self.name}: {self.title}\n{self.conditions}", fontsize=8)
        figure.savefig(file, dpi=110)

    def _draw(self, results: Results, file: Path) -> None:
        """Draw a panel a column: a dot is ours, a ring the paper's; a cross is what does not learn."""
        across = min(len(self.columns), PANELS_A_ROW)
        down = -(-len(self.columns) // across)
        width, height = max(1.8 + 2.4 * across, 6.0), down * (0.9 + 0.24 * len(self.rows)) + 0.8
        figure = Figure(figsize=(width, height), layout="constrained")
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes, column in zip(panels.flat, self.columns, strict=False):
            for place, row in enumerate(self.rows):
                cell = self._cells.get((row, column))
                outcome = Outcome.of(results.of(cell)) if cell else None
                paper = published(self.name, row, column) if cell else None
                if isinstance(paper, float):
                    axes.plot(paper, place, "o", color="tab:blue", fillstyle="none")
                elif paper == VANISHED:  # the axis says so at 0
                    axes.plot(0, place, "x", color="tab:blue", clip_on=False)
                if outcome is not None:
                    axes.errorbar(
                        outcome.accuracy, place, xerr=outcome.standard_error,
                        fmt="x" if outcome.vanished else "o", color="tab:red", markersize=4,
                    )  # fmt: skip
            axes.set_title(column, fontsize=9)
            axes.grid(alpha=0.3)
        for axes in panels.flat[len(self.columns) :]:
            axes.set_axis_off()
        panels[0, 0].set_yticks(range(len(self.rows)), self.rows)
        panels[0, 0].set_ylim(len(self.rows) - 0.5, -0.5)
        panels[0, 0].set_xlim(0, 100)
        panels[0, 0].set_xticks(range(0, 101, 20), [VANISHED, *map(str, range(20, 101, 20))])
        for axes in panels.flat:
            axes.tick_params(labelsize=8)
        figure.suptitle(f"{self.name}: {self.title}\nred: here, blue: the paper, crosses: no learning", fontsize=9)
        figure.supxlabel(f"top-1 accuracy, %\n{self.conditions}", fontsize=8)
        figure.savefig(file, dpi=110)


def _mean(figures: Sequence[float]) -> str:
    return f"{np.mean(figures):.1f}" if figures else NOT_RUN


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="train_offline reproduce", description=__doc__)
    parser.add_argument("experiment", choices=EXPERIMENTS, metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--data", type=Path, required=True, help="Places365: train/<class>/ and val/<class>/ images")
    parser.add_argument(
        "--stand-ins", action="store_true", help="take what classes DATA has, others instead of Forest's"
    )
    parser.add_argument(
        "--recipe", choices=RESTORED, default="paper", help="paper: real-valued leaky tanh and a ReLU before each"
        " quantizer, as printed; paper-ste: with signs instead; deploy: truly binary (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=int, default=224, help="pixels of the images (default %(default)s, the authors')"
    )
    parser.add_argument("--epochs", type=float, help="(default: the authors' of each network)")
    parser.add_argument("--batch", type=int, help="images in a batch (default: the authors' of each network)")
    parser.add_argument("--per-class", type=int, default=0, metavar="N", help="training images of each class, at most")
    parser.add_argument("--rates", default="", metavar="R,R,...", help="learning rates, of which the best counts "
                        "(default: the authors' of each network)")  # fmt: skip
    parser.add_argument(
        "--decay", action="store_true", help="let the learning rate fall to 0, which a short run gains by (the authors:"
        " constant)",
    )  # fmt: skip
    parser.add_argument("--seeds", default="0", metavar="S,S,...", help="(default %(default)s)")
    parser.add_argument("--rows", default="", metavar="NAME,NAME,...", help="these rows alone")
    parser.add_argument("--columns", default="", metavar="NAME,NAME,...", help="these columns alone")
    parser.add_argument("--work", type=Path, help="folder for the results (default: reproduce-EXPERIMENT)")
    choices = parser.parse_args(arguments)
    if choices.recipe not in EXPERIMENTS[choices.experiment].recipes:
        parser.error(f"{choices.experiment} is of the recipe paper alone")
    try:
        # Each once: what is missing is listed before the first is trained.
        choices.rates = list(dict.fromkeys(map(float, choices.rates.split(",")))) if choices.rates else [None]
        choices.seeds = list(dict.fromkeys(map(int, choices.seeds.split(","))))
    except ValueError:
        parser.error("--rates and --seeds are numbers, apart by commas, as in 1e-3,1e-4 and 0,1,2")
    for name in ("size", "epochs", "batch"):
        value = getattr(choices, name)
        if value is not None and value <= 0:
            parser.error(f"--{name} must be more than 0, not {value}")
    if choices.per_class < 0:
        parser.error(f"--per-class must be 0, for all, or more, not {choices.per_class}")
    if wrong := [seed for seed in choices.seeds if seed not in SEEDS]:
        parser.error(f"--seeds must be from 0 to {SEEDS[-1]}, not {wrong[0]}")
    choices.cells = EXPERIMENTS[choices.experiment].cells(choices.recipe)
    for what, wanted in (("row", choices.rows), ("column", choices.columns)):
        known = list(dict.fromkeys(getattr(cell, what) for cell in choices.cells))
        names = wanted.split(",") if wanted else known
        if unknown := [name for name in names if name not in known]:
            parser.error(f"{choices.experiment} has no {what} {unknown[0]}, only {', '.join(known)}")
        choices.cells = [cell for cell in choices.cells if getattr(cell, what) in names]
    return choices


def main(arguments: Sequence[str]) -> int:
    """Run what of an experiment is not done yet; the exit status is 1 where that fails."""
    choices = parse(arguments)
    try:
        _run(choices)
    except (ReproduceError, TrainingDataError, StateError, OSError) as error:
        print(f"train_offline reproduce: {error}", file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print("train_offline reproduce: a training was killed, perhaps for want of memory; run the same command again"
              " to go on", file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print("train_offline reproduce: interrupted; run the same command again to go on", file=sys.stderr)
        return 1
    return 0


def _run(choices: argparse.Namespace) -> None:
    experiment = EXPERIMENTS[choices.experiment]
    budget = {name: getattr(choices, name) for name in ("size", "epochs", "batch", "per_class")}
    data = choices.data.resolve().name
    results = Results(
        choices.work or Path(f"reproduce-{choices.experiment}"),
        {"experiment": choices.experiment, "recipe": choices.recipe, "data": data, "stand_ins": choices.stand_ins}
        | budget
        | {"decay": choices.decay},
    )
    said = [f"recipe {choices.recipe}", f"{data}, stand-in classes" if choices.stand_ins else data]
    said += [f"{name.replace('_', ' ')} {value:g}" for name, value in budget.items() if value]
    said += ["learning rate falls to 0"] if choices.decay else []
    report = Report(choices.experiment, experiment, f"{'; '.join(said)}.", experiment.cells(choices.recipe))
    groups = Groups(choices.data, choices.size, choices.per_class, choices.stand_ins)
    wanted = [(cell, recipe_for(cell, rate, choices), seed)
              for cell in choices.cells for rate in choices.rates for seed in choices.seeds]  # fmt: skip
    missing = [(number, *one) for number, one in enumerate(wanted, 1) if not results.holds(*one)]
    for start in range(0, len(missing), RUNS_A_PROCESS):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            for number, cell, recipe, seed in missing[start : start + RUNS_A_PROCESS]:
                tqdm.write(f"run {number} of {len(wanted)}: {cell.row}, {cell.column},"
                           f" rate {recipe.stages[0].start:g}, seed {seed}", sys.stderr)  # fmt: skip
                results.add(process.submit(train, cell, recipe, seed, groups, results.work).result())
                # Now that it is written down, its state can go; the log and the curves stay.
                folder = folder_of(results.work, cell, recipe.stages[0].start, seed)
                (folder / "state.npz").unlink(missing_ok=True)
                report.write(results)
                report.draw_signals(results, cell.column)
                tqdm.write(f"{cell.row}, {cell.column}: {report.text(results, cell.row, cell.column)}", sys.stderr)
    report.write(results)
    report.print(results)
