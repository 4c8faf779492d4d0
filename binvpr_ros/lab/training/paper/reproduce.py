# SPDX-License-Identifier: Apache-2.0
"""`train_offline reproduce`: run an experiment of the paper, and show each figure beside the published one.

Every cell of a table is one or more training runs. Finished runs are kept in `results.csv`. The same command continues
with the next run, and resumes a killed one from its last state.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
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
from tqdm import tqdm

from binvpr_ros.lab.training.data import TrainingDataError, TrainingImages, shrink
from binvpr_ros.lab.training.paper.experiments import EXPERIMENTS, RESTORED, Cell
from binvpr_ros.lab.training.paper.report import Report
from binvpr_ros.lab.training.paper.results import ReproduceError, Results, Run, folder_of
from binvpr_ros.lab.training.paper.signals import Signals, read_signals
from binvpr_ros.lab.training.places365 import categories, stand_ins
from binvpr_ros.lab.training.recipes import Recipe, Stage, recipe_of
from binvpr_ros.lab.training.state import StateError
from binvpr_ros.lab.training.trainer import SEEDS, Trainer, use_all_devices

RUNS_A_PROCESS = 8
"""TensorFlow keeps some 400 MB of each network that was trained: a process for a whole grid would have no end."""
SIGNAL_IMAGES = 16
"""Validation images for which it is seen what reaches the layers."""


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


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="train_offline reproduce", description=__doc__)
    parser.add_argument("experiment", choices=EXPERIMENTS, metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--data", type=Path, required=True, help="Places365: train/<class>/ and val/<class>/ images")
    parser.add_argument(
        "--stand-ins", action="store_true", help="use the classes that DATA has, and others in place of Forest's"
    )
    parser.add_argument(
        "--recipe", choices=RESTORED, default="paper", help="paper: real-valued leaky tanh and a ReLU before each"
        " quantizer, as printed; paper-ste: with signs instead; deploy: truly binary (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=int, default=224, help="pixels of the images (default %(default)s, the authors')"
    )
    parser.add_argument("--epochs", type=float, help="(default: the authors' for each network)")
    parser.add_argument("--batch", type=int, help="images per batch (default: the authors' for each network)")
    parser.add_argument("--per-class", type=int, default=0, metavar="N", help="most training images per class")
    parser.add_argument("--rates", default="", metavar="R,R,...", help="learning rates; the best one counts "
                        "(default: the authors' for each network)")  # fmt: skip
    parser.add_argument(
        "--decay", action="store_true", help="let the learning rate fall to 0, which helps short runs (the authors:"
        " constant)",
    )  # fmt: skip
    parser.add_argument("--seeds", default="0", metavar="S,S,...", help="(default %(default)s)")
    parser.add_argument("--rows", default="", metavar="NAME,NAME,...", help="only these rows")
    parser.add_argument("--columns", default="", metavar="NAME,NAME,...", help="only these columns")
    parser.add_argument("--work", type=Path, help="folder for the results (default: reproduce-EXPERIMENT)")
    choices = parser.parse_args(arguments)
    recipes = EXPERIMENTS[choices.experiment].recipes
    if choices.recipe not in recipes:
        parser.error(f"{choices.experiment} has no recipe {choices.recipe}, only {', '.join(recipes)}")
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
