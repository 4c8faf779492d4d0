# SPDX-License-Identifier: Apache-2.0
"""Methods meet data sets: one measurement is one of each, with its figures and its pictures."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.lab.evaluation import plots
from binvpr_ros.lab.evaluation.baselines.loop_detector import LoopDetector, detect
from binvpr_ros.lab.evaluation.closure_stage import (
    ClosureStage,
    Drive,
    Run,
    Seen,
    hold_against_truth,
    obeying_poses,
)
from binvpr_ros.lab.evaluation.datasets import Dataset, ImageSequence, PosedSequence
from binvpr_ros.lab.evaluation.datasets.dataset import Images
from binvpr_ros.lab.evaluation.datasets.sequences import Relation
from binvpr_ros.lab.evaluation.image_features import ImageFeatures
from binvpr_ros.lab.evaluation.local_verification import LocalVerification, verify_locally
from binvpr_ros.lab.evaluation.methods import BinaryNetwork, Method, MethodError
from binvpr_ros.lab.evaluation.metrics import PrecisionRecall, Retrieval
from binvpr_ros.lab.evaluation.report import Result
from binvpr_ros.lab.evaluation.sequence_matching import FollowedSimilarities, match_sequences
from binvpr_ros.lab.evaluation.similarities import ComputedSimilarities, Similarities, kept
from binvpr_ros.local_features import orb
from binvpr_ros.local_features.features import Features
from binvpr_ros.network.descriptor import Description

MOST_DESCRIPTION_BYTES = 3 << 29
"""1.5 GiB, which the descriptions of all images of a data set may take."""


class Comparison:
    """All methods on one data set: their results, and pictures into the folder `pictures` where there is one.

    A method that is no network is driven through the loop-closure stage once there is a network.
    With a `sequence_length` other than 0 each method is measured again over sequences of so many images (SeqSLAM), and
    with `sequence_keyframes` other than 1 as the node matches them with that parameter. `seen` is told of each image of
    the first drive.
    """

    def __init__(
        self,
        dataset: Dataset,
        sequence_length: int = 0,
        pictures: Path | None = None,
        sequence_keyframes: int = 1,
        seen: Seen | None = None,
    ) -> None:
        self.dataset = dataset
        self.results: list[Result] = []
        self._sequence_length = sequence_length
        self._sequence_keyframes = sequence_keyframes
        self._pictures = pictures
        self._seen = seen
        self.drives: dict[str, Drive] = {}  # by the method's name; the first is a network's
        self._features = ImageFeatures(dataset.queries)
        self._curves: dict[str, PrecisionRecall] = {}
        self._closure_curves: dict[str, PrecisionRecall] = {}

    def measure(self, method: Method) -> None:
        """Describe all images by `method`, and add what it gives; raises DatasetError and MethodError."""
        dataset = self.dataset
        where = f"{method.name} on {dataset.name}"
        method.fit(dataset.references)
        queries, times, described = describe(method, dataset.queries, f"{where}: queries")
        references = queries
        if dataset.references is not dataset.queries:
            references, more, _ = describe(method, dataset.references, f"{where}: references")
            times += more
        similarities = kept(
            ComputedSimilarities(
                dataset.truth.shape, lambda start, stop: method.similarities(queries[start:stop], references)
            )
        )
        drive, verified = None, None
        if isinstance(method, BinaryNetwork):
            if isinstance(dataset, ImageSequence):
                drive = Drive(
                    method.network, dataset, described, method.local_features, method.config.shift_cells, self._features
                )
            else:
                verified = verify_locally(dataset, similarities, method.local_features)
        self.add(method.name, similarities, method.descriptor_bits, float(np.median(times)), drive, verified)

    def add(
        self,
        name: str,
        similarities: Similarities,
        bits: int | None = None,
        milliseconds: float | None = None,
        drive: Drive | None = None,
        verified: LocalVerification | None = None,
    ) -> None:
        """Add the similarities [Q,R] of a method, its median time for an image, and its drive where it has one.

        A method without one goes through that of the first network, with its own similarities: the same keyframes, the
        same verification.
        """
        seen = None if self.drives else self._seen
        if drive is None and self.drives:
            drive = next(iter(self.drives.values())).with_similarities(similarities)
        if drive is not None:
            self.drives[name] = drive
        stage = drive.through(drive.config, seen, poses=drive.knows_descriptors) if drive else None
        if stage and drive and drive.knows_descriptors and len(stage.revisits):
            stage = dataclasses.replace(stage, earlier=drive.in_earlier_maps(drive.config))
        self._add(name, similarities, bits, milliseconds, drive, stage, verified)
        if self._sequence_keyframes > 1:
            keyframes = self._sequence_keyframes
            stage = drive.through(drive.config.replace(sequence_keyframes=keyframes)) if drive else None
            followed = FollowedSimilarities(similarities, self.dataset.candidates, keyframes)
            self._add(f"{name}, sequence_keyframes {keyframes}", kept(followed), bits, stage=stage)
        if self._sequence_length:
            matched = match_sequences(similarities, self.dataset.candidates, self._sequence_length)
            self._add(f"{name}, sequences of {self._sequence_length}", kept(matched), bits)

    def detect(self, detector: type[LoopDetector]) -> None:
        """Let a program that closes loops by itself run over a drive, and add what it gives; raises MethodError."""
        dataset = self.dataset
        if not isinstance(dataset, ImageSequence):
            return
        found = detect(dataset.queries, dataset.stamps.tolist(), dataset.exclude_seconds)
        closures = [(query, match) for query, match in found.pairs.tolist()]

        def features(closure: int) -> tuple[Features, Features]:
            query, match = closures[closure]
            return self._features(query, orb), self._features(match, orb)

        run = Run(list(range(len(dataset.queries))), closures, found.inliers.tolist())
        self.results.append(
            self._result(
                detector.name, detector.descriptor_bits, float(np.median(found.milliseconds)),
                stage=hold_against_truth(dataset, run, obeying_poses(dataset, closures, features)),
            )
        )  # fmt: skip

    def finish(self) -> None:
        """Draw what holds all methods."""
        if self._pictures:
            start = self._pictures / plots.file_name(self.dataset.name)
            plots.precision_recall(
                start.with_name(f"{start.name}_precision_recall.png"), self.dataset.name, self._curves,
                self._closure_curves,
            )  # fmt: skip
            stages = {result.method: result.stage for result in self.results if result.stage is not None}
            if any(len(stage.revisits) for stage in stages.values()):
                plots.outcomes(start.with_name(f"{start.name}_revisits.png"), self.dataset.name, stages)

    def _add(
        self,
        name: str,
        similarities: Similarities,
        bits: int | None,
        milliseconds: float | None = None,
        drive: Drive | None = None,
        stage: ClosureStage | None = None,
        verified: LocalVerification | None = None,
    ) -> None:
        dataset = self.dataset
        retrieval = Retrieval.of_similarities(similarities, dataset.truth, dataset.candidates)
        self.results.append(self._result(name, bits, milliseconds, retrieval, stage, verified))
        if self._pictures:
            self._curves[name] = retrieval.precision_recall()
            if drive:
                self._closure_curves[name] = drive.precision_recall()
            self._draw(self._pictures, name, similarities, retrieval, stage)

    def _result(
        self,
        name: str,
        bits: int | None,
        milliseconds: float | None,
        retrieval: Retrieval | None = None,
        stage: ClosureStage | None = None,
        verified: LocalVerification | None = None,
    ) -> Result:
        dataset = self.dataset
        return Result(
            dataset.name, dataset.conditions, name, len(dataset.queries), len(dataset.references), bits, milliseconds,
            retrieval, stage, verified, dict(dataset.left_out),
        )  # fmt: skip

    def _draw(
        self,
        folder: Path,
        name: str,
        similarities: Similarities,
        retrieval: Retrieval,
        stage: ClosureStage | None,
    ) -> None:
        dataset, title = self.dataset, f"{name} on {self.dataset.name}"
        start = f"{plots.file_name(dataset.name)}_{plots.file_name(name)}"
        with tqdm(total=4, desc=f"{title}: pictures", leave=False, file=sys.stderr) as bar:
            plots.similarity_matrix(folder / f"{start}_similarity.png", title, similarities, dataset, retrieval)
            bar.update()
            plots.match_pairs(folder / f"{start}_matches.png", title, dataset, retrieval)
            bar.update()
            if isinstance(dataset, ImageSequence) and stage is not None:
                plots.closure_pairs(folder / f"{start}_closures.png", title, dataset, stage)
            bar.update()
            if isinstance(dataset, PosedSequence):
                pairs, relations, what = _closures(stage, retrieval)
                plots.trajectory(folder / f"{start}_trajectory.png", f"{title}: {what}", dataset, pairs, relations)


def describe(method: Method, images: Images, what: str) -> tuple[NDArray[Any], list[float], list[Description]]:
    """Return comparable descriptions [N,D] of images, the milliseconds that each took, and all that a network says.

    Raises MethodError where they are too many to be kept, or no numbers.
    """
    rows: NDArray[Any] = np.empty(0)
    times, described = [], []
    for index, image in enumerate(tqdm(images, desc=what, unit="image", leave=False, file=sys.stderr)):
        start = time.perf_counter()
        if isinstance(method, BinaryNetwork):
            described.append(method.network.describe(image))
            row = method.comparable(described[-1].descriptor)
        else:
            row = method.comparable(method.describe(image))
        times.append((time.perf_counter() - start) * 1e3)
        if index == 0:
            if len(images) * row.nbytes > MOST_DESCRIPTION_BYTES:
                most = MOST_DESCRIPTION_BYTES // row.nbytes
                raise MethodError(f"its descriptions of {len(images)} images do not fit; take {most} images at most")
            rows = np.empty((len(images), *row.shape), row.dtype)
        if row.dtype.kind == "f" and not np.isfinite(row).all():
            raise MethodError(f"{method.name} returns NaN or infinity for image {index}; leave out this method")
        rows[index] = row
    return rows, times, described


def _closures(stage: ClosureStage | None, retrieval: Retrieval) -> tuple[NDArray[np.int64], NDArray[np.int8], str]:
    """Return pairs of images [C,2] to draw, their relations [C], and what they are."""
    if stage is not None:
        return stage.closures, stage.relations, "loop closures"
    curve = retrieval.precision_recall()
    accepted = retrieval.scores >= curve.thresholds[curve.f1.argmax()] if len(curve.f1) else retrieval.correct
    pairs = np.stack([retrieval.queries, retrieval.matches], axis=1)[accepted]
    relations = np.where(retrieval.correct[accepted], Relation.SAME, Relation.APART).astype(np.int8)
    return pairs, relations, "best matches above the threshold of the best F1, without the stage"
