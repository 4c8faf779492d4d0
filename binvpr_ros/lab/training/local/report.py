# SPDX-License-Identifier: Apache-2.0
"""Measure how well a local-feature network tells places apart, compared with ORB.

    python -m binvpr_ros.lab.training.local.report MODEL.tflite DATA_SET... [--half]

For each data set, over the queries with a true reference: the share whose best true pair has more inliers than every
pair of different places (above), the median inliers of the best true pairs, and the most of the others. Choose between
networks with --half; report without it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from binvpr_ros.images import Image, ImageError, as_rgb, decode_file, resize
from binvpr_ros.lab.evaluation.datasets import Dataset, DatasetError, Options, open_dataset
from binvpr_ros.local_features import learned, orb
from binvpr_ros.local_features.features import Features
from binvpr_ros.local_features.geometry import WIDTH, verify
from binvpr_ros.local_features.kinds import LocalFeatures, matches
from binvpr_ros.local_features.learned import LearnedFeatures
from binvpr_ros.local_features.matching import mutual_matches
from binvpr_ros.network.backends import DescriptorError
from binvpr_ros.network.model_card import ModelCardError

MOST_QUERIES, MOST_TRUE = 50, 5
"""Queries of a data set, and true references of each, that are looked at: evenly spread over all."""
APART = 500
"""Pairs that show different places."""
EPIPOLAR_PIXELS, HOMOGRAPHY_PIXELS = 2.0, 6.0
CONFIDENCE, MOST_ITERATIONS = 0.99, 500
FEWEST_MATCHES = 8
ROLLS = (0, 20, 30, 45, 60, 90)
"""Degrees by which images are turned against themselves."""
ROLLED = 20
"""Images that are."""

Matched = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Method:
    """One kind of local features, so many of an image, and what is asked of a match."""

    name: str
    kind: LocalFeatures
    most: int
    most_bits: int = learned.MOST_BITS
    ratio: float = learned.RATIO

    def extract(self, image: Image) -> Features:
        """Return the local features of an image."""
        found = self.kind.extract(image)
        return found.fewer(self.most) if self.kind is orb else found.only(np.arange(len(found.positions))[: self.most])

    def match(self, one: Features, other: Features) -> Matched:
        """Return the pixels [M,2] of the matches of two images."""
        if self.kind is orb:
            ours, theirs = orb.matches(one, other)
        else:
            ours, theirs = mutual_matches(one.descriptors, other.descriptors, self.most_bits, self.ratio)
        return one.points(ours, one.size), other.points(theirs, other.size)


def inliers(one: NDArray[Any], other: NDArray[Any]) -> int:
    """Return how many matches [M,2] obey one fundamental matrix or one homography, whichever has more (MAGSAC++)."""
    if len(one) < FEWEST_MATCHES:
        return 0
    masks = []
    try:
        masks.append(
            cv2.findFundamentalMat(one, other, cv2.USAC_MAGSAC, EPIPOLAR_PIXELS, CONFIDENCE, MOST_ITERATIONS)[1]
        )
        masks.append(
            cv2.findHomography(
                one, other, cv2.USAC_MAGSAC, HOMOGRAPHY_PIXELS, maxIters=MOST_ITERATIONS, confidence=CONFIDENCE
            )[1]
        )
    except cv2.error:  # how USAC reports points that admit none
        pass
    return max((int(np.count_nonzero(mask)) for mask in masks if mask is not None), default=0)


Pair = tuple[tuple[bool, int], tuple[bool, int]]
"""Of two images, whether each is a query, and its index."""


def chosen_pairs(dataset: Dataset, half: bool) -> tuple[list[tuple[int, list[int]]], list[Pair]]:
    """Return queries with their true references, and pairs that show different places.

    Where there are few references, two queries are such a pair too. With `half`, of the first half of the queries
    only, less a gap of a twentieth.
    """
    rng = np.random.default_rng(0)
    answerable = np.flatnonzero(dataset.truth.answerable)
    if half:
        answerable = answerable[: round(len(answerable) * 0.475)]
    queries = _spread(answerable, MOST_QUERIES)
    true = [(int(query), _spread(dataset.truth.of(int(query)), MOST_TRUE).tolist()) for query in queries]
    apart: list[Pair] = []
    for query in queries.tolist():
        elsewhere = dataset.truth.apart(query)
        apart += [((True, query), (False, int(other))) for other in np.flatnonzero(elsewhere)]
        if dataset.references is not dataset.queries:
            others = [other for other in queries.tolist() if other > query]
            apart += [((True, query), (True, other)) for other in others if elsewhere[dataset.truth.of(other)].all()]
    kept = rng.permutation(len(apart))[:APART]
    return true, [apart[number] for number in sorted(kept)]


def measure(dataset: Dataset, features: Method, half: bool = False) -> dict[str, float]:
    """Return the figures of one kind of features on one data set, by name."""
    true, apart = chosen_pairs(dataset, half)
    same = dataset.references is dataset.queries
    known: dict[tuple[bool, int], Any] = {}
    times = []

    def found(is_query: bool, index: int) -> Any:
        key = (is_query or same, index)
        if key not in known:
            image = (dataset.queries if is_query else dataset.references)[index]
            began = time.perf_counter()
            known[key] = features.extract(image)
            times.append(time.perf_counter() - began)
        return known[key]

    def score(one: tuple[bool, int], other: tuple[bool, int]) -> int:
        return inliers(*features.match(found(*one), found(*other)))

    best = np.array([max(score((True, query), (False, reference)) for reference in some) for query, some in true])
    others = np.array([score(*pair) for pair in apart])
    return {
        "queries": len(true), "apart": len(apart), "above": float((best > others.max(initial=0)).mean()),
        "twenty": float((best >= 20).mean()), "median": float(np.median(best)),
        "most_apart": float(others.max(initial=0)), "above_99": float((best > np.percentile(others, 99)).mean()),
        "milliseconds": 1e3 * float(np.median(times)),
    }  # fmt: skip


def rolled(dataset: Dataset, features: Method) -> dict[int, float]:
    """Return the median inliers of images against themselves, turned about their middle, by the angle in degrees."""
    images = [dataset.queries[int(index)] for index in _spread(np.arange(len(dataset.queries)), ROLLED)]
    medians = {}
    for degrees in ROLLS:
        counts = []
        for image in images:
            height, width = image.shape[:2]
            turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)
            turned: Image = cv2.warpAffine(image, turn, (width, height))
            counts.append(inliers(*features.match(features.extract(image), features.extract(turned))))
        medians[degrees] = float(np.median(counts))
    return medians


def matched(method: Method, one: Image, other: Image) -> Image:
    """Return two images side by side, [H,W,3] RGB, with lines between the features that obey one motion."""
    features = [method.extract(image) for image in (one, other)]
    pairs = matches(*features)
    ours, theirs = verify(features[0], features[1], pairs=pairs).pairs
    shown = [as_rgb(resize(image, (WIDTH, round(WIDTH * image.shape[0] / image.shape[1])))) for image in (one, other)]
    height = max(image.shape[0] for image in shown)
    shown = [np.pad(image, ((0, height - image.shape[0]), (0, 0), (0, 0))) for image in shown]
    picture: Image = np.ascontiguousarray(np.hstack(shown))
    ends = (some.points(chosen, (WIDTH, height)) for some, chosen in zip(features, (ours, theirs), strict=True))
    for start, end in zip(*(points.round().astype(int).tolist() for points in ends), strict=True):
        cv2.line(picture, start, (end[0] + WIDTH, end[1]), (60, 200, 90), 1, cv2.LINE_AA)
    text = f"{method.name}: {len(ours)} of {len(pairs[0])} matches"
    cv2.rectangle(picture, (0, 0), (2 * WIDTH, 26), (30, 30, 30), -1)
    cv2.putText(picture, text, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def draw(measured: dict[str, dict[Method, dict[str, float]]], picture: Path) -> None:
    """Draw the share of queries above all pairs of different places over the number of features, by data set."""
    figure = Figure(figsize=(3 * len(measured), 3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(measured), sharey=True))
    for axes, (name, of) in zip(panels, measured.items(), strict=True):
        for kind in dict.fromkeys(method.kind for method in of):
            some = [method for method in of if method.kind is kind]
            counts, shares = [method.most for method in some], [of[method]["above"] for method in some]
            label, style = ("ORB", "s--") if kind is orb else ("learned", "o-")
            axes.plot(counts, shares, style, markersize=4, label=label)
        axes.set(title=name, xlabel="features of an image", xscale="log", ylim=(0, 1.02))
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("share of queries above")
    panels[0].legend(loc="lower right")
    figure.savefig(picture, dpi=110)


def _spread(indices: NDArray[Any], most: int) -> NDArray[Any]:
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(most, len(indices))).round().astype(int))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of ORB and of a model on data sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, nargs="*", help="data sets, as `evaluate` reads them")
    parser.add_argument("--half", action="store_true", help="use the first half of the queries: for choosing")
    parser.add_argument("--features", type=int, nargs="+", default=[learned.MOST_FEATURES], metavar="N",
                        help="maximum features per image (default %(default)s); several make a curve")  # fmt: skip
    parser.add_argument("--most-bits", type=int, nargs="+", default=[learned.MOST_BITS], metavar="N")
    parser.add_argument("--ratio", type=float, nargs="+", default=[learned.RATIO])
    parser.add_argument("--roll", action="store_true", help="also measure turned images of the first data set")
    parser.add_argument("--no-orb", action="store_true")
    parser.add_argument("--pair", type=Path, nargs=2, metavar="IMAGE",
                        help="instead, draw the matches of two images into --picture, with ORB's below")  # fmt: skip
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the curves over --features (.png)")
    choices = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    try:
        network = LearnedFeatures(choices.model, most=max(choices.features))
        datasets = [open_dataset(path, Options()) for path in choices.data]
    except (OSError, DescriptorError, ModelCardError, DatasetError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    if choices.pair and choices.picture:
        most = max(choices.features)
        methods = [Method("learned", network, most), Method("orb", orb, most)]
        try:
            one, other = (decode_file(path.read_bytes()) for path in choices.pair)
        except (OSError, ImageError) as error:
            print(f"report: {error}; give two image files", file=sys.stderr)
            return 1
        cv2.imwrite(str(choices.picture), np.vstack([matched(method, one, other) for method in methods])[..., ::-1])
        return 0
    kinds = [] if choices.no_orb else [Method(f"orb {most}", orb, most) for most in choices.features]
    kinds += [
        Method(f"learned {most}, {bits} bits, ratio {ratio:g}", network, most, bits, ratio)
        for most in choices.features for bits in choices.most_bits for ratio in choices.ratio
    ]  # fmt: skip
    measured: dict[str, dict[Method, dict[str, float]]] = {}
    for dataset in datasets:
        for features in kinds:
            figures = measure(dataset, features, choices.half)
            measured.setdefault(dataset.name, {})[features] = figures
            shown = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
            print(f"{dataset.name}, {features.name}: {shown}", flush=True)
    if choices.picture:
        draw(measured, choices.picture)
    if choices.roll:
        for features in kinds:
            print(f"{datasets[0].name} turned, {features.name}: {rolled(datasets[0], features)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
