# SPDX-License-Identifier: Apache-2.0
"""From folders of images to a model file with its card: what `train_offline` does once its choices are known."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import subprocess
import sys
from typing import Any

import keras
import numpy as np

from binvpr_ros.lab.training.data import TrainingDataError, TrainingImages, rendered_buildings
from binvpr_ros.lab.training.export import ExportError, export
from binvpr_ros.lab.training.networks import find
from binvpr_ros.lab.training.places365 import categories
from binvpr_ros.lab.training.recipes import Recipe
from binvpr_ros.lab.training.state import StateError
from binvpr_ros.lab.training.teacher import TeacherError, teach
from binvpr_ros.lab.training.trainer import Trainer, use_all_devices

HELD_OUT = 10  # one in so many places, where there is no folder of validation images


def read_images(choices: argparse.Namespace, size: int) -> tuple[TrainingImages, TrainingImages, str]:
    """Return images for training and for validation, and the name of the data; raises TrainingDataError."""
    if choices.smoke:
        images = rendered_buildings(size)
        return images, images, "rendered buildings"
    name = choices.data.resolve().name
    if choices.places:
        return *_split(TrainingImages.of_places(choices.data, size), name, "places"), name
    names = categories(choices.group) if choices.group else ()
    if not (choices.data / "val").is_dir():
        folder = choices.data / "train" if (choices.data / "train").is_dir() else choices.data
        return *_split(TrainingImages.of_classes(folder, size, choices.per_class, names), name, "images"), name
    train = TrainingImages.of_classes(choices.data / "train", size, choices.per_class, names)
    # By name: where the folders differ, the numbers of the classes would.
    return train, TrainingImages.of_classes(choices.data / "val", size, choices.per_class, train.classes), name


def _split(images: TrainingImages, name: str, kind: str) -> tuple[TrainingImages, TrainingImages]:
    """Return images for training and for validation out of a folder that does not tell them apart, and say so."""
    train, validation = images.hold_out(HELD_OUT)
    print(
        f"train_offline: {name} is not split into train/ and val/, so every {HELD_OUT}th of its {kind} is held out: "
        f"{len(train.images)} images for training, {len(validation.images)} for validation",
        file=sys.stderr,
    )
    return train, validation


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


def run(choices: argparse.Namespace) -> int:
    """Train, export, and write the card; the exit status is 1 where that fails."""
    work = choices.work or choices.output.with_suffix("")
    recipe: Recipe = choices.plan if choices.batch is None else dataclasses.replace(choices.plan, batch=choices.batch)
    size = recipe.stages[-1].size
    if choices.stages:
        print(
            f"train_offline: the model will take images of {size}x{size} pixels, as the last of the --stages",
            file=sys.stderr,
        )
    try:
        keras.config.set_dtype_policy(choices.precision)
        use_all_devices()
        images, validation, data_name = read_images(choices, max(stage.size for stage in recipe.stages))
        work.mkdir(parents=True, exist_ok=True)
        taught = teach(images.images, work / "teacher.npy") if choices.distill else None
        trainer = Trainer(
            f"{choices.network}, recipe {choices.recipe}", find(choices.network, choices.recipe), recipe, images,
            validation, work, seed=choices.seed, taught=taught, save_every=choices.save_every,
        )  # fmt: skip
        model = trainer.run()
        if keras.backend.backend() != "tensorflow":
            return _export_with_tensorflow()
        figures = trainer.validate(model, size)
        facts = facts_for_card(choices, data_name, images, figures)
        card = export(model, choices.network, choices.recipe, size, choices.output, facts)
    except ExportError as error:
        again = shlex.join(["train_offline", *sys.argv[1:]])
        print(f"train_offline: {error}; the training is kept; finish with: {again}", file=sys.stderr)
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
    command = [sys.executable, "-m", "binvpr_ros.lab.training.train", *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, check=False).returncode
