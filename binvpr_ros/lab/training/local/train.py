# SPDX-License-Identifier: Apache-2.0
"""`train_offline local`: train the 1-bit network for local features and write the model file with its card.

The network learns from a teacher, an ONNX file with XFeat's interface at 640x640, on any folder of photographs.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras

from binvpr_ros.lab.training.data import rendered_buildings
from binvpr_ros.lab.training.export import ExportError, _git_revision, convert, shrink_kernels
from binvpr_ros.lab.training.local.losses import TOGETHER
from binvpr_ros.lab.training.local.network import NETWORK, SHAPE, Shape, build
from binvpr_ros.lab.training.local.targets import SIDE, Chosen, Taught, ask, squares, stand_in
from binvpr_ros.lab.training.local.trainer import MOTION, Budget, LocalTrainer, Recipe, save_weights
from binvpr_ros.lab.training.state import StateError
from binvpr_ros.lab.training.teacher import TeacherError
from binvpr_ros.lab.training.trainer import SEEDS
from binvpr_ros.network.model_card import ModelCard, checksum

MINUTES = 75.0
SMOKE_STEPS = 4
SMOKE_BATCH = 4
SIZE = (368, 480)
"""Height and width of the exported network's input: what a 4:3 image of 480 pixels is padded to."""
HELD_OUT = 250
"""Squares whose photographs are held out; a quarter of them where there are few."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="train_offline local", description=__doc__)
    parser.add_argument("photographs", type=Path, nargs="?", help="folder; images in sub-folders are found too")
    parser.add_argument("--teacher", type=Path, metavar="FILE", help="ONNX file (docs/training.md)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE",
                        help="model file to write (.tflite), with its card next to it")  # fmt: skip
    parser.add_argument("--minutes", type=float, metavar="M",
                        help=f"minutes of training, earlier calls included (default {MINUTES:.0f})")  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="N", help="train N steps instead; the result is reproducible")
    parser.add_argument(
        "--images", type=int, default=0, metavar="N", help="maximum number of photographs (default: all)"
    )
    parser.add_argument("--batch", type=int, default=Recipe.batch, metavar="N",
                        help="photographs per batch, each in two views (default %(default)s)")  # fmt: skip
    parser.add_argument("--roll", type=float, default=MOTION.roll, metavar="DEGREES",
                        help="largest roll of a view (default %(default)s)")  # fmt: skip
    parser.add_argument("--scale", type=float, default=MOTION.scale, metavar="FACTOR",
                        help="largest change of scale of a view (default %(default)s)")  # fmt: skip
    parser.add_argument("--moved", type=float, default=MOTION.share, metavar="SHARE",
                        help="share of views that are moved and rolled (default %(default)s)")  # fmt: skip
    parser.add_argument("--between-views", type=float, default=Recipe.signs_weight, metavar="WEIGHT",
                        help="weight of the loss between the bits of two views (default %(default)s)")  # fmt: skip
    parser.add_argument("--start-from", type=Path, metavar="FILE", help="weights.npz of another run")
    parser.add_argument("--work", type=Path, metavar="DIR",
                        help="folder for the state, log and curves (default: OUTPUT without its suffix)")  # fmt: skip
    parser.add_argument("--targets", type=Path, metavar="DIR",
                        help="folder for the teacher's answers; runs can share it (default: WORK/targets)")  # fmt: skip
    parser.add_argument(
        "--save-every",
        type=float,
        default=240.0,
        metavar="S",
        help="seconds between saved states (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a one-minute run on rendered images, without a teacher")
    choices = parser.parse_args(arguments)
    _check(parser, choices)
    return choices


def _check(parser: argparse.ArgumentParser, choices: argparse.Namespace) -> None:
    wrong = (
        (choices.output.suffix != ".tflite", f"--output must end in .tflite, not {choices.output.name}"),
        (choices.output.is_dir(), f"--output names the folder {choices.output}; give the path of a file"),
        (not choices.output.absolute().parent.is_dir(), f"--output: make the folder {choices.output.parent} first"),
        ((choices.photographs is None) != choices.smoke, "give the folder of photographs, or --smoke, not both"),
        ((choices.teacher is None) != choices.smoke, "give the --teacher, or --smoke, not both"),
        (choices.minutes is not None and choices.steps is not None, "give --minutes or --steps, not both"),
        ((choices.minutes or 0) < 0 or (choices.steps or 0) < 0, "--minutes and --steps must be 0 or more"),
        (
            choices.batch < TOGETHER or choices.batch % TOGETHER,
            f"--batch must be a multiple of {TOGETHER}, not {choices.batch}",
        ),
        (choices.scale < 1, f"--scale must be 1 or more, not {choices.scale}"),
        (not 0 <= choices.moved < 1, f"--moved must be 0 or more and less than 1, not {choices.moved}"),
        (
            not 0 <= choices.between_views < math.inf,
            f"--between-views must be a number of 0 or more, not {choices.between_views}",
        ),
        (choices.images < 0, f"--images must be 0, for all, or more, not {choices.images}"),
        (choices.seed not in SEEDS, f"--seed must be from 0 to {SEEDS[-1]}, not {choices.seed}"),
    )
    for condition, sentence in wrong:
        if condition:
            parser.error(sentence)


def main(arguments: list[str]) -> int:
    """Ask the teacher, train, export, and write the card; the exit status is 1 where that fails."""
    choices = parse(arguments)
    work: Path = choices.work or choices.output.with_suffix("")
    again = shlex.join(["train_offline", "local", *arguments])
    try:
        work.mkdir(parents=True, exist_ok=True)
        taught = _taught(choices, work)
        train, held_out = split(taught, choices.batch)
        trainer = LocalTrainer(
            taught, train, held_out, _recipe(choices), _budget(choices), work,
            seed=choices.seed, start_from=choices.start_from, save_every=choices.save_every,
        )  # fmt: skip
        model = trainer.run()
        save_weights(model, work / "weights.npz")
        if keras.backend.backend() != "tensorflow":
            return _export_with_tensorflow(arguments)
        figures = trainer.validate()
        export(model, choices.output, _facts(choices, train, trainer.state.step, figures))
    except ExportError as error:
        print(f"train_offline: {error}; the training is kept; finish with: {again}", file=sys.stderr)
        return 1
    except (TeacherError, StateError, OSError) as error:
        print(f"train_offline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"train_offline: interrupted; run the same command again to go on: {again}", file=sys.stderr)
        return 1
    print(f"train_offline: wrote {choices.output} ({choices.output.stat().st_size} bytes; of the cells of held-out "
          f"photographs {figures['val_found']:.3f} are found in another view)")  # fmt: skip
    return 0


def export(trained: keras.Model, output: Path, facts: dict[str, Any], shape: Shape = SHAPE) -> ModelCard:
    """Convert what was trained to `output` (.tflite) with its card beside it; raises ExportError."""
    content = shrink_kernels(convert(for_export(trained, shape=shape), int8_outputs=True))
    part = output.with_suffix(".part")
    part.write_bytes(content)
    part.replace(output)
    card = ModelCard(
        name=output.stem, network=NETWORK, recipe="local", git_revision=_git_revision(), input_size=list(SIZE),
        descriptor_bits=shape.bits, sha256=checksum(output), **facts,
    )  # fmt: skip
    card.write(output)
    return card


def for_export(trained: keras.Model, size: tuple[int, int] = SIZE, shape: Shape = SHAPE) -> keras.Model:
    """Return the network with the weights of `trained`, for images of `size` (height, width), as `convert` takes it."""
    model = build(*size, for_export=True, shape=shape)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(trained.get_layer(layer.name).get_weights())
    return model


def _export_with_tensorflow(arguments: list[str]) -> int:
    """Run the same command, whose training is done, where the converter can be run; return its exit status."""
    command = [sys.executable, "-m", "binvpr_ros.lab.training.train", "local", *arguments]
    return subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, check=False).returncode


def _taught(choices: argparse.Namespace, work: Path) -> Taught:
    """Return squares of photographs with what the teacher says."""
    if choices.smoke:
        return stand_in(rendered_buildings(SIDE, images=8).images)
    chosen = squares(choices.photographs, choices.images, choices.seed)
    return ask(chosen, choices.teacher, choices.targets or work / "targets")


def split(taught: Taught, batch: int) -> tuple[Chosen, Chosen]:
    """Return the squares to train with and those held out; raises TeacherError where a `batch` has too few."""
    train, held_out = taught.split(min(HELD_OUT, len(taught.images) // 4))
    if len(train) < batch:
        raise TeacherError(f"a batch needs {batch} squares of photographs, there are {len(train)}; add some")
    return train, held_out


def _recipe(choices: argparse.Namespace) -> Recipe:
    motion = dataclasses.replace(MOTION, roll=choices.roll, scale=choices.scale, share=choices.moved)
    batch = SMOKE_BATCH if choices.smoke else choices.batch
    return Recipe(motion=motion, batch=batch, signs_weight=choices.between_views)


def _budget(choices: argparse.Namespace) -> Budget:
    if choices.steps is None and choices.minutes is None:
        return Budget(steps=SMOKE_STEPS) if choices.smoke else Budget(minutes=MINUTES)
    return Budget(steps=choices.steps, minutes=choices.minutes)


def _facts(choices: argparse.Namespace, train: Chosen, step: int, figures: dict[str, float]) -> dict[str, Any]:
    """Return what the model's card says of the training."""
    name = "--smoke" if choices.smoke else choices.photographs.resolve().name
    words = ["train_offline", "local", name]
    words += ["--teacher", choices.teacher.name] if choices.teacher else []
    words += ["--start-from", choices.start_from.name] if choices.start_from else []
    for option, default in (("images", 0), ("batch", Recipe.batch), ("roll", MOTION.roll),
                            ("scale", MOTION.scale), ("moved", MOTION.share),
                            ("between_views", Recipe.signs_weight), ("seed", 0)):  # fmt: skip
        value = getattr(choices, option)
        words += [f"--{option.replace('_', '-')}", str(value)] if value != default else []
    words += ["--steps", str(step), "--output", choices.output.name]
    evaluation: dict[str, Any] = {name.removeprefix("val_"): round(value, 4) for name, value in figures.items()}
    return {
        "training_data": f"{name}: {len(train)} squares of photographs; teacher "
        + (choices.teacher.name if choices.teacher else "none, random projections"),
        "command": shlex.join(words),
        "evaluation": {"held_out": evaluation, "steps": step},
    }
