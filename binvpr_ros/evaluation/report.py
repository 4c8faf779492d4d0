# SPDX-License-Identifier: Apache-2.0
"""The figures of a measurement, for people (rich), for programs (JSON) and for pages (Markdown)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from binvpr_ros.evaluation.closure_stage import ClosureStage
from binvpr_ros.evaluation.metrics import Retrieval

HEADINGS = {
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "auc_pr": "area",
    "recall_at_100_precision": "R@100%P",
    "recall_at_99_precision": "R@99%P",
    "f1_max": "F1",
}
NOTHING = "-"
"""Stands for a figure that cannot be measured: no query has a true reference, or nothing was closed."""


@dataclass(frozen=True)
class Result:
    """One method on one data set."""

    dataset: str
    conditions: str  # of the data set
    method: str
    queries: int
    references: int
    descriptor_bits: int | None  # None: the descriptors are not known
    milliseconds: float | None  # median time to describe an image; None: not measured
    retrieval: Retrieval
    stage: ClosureStage | None = None

    @cached_property
    def figures(self) -> dict[str, Any]:
        """All figures by name, rounded to what they can bear; None where there is nothing to measure."""
        figures: dict[str, Any] = {
            "dataset": self.dataset,
            "conditions": self.conditions,
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
    return {**results[0].figures, "results": [result.figures for result in results]}


def times_and_recalls(results: Sequence[Result]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return milliseconds to describe an image and R@1, by data set and method, where both were measured."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for result in results:
        recall = result.figures["recall_at_1"]
        if result.milliseconds is not None and recall is not None:
            found.setdefault(result.dataset, {})[result.method] = result.milliseconds, recall
    return found


def print_tables(results: Sequence[Result]) -> None:
    """Print a table a data set, and one of the loop closures where there are some."""
    console = Console()
    for dataset in dict.fromkeys(result.dataset for result in results):
        group = [result for result in results if result.dataset == dataset]
        console.print(_retrieval_table(group))
        staged = [result for result in group if result.stage is not None]
        if staged:
            console.print(_stage_table(staged))


def _table(title: str, caption: str, names: Sequence[str], last: Sequence[str] = ()) -> Table:
    """Return an empty table of methods with columns of figures, which are never cut, and `last` ones of text."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold",
                  box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)  # fmt: skip
    table.add_column("method", overflow="fold")
    for heading in names:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in last:
        table.add_column(heading, overflow="fold")
    return table


def _retrieval_table(results: Sequence[Result]) -> Table:
    first = results[0]
    title = (f"{escape(first.dataset)}: {first.queries} queries, {first.retrieval.answerable} of them with a true "
             f"reference, {first.references} references")  # fmt: skip
    table = _table(title, escape(first.conditions), [*HEADINGS.values(), "bits", "ms"])
    best = {name: max((result.figures[name] or 0 for result in results), default=0) for name in HEADINGS}
    for result in results:
        cells = []
        for name in HEADINGS:
            value = result.figures[name]
            text = NOTHING if value is None else f"{value:.3f}"
            cells.append(f"[bold]{text}[/bold]" if value == best[name] and len(results) > 1 else text)
        bits = "" if result.descriptor_bits is None else str(result.descriptor_bits)
        milliseconds = "" if result.milliseconds is None else f"{result.milliseconds:.1f}"
        table.add_row(escape(result.method), *cells, bits, milliseconds)
    return table


def _stage_table(results: Sequence[Result]) -> Table:
    title = f"{escape(results[0].dataset)}: after the loop-closure stage"
    caption = "a closure is a pair of keyframes; recall: the share of the revisits that have a true closure"
    table = _table(title, caption, ("keyframes", "revisits", "closures", "true", "precision", "recall"), ["refused"])
    for result in results:
        figures = result.figures
        counts = [str(figures[name]) for name in ("keyframes", "revisits", "closures", "closures_true")]
        shares = [NOTHING if figures[name] is None else f"{figures[name]:.3f}"
                  for name in ("closure_precision", "closure_recall")]  # fmt: skip
        refused = ", ".join(f"{name} {count}" for name, count in sorted(figures["refusals"].items()))
        table.add_row(escape(result.method), *counts, *shares, refused)
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
            cells.append(_pair(result.figures) if result else "")
            if dataset in driven:
                stage = result.stage if result else None
                cells.append(f"{stage.true.sum()} of {len(stage.true)}" if stage else "")
        lines.append(_row(cells))
    return "\n".join([*lines, "", f"R@1 / area under the precision-recall curve, by `{command}`", ""])


def _pair(figures: dict[str, Any]) -> str:
    recall, area = figures["recall_at_1"], figures["auc_pr"]
    return NOTHING if recall is None else f"{recall:.3f} / {area:.3f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
