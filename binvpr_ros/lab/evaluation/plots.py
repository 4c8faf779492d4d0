# SPDX-License-Identifier: Apache-2.0
"""Pictures that answer questions about a measurement."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.lab.evaluation.closure_stage import CLOSED, OUTCOMES, ClosureStage
from binvpr_ros.lab.evaluation.datasets.dataset import Dataset
from binvpr_ros.lab.evaluation.datasets.sequences import ImageSequence, PosedSequence, Relation
from binvpr_ros.lab.evaluation.datasets.truth import Truth
from binvpr_ros.lab.evaluation.metrics import PrecisionRecall, Retrieval
from binvpr_ros.lab.evaluation.negatives import Negatives
from binvpr_ros.lab.evaluation.similarities import Similarities

TRUE, NOT_QUITE, FALSE, TRUTH = "tab:green", "tab:orange", "tab:red", "tab:blue"
KINDS = ((Relation.APART, FALSE, "apart"), (Relation.NEAR, NOT_QUITE, "near"), (Relation.SAME, TRUE, "same"))
PAIRS = 4
THUMBNAIL_WIDTH = 320
MARK_PIXELS = 3  # thickness of the ground truth in the picture of a large matrix
MOST_CELLS = 1500  # along a side of a matrix that is drawn; of a larger one every second, third... row and column is
DOT_POINTS = 150.0  # of all dots of a column of matches together
NEAR = 10  # images
PANELS_A_ROW = 3
MARKERS = "os^D"  # ten colours, then the next one


def precision_recall(
    file: Path, title: str, curves: Mapping[str, PrecisionRecall], closures: Mapping[str, PrecisionRecall]
) -> None:
    """Draw the curves of all methods on one data set, by their area; the dot is the highest recall without any error.

    Variants of a method ("hog, sequences of 10") have its colour and are dashed. `closures`, of the loop-closure stage,
    are dotted, with the parameter `min_score` at each point; the default's is marked.
    """
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for name, curve in sorted(curves.items(), key=lambda item: -item[1].area()):
        method, _, variant = name.partition(", ")
        colour = colours.setdefault(method, f"C{len(colours)}")
        safe = curve.recall_at_precision(1.0)
        axes.step(
            np.concatenate([0 * curve.recall[:1], curve.recall]),
            np.concatenate([curve.precision[:1], curve.precision]), where="pre", color=colour,
            linestyle="--" if variant else "-", label=f"{name}: {curve.area():.3f}, {safe:.3f}",
        )  # fmt: skip
        if safe > 0:
            axes.plot(safe, 1.0, "o", color=colour, clip_on=False)
    for name, curve in closures.items():
        colour = colours.setdefault(name, f"C{len(colours)}")
        axes.plot(curve.recall, curve.precision, ".:", color=colour, label=f"{name}: loop closures, by min_score")
        for score, recall, precision in zip(curve.thresholds, curve.recall, curve.precision, strict=True):
            default = score == Config.min_score
            if default or len(closures) == 1:  # of several curves the numbers would cover each other
                axes.annotate(f"{score:g}", (recall, precision), (4, -9), textcoords="offset points", fontsize=7,
                              weight="bold" if default else "normal")  # fmt: skip
            if default:
                axes.plot(recall, precision, "s", color=colour)
    axes.set(
        xlim=(0, 1), ylim=(0, 1.01), xlabel="recall", ylabel="precision", title=f"best match of each query: {title}"
    )
    axes.grid(alpha=0.3)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        fontsize=8,
        title="area, recall at 100 % precision",
        title_fontsize=8,
    )
    figure.savefig(file, dpi=120)


def similarity_matrix(
    file: Path, title: str, similarities: Similarities, dataset: Dataset, retrieval: Retrieval
) -> None:
    """Draw the similarities [Q,R] in grey, the ground truth in blue, and each query's match in green or red."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    step = -(-max(similarities.shape) // MOST_CELLS)
    queries, references = similarities.shape
    extent = (-0.5, references - 0.5, queries - 0.5, -0.5)
    shown_queries = range(0, queries, step)
    shown_rows = np.concatenate([similarities.rows(query, query + 1)[:, ::step] for query in shown_queries])
    candidates = np.arange(0, references, step) < dataset.candidates[::step, None]
    allowed = np.where(candidates & np.isfinite(shown_rows), shown_rows, np.nan)
    low, high = np.nanpercentile(allowed, [1, 99.9]) if np.isfinite(allowed).any() else (0, 1)
    axes.set_facecolor("0.9")
    shown = axes.imshow(
        allowed, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="nearest", extent=extent
    )
    figure.colorbar(shown, ax=axes, label="similarity", shrink=0.6)
    thick = max(1, round(MARK_PIXELS * max(shown_rows.shape) / 800))
    truth = cv2.dilate(thinned(dataset.truth, step).view(np.uint8), np.ones((thick, thick), np.uint8))
    axes.imshow(
        np.where(truth, np.float32(1), np.float32(np.nan)), cmap="Blues", vmin=0, vmax=1.3, alpha=0.45, aspect="auto",
        interpolation="nearest", extent=extent,
    )  # fmt: skip
    size = max(5.0, (DOT_POINTS / max(similarities.shape)) ** 2)
    for correct, colour in ((False, FALSE), (True, TRUE)):
        chosen = retrieval.correct == correct
        axes.scatter(retrieval.matches[chosen], retrieval.queries[chosen], s=size, color=colour, linewidths=0)
    axes.set(xlabel="reference", ylabel="query", title=title)
    right, wrong = int(retrieval.correct.sum()), int((~retrieval.correct).sum())
    marks = [
        Line2D([], [], color=TRUTH, linewidth=4, alpha=0.5, label="ground truth"),
        Line2D([], [], color=TRUE, marker="o", linestyle="", markersize=4, label=f"right match ({right})"),
        Line2D([], [], color=FALSE, marker="o", linestyle="", markersize=4, label=f"wrong match ({wrong})"),
        Line2D([], [], color="0.9", linewidth=8, label="no candidate"),
    ]
    axes.legend(handles=marks, loc="lower center", bbox_to_anchor=(0.5, 1.05), ncols=4, fontsize=8)
    figure.savefig(file, dpi=120)


def thinned(truth: Truth, step: int) -> NDArray[np.bool_]:
    """Return the truth [Q/step,R/step] in cells of `step` queries by as many references: whether any is true."""
    queries, references = truth.shape
    edges = np.arange(0, references, step)
    rows = [truth.rows(start, min(start + step, queries)).any(axis=0) for start in range(0, queries, step)]
    return np.logical_or.reduceat(np.stack(rows), edges, axis=1)


def match_pairs(file: Path, title: str, dataset: Dataset, retrieval: Retrieval) -> None:
    """Draw the best right matches, and the worst wrong ones: those of the highest score, with what was right."""
    figure = Figure(figsize=(13, 2.3 * PAIRS), layout="constrained")
    figure.suptitle(title)
    panels: Any = figure.subfigures(1, 2, width_ratios=[2, 3])
    for panel, correct, heading in zip(panels, (True, False), ("best right", "worst wrong"), strict=True):
        places = highest_apart(retrieval, correct, dataset.truth)
        panel.suptitle(f"{heading} matches" if places else f"no {heading.partition(' ')[2]} matches")
        grid = panel.subplots(PAIRS, 2 if correct else 3, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for row, place in zip(grid, places, strict=False):
            query, match = int(retrieval.queries[place]), int(retrieval.matches[place])
            _show(row[0], dataset.queries[query], f"query {query}")
            _show(row[1], dataset.references[match], f"match {match}: {retrieval.scores[place]:.3f}")
            if len(row) == 3:
                right = int(retrieval.right[place])
                if right >= 0:
                    _show(row[2], dataset.references[right], f"right: {right}, {retrieval.right_scores[place]:.3f}")
                else:
                    row[2].text(0.5, 0.5, "nothing: a new place", ha="center", va="center", transform=row[2].transAxes)
    figure.savefig(file, dpi=100)


def trajectory(
    file: Path, title: str, sequence: PosedSequence, pairs: NDArray[np.int64], relations: NDArray[np.int8]
) -> None:
    """Draw the way of the camera, seen along the axis it moves least in, and pairs [C,2] of its images as lines.

    Their colour says by their `relations` [C] whether they show the same place, or places near each other, or apart.

    Below, the same over time: on the picture of a way many lines hide each other.
    """
    figure = Figure(figsize=(8, 10), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[1.6, 1])
    spread = np.ptp(sequence.positions, axis=0)
    first, second = sorted(np.argsort(-spread, kind="stable")[:2])
    places = sequence.positions[:, [first, second]]
    above.plot(*places.T, color="0.7", linewidth=1)
    above.plot(*places[0], "k^", markersize=7, label="start")
    for relation, colour, name in KINDS:
        chosen = pairs[relations == relation]
        above.add_collection(LineCollection(list(places[chosen]), colors=colour, linewidths=1))
        above.plot(*places[chosen.reshape(-1)].T, ".", color=colour, markersize=3, label=f"{name} ({len(chosen)})")
        seconds = (sequence.stamps[chosen] - sequence.stamps[0]) * 1e-9
        below.plot(*seconds.T, ".", color=colour, markersize=4)
    above.set_aspect("equal", adjustable="datalim")
    above.set(xlabel=f"{'xyz'[first]} [m]", ylabel=f"{'xyz'[second]} [m]", title=title)
    above.legend(fontsize=8)
    duration = (sequence.stamps[-1] - sequence.stamps[0]) * 1e-9
    _shade_revisits(below, sequence)
    below.plot([0, duration], [0, duration], color="0.7", linewidth=1)
    below.set_title("by time; blue: what would be true", fontsize=9)
    below.set(xlabel="time of the query [s]", ylabel="time of the match [s]", xlim=(0, duration), ylim=(0, duration))
    figure.savefig(file, dpi=120)


def outcomes(file: Path, title: str, stages: Mapping[str, ClosureStage]) -> None:
    """Draw what became of the revisits of a drive, a bar for each method."""
    figure = Figure(figsize=(10, 1.6 + 0.4 * len(stages)), layout="constrained")
    axes = figure.subplots()
    colours = {CLOSED: TRUE, **{name: f"C{place}" for place, name in enumerate(OUTCOMES[-2::-1], start=4)}}
    left = np.zeros(len(stages))
    for name in reversed(OUTCOMES):
        counts = np.array([int((stage.outcomes == OUTCOMES.index(name)).sum()) for stage in stages.values()])
        if not counts.any():
            continue
        bars = axes.barh(list(stages), counts, left=left, color=colours[name], label=name.replace("_", " "))
        axes.bar_label(bars, [str(count) if count else "" for count in counts], label_type="center", fontsize=8)
        left += counts
    axes.invert_yaxis()
    axes.set(xlabel="revisits", xlim=(0, left.max()), title=f"{title}: what became of the revisits")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
    figure.savefig(file, dpi=120)


def closure_pairs(file: Path, title: str, sequence: ImageSequence, stage: ClosureStage) -> None:
    """Draw the worst closures of places apart, those with most inliers, and revisits that were missed.

    A missed revisit is beside the true candidate that came farthest, or else beside an earlier image of its place.
    """
    figure = Figure(figsize=(11, 2.3 * PAIRS), layout="constrained")
    figure.suptitle(title)
    panels: Any = figure.subfigures(1, 2)
    apart = np.flatnonzero(stage.apart)
    worst = _spread(stage.closures[apart, 0], apart[np.argsort(-stage.inliers[apart], kind="stable")], stage)
    closures = [
        (*stage.closures[place].tolist(), f"{stage.inliers[place]} inliers" if stage.inliers[place] >= 0 else "")
        for place in worst
    ]
    missed = np.flatnonzero(~stage.found)
    chosen = missed[np.linspace(0, len(missed) - 1, min(PAIRS, len(missed))).round().astype(int)]
    revisits = []
    for place in chosen.tolist():
        query, match = stage.best_true[place].tolist()
        if match < 0:
            query = int(stage.revisits[place])
            match = int(sequence.truth.of(query)[0])
        revisits.append((query, match, OUTCOMES[stage.outcomes[place]].replace("_", " ")))
    for panel, pairs, heading in zip(
        panels, (closures, revisits),
        (
            f"worst of {len(apart)} closures apart" if len(apart) else "no closures apart",
            f"{len(missed)} of {len(stage.revisits)} revisits missed",
        ),
        strict=True,
    ):  # fmt: skip
        panel.suptitle(heading)
        grid = panel.subplots(PAIRS, 2, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for row, (query, match, what) in zip(grid, pairs, strict=False):
            _show(row[0], sequence.queries[query], f"query {query}")
            _show(row[1], sequence.queries[match], f"{match}: {what}" if what else f"{match}")
    figure.savefig(file, dpi=100)


def false_closures(folder: Path, negatives: Negatives, drives: Mapping[str, ImageSequence]) -> None:
    """Draw the worst closures of `drives`, by name, in maps of other places, into a file of the method's name.

    They are those with most inliers, at most one for each pair of drives; without any there is no file.
    """
    worst = [
        (*max(trial.closures, key=lambda closure: closure[2]), trial) for trial in negatives.trials if trial.closures
    ]
    if not worst:
        return
    worst = sorted(worst, key=lambda closure: -closure[2])[:PAIRS]
    figure = Figure(figsize=(6, 2.3 * len(worst)), layout="constrained")
    figure.suptitle(f"{negatives.method}: false closures in maps of other places")
    grid = figure.subplots(len(worst), 2, squeeze=False)
    for row, (query, match, count, trial) in zip(grid, worst, strict=True):
        for axes, name, image in ((row[0], trial.drive, query), (row[1], trial.map, match)):
            axes.set_axis_off()
            _show(axes, drives[name].queries[image], f"{name} {image}")
        row[1].set_title(f"{row[1].get_title()}: {count} inliers", fontsize=8)
    figure.savefig(folder / f"{file_name(negatives.method)}_false_closures.png", dpi=100)


def file_name(name: str) -> str:
    """Return a name of a data set or method as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def _spread(queries: NDArray[np.int64], places: NDArray[np.intp], stage: ClosureStage) -> list[int]:
    """Return the first PAIRS of `places` of closures whose queries lie apart: neighbours look alike."""
    apart = np.ptp(queries) / (2 * PAIRS) if len(queries) else 0
    chosen: list[int] = []
    for place in places.tolist():
        query = stage.closures[place, 0]
        if len(chosen) < PAIRS and all(abs(query - stage.closures[other, 0]) > apart for other in chosen):
            chosen.append(place)
    return chosen


def recall_over_time(file: Path, points: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """Draw the milliseconds that a method takes to describe an image and its R@1, by data set and method.

    Up and to the left is better.
    """
    across = min(len(points), PANELS_A_ROW)
    down = -(-len(points) // across)
    figure = Figure(figsize=(3.4 * across + 1.8, 3.2 * down + 0.6), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    names = list(dict.fromkeys(name for methods in points.values() for name in methods))
    for axes, (dataset, methods) in zip(panels.flat, points.items(), strict=False):
        for place, name in enumerate(names):
            if name in methods:
                axes.plot(*methods[name], MARKERS[place // 10 % len(MARKERS)], color=f"C{place}", label=name)
        axes.set_title(dataset, fontsize=9)
        axes.grid(alpha=0.3)
    for axes in panels.flat[len(points) :]:
        axes.set_axis_off()
    panels[0, 0].set(xscale="log", ylim=(0, 1.02))
    handles = {
        label: line for axes in panels.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside right upper", fontsize=8)
    figure.supxlabel("median time to describe an image [ms]", fontsize=9)
    figure.supylabel("R@1", fontsize=9)
    figure.savefig(file, dpi=120)


def _shade_revisits(axes: Any, sequence: PosedSequence) -> None:
    """Shade which matches would be right."""
    step = -(-len(sequence.stamps) // (MOST_CELLS // 3))
    truth = thinned(sequence.truth, step)
    seconds = (sequence.stamps - sequence.stamps[0])[::step] * 1e-9
    axes.pcolormesh(
        seconds, seconds, np.where(truth.T, 1.0, np.nan), cmap="Blues", vmin=0, vmax=2,
        shading="nearest", rasterized=True,
    )  # fmt: skip


def highest_apart(retrieval: Retrieval, correct: bool, truth: Truth) -> Sequence[int]:
    """Return the places of the queries with the highest scores, apart from each other: neighbours look alike.

    Wrong matches next to a right reference come last: they say more about where a place ends than about the method.
    """
    places = np.flatnonzero(retrieval.correct == correct)
    around = [truth.rows(query, query + 1)[0, max(match - NEAR, 0) : match + NEAR + 1].any()
              for query, match in zip(retrieval.queries[places], retrieval.matches[places], strict=True)]  # fmt: skip
    places = places[np.lexsort((-retrieval.scores[places], np.array(around, bool) & (not correct)))]
    apart = len(retrieval.queries) / (4 * PAIRS)
    chosen: list[int] = []
    for place in places.tolist():
        if len(chosen) < PAIRS and all(abs(place - other) > apart for other in chosen):
            chosen.append(place)
    return chosen


def _show(axes: Any, image: NDArray[np.uint8], title: str) -> None:
    scale = THUMBNAIL_WIDTH / image.shape[1]
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    axes.imshow(image, cmap="gray")
    axes.set_title(title, fontsize=8)
