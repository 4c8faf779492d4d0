# SPDX-License-Identifier: Apache-2.0
"""`train_offline`: train a network on folders of images and write the model file with its card."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from binvpr_ros.installation import how_to_install_module
from binvpr_ros.lab.training.places365 import GROUPS
from binvpr_ros.lab.training.recipes import PRESETS, RECIPES, SAVE_EVERY, SMOKE, recipe_of

# Keras and TensorFlow take seconds to load, and so are imported when the command line is known to make sense.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without AVX-512 TensorFlow leaves these kernels out by itself; with them a step takes a third of the time.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

OTHERS = {"local": "local.train", "reproduce": "paper.reproduce", "sizes": "paper.sizes"}
"""Modules whose `main` does what another first word says."""
NEEDS = ("keras", "matplotlib", "rich", "scipy", "tqdm")
NETWORKS = tuple(sorted([*PRESETS, "binvpr20r", "binvpr20ste", "binvpr36r", "binvpr36ste"]))
"""The names of `networks.NETWORKS`, which loads Keras."""


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
    parser.add_argument("--group", choices=GROUPS, help="only the classes of one of the paper's groups of Places365")
    parser.add_argument("--per-class", type=int, default=0, metavar="N", help="maximum number of images per class")
    parser.add_argument("--network", choices=NETWORKS,
                        help="(default: the shipped one's, binvpr20r; with --recipe paper: binvpr20)")  # fmt: skip
    parser.add_argument("--recipe", choices=RECIPES, help="(default: deploy, if the network has it)")
    parser.add_argument("--stages", metavar="SIZE:EPOCHS[:RATE],...",
                        help="image sizes, epochs, first learning rates (default: the recipe's); "
                        "to extend a finished run, append a stage")  # fmt: skip
    parser.add_argument("--batch", type=int, metavar="N", help="places per batch (default: the recipe's)")
    parser.add_argument(
        "--distill", action="store_true", help="also learn from EfficientNet-Lite0 (needs the extra `baselines`)"
    )
    parser.add_argument(
        "--precision", choices=("float32", "mixed_bfloat16"), default="float32", help="on a GPU (default %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="model file to write (.tflite), with its card next to it"
    )
    parser.add_argument(
        "--work", type=Path, help="folder for the state, the log and its curves (default: OUTPUT without its suffix)"
    )
    parser.add_argument(
        "--save-every",
        type=float,
        default=SAVE_EVERY,
        metavar="S",
        help="seconds between saved states (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a one-minute run on rendered images")
    choices = parser.parse_args(arguments)
    _say_what_is_missing()
    _check(parser, choices)
    return choices


def _check(parser: argparse.ArgumentParser, choices: argparse.Namespace) -> None:
    """End with a sentence where the choices do not go together; fill in the network, the recipe and its plan."""
    from binvpr_ros.lab.training import networks
    from binvpr_ros.lab.training.trainer import SEEDS

    choices.network = choices.network or ("binvpr20" if choices.recipe == "paper" else "binvpr20r")
    recipes = networks.NETWORKS[choices.network]
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


def main() -> int:
    """Train, or do what another first word says; the exit status is 1 where that fails."""
    if module := OTHERS.get(" ".join(sys.argv[1:2])):
        _say_what_is_missing()
        return int(importlib.import_module(f"binvpr_ros.lab.training.{module}").main(sys.argv[2:]))
    choices = parse(sys.argv[1:])
    from binvpr_ros.lab.training.offline import run

    return run(choices)


def _say_what_is_missing() -> None:
    """End with a sentence where something is not installed that training needs."""
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        sys.exit(f"train_offline: training needs {missing[0]} too; {how_to_install_module(missing[0], 'training')}")


if __name__ == "__main__":
    sys.exit(main())
