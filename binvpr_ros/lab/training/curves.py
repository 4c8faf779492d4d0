# SPDX-License-Identifier: Apache-2.0
"""The log of a run of training as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

PANELS = (
    ("loss", ("loss", "descriptor_loss", "logits_loss", "teacher_loss")),
    ("accuracy on training images; R@1 and accuracy on validation images",
     ("logits_accuracy", "val_recall_at_1", "val_accuracy")),
    ("learning rate", ("learning_rate",)),
    ("share of binary weights that change their sign in a step", ("flips_per_step",)),
)  # fmt: skip
LOGARITHMIC = ("learning_rate", "flips_per_step")


def draw_curves(log: Path, picture: Path) -> None:
    """Draw log.csv over all steps of all stages; a grey line is where a stage begins."""
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps, begins, before, stage = [], [], 0, None
    for row in rows:
        if stage is not None and row["stage"] != stage:
            before = steps[-1]
            begins.append(before)
        stage = row["stage"]
        steps.append(before + int(row["step"]))
    figure = Figure(figsize=(9, 11), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(len(PANELS), 1, sharex=True), PANELS, strict=True):
        for name in names:
            points = [(step, float(row[name])) for step, row in zip(steps, rows, strict=True) if row[name]]
            if points:
                axes.plot(*np.array(points).T, marker="." if name.startswith("val") else "", label=name)
        values = [float(row[name]) for name in names for row in rows if row[name]]
        if set(names) <= set(LOGARITHMIC):
            axes.set_yscale("log" if max(values, default=0) > 0 else "linear")
        elif values:
            axes.legend(fontsize=8)
        for begin in begins:
            axes.axvline(begin, color="0.7")
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    figure.savefig(picture, dpi=100)
