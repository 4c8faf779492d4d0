# SPDX-License-Identifier: Apache-2.0
"""`train_offline`: train a network on a folder of class folders and write the model file with its card."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

try:
    import keras
except ImportError:
    sys.exit("train_offline: training needs more packages; run, in a checkout: pip install '.[training]'")
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.training.data import ClassFolder, TrainingDataError, ViewPairs, rendered_buildings
from binvpr_ros.training.export import ExportError, export
from binvpr_ros.training.losses import multi_similarity
from binvpr_ros.training.networks import NETWORKS

RECIPES = ("deploy",)


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one image size; the learning rate falls linearly from `start` to `end`."""

    size: int
    epochs: int
    start: float
    end: float


STAGES = (Stage(64, 8, 2e-3, 5e-4), Stage(128, 3, 5e-4, 0.0))
SMOKE_STAGES = (Stage(64, 1, 2e-3, 0.0),)
PLACES_PER_BATCH = 64
CLASSIFICATION_WEIGHT = 0.1


class Retrieval(keras.callbacks.Callback):
    """After each epoch, log R@1: the first views of validation images as references, their second views as queries."""

    def __init__(self, data: ClassFolder, size: int) -> None:
        super().__init__()
        every = -(-len(data.images) // 1000)
        some = ClassFolder(data.images[::every], data.labels[::every], data.classes)
        views, _ = ViewPairs(some, size, places=len(some.images), seed=1)[0]
        self.views = views

    def on_epoch_end(self, _epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add the recall to the log."""
        recall = recall_at_1(self.model, self.views)
        if logs is not None:
            logs["val_recall_at_1"] = recall


def recall_at_1(model: keras.Model, views: NDArray[np.float32]) -> float:
    """Return the share of images whose second view finds its first: `views` [2*P,S,S,3], first views first."""
    bits = np.where(model.predict(views, batch_size=64, verbose=0)["descriptor"] >= 0, 1.0, -1.0).astype(np.float32)
    places = len(bits) // 2
    return float(np.mean(np.argmax(bits[places:] @ bits[:places].T, axis=1) == np.arange(places)))


def train(
    network: str,
    images: ClassFolder,
    validation: ClassFolder,
    stages: tuple[Stage, ...],
    work: Path,
    places_per_batch: int = PLACES_PER_BATCH,
    seed: int = 0,
) -> tuple[keras.Model, float]:
    """Train `network` through `stages`; return it with its last R@1 on validation views.

    `work` gets log.csv, a line an epoch, and the weights after each epoch.
    """
    keras.utils.set_random_seed(seed)
    weights: list[NDArray[Any]] | None = None
    for number, stage in enumerate(stages):
        model = NETWORKS[network](stage.size, classes=len(images.classes))
        if weights is not None:
            model.set_weights(weights)
        batches = ViewPairs(images, stage.size, places_per_batch, seed + number, workers=1, max_queue_size=16)
        rate = WarmUp(stage.start, stage.end, len(batches) * stage.epochs, warm_up=50 if number else 200)
        model.compile(
            optimizer=keras.optimizers.Adam(rate, epsilon=1e-8, clipnorm=5.0),
            loss={
                "descriptor": multi_similarity,
                "logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            },
            loss_weights={"descriptor": 1.0, "logits": CLASSIFICATION_WEIGHT},
            metrics={"logits": "accuracy"},
        )
        callbacks = [
            Retrieval(validation, stage.size),
            keras.callbacks.CSVLogger(str(work / "log.csv"), append=number > 0),
            keras.callbacks.ModelCheckpoint(str(work / "latest.weights.h5"), save_weights_only=True),
        ]
        history = model.fit(batches, epochs=stage.epochs, callbacks=callbacks, verbose=1 if sys.stderr.isatty() else 2)
        weights = model.get_weights()
    return model, history.history["val_recall_at_1"][-1]


@keras.saving.register_keras_serializable("binvpr_ros")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly over `warm_up` steps to `start`, then fall linearly to `end` at `steps`."""

    def __init__(self, start: float, end: float, steps: int, warm_up: int) -> None:
        self.start, self.end, self.steps, self.warm_up = start, end, steps, min(warm_up, steps)

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at `step`."""
        step = keras.ops.cast(step, "float32")
        rise = step / self.warm_up
        fall = 1.0 - step / self.steps
        return keras.ops.minimum(self.start * rise, self.end + (self.start - self.end) * keras.ops.maximum(fall, 0.0))

    def get_config(self) -> dict[str, float]:
        """Return what the constructor takes."""
        return {"start": self.start, "end": self.end, "steps": self.steps, "warm_up": self.warm_up}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="train_offline", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder with train/<class>/ and val/<class>/ images")
    parser.add_argument("--network", choices=sorted(NETWORKS), default="binvpr20", help="(default %(default)s)")
    parser.add_argument("--recipe", choices=RECIPES, default="deploy", help="(default %(default)s)")
    parser.add_argument(
        "--output", type=Path, required=True, help="model file to write (.tflite); its card goes beside it"
    )
    parser.add_argument(
        "--work", type=Path, help="folder for the log and the weights (default: OUTPUT without its suffix)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random (default %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a run of a minute on images it renders itself")
    choices = parser.parse_args(arguments)
    if choices.output.suffix != ".tflite":
        parser.error(f"--output must end in .tflite, not {choices.output.name}")
    if (choices.data is None) != choices.smoke:
        parser.error("give the folder of training images, or --smoke, not both")
    return choices


def main() -> int:
    """Train, export, and write the card; the exit status is 1 where that fails."""
    choices = parse(sys.argv[1:])
    work = choices.work or choices.output.with_suffix("")
    try:
        if choices.smoke:
            stages: tuple[Stage, ...] = SMOKE_STAGES
            images, places = rendered_buildings(SMOKE_STAGES[-1].size), 8
            validation, data_name = images, "rendered buildings"
        else:
            stages, places = STAGES, PLACES_PER_BATCH
            images, validation = (ClassFolder.read(choices.data / part, stages[-1].size) for part in ("train", "val"))
            data_name = choices.data.resolve().name
        work.mkdir(parents=True, exist_ok=True)
        model, recall = train(choices.network, images, validation, stages, work, places, choices.seed)
        data_option = "--smoke" if choices.smoke else data_name
        facts = {
            "recipe": choices.recipe,
            "training_data": f"{data_name}: {len(images.images)} images of {len(images.classes)} classes",
            "command": f"train_offline {data_option} --network {choices.network} --recipe {choices.recipe} "
            f"--seed {choices.seed} --output {choices.output.name}",
            "evaluation": {"recall_at_1_of_distorted_validation_views": round(recall, 4)},
        }
        card = export(model, choices.network, stages[-1].size, choices.output, facts)
    except (TrainingDataError, ExportError) as error:
        print(f"train_offline: {error}", file=sys.stderr)
        return 1
    print(f"train_offline: wrote {choices.output} ({card.descriptor_bits} bits, R@1 {recall:.3f} on distorted views)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
