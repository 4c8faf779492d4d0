# SPDX-License-Identifier: Apache-2.0
"""Methods meet data sets: one measurement is one of each, with its figures and its pictures."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.descriptor import Description
from binvpr_ros.evaluation import plots
from binvpr_ros.evaluation.closure_stage import ClosureStage, Drive
from binvpr_ros.evaluation.datasets import Dataset, PosedSequence
from binvpr_ros.evaluation.datasets.dataset import Images
from binvpr_ros.evaluation.methods import BinaryNetwork, Method, MethodError, Similarities
from binvpr_ros.evaluation.metrics import PrecisionRecall, Retrieval
from binvpr_ros.evaluation.report import Result
from binvpr_ros.evaluation.sequence_matching import follow_sequences, match_sequences


class Comparison:
    """All methods on one data set: their results, and pictures into the folder `pictures` where there is one.

    A method that is no network is driven through the loop-closure stage once there is a network.
    With a `sequence_length` other than 0 each method is measured again over sequences of so many images (SeqSLAM), and
    with `sequence_keyframes` other than 1 as the node matches them with that parameter.
    """

    def __init__(
        self, dataset: Dataset, sequence_length: int = 0, pictures: Path | None = None, sequence_keyframes: int = 1
    ) -> None:
        self.dataset = dataset
        self.results: list[Result] = []
        self._sequence_length = sequence_length
        self._sequence_keyframes = sequence_keyframes
        self._pictures = pictures
        self.drives: dict[str, Drive] = {}  # by the method's name; the first is a network's
        self._curves: dict[str, PrecisionRecall] = {}
        self._closure_curves: dict[str, PrecisionRecall] = {}

    def measure(self, method: Method) -> None:
        """Describe all images by `method`, and add what it gives; raises DatasetError and MethodError."""
        dataset = self.dataset
        where = f"{method.name} on {dataset.name}"
        method.fit(dataset.references)
        queries, times = describe(method, dataset.queries, f"{where}: queries")
        references = queries
        if dataset.references is not dataset.queries:
            references, more = describe(method, dataset.references, f"{where}: references")
            times += more
        drive = None
        if isinstance(method, BinaryNetwork):
            if isinstance(dataset, PosedSequence):
                drive = Drive(method.network, dataset, queries, method.shift_cells)
            queries, references = ([one.descriptor for one in some] for some in (queries, references))
        similarities = method.similarities(np.stack(queries), np.stack(references))
        if not np.isfinite(similarities).all():
            raise MethodError(f"{method.name} gives what is no number for an image of {dataset.name}; leave it out")
        self.add(method.name, similarities, method.descriptor_bits, float(np.median(times)), drive)

    def add(
        self,
        name: str,
        similarities: Similarities,
        bits: int | None = None,
        milliseconds: float | None = None,
        drive: Drive | None = None,
    ) -> None:
        """Add the similarities [Q,R] of a method, its median time for an image, and its drive where it has one.

        A method without one goes through that of the first network, with its own similarities: the same keyframes, the
        same verification.
        """
        if drive is None and self.drives:
            drive = next(iter(self.drives.values())).with_similarities(similarities)
        if drive is not None:
            self.drives[name] = drive
        stage = drive.through(drive.config) if drive else None
        self._add(name, similarities, bits, milliseconds, drive, stage)
        if self._sequence_keyframes > 1:
            keyframes = self._sequence_keyframes
            stage = drive.through(drive.config.replace(sequence_keyframes=keyframes)) if drive else None
            followed = follow_sequences(similarities, self.dataset.candidates, keyframes)
            self._add(f"{name}, sequence_keyframes {keyframes}", followed, bits, stage=stage)
        if self._sequence_length:
            matched = match_sequences(similarities, self.dataset.candidates, self._sequence_length)
            self._add(f"{name}, sequences of {self._sequence_length}", matched, bits)

    def finish(self) -> None:
        """Draw what holds all methods."""
        if self._pictures:
            file = self._pictures / f"{_file_name(self.dataset.name)}_precision_recall.png"
            plots.precision_recall(file, self.dataset.name, self._curves, self._closure_curves)

    def _add(
        self,
        name: str,
        similarities: Similarities,
        bits: int | None,
        milliseconds: float | None = None,
        drive: Drive | None = None,
        stage: ClosureStage | None = None,
    ) -> None:
        dataset = self.dataset
        retrieval = Retrieval.of_similarities(similarities, dataset.truth, dataset.candidates)
        self.results.append(
            Result(
                dataset.name, dataset.conditions, name, len(dataset.queries), len(dataset.references), bits,
                milliseconds, retrieval, stage,
            )
        )  # fmt: skip
        if self._pictures:
            self._curves[name] = retrieval.precision_recall()
            if drive:
                self._closure_curves[name] = drive.precision_recall()
            self._draw(self._pictures, name, similarities, retrieval, stage)

    def _draw(
        self,
        folder: Path,
        name: str,
        similarities: Similarities,
        retrieval: Retrieval,
        stage: ClosureStage | None,
    ) -> None:
        dataset, title = self.dataset, f"{name} on {self.dataset.name}"
        start = f"{_file_name(dataset.name)}_{_file_name(name)}"
        with tqdm(total=3, desc=f"{title}: pictures", leave=False, file=sys.stderr) as bar:
            plots.similarity_matrix(folder / f"{start}_similarity.png", title, similarities, dataset, retrieval)
            bar.update()
            plots.match_pairs(folder / f"{start}_matches.png", title, dataset, similarities, retrieval)
            bar.update()
            if isinstance(dataset, PosedSequence):
                pairs, true, what = _closures(stage, retrieval)
                plots.trajectory(folder / f"{start}_trajectory.png", f"{title}: {what}", dataset, pairs, true)


def describe(method: Method, images: Images, what: str) -> tuple[list[Any], list[float]]:
    """Return the description of each image, and the milliseconds that each took.

    Those of a network with a card are of the type Description, for the loop-closure stage.
    """
    one: Any = method.network.describe if isinstance(method, BinaryNetwork) else method.describe
    rows: list[NDArray[Any] | Description] = []
    times = []
    for image in tqdm(images, desc=what, unit="image", leave=False, file=sys.stderr):
        start = time.perf_counter()
        rows.append(one(image))
        times.append((time.perf_counter() - start) * 1e3)
    return rows, times


def _closures(stage: ClosureStage | None, retrieval: Retrieval) -> tuple[NDArray[np.int64], NDArray[np.bool_], str]:
    """Return pairs of images [C,2] to draw, whether they are true [C], and what they are."""
    if stage is not None:
        return stage.closures, stage.true, "loop closures"
    curve = retrieval.precision_recall()
    accepted = retrieval.scores >= curve.thresholds[curve.f1.argmax()] if len(curve.f1) else retrieval.correct
    pairs = np.stack([retrieval.queries, retrieval.matches], axis=1)[accepted]
    return pairs, retrieval.correct[accepted], "best matches above the threshold of the best F1, without the stage"


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
