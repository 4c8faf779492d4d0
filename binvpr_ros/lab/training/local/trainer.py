# SPDX-License-Identifier: Apache-2.0
"""A run of training of the network for local features, with its state, its log and its curves in a folder."""

from __future__ import annotations

import csv
import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from binvpr_ros.lab.training.local import losses
from binvpr_ros.lab.training.local.network import SHAPE, Shape, build
from binvpr_ros.lab.training.local.targets import CHANNELS, SIDE, Chosen, Taught
from binvpr_ros.lab.training.local.views import Motion, ViewBatches
from binvpr_ros.lab.training.state import StateError, TrainingState, replace_table

STEPS_AT_ONCE = 50
"""Steps between two looks at the clock; the learning rate is constant in between."""
VALIDATE_EVERY = 500  # steps
VALIDATION_BATCHES = 6
VALIDATION_SEED = 2**31
LEAST_RATE = 0.01
"""Of the first learning rate, at the end."""
LOSSES = ("taught_loss", "descriptors_loss", "keypoints_loss", "reliability_loss")
FIGURES = ("val_cosine", "val_found", "val_keypoints")
COLUMNS = ("step", "learning_rate", "loss", *LOSSES, *FIGURES, "seconds")


MOTION = Motion(share=0.6, roll=45.0, scale=1.5, shift=0.1, bend=0.08)


@dataclass(frozen=True)
class Recipe:
    """What is minimised, on what batches, how fast; a weight of 0 leaves a loss out."""

    motion: Motion = MOTION
    batch: int = 16  # photographs, of each of which a batch has two views
    rate: float = 2e-3
    warm_up: int = 200  # steps
    taught_weight: float = 1.0
    signs_weight: float = 0.3
    keypoints_weight: float = 0.1
    reliability_weight: float = 1.0


@dataclass(frozen=True)
class Budget:
    """How long a run takes: so many steps, or so many minutes of training, those of earlier calls included."""

    steps: int | None = None
    minutes: float | None = None

    def share(self, step: int, seconds: float) -> float:
        """Return what share of the budget is spent, 1 at the most."""
        spent, whole = (step, self.steps) if self.steps is not None else (seconds / 60, self.minutes or 0)
        return min(spent / whole, 1.0) if whole else 1.0


class LocalTrainer:
    """One run: `state.npz`, `log.csv` and `curves.png` in the folder `work`. Raises StateError."""

    def __init__(
        self,
        taught: Taught,
        train: Chosen,
        held_out: Chosen,
        recipe: Recipe,
        budget: Budget,
        work: Path,
        *,
        seed: int = 0,
        start_from: Path | None = None,
        save_every: float = 240.0,
        shape: Shape = SHAPE,
    ) -> None:
        self.taught, self.train, self.held_out = taught, train, held_out
        self.recipe, self.budget = recipe, budget
        self.work, self.seed, self.save_every = work, seed, save_every
        keras.utils.set_random_seed(seed)
        self.model = build(SIDE, SIDE, taught=CHANNELS, shape=shape)
        settings = {
            "network": self.model.name, "shape": dataclasses.asdict(shape), "recipe": dataclasses.asdict(recipe),
            "seed": seed, "taught": taught.source, "images": len(train),
            "start_from": start_from.name if start_from else "", "stages": [],
        }  # fmt: skip
        self.state = TrainingState(work, settings)
        self._rows = _read_log(work / "log.csv", self.state.step)
        if start_from and not self.state.step:
            load_weights(self.model, start_from)
        self._compile()

    def run(self) -> keras.Model:
        """Train from where the state is until the budget is spent, or a signal to end comes; return the model."""
        if self.budget.steps is not None and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()
        step, saved = self.state.step, time.monotonic()
        seconds = sum(float(row["seconds"]) for row in self._rows)
        with StopSignals() as stop:
            while (share := self.budget.share(step, seconds)) < 1 and not stop.came:
                began = time.monotonic()
                rate = self._rate(step, share)
                self.model.optimizer.learning_rate.assign(rate)
                last = min(step + STEPS_AT_ONCE, self.budget.steps or sys.maxsize)
                batches = ViewBatches(
                    self.taught, self.train, self.recipe.batch, self.recipe.motion, self.seed, step, last,
                    workers=1, max_queue_size=16,
                )  # fmt: skip
                history = self.model.fit(batches, verbose=0, shuffle=False).history
                row: dict[str, Any] = {name: values[-1] for name, values in history.items()}
                if last // VALIDATE_EVERY > step // VALIDATE_EVERY:
                    row |= self.validate()
                step = last
                row |= {"step": step, "learning_rate": rate, "seconds": time.monotonic() - began}
                seconds += row["seconds"]
                self._rows.append({name: _shown(row.get(name, "")) for name in COLUMNS})
                print(f"{self.budget.share(step, seconds):6.1%}", _line(row), file=sys.stderr, flush=True)
                if time.monotonic() - saved >= self.save_every:
                    self._save(step)
                    saved = time.monotonic()
        if step > self.state.step:
            self._save(step)
        return self.model

    def validate(self) -> dict[str, float]:
        """Return figures on views of photographs that are held out, moved as those that are trained with."""
        return validate(self.model, self.taught, self.held_out, self.recipe.motion)

    def _compile(self) -> None:
        recipe = self.recipe
        by_output: dict[str, tuple[Callable[..., Any], float]] = {
            "taught": (losses.taught_loss, recipe.taught_weight),
            "descriptors": (losses.signs_loss, recipe.signs_weight),
            "keypoints": (losses.keypoints_loss, recipe.keypoints_weight),
            "reliability": (losses.reliability_loss, recipe.reliability_weight),
        }
        optimizer = keras.optimizers.Adam(recipe.rate)
        self.model.compile(
            optimizer=optimizer,
            loss={name: loss for name, (loss, _) in by_output.items()},
            loss_weights={name: weight for name, (_, weight) in by_output.items()},
        )
        optimizer.build(self.model.trainable_variables)
        self.state.restore(self.model)

    def _rate(self, step: int, share: float) -> float:
        warm = min((step + STEPS_AT_ONCE) / self.recipe.warm_up, 1.0) if self.recipe.warm_up else 1.0
        return self.recipe.rate * warm * max(1 - share, LEAST_RATE)

    def _save(self, step: int) -> None:
        self.state.save(self.model, 0, step)
        rows = [[row[name] for name in COLUMNS] for row in self._rows]
        replace_table(self.work / "log.csv", COLUMNS, rows)
        draw_curves(self._rows, self.work / "curves.png")


def validate(model: keras.Model, taught: Taught, held_out: Chosen, motion: Motion) -> dict[str, float]:
    """Return figures on views of the squares `held_out`, by name.

    `val_cosine` to the teacher's descriptors, of what the bits say; `val_found`, the share of cells that are nearest
    to themselves in the other view among all of four squares of a folder; `val_keypoints`, the cross-entropy.
    """
    count = min(Recipe.batch, len(held_out) // losses.TOGETHER * losses.TOGETHER)
    batches = ViewBatches(taught, held_out, count, motion, VALIDATION_SEED, 0, VALIDATION_BATCHES)
    figures: list[list[float]] = []
    for number in range(len(batches)):
        images, targets = batches[number]
        said = model.predict_on_batch(images)
        values = (
            losses.cosine(targets["taught"], said["taught"]),
            losses.found(targets["descriptors"], said["descriptors"]),
            losses.keypoints_loss(targets["keypoints"], said["keypoints"]),
        )
        figures.append([float(keras.ops.convert_to_numpy(value)) for value in values])
    return dict(zip(FIGURES, np.mean(figures, axis=0).tolist(), strict=True))


class StopSignals:
    """Notes SIGINT and SIGTERM, so that a run ends after the steps that it is at; a second one ends it at once."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
        print("stopping; a second signal stops at once", file=sys.stderr, flush=True)


def save_weights(model: keras.Model, path: Path) -> None:
    """Write all weights of a model in half precision, by name (.npz): to start another run from."""
    arrays = {variable.path: keras.ops.convert_to_numpy(variable).astype(np.float16) for variable in model.weights}
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)


def load_weights(model: keras.Model, path: Path) -> None:
    """Give a model the weights that `save_weights` wrote; raises StateError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name].astype(np.float32) for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise StateError(f"{path} cannot be read ({error}); give a weights.npz of another run") from None
    for variable in model.weights:
        array = arrays.get(variable.path)
        if array is None or array.shape != tuple(variable.shape):
            raise StateError(f"{path} is of another network: it lacks {variable.path}; give a weights.npz of this one")
        variable.assign(array)


def draw_curves(rows: list[dict[str, str]], picture: Path) -> None:
    """Draw the log as a picture."""
    panels: tuple[tuple[str, ...], ...] = (LOSSES, FIGURES, ("learning_rate",))
    figure = Figure(figsize=(9, 9), layout="constrained")
    for axes, names in zip(figure.subplots(len(panels), 1, sharex=True), panels, strict=True):
        for name in names:
            points: NDArray[np.float64] = np.array([(int(row["step"]), float(row[name])) for row in rows if row[name]])
            if len(points):
                axes.plot(*points.T, marker="." if name.startswith("val") else "", label=name)
        if axes.lines:
            axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    figure.savefig(picture, dpi=100)


def _read_log(path: Path, last: int) -> list[dict[str, str]]:
    """Return the lines of a log up to the step of the state; what came after it will be trained again."""
    rows: list[dict[str, str]] = []
    if last and path.exists():
        with path.open(encoding="utf-8", newline="") as file, suppress(csv.Error, KeyError, ValueError):
            rows.extend(row for row in csv.DictReader(file) if int(row["step"]) <= last)
    return rows


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _line(row: dict[str, Any]) -> str:
    shown = (name for name in COLUMNS if name in row)
    return " ".join(f"{name.removesuffix('_loss')} {_shown(row[name])}" for name in shown)
