# SPDX-License-Identifier: Apache-2.0
"""The paper's experiments (Sensors 2024, 24, 4130, section 4) as data: which networks each table and figure trains.

Every cell is a network on one of the paper's groups of classes, with what was published for it. `published.csv` holds
the figures of tables 4 to 6, and what the text says of the figures; in tables 2 and 3 nothing trained.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from binvpr_ros.lab.training.networks import Network, binvpr, comparison, find
from binvpr_ros.lab.training.networks.restoration import (
    Restoration,
    basic_and_inter,
    basic_and_intra,
    basic_multiple,
    basic_single,
    best,
    inter_block,
    intra_block,
)

PUBLISHED = Path(__file__).with_name("published.csv")
VANISHED = "N/A"
"""Stands, as in the paper, for a network that does not learn ("gradient vanishing")."""
VANISHING_FACTOR = 1.5
"""The paper calls so what stays below 30% with the five classes of Forest: one and a half times chance."""

QUANTIZERS = {
    "Approx": "approx_sign",
    "STE": "ste_sign",
    "STE-tern": "ste_tern",
    "Swish": "swish_sign",
    "DoReFa": "dorefa",
    "Magn": "magnitude_aware_sign",
    "hard tanh": "hard_tanh",
    "leaky tanh": "leaky_tanh",
}
"""Larq's names of the functions in tables 4 and 5, by the paper's; the first six are for weights too."""
WEIGHTS = list(QUANTIZERS)[:6]

SIGNS = {
    "Approx": "approx_sign",
    "STE": "ste_sign",
    "Swish": "swish_sign",
    "leaky tanh": "leaky_tanh_sign",
}
"""What is left of them for activations that are to be -1 and 1: signs, which differ in their gradients. Hard tanh's is
STE's; Magn's scale depends on the other images of the batch."""
WEIGHT_SIGNS = {
    "Approx": "approx_sign",
    "STE": "ste_sign",
    "Swish": "swish_sign",
    "DoReFa": "dorefa_sign",
    "Magn": "magnitude_aware_sign",
}
"""The same for weights, where a scale for each output channel goes into the batch norm behind."""

SYSTEMS = {
    "BinaryNet": "binarynet",
    "XNOR-Net": "xnornet",
    "FloppyNet": "floppynet",
    "ShallowNet": "shallownet",
    "DoReFaNet": "dorefanet",
    "RealToBinNet-34": "realtobinnet34",
    "BiRealNet-34": "birealnet34",
    "BiResNet-18": "biresnet18",
    "BiResNet-34": "biresnet34",
    "AlexNet": "alexnet",
    "ResNet-18": "resnet18",
    "ResNet-34": "resnet34",
    "BinVPR-STE-20": "binvpr20ste",
    "BinVPR-STE-36": "binvpr36ste",
    "BinVPR-Leaky-20": "binvpr20",
    "BinVPR-Leaky-36": "binvpr36",
}
"""Our names of the networks of table 6, by the paper's."""

PARAMETERS = {
    "BinaryNet": 71.71, "XNOR-Net": 66.00, "FloppyNet": 3.68, "ShallowNet": 55.98, "DoReFaNet": 72.13,
    "RealToBinNet-34": 21.89, "BiRealNet-34": 21.35, "BiResNet-18": 11.28, "BiResNet-34": 21.32, "AlexNet": 58.50,
    "ResNet-18": 11.28, "ResNet-34": 21.32, "BinVPR-STE-20": 16.63, "BinVPR-STE-36": 34.69, "BinVPR-Leaky-20": 16.63,
    "BinVPR-Leaky-36": 34.69,
}  # fmt: skip
"""Millions of parameters in table 6. Its MiB are these at 32 bits each for REAL_VALUED, and at 1 for the others."""
REAL_VALUED = ("AlexNet", "ResNet-18", "ResNet-34")
COUNTED_CLASSES = 48
"""Those of "Natural", with which the paper's numbers of parameters come out."""


@dataclass(frozen=True)
class Cell:
    """One figure of the paper: a network on a group of classes."""

    row: str
    column: str
    group: str  # of Places365's classes
    preset: str  # the network whose presets of the recipe `paper` are taken
    network: Network


@dataclass(frozen=True)
class Experiment:
    """A table or a figure. `cells` makes its cells, row by row, with networks after a recipe, one of `recipes`."""

    title: str
    cells: Callable[[str], list[Cell]]
    recipes: tuple[str, ...] = ("paper",)
    means: bool = False  # whether the cells differ in nothing but their row and column, so that means say something


def published(experiment: str, row: str, column: str) -> float | str | None:
    """Return the accuracy in percent that the paper gives, VANISHED, or None where it gives none in numbers."""
    if experiment in ("table2", "table3"):
        return VANISHED
    figure = _published().get((experiment, row, column))
    return figure if figure in (None, VANISHED) else float(figure)


@cache
def _published() -> dict[tuple[str, str, str], str]:
    with PUBLISHED.open(newline="", encoding="utf-8") as table:
        return {(row["experiment"], row["row"], row["column"]): row["accuracy"] for row in csv.DictReader(table)}


def _ways(*columns: tuple[int, Iterable[Restoration]]) -> Callable[[str], list[Cell]]:
    """Return what makes a column of cells for each depth and its ways of restoration."""

    def cells(recipe: str) -> list[Cell]:
        return [
            Cell(way.name, f"Baseline-{depth}", "forest", f"baseline{depth}", _restored(depth, way, recipe))
            for depth, ways in columns
            for way in ways
        ]

    return cells


def _restored(depth: int, way: Restoration, recipe: str) -> Network:
    name = f"baseline{depth}"
    if recipe == "deploy":
        return partial(binvpr.deploy, name, depth, way)
    return partial(binvpr.paper, name, depth, way, binvpr.STE if recipe == "paper-ste" else binvpr.LEAKY)


def _pairs(depth: int) -> Callable[[str], list[Cell]]:
    """Return what makes the cells of tables 4 and 5: BiResNet with every pair of quantizers.

    With the recipe `deploy` all values are signs, and the blocks are Bi-Real Net's, without a ReLU before them.
    """

    def cells(recipe: str) -> list[Cell]:
        name = f"biresnet{depth}"
        if recipe == "deploy":
            rows, columns, block = WEIGHT_SIGNS, SIGNS, comparison.bireal_block
        else:
            rows, columns, block = {row: QUANTIZERS[row] for row in WEIGHTS}, QUANTIZERS, comparison.residual_block
        return [
            Cell(
                row, column, "forest", name, partial(comparison.resnet_like, name, depth, (activations, weights), block)
            )
            for row, weights in rows.items()
            for column, activations in columns.items()
        ]

    return cells


def _systems(_recipe: str) -> list[Cell]:
    return [
        Cell(row, group.capitalize(), group, name, find(name, "paper"))
        for row, name in SYSTEMS.items()
        for group in ("forest", "natural", "indoor", "outdoor")
    ]


RESTORED = ("paper", "paper-ste", "deploy")
"""Recipes of the experiments on restoration."""
PAIRED = ("paper", "deploy")
"""Recipes of those on pairs of binarization functions."""
DEPLOYED = "(deploy: of Bi-Real Net's blocks)"
"""What is another network under that recipe."""

EXPERIMENTS = {
    "single": Experiment("Basic features restored in one place", _ways((20, basic_single(20))), RESTORED),
    "figure6": Experiment(
        "Basic features restored from the top down", _ways((20, basic_multiple(20)), (36, basic_multiple(36))), RESTORED
    ),
    "table2": Experiment("Inter-block restoration", _ways((20, inter_block())), RESTORED),
    "table3": Experiment("Intra-block restoration", _ways((20, intra_block())), RESTORED),
    "figure7": Experiment(
        "Basic and inter-block restoration",
        _ways(*((depth, [best(depth), *basic_and_inter(depth)]) for depth in (20, 36))), RESTORED,
    ),
    "figure8": Experiment(
        "Basic and intra-block restoration",
        _ways(*((depth, [best(depth), *basic_and_intra(depth)]) for depth in (20, 36))), RESTORED,
    ),
    "table4": Experiment(
        f"Pairs of binarization functions, BiResNet-18 {DEPLOYED}: rows weights, columns activations",
        _pairs(18), PAIRED, True,
    ),
    "table5": Experiment(
        f"Pairs of binarization functions, BiResNet-34 {DEPLOYED}: rows weights, columns activations",
        _pairs(34), PAIRED, True,
    ),
    "table6": Experiment("Networks", _systems),
}  # fmt: skip
"""What can be reproduced, by its name; `single` is what the text of section 4.3 says of restoration in one layer."""
