# SPDX-License-Identifier: Apache-2.0
"""`train_offline`: train a network on folders of images and write the model file with its card."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without AVX-512 TensorFlow leaves these kernels out by itself; with them a step takes a third of the time.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

try:
    import keras
    from tqdm import tqdm
except ImportError:
    sys.exit("train_offline: training needs more packages; run, in a checkout: pip install '.[training]'")
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.training.curves import draw_curves
from binvpr_ros.training.data import TrainingDataError, TrainingImages, ViewPairs, rendered_buildings
from binvpr_ros.training.export import ExportError, export
from binvpr_ros.training.losses import cosine_distance, multi_similarity, no_loss
from binvpr_ros.training.networks import NETWORKS, RECIPES, BinaryConv2D, build
from binvpr_ros.training.places365 import GROUPS, categories
from binvpr_ros.training.recipes import SMOKE, Recipe, Stage, recipe_of
from binvpr_ros.training.state import StateError, TrainingState
from binvpr_ros.training.teacher import TeacherError, teach

STEPS_AT_ONCE = 50
"""Steps between two looks at the clock and at the weights."""
SAVE_EVERY = 60.0  # seconds
VALIDATION_IMAGES = 1000
HELD_OUT = 10  # one in so many places, where there is no folder of validation images
COLUMNS = (
    "stage", "size", "epoch", "step", "learning_rate", "loss", "descriptor_loss", "logits_loss", "logits_accuracy",
    "teacher_loss", "flips_per_step", "val_recall_at_1", "val_accuracy", "seconds",
)  # fmt: skip


class Trainer:
    """One run: a network through the stages of a recipe, its state and its log in the folder `work`."""

    def __init__(
        self,
        network: str,
        recipe_name: str,
        recipe: Recipe,
        images: TrainingImages,
        validation: TrainingImages,
        work: Path,
        *,
        seed: int = 0,
        taught: NDArray[np.float16] | None = None,
        save_every: float = SAVE_EVERY,
    ) -> None:
        self.network, self.recipe_name, self.recipe = network, recipe_name, recipe
        self.images, self.validation, self.taught = images, validation, taught
        self.work, self.seed, self.save_every = work, seed, save_every
        settings = {
            "network": network, "recipe": dataclasses.asdict(recipe), "recipe_name": recipe_name, "seed": seed,
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
        """Return R@1 of second views among first views of validation images, and top-1 accuracy of classes."""
        places = np.unique(self.validation.places)
        places = places[:: -(-len(places) // VALIDATION_IMAGES)]
        some, half = self.validation.of(places), len(places)
        views, targets = ViewPairs(some, size, places=half, seed=1)[0]
        outputs = model.predict(views, batch_size=self.recipe.batch, verbose=0)
        bits = np.where(outputs["descriptor"] >= 0, 1.0, -1.0).astype(np.float32)
        found = np.argmax(bits[half:] @ bits[:half].T, axis=1) == np.arange(half)
        figures = {"val_recall_at_1": float(found.mean())}
        if "logits" in targets and "logits" in outputs:
            plain, truth = ViewPairs(some, size, places=half, seed=1, views=1)[0]
            logits = model.predict(plain, batch_size=self.recipe.batch, verbose=0)["logits"]
            figures["val_accuracy"] = float((logits.argmax(axis=1) == truth["logits"]).mean())
        return figures

    def _model(self, number: int, stage: Stage, steps: int) -> keras.Model:
        """Return the network with its heads for training, compiled."""
        recipe = self.recipe
        try:
            model = build(self.network, self.recipe_name, stage.size, classes=len(self.images.classes) or None)
        except ValueError as error:
            raise TrainingDataError(f"{self.network} does not take {stage.size} pixels: {error}") from None
        outputs = model.output if isinstance(model.output, dict) else {"descriptor": model.output}
        losses: dict[str, Any] = {"descriptor": multi_similarity if recipe.descriptor_weight else no_loss}
        weights = {"descriptor": recipe.descriptor_weight}
        if "logits" in outputs:
            losses["logits"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            weights["logits"] = recipe.class_weight
        if self.taught is not None:
            head = keras.layers.Dense(self.taught.shape[1], name="teacher_head")
            outputs = {**outputs, "teacher": head(outputs["descriptor"])}
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
            with path.open(encoding="utf-8", newline="") as file:
                kept = [row for row in csv.DictReader(file) if _is_before(row, state)]
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


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="train_offline", description=__doc__)
    parser.add_argument(
        "data", type=Path, nargs="?", help="folder with train/<class>/ and val/<class>/ images, or <place>/ (--places)"
    )
    parser.add_argument("--places", action="store_true", help="DATA holds a folder of images for each place")
    parser.add_argument("--group", choices=GROUPS, help="the classes of one of the paper's groups of Places365 alone")
    parser.add_argument("--per-class", type=int, default=0, metavar="N", help="images of each class, at most")
    parser.add_argument("--network", choices=sorted(NETWORKS), default="binvpr20", help="(default %(default)s)")
    parser.add_argument("--recipe", choices=RECIPES, help="(default: deploy, where the network has it)")
    parser.add_argument("--stages", metavar="SIZE:EPOCHS,...", help="image sizes and epochs (default: the recipe's)")
    parser.add_argument("--batch", type=int, metavar="N", help="places in a batch (default: the recipe's)")
    parser.add_argument(
        "--distill", action="store_true", help="learn from EfficientNet-Lite0 too (needs the extra `baselines`)"
    )
    parser.add_argument(
        "--precision", choices=("float32", "mixed_bfloat16"), default="float32", help="on a GPU (default %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="model file to write (.tflite); its card goes beside it"
    )
    parser.add_argument(
        "--work", type=Path, help="folder for the state, the log and its curves (default: OUTPUT without its suffix)"
    )
    parser.add_argument(
        "--save-every", type=float, default=SAVE_EVERY, metavar="S", help="seconds (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random (default %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a run of a minute on images it renders itself")
    choices = parser.parse_args(arguments)
    _check(parser, choices)
    return choices


def _check(parser: argparse.ArgumentParser, choices: argparse.Namespace) -> None:
    """End with a sentence where the choices do not go together; fill in the recipe and its plan."""
    recipes = NETWORKS[choices.network]
    if choices.recipe is None:
        choices.recipe = next(recipe for recipe in RECIPES if recipe in recipes)
    wrong = (
        (choices.output.suffix != ".tflite", f"--output must end in .tflite, not {choices.output.name}"),
        ((choices.data is None) != choices.smoke, "give the folder of training images, or --smoke, not both"),
        (choices.batch is not None and choices.batch < 2, f"--batch must be at least 2, not {choices.batch}"),
        (choices.recipe not in recipes, f"{choices.network} has no recipe {choices.recipe}, only {' '.join(recipes)}"),
        (choices.places and choices.recipe == "paper", "the recipe paper learns classes; leave out --places"),
        (choices.places and choices.group, "--group is of classes; leave out --places"),
        (choices.distill and choices.recipe == "paper", "--distill is for the recipe deploy"),
    )
    for condition, sentence in wrong:
        if condition:
            parser.error(sentence)
    try:
        choices.plan = SMOKE if choices.smoke else recipe_of(choices.recipe, choices.network)
        if choices.stages:
            choices.plan = choices.plan.with_stages(choices.stages)
    except ValueError as error:
        parser.error(str(error))


def read_images(choices: argparse.Namespace, size: int) -> tuple[TrainingImages, TrainingImages, str]:
    """Return images for training and for validation, and the name of the data; raises TrainingDataError."""
    if choices.smoke:
        images = rendered_buildings(size)
        return images, images, "rendered buildings"
    name = choices.data.resolve().name
    if choices.places:
        return *TrainingImages.of_places(choices.data, size).hold_out(HELD_OUT), name
    names = categories(choices.group) if choices.group else ()
    if not (choices.data / "val").is_dir():
        folder = choices.data / "train" if (choices.data / "train").is_dir() else choices.data
        return *TrainingImages.of_classes(folder, size, choices.per_class, names).hold_out(HELD_OUT), name
    train, val = (
        TrainingImages.of_classes(choices.data / part, size, choices.per_class, names) for part in ("train", "val")
    )
    return train, val, name


def facts_for_card(
    choices: argparse.Namespace, data_name: str, images: TrainingImages, figures: dict[str, float]
) -> dict[str, Any]:
    """Return what the model's card says of the training."""
    arguments = ["--smoke" if choices.smoke else data_name, "--network", choices.network, "--recipe", choices.recipe]
    arguments += ["--stages", choices.stages] if choices.stages else []
    arguments += ["--group", choices.group] if choices.group else []
    arguments += ["--batch", str(choices.batch)] if choices.batch else []
    arguments += [f"--{name}" for name in ("places", "distill") if getattr(choices, name)]
    arguments += ["--per-class", str(choices.per_class)] if choices.per_class else []
    arguments += ["--precision", choices.precision] if choices.precision != "float32" else []
    arguments += ["--seed", str(choices.seed), "--output", choices.output.name]
    what = f"{len(images.classes)} classes" if images.classes else f"{len(np.unique(images.places))} places"
    return {
        "training_data": f"{data_name}: {len(images.images)} images of {what}",
        "command": " ".join(["train_offline", *arguments]),
        "evaluation": {
            f"{name.removeprefix('val_')}_on_validation_views": round(value, 4) for name, value in figures.items()
        },
    }


def main() -> int:
    """Train, export, and write the card; the exit status is 1 where that fails."""
    choices = parse(sys.argv[1:])
    work = choices.work or choices.output.with_suffix("")
    recipe: Recipe = choices.plan if choices.batch is None else dataclasses.replace(choices.plan, batch=choices.batch)
    size = recipe.stages[-1].size
    try:
        keras.config.set_dtype_policy(choices.precision)
        images, validation, data_name = read_images(choices, size)
        work.mkdir(parents=True, exist_ok=True)
        taught = teach(images.images, work / "teacher.npy") if choices.distill else None
        trainer = Trainer(
            choices.network, choices.recipe, recipe, images, validation, work, seed=choices.seed, taught=taught,
            save_every=choices.save_every,
        )  # fmt: skip
        model = trainer.run()
        if keras.backend.backend() != "tensorflow":
            return _export_with_tensorflow()
        figures = trainer.validate(model, size)
        facts = facts_for_card(choices, data_name, images, figures)
        card = export(model, choices.network, choices.recipe, size, choices.output, facts)
    except ExportError as error:
        print(f"train_offline: {error}; what was learnt is kept: run the same command again to go on", file=sys.stderr)
        return 1
    except (TrainingDataError, StateError, TeacherError, OSError) as error:
        print(f"train_offline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train_offline: interrupted; run the same command again to go on", file=sys.stderr)
        return 1
    print(f"train_offline: wrote {choices.output} ({card.descriptor_bits} bits, "
          f"R@1 {figures['val_recall_at_1']:.3f} on distorted views)")  # fmt: skip
    return 0


def _export_with_tensorflow() -> int:
    """Run the same command, whose training is done, where the converter can be run; return its exit status."""
    command = [sys.executable, "-m", "binvpr_ros.training.train", *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
