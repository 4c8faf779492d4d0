# SPDX-License-Identifier: Apache-2.0
"""The figures of a measurement, for people (rich), for programs (JSON) and for pages (Markdown)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from binvpr_ros.evaluation.closure_stage import ClosureStage
from binvpr_ros.evaluation.metrics import Retrieval

HEADINGS = {
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "auc_pr": "area PR",
    "recall_at_100_precision": "R@100%P",
    "recall_at_99_precision": "R@99%P",
    "f1_max": "F1",
}
TABLE_WIDTH = 110  # characters, where it is not a terminal that says how wide it is


@dataclass(frozen=True)
class Result:
    """One method on one data set."""

    dataset: str
    method: str
    queries: int
    references: int
    descriptor_bits: int | None  # None: the descriptors are not known
    milliseconds: float | None  # median time to describe an image; None: not measured
    retrieval: Retrieval
    stage: ClosureStage | None = None

    def figures(self) -> dict[str, Any]:
        """Return all figures by name, rounded to what they can bear."""
        figures: dict[str, Any] = {
            "dataset": self.dataset,
            "method": self.method,
            **self.retrieval.figures(),
            "queries": self.queries,
            "answerable_queries": self.retrieval.answerable,
            "references": self.references,
            "descriptor_bits": self.descriptor_bits,
            "describe_ms": self.milliseconds,
            **(self.stage.figures() if self.stage else {}),
        }
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Return the figures of the first result, and those of all in a list."""
    return {**results[0].figures(), "results": [result.figures() for result in results]}


def print_tables(results: Sequence[Result]) -> None:
    """Print a table a data set, and one of the loop closures where there are some."""
    console = Console()
    if not sys.stdout.isatty():
        console = Console(width=TABLE_WIDTH)
    for dataset in dict.fromkeys(result.dataset for result in results):
        group = [result for result in results if result.dataset == dataset]
        first = group[0]
        console.print(_retrieval_table(f"{dataset}: {first.queries} queries ({first.retrieval.answerable} with a "
                                       f"true reference), {first.references} references", group))  # fmt: skip
        staged = [result for result in group if result.stage is not None]
        if staged:
            console.print(_stage_table(f"{dataset}: after the loop-closure stage", staged))


def _retrieval_table(title: str, results: Sequence[Result]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("method", no_wrap=True)
    for heading in (*HEADINGS.values(), "bits", "ms"):
        table.add_column(heading, justify="right")
    best = {name: max(result.retrieval.figures()[name] for result in results) for name in HEADINGS}
    for result in results:
        figures = result.retrieval.figures()
        is_best = {name: figures[name] == best[name] and len(results) > 1 for name in HEADINGS}
        shown = [f"[bold]{figures[name]:.3f}[/bold]" if is_best[name] else f"{figures[name]:.3f}" for name in HEADINGS]
        bits = "" if result.descriptor_bits is None else f"{result.descriptor_bits:,}"
        milliseconds = "" if result.milliseconds is None else f"{result.milliseconds:.1f}"
        table.add_row(result.method, *shown, bits, milliseconds)
    return table


def _stage_table(title: str, results: Sequence[Result]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("method", no_wrap=True)
    for heading in ("keyframes", "revisits", "closures", "true", "precision", "recall"):
        table.add_column(heading, justify="right")
    table.add_column("refused")
    for result in results:
        figures = result.stage.figures() if result.stage else {}
        refused = ", ".join(f"{name} {count}" for name, count in sorted(figures["refusals"].items()))
        counts = [str(figures[name]) for name in ("keyframes", "revisits", "closures", "closures_true")]
        shares = [f"{figures[name]:.3f}" for name in ("closure_precision", "closure_recall")]
        table.add_row(result.method, *counts, *shares, refused)
    return table


def markdown(results: Sequence[Result], command: str) -> str:
    """Return one table: a row a method, a column a data set with R@1 / area under the precision-recall curve.

    A drive has a second column: how many of the loop closures that a robot would get are true.
    """
    datasets = list(dict.fromkeys(result.dataset for result in results))
    driven = {result.dataset for result in results if result.stage}
    by_name = {(result.method, result.dataset): result for result in results}
    headings = ["method", "bits"]
    for dataset in datasets:
        headings += [dataset, *(["true closures"] if dataset in driven else [])]
    lines = [_row(headings), _row(["---", "---:"] + ["---"] * (len(headings) - 2))]
    for method in dict.fromkeys(result.method for result in results):
        bits = next(result.descriptor_bits for result in results if result.method == method)
        cells = [method, "" if bits is None else f"{bits:,}"]
        for dataset in datasets:
            result = by_name.get((method, dataset))
            figures = result.retrieval.figures() if result else None
            cells.append(f"{figures['recall_at_1']:.3f} / {figures['auc_pr']:.3f}" if figures else "")
            if dataset in driven:
                stage = result.stage if result else None
                cells.append(f"{stage.true.sum()} of {len(stage.true)}" if stage else "")
        lines.append(_row(cells))
    return "\n".join([*lines, "", f"R@1 / area under the precision-recall curve, by `{command}`", ""])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
