# SPDX-License-Identifier: Apache-2.0
"""A run of training: a network through the stages of a recipe, with its state and its log on disk."""

from __future__ import annotations

import csv
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.lab.training.curves import draw_curves
from binvpr_ros.lab.training.data import TAUGHT_CELLS, TrainingDataError, TrainingImages, ViewPairs, shrink
from binvpr_ros.lab.training.losses import cosine_distance, multi_similarity, no_loss, signs
from binvpr_ros.lab.training.networks import BinaryConv2D, Network
from binvpr_ros.lab.training.networks.binvpr import scales
from binvpr_ros.lab.training.recipes import SAVE_EVERY, Recipe, Stage
from binvpr_ros.lab.training.state import TrainingState

STEPS_AT_ONCE = 50
"""Steps between two looks at the clock and at the weights."""
SEEDS = range(2**32)
"""What seeds may be: NumPy's older generator takes no others."""
VALIDATION_IMAGES = 1000
PREDICTED_AT_ONCE = 1024
"""Validation images that are held as float32 at one time."""
COLUMNS = (
    "stage", "size", "epoch", "step", "learning_rate", "loss", "descriptor_loss", "logits_loss", "logits_accuracy",
    "teacher_loss", "flips_per_step", "val_recall_at_1", "val_accuracy", "seconds",
)  # fmt: skip


def use_all_devices() -> None:
    """Spread every batch over all GPUs, where there are several; JAX underneath Keras can.

    The loss still sees the whole batch. A batch that cannot be divided among them is refused by Keras.
    """
    if keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel())


class Trainer:
    """One run: a network through the stages of a recipe, its state and its log in the folder `work`.

    `name` tells the network apart from others, in the state and in messages. `watch` is called with the model and the
    step before the first, and after each validation.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        recipe: Recipe,
        images: TrainingImages,
        validation: TrainingImages,
        work: Path,
        *,
        seed: int = 0,
        taught: NDArray[np.int8] | None = None,
        save_every: float = SAVE_EVERY,
        watch: Callable[[keras.Model, int], None] | None = None,
    ) -> None:
        self.name, self.network, self.recipe = name, network, recipe
        self.images, self.validation, self.taught = images, validation, taught
        self.work, self.seed, self.save_every = work, seed, save_every
        self._watch = watch or (lambda _model, _step: None)
        chosen = dataclasses.asdict(recipe)
        settings = {
            "network": name, "stages": chosen.pop("stages"), "recipe": chosen, "seed": seed,
            "images": len(images.images), "classes": images.classes, "teacher": taught is not None,
            "precision": keras.config.dtype_policy().name,
        }  # fmt: skip
        self.state = TrainingState(work, settings)
        self._log = Log(work / "log.csv", self.state)

    def run(self) -> keras.Model:
        """Train from where the state is to the end; return the model. Raises StateError and TrainingDataError."""
        keras.utils.set_random_seed(self.seed)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()
        model = None
        for number, stage in enumerate(self.recipe.stages):
            if number >= self.state.stage:
                model = self._run_stage(number, stage)
        return model if model is not None else self._finished()

    def validate(self, model: keras.Model, size: int) -> dict[str, float]:
        """Return top-1 accuracy on plain images, where there are classes, and where views are learnt R@1, by name.

        R@1 is that of second distorted views among first ones. Where it is taken, both are of VALIDATION_IMAGES places
        at most; classes alone are counted over all validation images.
        """
        figures, some = {}, self.validation
        if self.recipe.views > 1:
            places = np.unique(some.places)
            places = places[:: -(-len(places) // VALIDATION_IMAGES)]
            some, half = some.of(places), len(places)
            views, _ = ViewPairs(some, size, places=half, seed=1)[0]
            bits = np.where(self._predict(model, views)["descriptor"] >= 0, 1.0, -1.0).astype(np.float32)
            found = np.argmax(bits[half:] @ bits[:half].T, axis=1) == np.arange(half)
            figures["val_recall_at_1"] = float(found.mean())
        if some.classes:
            right = 0
            for start in range(0, len(some.images), PREDICTED_AT_ONCE):
                chunk = slice(start, start + PREDICTED_AT_ONCE)
                plain = np.stack([shrink(image, size) for image in some.images[chunk]])
                logits = self._predict(model, plain.astype(np.float32))["logits"]
                right += int((logits.argmax(axis=1) == some.labels[chunk]).sum())
            figures["val_accuracy"] = right / len(some.images)
        return figures

    def _predict(self, model: keras.Model, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        outputs: dict[str, NDArray[np.float32]] = model.predict(images, batch_size=self.recipe.batch, verbose=0)
        return outputs

    def _model(self, number: int, stage: Stage, steps: int) -> keras.Model:
        """Return the network with its heads for training, compiled."""
        recipe = self.recipe
        try:
            model = self.network(stage.size, classes=len(self.images.classes) or None)
        except ValueError as error:
            raise TrainingDataError(f"{self.name} does not take {stage.size} pixels: {error}") from None
        outputs = model.output if isinstance(model.output, dict) else {"descriptor": model.output}
        losses: dict[str, Any] = {"descriptor": multi_similarity if recipe.descriptor_weight else no_loss}
        weights = {"descriptor": recipe.descriptor_weight}
        if "logits" in outputs:
            losses["logits"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            weights["logits"] = recipe.class_weight
        if self.taught is not None:
            outputs = {**outputs, "teacher": _said(outputs["descriptor"], self.taught.shape[-1])}
            losses["teacher"] = cosine_distance
            weights["teacher"] = recipe.teacher_weight
        model = keras.Model(model.input, outputs, name=model.name)
        rate = WarmUp(stage.start, stage.end, steps, warm_up=recipe.warm_up if number == 0 else recipe.warm_up // 4)
        optimizer = keras.optimizers.Adam(rate, epsilon=1e-8, clipnorm=recipe.clip_norm)
        metrics = {"logits": "accuracy"} if "logits" in outputs else {}
        model.compile(optimizer=optimizer, loss=losses, loss_weights=weights, metrics=metrics)
        optimizer.build(model.trainable_variables)
        self.state.restore(model)
        return model

    def _run_stage(self, number: int, stage: Stage) -> keras.Model:
        recipe = self.recipe
        per_epoch = ViewPairs(self.images, stage.size, recipe.batch, self.seed).per_epoch
        steps = max(round(per_epoch * stage.epochs), 1)
        model = self._model(number, stage, steps)
        step, saved = self.state.step, time.monotonic()
        if step == 0:
            self._watch(model, step)
        bar = tqdm(total=steps, initial=step, desc=f"{stage.size} px", unit="step", file=sys.stderr)
        while step < steps:
            start, signs = time.monotonic(), _signs(model)
            last = min(step + STEPS_AT_ONCE, steps, (step // per_epoch + 1) * per_epoch)
            batches = ViewPairs(
                self.images, stage.size, recipe.batch, self.seed + number, step, last, recipe.views, self.taught,
                workers=os.cpu_count() or 1, max_queue_size=16,
            )  # fmt: skip
            history = model.fit(batches, verbose=0, shuffle=False, callbacks=[Progress(bar)]).history
            row = {name: values[-1] for name, values in history.items()}
            row |= {"stage": number, "size": stage.size, "epoch": (last - 1) // per_epoch + 1, "step": last}
            row |= {"learning_rate": float(model.optimizer.learning_rate), "seconds": time.monotonic() - start}
            row["flips_per_step"] = float(np.mean(_signs(model) != signs)) / (last - step) if signs.size else 0.0
            step = last
            at_end = step == steps or step % per_epoch == 0
            if at_end:
                row |= self.validate(model, stage.size)
            self._log.add(row)
            if at_end:
                self._watch(model, step)
                draw_curves(self._log.path, self.work / "curves.png")
            if time.monotonic() - saved >= self.save_every and step < steps:
                self.state.save(model, number, step)
                saved = time.monotonic()
        bar.close()
        self.state.save(model, number + 1, 0)
        return model

    def _finished(self) -> keras.Model:
        """Return the model of a run that is at its end already."""
        number = len(self.recipe.stages) - 1
        return self._model(number, self.recipe.stages[-1], steps=1)


class Progress(keras.callbacks.Callback):
    """Moves a progress bar with each step."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self._bar = bar

    def on_train_batch_end(self, _batch: int, logs: dict[str, float] | None = None) -> None:
        """Move on, and show the loss."""
        if logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self._bar.update()


class Log:
    """log.csv: a line for every few steps. Lines from after the state, of a run that was killed, are left out."""

    def __init__(self, path: Path, state: TrainingState) -> None:
        self.path = path
        kept: list[dict[str, str]] = []
        if path.exists():
            # A log with rubbish in it must not keep a run from going on.
            with path.open(encoding="utf-8", errors="replace", newline="") as file, suppress(csv.Error):
                kept.extend(row for row in csv.DictReader(file) if _is_before(row, state))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def add(self, row: dict[str, Any]) -> None:
        """Append a line."""
        shown = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS, extrasaction="ignore").writerow(shown)


def _is_before(row: dict[str, str], state: TrainingState) -> bool:
    try:
        return (int(row["stage"]), int(row["step"])) <= (state.stage, state.step)
    except (KeyError, TypeError, ValueError):  # the last line of a run that was killed may be half a line
        return False


def _said(descriptor: Any, channels: int) -> Any:
    """Return what each scale of the descriptor's bits [N,D] says of the teacher's map: [N,scales,C,C,channels]."""
    maps = []
    for number, cells in enumerate(scales(signs(descriptor))):
        said = keras.layers.Conv2D(channels, 1, name=f"teacher_head{number}")(cells)
        maps.append(keras.layers.UpSampling2D(TAUGHT_CELLS // cells.shape[1])(said))
    return keras.ops.stack(maps, axis=1)


def _signs(model: keras.Model) -> NDArray[np.bool_]:
    """Return the signs of all weights that are binarized."""
    binarized = [layer for layer in model.layers if isinstance(layer, BinaryConv2D) or getattr(layer, "binary", False)]
    kernels = [layer.kernel for layer in binarized]
    return np.concatenate(
        [keras.ops.convert_to_numpy(kernel).ravel() >= 0 for kernel in kernels] or [np.empty(0, bool)]
    )


@keras.saving.register_keras_serializable("binvpr_ros")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly over `warm_up` steps to `start`, then fall linearly to `end` at `steps`."""

    def __init__(self, start: float, end: float, steps: int, warm_up: int) -> None:
        self.start, self.end, self.steps, self.warm_up = start, end, steps, min(warm_up, steps)

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at `step`."""
        step = keras.ops.cast(step, "float32")
        rise = step / self.warm_up if self.warm_up else 1.0
        fall = 1.0 - step / self.steps
        return keras.ops.minimum(self.start * rise, self.end + (self.start - self.end) * keras.ops.maximum(fall, 0.0))

    def get_config(self) -> dict[str, float]:
        """Return what the constructor takes."""
        return {"start": self.start, "end": self.end, "steps": self.steps, "warm_up": self.warm_up}
