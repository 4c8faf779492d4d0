# SPDX-License-Identifier: Apache-2.0
"""What a robot gets: a drive through the whole recognizer, its closures held against the poses."""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.config import Config
from binvpr_ros.database import KeyframeDatabase
from binvpr_ros.descriptor import WORD_BITS, Description, Descriptor, DescriptorNetwork
from binvpr_ros.evaluation.datasets.dataset import PosedSequence
from binvpr_ros.evaluation.methods import Similarities
from binvpr_ros.evaluation.metrics import PrecisionRecall
from binvpr_ros.features import Camera, Features, extract, verify
from binvpr_ros.keyframes import Keyframe
from binvpr_ros.loop_closure import LoopCloser
from binvpr_ros.recognizer import PlaceRecognizer, StampError

MIN_SCORES = [round(1 - step / 20, 2) for step in range(21)]
"""The thresholds over which the curve of the stage is drawn: the parameter `min_score`."""


@dataclass(frozen=True)
class ClosureStage:
    """The loop closures of a drive; images are named by their index in the data set."""

    keyframes: NDArray[np.int64]  # [K]
    closures: NDArray[np.int64]  # [C,2], query and match
    true: NDArray[np.bool_]  # [C]
    revisits: NDArray[np.int64]  # [V], the keyframes whose place was seen before the exclusion window
    refusals: dict[str, int]
    images_refused: int  # for their stamps

    @property
    def precision(self) -> float | None:
        """Return the share of the closures that are true; None where there are none."""
        return float(self.true.mean()) if len(self.true) else None

    @property
    def recall(self) -> float | None:
        """Return the share of the revisits that have a true closure; None where there are none."""
        found = np.intersect1d(self.revisits, self.closures[self.true, 0])
        return len(found) / len(self.revisits) if len(self.revisits) else None

    def halves(self) -> tuple[ClosureStage, ClosureStage]:
        """Return the stage of the queries up to the revisit in the middle, and of those from it on."""
        border = self.revisits[len(self.revisits) // 2] if len(self.revisits) else 0
        before, of = self.closures[:, 0] < border, self.revisits < border
        first, second = (
            dataclasses.replace(
                self, closures=self.closures[those], true=self.true[those], revisits=self.revisits[part]
            )
            for those, part in ((before, of), (~before, ~of))
        )
        return first, second

    def figures(self) -> dict[str, Any]:
        """Return what `evaluate` reports, by name."""
        return {
            "keyframes": len(self.keyframes),
            "revisits": len(self.revisits),
            "closures": len(self.closures),
            "closures_true": int(self.true.sum()),
            "closure_precision": self.precision,
            "closure_recall": self.recall,
            "refusals": self.refusals,
            "images_with_wrong_stamps": self.images_refused,
        }


class Drive:
    """A sequence whose images `network` has described, to be driven through with the recognizer as often as wanted.

    Local features, and what verification finds of a pair, are computed when first wanted and kept. There is no limit to
    the time for verification, so that the figures do not depend on the machine.
    """

    def __init__(
        self,
        network: DescriptorNetwork,
        sequence: PosedSequence,
        descriptions: Sequence[Description],
        shift_cells: int = Config.shift_cells,
    ) -> None:
        self.sequence = sequence
        self.config = Config(
            exclusion_time=sequence.exclude_seconds,
            verification_time=Config.bounds("verification_time")[1],
            shift_cells=shift_cells,
        )
        self._network = network
        self._descriptions = descriptions
        self._similarities: NDArray[np.float64] | None = None
        self._features: dict[int, Features] = {}
        self._inliers: dict[tuple[int, int], int] = {}

    def with_similarities(self, similarities: Similarities) -> Drive:
        """Return this drive with the same keyframes and verification, and another method's similarities [N,N].

        They are brought to the scale of the network's: 0 for the median pair, 1 for images in a row.
        """
        other = copy.copy(self)
        usual, neighbours = np.median(similarities), np.median(np.diagonal(similarities, -1))
        other._similarities = (similarities.astype(np.float64) - usual) / max(float(neighbours - usual), 1e-9)
        return other

    def through(self, config: Config) -> ClosureStage:
        """Drive through with the parameters of `config`, and hold the closures against the poses."""
        sequence = self.sequence
        recognizer = PlaceRecognizer(config, self._network, LoopCloser(self._verify))
        index_at = {int(stamp): index for index, stamp in enumerate(sequence.stamps)}
        if self._similarities is not None:
            recognizer.database = _SimilarityDatabase(self._similarities, index_at, self._network.words)
        keyframes: list[int] = []
        pairs: list[tuple[int, int]] = []
        refusals = Counter[str]()
        images_refused = 0
        for index, (description, stamp) in enumerate(zip(self._descriptions, sequence.stamps.tolist(), strict=True)):
            try:
                recognition = recognizer.recognize(description, stamp, functools.partial(self._features_of, index))
            except StampError:
                images_refused += 1
                continue
            if recognition.keyframe is not None:
                keyframes.append(index)
            verdict = recognition.verdict
            pairs += [(index, index_at[closure.match.stamp]) for closure in verdict.closures]
            refusals.update(refused.reason.value for refused in verdict.refused)
        closures = np.array(pairs, np.int64).reshape(-1, 2)
        seen_before = sequence.truth[np.ix_(keyframes, keyframes)].any(axis=1)
        return ClosureStage(
            keyframes=np.array(keyframes, np.int64),
            closures=closures,
            true=sequence.same_place[closures[:, 0], closures[:, 1]],
            revisits=np.array(keyframes, np.int64)[seen_before],
            refusals=dict(refusals),
            images_refused=images_refused,
        )

    def precision_recall(self) -> PrecisionRecall:
        """Return precision and recall over the parameter `min_score`; where nothing is closed there is no point."""
        scores = tqdm(MIN_SCORES, desc="min_score", leave=False, file=sys.stderr)
        points = []
        for score in scores:
            stage = self.through(self.config.replace(min_score=score))
            if stage.precision is not None and stage.recall is not None:
                points.append((score, stage.precision, stage.recall))
        return PrecisionRecall(*np.array(points, np.float64).reshape(-1, 3).T)

    def _features_of(self, index: int) -> Features:
        if index not in self._features:
            self._features[index] = extract(self.sequence.queries[index])
        return self._features[index]

    def _verify(self, query: Features, match: Features, camera: Camera | None) -> int:
        pair = id(query), id(match)  # both are kept, so their ids are theirs alone
        if pair not in self._inliers:
            self._inliers[pair] = verify(query, match, camera)
        return self._inliers[pair]


class _SimilarityDatabase(KeyframeDatabase):
    """Keyframes whose similarities [N,N] are known; a similarity s of N bits stands as the distance N (1 - s) / 2.

    Above KNEE distances come closer and closer to 0, since of two similarities above 1 the higher one is to be nearer.
    """

    KNEE = 0.9

    def __init__(self, similarities: NDArray[np.float64], index_at: dict[int, int], words: int) -> None:
        super().__init__(None, "", words)
        self._similarities = similarities
        self._index_at = index_at
        self._bits = words * WORD_BITS
        self._query = 0

    def next_keyframe(
        self, stamp: int, descriptor: Descriptor, features: Features | None = None, thumbnail: bytes | None = None
    ) -> Keyframe:
        """Return the keyframe of the image at `stamp`, about which `distances` is asked next."""
        self._query = self._index_at[stamp]
        return super().next_keyframe(stamp, descriptor, features, thumbnail)

    def distances(self, views: NDArray[np.uint64]) -> NDArray[np.uint32]:  # noqa: ARG002 - the query is known
        """Return the distances [K] of the newest keyframe; its descriptor is not looked at."""
        others = [self._index_at[stamp] for stamp in self.stamps.tolist()]
        similarities = self._similarities[self._query, others]
        above = (np.maximum(similarities, self.KNEE) - self.KNEE) / (1 - self.KNEE)
        similarities = np.where(above > 0, 1 - (1 - self.KNEE) / (1 + above), similarities)
        distances = np.round(self._bits * (1 - similarities) / 2)
        return np.clip(distances, 0, self._bits).astype(np.uint32)
