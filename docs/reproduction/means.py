# SPDX-License-Identifier: Apache-2.0
"""Prints the means and rank correlations that docs/reproduction.md has: python docs/reproduction/means.py.

In tables 2 to 5 without what does not learn; a table's own caption has the rank correlation of all of it.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from binvpr_ros.lab.training.paper.experiments import published
from binvpr_ros.lab.training.paper.results import Outcome, Results, Run

FOLDER = Path(__file__).parent
SIGNS = ("Approx", "STE", "Swish")


def outcomes(name: str) -> dict[tuple[str, str], Outcome]:
    """Return what the cells of a folder came to, by row and column."""
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in Results(FOLDER / name, json.loads((FOLDER / name / "settings.json").read_text(encoding="utf-8"))).runs:
        runs[run.row, run.column].append(run)
    return {place: outcome for place, of_cell in runs.items() if (outcome := Outcome.of(of_cell))}


def show(name: str, which: str, found: list[float]) -> None:
    """Print the mean over cells, their standard deviation and their number."""
    print(f"{name:16} {which:30} {np.mean(found):5.1f} ({np.std(found):.1f}) of {len(found)}, "
          f"{min(found):.1f} to {max(found):.1f}")  # fmt: skip


def show_ways(name: str, kinds: dict[str, Callable[[str], bool]]) -> None:
    """Print what the cells of table 2 or 3 have, by the kind of their way of restoration."""
    found = outcomes(name)
    for kind, holds in kinds.items():
        show(name, kind, [outcome.accuracy for (row, _), outcome in found.items() if holds(row)])


def show_pairs(name: str, table: str) -> None:
    """Print what the inputs and the weights of table 4 or 5 have, and how far the paper's order is ours."""
    learns = {place: outcome.accuracy for place, outcome in outcomes(name).items() if not outcome.vanished}
    for axis, what in ((1, "inputs"), (0, "weights")):
        for function in dict.fromkeys(place[axis] for place in learns):
            show(name, f"{what} {function}", [ours for place, ours in learns.items() if place[axis] == function])
    both = [
        (place, ours, paper) for place, ours in learns.items() if isinstance(paper := published(table, *place), float)
    ]
    for what, those in (
        ("all", both),
        ("inputs with signs", [one for one in both if one[0][1] in SIGNS]),
        ("other inputs", [one for one in both if one[0][1] not in SIGNS]),
    ):
        if len(those) > 2:
            print(f"{name:16} rank correlation, {what}: {spearmanr([one[1:] for one in those]).statistic:.2f}"
                  f" of {len(those)}")  # fmt: skip


def show_systems(folders: dict[str, str]) -> None:
    """Print how far the paper's order of the networks of table 6 is ours, by the group of classes."""
    for group, folder in folders.items():
        both = [
            (outcome.accuracy, paper)
            for (row, column), outcome in outcomes(folder).items()
            if column == group and isinstance(paper := published("table6", row, group), float)
        ]
        print(f"{folder:16} rank correlation, {group}: {spearmanr(both).statistic:.2f} of {len(both)}")


def layers(row: str) -> int:
    """Return into how many layers of each block a way of table 2 restores."""
    return row.partition("Layer")[2].count("+") + 1


def blocks(row: str) -> str:
    """Return the blocks of a way of table 2 or 3, as in 2+3."""
    return row.partition("Block")[2].partition("-")[0]


for recipe in ("paper", "deploy"):
    show_ways(
        f"table2-{recipe}",
        {
            "all": lambda _: True,
            "into one layer of each block": lambda row: layers(row) == 1,
            "into two": lambda row: layers(row) == 2,
            "into three": lambda row: layers(row) == 3,
            "ending in block 2 alone": lambda row: blocks(row) == "2",
        },
    )
    show_ways(
        f"table3-{recipe}",
        {
            "all": lambda _: True,
            "in one block": lambda row: blocks(row).count("+") == 0,
            "in two": lambda row: blocks(row).count("+") == 1,
            "in three or four": lambda row: blocks(row).count("+") > 1,
        },
    )
for folder, table in (("table4", "table4"), ("table4-deploy", "table4"), ("table5", "table5")):
    show_pairs(folder, table)
show_systems(
    {"Forest": "table6", **{group.capitalize(): f"table6-{group}" for group in ("natural", "indoor", "outdoor")}}
)
