# SPDX-License-Identifier: Apache-2.0
"""Measure what each part of the local-feature network and of its training is worth, by changing one at a time.

    python -m binvpr_ros.lab.training.local.ablations PHOTOGRAPHS --teacher xfeat.onnx --steps 400 --output DIR \
        --data DATA_SET... [NAME...]

Trains the base and each variation from scratch, for the same steps on the same batches, measures them, and writes the
table: DIR/ablations.json and DIR/ablations.md. The same command resumes an interrupted run, and skips what is done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import cv2
import keras

from binvpr_ros.lab.benchmark import network_timer
from binvpr_ros.lab.evaluation.datasets import Dataset, DatasetError, Options, open_dataset
from binvpr_ros.lab.timing import measure as measure_times
from binvpr_ros.lab.training.export import ExportError
from binvpr_ros.lab.training.local.network import SHAPE, Shape
from binvpr_ros.lab.training.local.report import Method, measure
from binvpr_ros.lab.training.local.targets import Chosen, Taught, ask, squares
from binvpr_ros.lab.training.local.train import export, split
from binvpr_ros.lab.training.local.trainer import MOTION, Budget, LocalTrainer, Recipe, validate
from binvpr_ros.lab.training.state import StateError
from binvpr_ros.lab.training.teacher import TeacherError
from binvpr_ros.local_features.learned import MOST_BITS, MOST_FEATURES, LearnedFeatures
from binvpr_ros.network.backends import DelegateBackend

RECIPE = Recipe()
REPEAT = 100
"""Times that each network is run."""


@dataclass(frozen=True)
class Variation:
    """A network, how it is trained, with how many squares of photographs (0: all), and the seed of what is random."""

    shape: Shape = SHAPE
    recipe: Recipe = RECIPE
    squares: int = 0
    seed: int = 0


BASE = "base"
VARIATIONS = {
    BASE: Variation(),
    "seed-1": Variation(seed=1),
    "bits-512": Variation(replace(SHAPE, bits=512)),
    "views-not-moved": Variation(recipe=Recipe(motion=replace(MOTION, share=0.0))),
    "no-loss-between-views": Variation(recipe=Recipe(signs_weight=0.0)),
    "sixteenth-3": Variation(replace(SHAPE, sixteenth=3)),
    "signs-not-trained": Variation(replace(SHAPE, projected=64), Recipe(signs_weight=0.0)),
    "squares-500": Variation(squares=500),
    "trunk-8-bits": Variation(replace(SHAPE, trunk_bits=8)),
    "sixteenth-8": Variation(replace(SHAPE, sixteenth=8)),
    "width-96": Variation(replace(SHAPE, width=96)),
    "width-160": Variation(replace(SHAPE, width=160)),
}


class Ablations:
    """The variations that are done, in the folder `output`: of each a model, its card and its figures."""

    def __init__(self, output: Path, steps: int) -> None:
        self.output, self.steps = output, steps

    def done(self, name: str) -> dict[str, Any] | None:
        """Return the figures of a variation, or None where it is not done; raises StateError."""
        path = self.output / f"{name}.figures.json"
        if not path.exists():
            return None
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if figures["steps"] != self.steps:
            raise StateError(f"{path} is of a run with --steps {figures['steps']}; name another --output, or remove it")
        return figures

    def run(self, name: str, taught: Taught, train: Chosen, held_out: Chosen, datasets: list[Dataset]) -> None:
        """Train, export and measure a variation; raises KeyboardInterrupt where a signal ended the training."""
        variation = VARIATIONS[name]
        chosen = train[: variation.squares or None]
        recipe = replace(variation.recipe, warm_up=self.steps // 8)
        keras.backend.clear_session()
        (self.output / name).mkdir(parents=True, exist_ok=True)
        trainer = LocalTrainer(
            taught, chosen, held_out, recipe, Budget(steps=self.steps), self.output / name,
            seed=variation.seed, shape=variation.shape,
        )  # fmt: skip
        model = trainer.run()
        if trainer.state.step < self.steps:
            raise KeyboardInterrupt
        path = self.output / f"{name}.tflite"
        facts = {"training_data": f"{len(chosen)} squares of photographs", "command": f"ablations {name}"}
        export(model, path, facts, variation.shape)
        figures: dict[str, Any] = {"steps": self.steps, **validate(model, taught, held_out, MOTION)}
        most_bits = MOST_BITS * variation.shape.bits // SHAPE.bits
        method = Method(name, LearnedFeatures(path), MOST_FEATURES, most_bits)
        figures["kilobytes"] = path.stat().st_size / 1000
        figures["above"] = {dataset.name: measure(dataset, method, half=True)["above"] for dataset in datasets}
        part = self.output / f"{name}.part"
        part.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        part.replace(self.output / f"{name}.figures.json")

    def table(self) -> str:
        """Write the figures of all variations that are done, with the times of their networks, and return the table.

        Times are those of one run of all networks in turns, one thread, by that of the base; the least of each, since
        other work on the machine only adds.
        """
        done = {name: figures for name in VARIATIONS if (figures := self.done(name))}
        timers = {
            name: network_timer(DelegateBackend((self.output / f"{name}.tflite").read_bytes(), threads=1))
            for name in done
        }
        least = {name: min(times) for name, times in measure_times(timers, REPEAT).items()}
        for name, figures in done.items():
            figures["time"] = least[name] / least[BASE] if BASE in done else None
        (self.output / "ablations.json").write_text(json.dumps(done, indent=1), encoding="utf-8")
        lines = markdown(done)
        (self.output / "ablations.md").write_text(lines, encoding="utf-8")
        return lines


def markdown(done: dict[str, dict[str, Any]]) -> str:
    """Return the figures of variations as the lines of a table."""
    sets = list(dict.fromkeys(name for figures in done.values() for name in figures["above"]))
    rows = [["", "found", "cosine", "time", "kB", *sets], ["---"] + ["---:"] * (4 + len(sets))]
    for name, figures in done.items():
        time = "" if figures["time"] is None else f"{figures['time']:.2f}"
        above = [_share(figures["above"][one]) if one in figures["above"] else "" for one in sets]
        learnt = [f"{figures[one]:.3f}".lstrip("0") for one in ("val_found", "val_cosine")]
        rows.append([name, *learnt, time, f"{figures['kilobytes']:.0f}", *above])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _share(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(
        prog="ablations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path, help="folder; images in sub-folders are found too")
    parser.add_argument("--teacher", type=Path, required=True, metavar="FILE", help="ONNX file")
    parser.add_argument("--targets", type=Path, metavar="DIR",
                        help="folder for the teacher's answers (default: DIR/targets)")  # fmt: skip
    parser.add_argument(
        "--images", type=int, default=0, metavar="N", help="number of squares of photographs (default: all)"
    )
    parser.add_argument("--steps", type=int, required=True, metavar="N", help="training steps of each variation")
    parser.add_argument("--data", type=Path, nargs="+", default=[], metavar="DATA_SET",
                        help="data sets; the first half of their queries is used")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"(default: all) {', '.join(VARIATIONS)}")
    choices = parser.parse_intermixed_args(arguments)
    unknown = [name for name in choices.names if name not in VARIATIONS]
    if unknown or choices.steps < 1:
        parser.error(f"no variation is called {unknown[0]}; see --help" if unknown else "--steps must be 1 or more")
    cv2.setNumThreads(1)
    ablations = Ablations(choices.output, choices.steps)
    try:
        datasets = [open_dataset(path, Options()) for path in choices.data]
        missing = [name for name in choices.names or VARIATIONS if ablations.done(name) is None]
        if missing:
            chosen = squares(choices.photographs, choices.images, seed=0)
            taught = ask(chosen, choices.teacher, choices.targets or choices.output / "targets")
            train, held_out = split(taught, Recipe.batch)
        for name in missing:
            print(name, file=sys.stderr, flush=True)
            ablations.run(name, taught, train, held_out, datasets)
        print(ablations.table(), end="")
    except (TeacherError, StateError, ExportError, DatasetError, OSError) as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ablations: interrupted; run the same command again to go on", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
