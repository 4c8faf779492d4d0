# SPDX-License-Identifier: Apache-2.0
"""`train_offline`: train BinVPR-20 on a folder of class folders and write the model file with its card."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.training.data import ClassFolder, TrainingDataError, ViewPairs
from binvpr_ros.training.losses import multi_similarity
from binvpr_ros.training.networks import binvpr20

NETWORKS = {"binvpr20": binvpr20}
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

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        recall = recall_at_1(self.model, self.views)
        if logs is not None:
            logs["val_recall_at_1"] = recall


def recall_at_1(model: keras.Model, views: NDArray[np.float32]) -> float:
    """Return the share of images whose second view finds its first: `views` [2*P,S,S,3], first views first."""
    bits = np.where(model.predict(views, batch_size=64, verbose=0)["descriptor"] >= 0, 1.0, -1.0).astype(np.float32)
    places = len(bits) // 2
    return float(np.mean(np.argmax(bits[places:] @ bits[:places].T, axis=1) == np.arange(places)))


def train(data: Path, stages: tuple[Stage, ...], seed: int, log: Path, weights: Path | None) -> keras.Model:
    """Train through `stages` on DATA/train with validation on DATA/val, and return the last model."""
    keras.utils.set_random_seed(seed)
    image_size = max(stage.size for stage in stages)
    images = ClassFolder.read(data / "train", image_size)
    validation = ClassFolder.read(data / "val", image_size)
    previous: list[NDArray[Any]] | None = None
    for number, stage in enumerate(stages):
        model = binvpr20(stage.size, classes=len(images.classes))
        if previous is not None:
            model.set_weights(previous)
        batches = ViewPairs(images, stage.size, PLACES_PER_BATCH, seed + number, workers=1, max_queue_size=16)
        steps = len(batches) * stage.epochs
        rate = WarmUp(stage.start, stage.end, steps, warm_up=200 if number == 0 else 50)
        model.compile(
            optimizer=keras.optimizers.Adam(rate, epsilon=1e-8, clipnorm=5.0),
            loss={
                "descriptor": multi_similarity,
                "logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            },
            loss_weights={"descriptor": 1.0, "logits": CLASSIFICATION_WEIGHT},
            metrics={"logits": "accuracy"},
        )
        callbacks = [Retrieval(validation, stage.size), keras.callbacks.CSVLogger(log, append=number > 0)]
        if weights:
            callbacks.append(keras.callbacks.ModelCheckpoint(weights, save_weights_only=True))
        model.fit(batches, epochs=stage.epochs, callbacks=callbacks, verbose=2)
        previous = model.get_weights()
    return model


@keras.saving.register_keras_serializable("binvpr_ros")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly over `warm_up` steps to `start`, then fall linearly to `end` at `steps`."""

    def __init__(self, start: float, end: float, steps: int, warm_up: int) -> None:
        self.start, self.end, self.steps, self.warm_up = start, end, steps, min(warm_up, steps)

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        rise = step / self.warm_up
        fall = 1.0 - step / self.steps
        return keras.ops.minimum(self.start * rise, self.end + (self.start - self.end) * keras.ops.maximum(fall, 0.0))

    def get_config(self) -> dict[str, float]:
        return {"start": self.start, "end": self.end, "steps": self.steps, "warm_up": self.warm_up}
