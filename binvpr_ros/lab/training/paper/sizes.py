# SPDX-License-Identifier: Apache-2.0
"""`train_offline sizes`: measure the networks of the paper's table 6 as model files: their size and time per image.

Nothing is trained, since neither depends on the weights' values. The files hold the classifying networks, with
everything that the paper counts; the node's models end at the descriptor.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from binvpr_ros.lab.benchmark import network_timer
from binvpr_ros.lab.machine import cpu_name
from binvpr_ros.lab.timing import measure
from binvpr_ros.lab.training.export import ExportError, convert
from binvpr_ros.lab.training.networks import build
from binvpr_ros.lab.training.paper.experiments import COUNTED_CLASSES, PARAMETERS, REAL_VALUED, SYSTEMS
from binvpr_ros.lab.training.state import replace_table
from binvpr_ros.network.backends import DescriptorError, load_backend

MIB = 2**20
YARDSTICK = "ResNet-18"
"""The network whose time the others' are given in."""


@dataclass(frozen=True)
class Size:
    """A network of table 6: what the paper says of it, and what comes out."""

    network: str
    published_parameters: int
    parameters: int
    published_mib: float  # of these parameters at 1 or at 32 bits
    file_mib: float
    median_ms: float  # for an image, on one core
    times_faster: float  # than YARDSTICK; NaN where that is not among them


def published_mib(network: str) -> float:
    """Return what table 6 gives as size."""
    return PARAMETERS[network] * 1e6 * (32 if network in REAL_VALUED else 1) / 8 / MIB


def write_model(network: str, size: int, output: Path) -> int:
    """Write a network of table 6, untrained, that classifies images of `size` pixels; return its parameters."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = build(SYSTEMS[network], "paper", size, classes=COUNTED_CLASSES, for_export=True)
    classifier = keras.Model(model.input, model.output["logits"], name=model.name)
    output.write_bytes(convert(classifier))
    return int(classifier.count_params())


def measured(networks: Sequence[str], size: int, folder: Path, repeat: int) -> list[Size]:
    """Write each network's file into `folder`, then time all in turns; raises ExportError and DescriptorError."""
    parameters, files = {}, {}
    for network in tqdm(networks, desc="convert", unit="network", file=sys.stderr):
        files[network] = folder / f"{SYSTEMS[network]}.tflite"
        parameters[network] = write_model(network, size, files[network])
    timers = {network: network_timer(load_backend("auto", file.read_bytes(), 1)) for network, file in files.items()}
    medians = {network: float(np.median(times)) for network, times in measure(timers, repeat).items()}
    yardstick = medians.get(YARDSTICK, float("nan"))
    return [
        Size(
            network, round(PARAMETERS[network] * 1e6), parameters[network], published_mib(network),
            files[network].stat().st_size / MIB, medians[network], yardstick / medians[network],
        )
        for network in networks
    ]  # fmt: skip


def print_table(sizes: Sequence[Size], conditions: str) -> None:
    """Print a line a network, the paper's figures in brackets."""
    table = Table(title="What the networks of table 6 weigh", caption=conditions, box=box.SIMPLE_HEAD,
                  title_justify="left", caption_justify="left")  # fmt: skip
    for heading in ("", "M parameters", "file, MiB", "ms an image", f"times faster than {YARDSTICK}"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for size in sizes:
        table.add_row(
            size.network, f"{size.parameters / 1e6:.2f} ({size.published_parameters / 1e6:.2f})",
            f"{size.file_mib:.2f} ({size.published_mib:.2f})", f"{size.median_ms:.1f}", f"{size.times_faster:.2f}",
        )  # fmt: skip
    Console(width=110).print(table)


def draw(sizes: Sequence[Size], conditions: str, file: Path) -> None:
    """Draw the files' sizes, the paper's as rings, and the times."""
    figure = Figure(figsize=(8, 1.6 + 0.24 * len(sizes)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, size in enumerate(sizes):
        left.plot(size.published_mib, place, "o", color="tab:blue", fillstyle="none")
        left.plot(size.file_mib, place, "o", color="tab:red", markersize=4)
        right.plot(size.median_ms, place, "o", color="tab:red", markersize=4)
    for axes, label in ((left, "MiB"), (right, "ms an image")):
        axes.set_xscale("log")
        axes.set_xlabel(label, fontsize=8)
        axes.grid(alpha=0.3)
    left.set_yticks(range(len(sizes)), [size.network for size in sizes], fontsize=8)
    left.set_ylim(len(sizes) - 0.5, -0.5)
    figure.suptitle(f"red: model files, blue: the paper's sizes\n{conditions}", fontsize=9)
    figure.savefig(file, dpi=110)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="train_offline sizes", description=__doc__)
    parser.add_argument("output", type=Path, help="folder for the model files, the table and its picture")
    parser.add_argument("--size", type=int, default=224, help="pixels of an image (default %(default)s, the paper's)")
    parser.add_argument("--rows", default=",".join(SYSTEMS), metavar="NAME,NAME,...", help="(default: all networks)")
    parser.add_argument("--repeat", type=int, default=20, help="number of images to time (default %(default)s)")
    choices = parser.parse_args(arguments)
    choices.rows = choices.rows.split(",")
    if unknown := [name for name in choices.rows if name not in SYSTEMS]:
        parser.error(f"table 6 has no row {unknown[0]}, only {', '.join(SYSTEMS)}")
    for name in ("size", "repeat"):
        if getattr(choices, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(choices, name)}")
    return choices


def main(arguments: Sequence[str]) -> int:
    """Convert, time, and show; the exit status is 1 where that fails."""
    choices = parse(arguments)
    try:
        choices.output.mkdir(parents=True, exist_ok=True)
        sizes = measured(choices.rows, choices.size, choices.output, choices.repeat)
        replace_table(
            choices.output / "sizes.csv", [field.name for field in dataclasses.fields(Size)],
            map(dataclasses.astuple, sizes),
        )  # fmt: skip
    except (ExportError, DescriptorError, ValueError, OSError) as error:
        print(f"train_offline sizes: {error}", file=sys.stderr)
        return 1
    conditions = f"{choices.size} px, one core of {cpu_name()}; in brackets the paper's."
    draw(sizes, conditions, choices.output / "sizes.png")
    print_table(sizes, conditions)
    return 0
