# SPDX-License-Identifier: Apache-2.0
"""The figures of a measurement, for people (rich), for programs (JSON) and for pages (Markdown)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from binvpr_ros.lab.evaluation.closure_stage import ClosureStage
from binvpr_ros.lab.evaluation.local_verification import LocalVerification
from binvpr_ros.lab.evaluation.metrics import Retrieval
from binvpr_ros.lab.evaluation.negatives import Negatives
from binvpr_ros.loop_constraint import quaternion_from_rotation

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
    milliseconds: float | None  # median time for an image; None: not measured
    retrieval: Retrieval | None  # None: of a program that closes loops by itself
    stage: ClosureStage | None = None
    verified: LocalVerification | None = None  # of pair sets
    left_out: dict[str, int] = field(default_factory=dict)  # images of the data set, by the reason

    @cached_property
    def figures(self) -> dict[str, Any]:
        """All figures by name, rounded to what they can bear; None where there is nothing to measure."""
        figures: dict[str, Any] = {
            "dataset": self.dataset,
            "conditions": self.conditions,
            "method": self.method,
            **(self.retrieval.figures() if self.retrieval else dict.fromkeys(HEADINGS)),
            "queries": self.queries,
            "answerable_queries": self.retrieval.answerable if self.retrieval else None,
            "references": self.references,
            "left_out": self.left_out,
            "descriptor_bits": self.descriptor_bits,
            "describe_ms": self.milliseconds,
            **(self.verified.figures() if self.verified else {}),
            **(self.stage.figures() if self.stage else {}),
        }
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}


def as_json(results: Sequence[Result], negatives: Sequence[Negatives] = ()) -> dict[str, Any]:
    """Return the figures of the first result, those of all in a list, and what drives in maps of other places gave."""
    return {
        **results[0].figures,
        "results": [result.figures for result in results],
        **({"negatives": [some.figures() for some in negatives]} if negatives else {}),
    }


CONSTRAINT_COLUMNS = (
    "dataset", "method", "query_stamp", "match_stamp", "scale_known", "inliers", "x", "y", "z", "qx", "qy", "qz", "qw",
    *(f"c{row}{column}" for row in range(6) for column in range(6)),
)  # fmt: skip
"""Stamps in nanoseconds; the others as in a row of `loop_constraints`."""


def constraints_csv(results: Sequence[Result]) -> str:
    """Return the relative poses of the closures of drives, a line each."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(CONSTRAINT_COLUMNS)
    for result in results:
        for one in result.stage.constraints if result.stage else ():
            pose = one.pose
            numbers = [*pose.translation, *quaternion_from_rotation(pose.rotation), *pose.covariance.ravel()]
            table.writerow([
                result.dataset, result.method, one.query_stamp, one.match_stamp, int(pose.scale_known), pose.inliers,
                *map(float, numbers),
            ])  # fmt: skip
    return text.getvalue()


def times_and_recalls(results: Sequence[Result]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return milliseconds to describe an image and R@1, by data set and method, where both were measured."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for result in results:
        recall = result.figures["recall_at_1"]
        if result.milliseconds is not None and recall is not None:
            found.setdefault(result.dataset, {})[result.method] = result.milliseconds, recall
    return found


def print_tables(results: Sequence[Result], negatives: Sequence[Negatives] = ()) -> None:
    """Print for each data set a table, and of a drive what became of its closures and of its revisits."""
    console = Console()
    for dataset in dict.fromkeys(result.dataset for result in results):
        group = [result for result in results if result.dataset == dataset]
        retrieved = [result for result in group if result.retrieval is not None]
        if any(result.figures["answerable_queries"] for result in retrieved):
            console.print(_retrieval_table(retrieved))
        if any(result.verified is not None for result in group):
            console.print(_verification_table(group))
        staged = [result for result in group if result.stage is not None]
        if staged:
            console.print(_stage_table(staged))
        if any(result.figures["revisits"] for result in staged):
            console.print(_outcome_table(staged))
    for some in negatives:
        console.print(_negatives_table(some))


def _table(title: str, caption: str, names: Sequence[str], texts: Sequence[str] = ("method",)) -> Table:
    """Return an empty table with columns of text, and after them columns of figures, which are never cut."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold",
                  box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)  # fmt: skip
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in names:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _retrieval_table(results: Sequence[Result]) -> Table:
    first = results[0]
    title = (f"{escape(first.dataset)}: {first.queries} queries, {first.figures['answerable_queries']} of them with a "
             f"true reference, {first.references} references")  # fmt: skip
    table = _table(title, escape(first.conditions), [*HEADINGS.values(), "bits", "ms"])
    best = {name: max((result.figures[name] or 0 for result in results), default=0) for name in HEADINGS}
    for result in results:
        cells = []
        for name in HEADINGS:
            value = result.figures[name]
            text = _share(value)
            cells.append(f"[bold]{text}[/bold]" if value == best[name] and len(results) > 1 else text)
        bits = "" if result.descriptor_bits is None else str(result.descriptor_bits)
        milliseconds = "" if result.milliseconds is None else f"{result.milliseconds:.1f}"
        table.add_row(escape(result.method), *cells, bits, milliseconds)
    return table


def _verification_table(results: Sequence[Result]) -> Table:
    title = f"{escape(results[0].dataset)}: verification by local features"
    caption = (
        "above apart: share of queries whose best true pair has more evidence than every pair of different places; "
        "re-ranked: the most similar references in the order of their evidence"
    )
    table = _table(title, caption, ["above apart", "re-ranked R@1", "R@100%P"], ["method"])
    for result in results:
        if result.verified is not None:
            table.add_row(escape(result.method), *map(_share, result.verified))
    return table


def _stage_table(results: Sequence[Result]) -> Table:
    first = results[0]
    revisits = first.figures["revisits"]
    title = f"{escape(first.dataset)}: loop closures, {revisits} revisits"
    caption = f"{escape(first.conditions)}; recall: revisits with a closure of the same place within 1 s"
    if not revisits:
        caption = f"never revisits a place: a negative test; {escape(first.conditions)}"
    names = ("keyframes", "same", "near", "apart", "precision", "recall", "two maps", "ms")
    table = _table(title, caption, names)
    for result in results:
        figures = result.figures
        counts = [str(figures[name]) for name in ("keyframes", "closures_same", "closures_near", "closures_apart")]
        shares = [_share(figures[name]) for name in ("closure_precision", "closure_recall")]
        milliseconds = "" if result.milliseconds is None else f"{result.milliseconds:.1f}"
        table.add_row(escape(result.method), *counts, *shares, _two_maps(figures), milliseconds)
    return table


def _two_maps(figures: dict[str, Any]) -> str:
    earlier = figures["earlier_maps"]
    return NOTHING if earlier is None else f"{earlier['both']}/{earlier['either']}"


def _outcome_table(results: Sequence[Result]) -> Table:
    revisits = results[0].figures["revisits"]
    title = f"{escape(results[0].dataset)}: what became of the {revisits} revisits"
    table = _table(title, "by the true candidate that came farthest", ("revisits", "share"), ("method", "outcome"))
    for result in results:
        outcomes = [(name, count) for name, count in result.figures["revisit_outcomes"].items() if count]
        for row, (name, count) in enumerate(outcomes):
            method = "" if row else escape(result.method)
            table.add_row(method, name.replace("_", " "), str(count), _share(count / revisits))
    return table


def _negatives_table(some: Negatives) -> Table:
    title = f"drives in maps of other places: {escape(some.method)}"
    caption = (
        f"{some.false_keyframes} of {some.keyframes} keyframes have a false closure; with 95% confidence the rate is "
        f"below {some.upper_bound:.2%}, if keyframes are taken as independent"
    )
    table = _table(title, caption, ("keyframes", "false closures"), ("drive", "map"))
    for trial in some.trials:
        table.add_row(escape(trial.drive), escape(trial.map), str(trial.keyframes), str(len(trial.closures)))
    return table


def markdown(results: Sequence[Result], command: str, negatives: Sequence[Negatives] = ()) -> str:
    """Return tables for a page: of retrieval, and of drives their closures, what became of revisits, and negatives."""
    return (
        "\n".join(
            line
            for part in (_markdown_retrieval(results), *_markdown_drives(results), *map(_markdown_negatives, negatives))
            for line in [*part, ""]
        )
        + f"\nBy `{command}`.\n"
    )


def _markdown_retrieval(results: Sequence[Result]) -> list[str]:
    """Return a row a method, a column a data set with R@1 / area under the precision-recall curve."""
    retrieved = [result for result in results if result.retrieval is not None]
    datasets = list(dict.fromkeys(result.dataset for result in retrieved if result.figures["answerable_queries"]))
    by_name = {(result.method, result.dataset): result for result in retrieved}
    lines = [_row(["method", "bits", *datasets]), _row(["---", "---:"] + ["---"] * len(datasets))]
    for method in dict.fromkeys(result.method for result in retrieved):
        bits = next(result.descriptor_bits for result in retrieved if result.method == method)
        cells = [_pair(by_name[method, name].figures) if (method, name) in by_name else "" for name in datasets]
        lines.append(_row([method, "" if bits is None else f"{bits:,}", *cells]))
    lines += ["", "R@1 / area under the precision-recall curve."]
    verified = [result for result in results if result.verified is not None]
    if verified:
        headings = ["method", "data set", "verified above apart", "re-ranked R@1", "re-ranked R@100%P"]
        lines += ["", _row(headings), _row(["---", "---"] + ["---:"] * 3)]
        lines += [_row([one.method, one.dataset, *map(_share, one.verified or ())]) for one in verified]
    return lines


def _markdown_drives(results: Sequence[Result]) -> list[list[str]]:
    staged = [result for result in results if result.stage is not None]
    if not staged:
        return []
    headings = [
        "drive",
        "method",
        "R@1",
        "revisits",
        "same",
        "near",
        "apart",
        "recall",
        "by keyframes",
        "two maps",
        "ms",
    ]
    lines = [_row(headings), _row(["---", "---"] + ["---:"] * (len(headings) - 2))]
    for result in staged:
        figures = result.figures
        counts = [str(figures[name]) for name in ("revisits", "closures_same", "closures_near", "closures_apart")]
        shares = [_share(figures[name]) for name in ("closure_recall", "keyframe_closure_recall")]
        milliseconds = "" if result.milliseconds is None else f"{result.milliseconds:.1f}"
        lines.append(
            _row([
                result.dataset, result.method, _share(figures["recall_at_1"]), *counts, *shares, _two_maps(figures),
                milliseconds,
            ])
        )  # fmt: skip
    lines += [
        "",
        "Closures by what they join; recall: revisits with a closure of the same place within 1 s; two maps: images of "
        "the last two fifths with a closure into two earlier maps, of those with one into either map by itself.",
    ]
    names = [
        name for name in staged[0].figures["revisit_outcomes"]
        if any(result.figures["revisit_outcomes"][name] for result in staged)
    ]  # fmt: skip
    fates = [_row(["drive", "method", *(name.replace("_", " ") for name in names)]),
             _row(["---", "---"] + ["---:"] * len(names))]  # fmt: skip
    for result in staged:
        counts = [str(result.figures["revisit_outcomes"][name]) for name in names]
        if result.figures["revisits"]:
            fates.append(_row([result.dataset, result.method, *counts]))
    return [lines, [*fates, "", "What became of the revisits, by the true candidate that came farthest."]]


def _markdown_negatives(some: Negatives) -> list[str]:
    drives = list(dict.fromkeys(trial.drive for trial in some.trials))
    maps = [name for name in drives if any(trial.map == name for trial in some.trials)]
    by_name = {(trial.drive, trial.map): trial for trial in some.trials}
    lines = [_row([f"{some.method}: drive, in the map of", *maps]), _row(["---"] + ["---:"] * len(maps))]
    for drive in drives:
        trials = [by_name.get((drive, name)) for name in maps]
        cells = ["" if trial is None else f"{len(trial.closures)} / {trial.keyframes}" for trial in trials]
        lines.append(_row([drive, *cells]))
    sentence = (
        f"False closures / keyframes, each a trial: {some.false_keyframes} of {some.keyframes} have one; with 95% "
        f"confidence the rate is below {some.upper_bound:.2%}, if keyframes are taken as independent."
    )
    lines += ["", sentence]
    return lines


def _pair(figures: dict[str, Any]) -> str:
    recall, area = figures["recall_at_1"], figures["auc_pr"]
    return NOTHING if recall is None else f"{recall:.3f} / {area:.3f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
