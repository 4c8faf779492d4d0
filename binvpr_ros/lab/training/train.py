# SPDX-License-Identifier: Apache-2.0
"""`train_offline`: train a network on folders of images and write the model file with its card."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without AVX-512 TensorFlow leaves these kernels out by itself; with them a step takes a third of the time.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if missing := [name for name in ("keras", "matplotlib", "rich", "scipy", "tqdm") if find_spec(name) is None]:
    sys.exit(f"train_offline: training needs {missing[0]} too; run, in a checkout: pip install '.[training]'")
import keras
import numpy as np

from binvpr_ros.lab.training.data import TrainingDataError, TrainingImages, rendered_buildings
from binvpr_ros.lab.training.export import ExportError, export
from binvpr_ros.lab.training.local import train as local
from binvpr_ros.lab.training.networks import NETWORKS, RECIPES, find
from binvpr_ros.lab.training.paper import reproduce, sizes
from binvpr_ros.lab.training.places365 import GROUPS, categories
from binvpr_ros.lab.training.recipes import SMOKE, Recipe, recipe_of
from binvpr_ros.lab.training.state import StateError
from binvpr_ros.lab.training.teacher import TeacherError, teach
from binvpr_ros.lab.training.trainer import SAVE_EVERY, SEEDS, Trainer, use_all_devices

OTHERS = {"local": local.main, "reproduce": reproduce.main, "sizes": sizes.main}
HELD_OUT = 10  # one in so many places, where there is no folder of validation images


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(
        prog="train_offline", description=__doc__,
        epilog="A network for local features: train_offline local --help. "
        "The paper's experiments: train_offline reproduce --help, and train_offline sizes --help",
    )  # fmt: skip
    parser.add_argument(
        "data", type=Path, nargs="?", help="folder with train/<class>/ and val/<class>/ images, or <place>/ (--places)"
    )
    parser.add_argument("--places", action="store_true", help="DATA holds a folder of images for each place")
    parser.add_argument("--group", choices=GROUPS, help="the classes of one of the paper's groups of Places365 alone")
    parser.add_argument("--per-class", type=int, default=0, metavar="N", help="images of each class, at most")
    parser.add_argument("--network", choices=sorted(NETWORKS),
                        help="(default: the shipped one's, binvpr20r; with --recipe paper: binvpr20)")  # fmt: skip
    parser.add_argument("--recipe", choices=RECIPES, help="(default: deploy, where the network has it)")
    parser.add_argument("--stages", metavar="SIZE:EPOCHS[:RATE],...",
                        help="image sizes, epochs, first learning rates (default: the recipe's)")  # fmt: skip
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
    """End with a sentence where the choices do not go together; fill in the network, the recipe and its plan."""
    choices.network = choices.network or ("binvpr20" if choices.recipe == "paper" else "binvpr20r")
    recipes = NETWORKS[choices.network]
    if choices.recipe is None:
        choices.recipe = next(recipe for recipe in RECIPES if recipe in recipes)
    wrong = (
        (choices.output.suffix != ".tflite", f"--output must end in .tflite, not {choices.output.name}"),
        (choices.output.is_dir(), f"--output names the folder {choices.output}; give the path of a file"),
        (
            not choices.output.absolute().parent.is_dir(),
            f"--output: there is no folder {choices.output.parent}; make it",
        ),
        ((choices.data is None) != choices.smoke, "give the folder of training images, or --smoke, not both"),
        (choices.batch is not None and choices.batch < 2, f"--batch must be at least 2, not {choices.batch}"),
        (choices.per_class < 0, f"--per-class must be 0, for all, or more, not {choices.per_class}"),
        (choices.seed not in SEEDS, f"--seed must be from 0 to {SEEDS[-1]}, not {choices.seed}"),
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
    train = TrainingImages.of_classes(choices.data / "train", size, choices.per_class, names)
    # By name: where the folders differ, the numbers of the classes would.
    return train, TrainingImages.of_classes(choices.data / "val", size, choices.per_class, train.classes), name


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
    """Train, export, and write the card; or do what another first word says. The exit status is 1 where that fails."""
    if command := OTHERS.get(" ".join(sys.argv[1:2])):
        return command(sys.argv[2:])
    choices = parse(sys.argv[1:])
    work = choices.work or choices.output.with_suffix("")
    recipe: Recipe = choices.plan if choices.batch is None else dataclasses.replace(choices.plan, batch=choices.batch)
    size = recipe.stages[-1].size
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
        print(f"train_offline: {error}; what was learnt is kept, finish with: {again}", file=sys.stderr)
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


if __name__ == "__main__":
    sys.exit(main())
