# SPDX-License-Identifier: Apache-2.0
"""An experiment of the paper as a table and as pictures: each figure beside the published one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.stats import spearmanr

from binvpr_ros.lab.training.paper.experiments import VANISHED, VANISHING_FACTOR, Cell, Experiment, published
from binvpr_ros.lab.training.paper.results import Outcome, Results, file_name, folder_of
from binvpr_ros.lab.training.paper.signals import Signals, draw_signals

NOT_RUN = "-"
PANELS_A_ROW = 4


class Report:
    """An experiment's figures, each beside the published one."""

    def __init__(self, name: str, experiment: Experiment, conditions: str, cells: Sequence[Cell]) -> None:
        self.name, self.title, self.with_means, self.conditions = name, experiment.title, experiment.means, conditions
        self.rows = list(dict.fromkeys(cell.row for cell in cells))
        self.columns = list(dict.fromkeys(cell.column for cell in cells))
        self._cells = {(cell.row, cell.column): cell for cell in cells}

    def text(self, results: Results, row: str, column: str) -> str:
        """Return ours and, in brackets, the paper's."""
        if (row, column) not in self._cells:
            return ""
        outcome, paper = self._outcome(results, row, column), published(self.name, row, column)
        shown = f"{paper:.2f}" if isinstance(paper, float) else paper or "not stated"
        return f"{outcome or NOT_RUN} ({shown})"

    def print(self, results: Results) -> None:
        """Print the table."""
        headings, *lines = self._lines(results)
        table = Table(title=escape(f"{self.name}: {self.title}"), caption=escape(self._caption(results)),
                      box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")  # fmt: skip
        for heading in headings:
            table.add_column(heading, no_wrap=True)
        for line in lines:
            table.add_row(*map(escape, line))
        Console(width=max(100, 20 + 28 * len(self.columns))).print(table)

    def write(self, results: Results) -> None:
        """Write the table as Markdown and as a picture into the folder of the results."""
        headings, *lines = self._lines(results)
        table = [f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *lines)]
        page = "\n".join([f"**{self.name}.** {self.title}.", "", *table, "", self._caption(results)]) + "\n"
        (results.work / f"{self.name}.md").write_text(page, encoding="utf-8")
        (self._draw_against if self.with_means else self._draw)(results, results.work / f"{self.name}.png")

    def _lines(self, results: Results) -> list[list[str]]:
        """Return the table's headings and lines."""
        lines = [["", *self.columns]]
        lines += [[row, *(self.text(results, row, column) for column in self.columns)] for row in self.rows]
        if self.with_means:
            learnt = {place: ours for place, ours, _ in self._learnt(results)}
            for row, line in zip(self.rows, lines[1:], strict=True):
                line.append(_mean([ours for place, ours in learnt.items() if place[0] == row]))
            lines[0].append("mean")
            lines.append(
                [
                    "mean",
                    *(_mean([ours for place, ours in learnt.items() if place[1] == one]) for one in self.columns),
                    "",
                ]
            )
        return lines

    def _learnt(self, results: Results) -> list[tuple[tuple[str, str], float, float | str | None]]:
        """Return for each cell that learns its row and column, our figure, and the paper's."""
        return [
            (place, outcome.accuracy, published(self.name, *place))
            for place in self._cells
            if (outcome := self._outcome(results, *place)) and not outcome.vanished
        ]

    def _outcome(self, results: Results, row: str, column: str) -> Outcome | None:
        """Return what a cell has come to; None where it was not run, or is none."""
        cell = self._cells.get((row, column))
        return Outcome.of(results.of(cell)) if cell else None

    def _caption(self, results: Results) -> str:
        said = (
            f"Top-1 accuracy, %, ± one standard error, and in brackets the paper's. {VANISHED}: less than"
            f" {VANISHING_FACTOR} times chance; blind: the answer is the same for every image; overflow: it is no"
            f" number. {self.conditions}"
        )
        if not self.with_means:
            return said
        both = [(ours, paper) for _, ours, paper in self._learnt(results) if isinstance(paper, float)]
        correlation = f"{spearmanr(both).statistic:.2f}" if len(both) > 1 else NOT_RUN
        return (
            f"{said} Means are of what learns. Rank correlation (Spearman's) with the paper, of the {len(both)} that"
            f" learn in both: {correlation}."
        )

    def draw_signals(self, results: Results, column: str) -> None:
        """Draw what reaches the layers of a column's networks, of each its first run: so at one learning rate."""
        runs = {}
        for row in self.rows:
            cell = self._cells.get((row, column))
            if cell and (done := results.of(cell)):
                runs[row] = folder_of(results.work, cell, done[0].rate, done[0].seed) / Signals.FILE
        title = f"{self.name}, {column}: what reaches each layer at the end\n{self.conditions}"
        draw_signals(runs, title, results.work / f"signals_{file_name(column)}.png")

    def _draw_against(self, results: Results, file: Path) -> None:
        """Draw our figure over the paper's, a colour for each column; what does not learn is on the border."""
        figure = Figure(figsize=(8.5, 7), layout="constrained")
        axes = figure.subplots()
        both = [paper for _, _, paper in self._learnt(results) if isinstance(paper, float)]
        border = min(both, default=50.0) - 5
        colours = colormaps["turbo"](np.linspace(0, 1, len(self.columns)))
        for number, (column, colour) in enumerate(zip(self.columns, colours, strict=True)):
            for row in self.rows:
                outcome, paper = self._outcome(results, row, column), published(self.name, row, column)
                if outcome is None or paper is None:
                    continue
                # Those that do not learn in the paper would all have one place.
                x, mark = (paper, "o") if isinstance(paper, float) else (border + 0.3 * number, "x")
                axes.errorbar(x, outcome.accuracy, yerr=outcome.standard_error, fmt=mark, color=colour,
                              elinewidth=0.5, markersize=5, label=column if row == self.rows[0] else None)  # fmt: skip
        axes.set_xlabel(f"the paper's top-1 accuracy, % (crosses at the left: {VANISHED})")
        axes.set_ylabel("here, ± one standard error")
        axes.grid(alpha=0.3)
        figure.legend(title="activations", fontsize=8, loc="outside right center")
        figure.suptitle(f"{self.name}: {self.title}\n{self.conditions}", fontsize=8)
        figure.savefig(file, dpi=110)

    def _draw(self, results: Results, file: Path) -> None:
        """Draw a panel a column: a dot is ours, a ring the paper's; a cross is what does not learn.

        Rows and columns of which nothing is known yet are left out.
        """
        known = [
            place for place in self._cells if self._outcome(results, *place) or published(self.name, *place) is not None
        ]
        rows = [row for row in self.rows if any(row == place[0] for place in known)]
        columns = [column for column in self.columns if any(column == place[1] for place in known)] or self.columns
        across = min(len(columns), PANELS_A_ROW)
        down = -(-len(columns) // across)
        width, height = max(1.8 + 2.4 * across, 6.0), down * (0.9 + 0.24 * len(rows)) + 0.8
        figure = Figure(figsize=(width, height), layout="constrained")
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes, column in zip(panels.flat, columns, strict=False):
            for place, row in enumerate(rows):
                if (row, column) not in self._cells:
                    continue
                outcome, paper = self._outcome(results, row, column), published(self.name, row, column)
                if isinstance(paper, float):
                    axes.plot(paper, place, "o", color="tab:blue", fillstyle="none")
                elif paper == VANISHED:  # the axis says so at 0
                    axes.plot(0, place, "x", color="tab:blue", clip_on=False)
                if outcome is not None:
                    axes.errorbar(
                        outcome.accuracy, place, xerr=outcome.standard_error,
                        fmt="x" if outcome.vanished else "o", color="tab:red", markersize=4,
                    )  # fmt: skip
            axes.set_title(column, fontsize=9)
            axes.grid(alpha=0.3)
        for axes in panels.flat[len(columns) :]:
            axes.set_axis_off()
        panels[0, 0].set_yticks(range(len(rows)), rows)
        panels[0, 0].set_ylim(len(rows) - 0.5, -0.5)
        panels[0, 0].set_xlim(0, 100)
        panels[0, 0].set_xticks(range(0, 101, 20), [VANISHED, *map(str, range(20, 101, 20))])
        for axes in panels.flat:
            axes.tick_params(labelsize=8)
        figure.suptitle(f"{self.name}: {self.title}\nred: here, blue: the paper, crosses: no learning", fontsize=9)
        figure.supxlabel(f"top-1 accuracy, %\n{self.conditions}", fontsize=8)
        figure.savefig(file, dpi=110)


def _mean(figures: Sequence[float]) -> str:
    return f"{np.mean(figures):.1f}" if figures else NOT_RUN
