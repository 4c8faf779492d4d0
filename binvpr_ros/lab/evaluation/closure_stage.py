# SPDX-License-Identifier: Apache-2.0
"""What a robot gets: a drive through the whole recognizer, its closures held against the truth.

A *revisit* is an image whose place was seen before the exclusion window, whether or not the node made a keyframe of it;
it is *found* where a closure of one place is published within a second of it. Precision is the share of same closures
among those that are same or apart (datasets/sequences.py says what these words mean).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, Keyframe
from binvpr_ros.lab.evaluation.datasets.sequences import ImageSequence, Relation
from binvpr_ros.lab.evaluation.datasets.truth import blocks
from binvpr_ros.lab.evaluation.image_features import ImageFeatures
from binvpr_ros.lab.evaluation.metrics import PrecisionRecall
from binvpr_ros.lab.evaluation.pose_errors import PoseError, pose_error
from binvpr_ros.lab.evaluation.pose_errors import figures as pose_figures
from binvpr_ros.lab.evaluation.similarities import Similarities
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features, Pairs
from binvpr_ros.local_features.geometry import Verification, verify
from binvpr_ros.local_features.kinds import LocalFeatures
from binvpr_ros.loop_closure import LoopCloser, Refusal, Verdict
from binvpr_ros.loop_constraint import LoopConstraint
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.descriptor import Description, DescriptorNetwork
from binvpr_ros.network.hamming import WORD_BITS, Descriptor
from binvpr_ros.recognizer import PlaceRecognizer, Recognition, kept
from binvpr_ros.stamps import StampError

MIN_SCORES = [round(1 - step / 20, 2) for step in range(21)]
"""The thresholds over which the curve of the stage is drawn: the parameter `min_score`."""
FOUND_WITHIN = 1.0
"""Seconds between a revisit and a closure that finds it."""
CLOSED, NOT_RETRIEVED = "closed", "not_retrieved"
OUTCOMES = (
    NOT_RETRIEVED,
    *(
        reason.value
        for reason in (
            Refusal.LOW_SCORE, Refusal.NOT_AMONG_BEST, Refusal.NOT_VERIFIED, Refusal.FEW_INLIERS,
            Refusal.NOT_CONFIRMED, Refusal.NEVER_LEFT, Refusal.AMBIGUOUS,
        )
    ),
    CLOSED,
)  # fmt: skip
"""What may become of a revisit, in the order of the stage: of its true candidates the one that came farthest counts.

`low_score` is one that was the best of all and below `min_score`; the stage looks at no others below it, so that they
are `not_retrieved`.
"""
BEFORE = 86_400 * NANOSECONDS
"""By how much an earlier map is older than the drive that is held against it."""
Seen = Callable[[int, PlaceRecognizer, Recognition], None]
"""An image of a drive, by its index, who recognised it, and what became of it."""


class EarlierMaps(NamedTuple):
    """How many images of a drive found their place in earlier maps of it."""

    one: int  # with the one of two maps
    other: int  # with the other
    either: int  # with the one or the other, or with each
    both: int  # with both together


@dataclass(frozen=True, eq=False)
class ClosureStage:
    """The loop closures of a drive, and what became of its revisits; images are named by their index."""

    keyframes: NDArray[np.int64]  # [K]
    closures: NDArray[np.int64]  # [C,2], query and match
    relations: NDArray[np.int8]  # [C], of the closures
    inliers: NDArray[np.int64]  # [C]
    revisits: NDArray[np.int64]  # [V]
    outcomes: NDArray[np.int8]  # [V], places in OUTCOMES
    best_true: NDArray[np.int64]  # [V,2], the query and the match of that candidate; -1: there is none
    keyframe_revisits: NDArray[np.int64]  # [W], the keyframes that have an earlier keyframe of their place
    refusals: dict[str, int]  # candidates
    images_refused: int  # for their stamps
    rolls: NDArray[np.float64] | None = None  # [C], degrees by which the camera has rolled; None: unknown
    earlier: EarlierMaps | None = None  # None: not tried
    constraints: list[LoopConstraint] = field(default_factory=list)  # as the node publishes them
    poses: list[PoseError] | None = None  # of closures that are not of places apart; None: not computed

    @property
    def true(self) -> NDArray[np.bool_]:
        """Which closures [C] join images of one place."""
        return self.relations == Relation.SAME

    @property
    def apart(self) -> NDArray[np.bool_]:
        """Which closures [C] join images of places apart."""
        return self.relations == Relation.APART

    @property
    def precision(self) -> float | None:
        """Return the share of same closures among the same and the apart; None where there are none."""
        judged = self.true | self.apart
        return float(self.true.sum() / judged.sum()) if judged.any() else None

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which revisits [V] were found."""
        return self.outcomes == OUTCOMES.index(CLOSED)

    @property
    def recall(self) -> float | None:
        """Return the share of the revisits that were found; None where there are none."""
        return float(self.found.mean()) if len(self.revisits) else None

    @property
    def keyframe_recall(self) -> float | None:
        """Return the share of the keyframe revisits with a same closure of their own; None where there are none."""
        found = np.intersect1d(self.keyframe_revisits, self.closures[self.true, 0])
        return len(found) / len(self.keyframe_revisits) if len(self.keyframe_revisits) else None

    def between(self, start: int, stop: int) -> ClosureStage:
        """Return the stage of the images from `start` to before `stop` as queries."""
        of, some, keys = (
            (start <= part) & (part < stop) for part in (self.closures[:, 0], self.revisits, self.keyframe_revisits)
        )
        return dataclasses.replace(
            self, closures=self.closures[of], relations=self.relations[of], inliers=self.inliers[of],
            revisits=self.revisits[some], outcomes=self.outcomes[some], best_true=self.best_true[some],
            keyframe_revisits=self.keyframe_revisits[keys], rolls=None if self.rolls is None else self.rolls[of],
        )  # fmt: skip

    def figures(self) -> dict[str, Any]:
        """Return what `evaluate` reports, by name."""
        counts = np.bincount(self.outcomes, minlength=len(OUTCOMES))
        rolls = None if self.rolls is None else self.rolls[self.true]
        return {
            "keyframes": len(self.keyframes),
            "revisits": len(self.revisits),
            "closures": len(self.closures),
            "closures_same": int(self.true.sum()),
            "closures_near": int((self.relations == Relation.NEAR).sum()),
            "closures_apart": int(self.apart.sum()),
            "closure_precision": self.precision,
            "closure_recall": self.recall,
            "keyframe_revisits": len(self.keyframe_revisits),
            "keyframe_closure_recall": self.keyframe_recall,
            "closure_roll_degrees_max": float(rolls.max()) if rolls is not None and len(rolls) else None,
            "revisit_outcomes": dict(zip(reversed(OUTCOMES), counts[::-1].tolist(), strict=True)),
            "earlier_maps": None if self.earlier is None else self.earlier._asdict(),
            "relative_pose": None if self.poses is None else pose_figures(self.poses),
            "refusals": self.refusals,
            "images_with_wrong_stamps": self.images_refused,
        }


@dataclass
class Run:
    """What a way to close loops did on a drive, before it is held against the truth."""

    keyframes: list[int] = field(default_factory=list)
    closures: list[tuple[int, int]] = field(default_factory=list)
    inliers: list[int] = field(default_factory=list)
    refused: list[tuple[int, int, str]] = field(default_factory=list)  # query, match and reason
    refusals: Counter[str] = field(default_factory=Counter)  # also those of queries that had nothing to match
    images_refused: int = 0

    def note(self, query: int, verdict: Verdict, index_at: Mapping[int, int]) -> None:
        """Take the verdict over an image; `index_at` leads from stamps to images."""
        for closure in verdict.closures:
            self.closures.append((query, index_at[closure.match.stamp]))
            self.inliers.append(closure.inliers)
        for refused in verdict.refused:
            self.refusals[refused.reason.value] += 1
            if refused.match is not None:
                self.refused.append((query, index_at[refused.match.stamp], refused.reason.value))


def hold_against_truth(sequence: ImageSequence, run: Run, obeying: NDArray[np.bool_] | None = None) -> ClosureStage:
    """Return the stage of a run over a drive; `obeying` [C] says which closures obey the true poses."""
    closures = np.array(run.closures, np.int64).reshape(-1, 2)
    relations = sequence.relations(closures[:, 0], closures[:, 1])
    if obeying is not None:
        relations = np.where((relations == Relation.NEAR) & ~obeying, np.int8(Relation.APART), relations)
    revisits = np.flatnonzero(sequence.truth.answerable)
    outcomes, best_true = _outcomes(sequence, run, closures[relations == Relation.SAME], revisits)
    return ClosureStage(
        keyframes=np.array(run.keyframes, np.int64),
        closures=closures,
        relations=relations,
        inliers=np.array(run.inliers, np.int64),
        revisits=revisits,
        outcomes=outcomes,
        best_true=best_true,
        keyframe_revisits=_seen_before(sequence, run.keyframes),
        refusals=dict(run.refusals),
        images_refused=run.images_refused,
        rolls=sequence.rolls(closures[:, 0], closures[:, 1]),
    )


def _outcomes(
    sequence: ImageSequence, run: Run, same: NDArray[np.int64], revisits: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return what became of each revisit [V], as an index into OUTCOMES, and the pair [V,2] it refers to.

    It is the true candidate that came farthest, of all that were judged within a second of the revisit.
    """
    refused = [(query, match) for query, match, _ in run.refused]
    pairs = np.array(refused, np.int64).reshape(-1, 2)
    of_place = sequence.relations(pairs[:, 0], pairs[:, 1]) == Relation.SAME
    fates = np.array([OUTCOMES.index(reason) for _, _, reason in run.refused], np.int8)
    pairs = np.concatenate([pairs[of_place], same])
    fates = np.concatenate([fates[of_place], np.full(len(same), OUTCOMES.index(CLOSED), np.int8)])
    order = np.argsort(pairs[:, 0], kind="stable")
    pairs, fates = pairs[order], fates[order]
    times, window = sequence.stamps[pairs[:, 0]], round(FOUND_WITHIN * NANOSECONDS)
    starts = np.searchsorted(times, sequence.stamps[revisits] - window)
    stops = np.searchsorted(times, sequence.stamps[revisits] + window, side="right")
    outcomes = np.full(len(revisits), OUTCOMES.index(NOT_RETRIEVED), np.int8)
    best = np.full((len(revisits), 2), -1, np.int64)
    for place, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        if start < stop:
            farthest = start + int(fates[start:stop].argmax())
            outcomes[place], best[place] = fates[farthest], pairs[farthest]
    return outcomes, best


def _seen_before(sequence: ImageSequence, keyframes: Sequence[int]) -> NDArray[np.int64]:
    """Return the keyframes whose place an earlier one shows, outside the exclusion window."""
    chosen = np.array(keyframes, np.int64)
    found = []
    for start, stop in blocks(*sequence.truth.shape):
        some = chosen[(start <= chosen) & (chosen < stop)]
        found.append(some[sequence.truth.rows(start, stop)[some - start][:, chosen].any(axis=1)])
    return np.concatenate(found)


def obeying_poses(
    sequence: ImageSequence,
    closures: Sequence[tuple[int, int]],
    features: Callable[[int], tuple[Features | None, Features | None]],
) -> NDArray[np.bool_]:
    """Return which closures [C] obey the true poses; only near ones are looked at.

    `features` returns those of query and match of a closure, given its number.
    """
    obeying = np.ones(len(closures), bool)
    camera = sequence.camera
    if camera is None or not closures:
        return obeying
    pairs = np.array(closures, np.int64)
    for place in np.flatnonzero(sequence.relations(pairs[:, 0], pairs[:, 1]) == Relation.NEAR):
        query, match = pairs[place].tolist()
        ours, theirs = features(int(place))
        if ours is not None and theirs is not None:
            pairs_of = zip((ours, theirs), verify(ours, theirs, camera).pairs, strict=True)
            rays = [camera.rays(some.points(chosen, camera.size)) for some, chosen in pairs_of]
            obeying[place] = sequence.obeys_poses(query, match, *rays)
    return obeying


class Drive:
    """A sequence whose images `network` has described, to be driven through with the recognizer as often as wanted.

    Local features, which drives of one sequence may share, and what verification finds of a pair, are computed when
    first wanted and kept. The verifications of a keyframe are counted, so the closures are those of any machine that
    has time for them.
    """

    def __init__(
        self,
        network: DescriptorNetwork,
        sequence: ImageSequence,
        descriptions: Sequence[Description],
        local_features: LocalFeatures,
        shift_cells: int = Config.shift_cells,
        features: ImageFeatures | None = None,
    ) -> None:
        self.sequence = sequence
        self.config = Config(exclusion_time=sequence.exclude_seconds, shift_cells=shift_cells)
        self.network, self.local_features = network, local_features
        self._descriptions = descriptions
        self._similarities: Similarities | None = None
        self._scale = (0.0, 1.0)
        self.features = features or ImageFeatures(sequence.queries)
        self._keyframes: dict[Config, NDArray[np.int64]] = {}
        self._verified: dict[tuple[bytes, bytes, float], Verification] = {}

    def with_similarities(self, similarities: Similarities) -> Drive:
        """Return this drive with the same keyframes and verification, and another method's similarities [N,N].

        They are brought to the scale of the network's: 0 for the median pair, 1 for images in a row.
        """
        other = copy.copy(self)
        count = similarities.shape[0]
        sample = [similarities.rows(row, row + 1)[0] for row in range(0, count, -(-count // MOST_SAMPLED))]
        neighbours = [float(similarities.rows(row, row + 1)[0, row - 1]) for row in range(1, count)]
        usual = float(np.median(np.stack(sample)))
        other._similarities = similarities
        other._scale = usual, max(float(np.median(neighbours)) - usual, 1e-9)
        return other

    @property
    def knows_descriptors(self) -> bool:
        """Whether matches are by the network's descriptors, and not by another method's similarities."""
        return self._similarities is None

    def through(self, config: Config, seen: Seen | None = None, poses: bool = False) -> ClosureStage:
        """Drive through with the parameters of `config`, and hold the closures against the truth.

        `seen` is told of each image, as soon as it is recognised. With `poses` the relative poses of the closures are
        held against the truth too, those that they have by depth, and those without.
        """
        sequence = self.sequence
        recognizer = self._recognizer(config)
        index_at = {int(stamp): index for index, stamp in enumerate(sequence.stamps)}
        if self._similarities is not None:
            recognizer.database = _SimilarityDatabase(
                self._similarities, self._scale, sequence.stamps, self.network.words
            )
        run = Run()
        matched: list[tuple[Features | None, Features | None]] = []
        constraints: list[LoopConstraint] = []
        blind: list[LoopConstraint] = []
        for index, stamp in enumerate(sequence.stamps.tolist()):
            try:
                recognition = self._recognize(recognizer, index, stamp, poses)
            except StampError:
                run.images_refused += 1
                continue
            if seen is not None:
                seen(index, recognizer, recognition)
            if recognition.keyframe is not None:
                run.keyframes.append(index)
            run.note(index, recognition.verdict, index_at)
            matched += [
                (closure.query.features, recognizer.database.features(closure.match))
                for closure in recognition.verdict.closures
            ]
            if poses:
                constraints += recognition.constraints()
                blind += _without_depth(recognition)
        stage = hold_against_truth(sequence, run, obeying_poses(sequence, run.closures, matched.__getitem__))
        if not poses:
            return stage
        apart = {(query, match) for query, match in stage.closures[stage.apart].tolist()}
        errors = []
        for constraint in (*constraints, *blind):
            query, match = index_at[constraint.query_stamp], index_at[constraint.match_stamp]
            motion = sequence.motion(query, match)
            if motion is not None and (query, match) not in apart:
                errors.append(pose_error(constraint.pose, *motion))
        return dataclasses.replace(stage, constraints=constraints, poses=errors)

    def in_earlier_maps(self, config: Config) -> EarlierMaps:
        """Drive through the last two fifths with earlier maps of what came before, one by one and both together."""
        sequence, network = self.sequence, self.network
        start = 3 * len(sequence.stamps) // 5
        keyframes = self.keyframes(config)
        keyframes = keyframes[keyframes < start]
        shift = int(sequence.stamps[start] - BEFORE - sequence.stamps[start - 1])
        closed = []
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, name) for name in ("one.db", "other.db")]
            for path, part in zip(paths, (keyframes[::2], keyframes[1::2]), strict=True):
                database = KeyframeDatabase(path, "", network.words, grids=network.card.grids)
                self._remember(database, part.tolist(), shift, config)
                database.close()
            for some in ([paths[0]], [paths[1]], paths):
                recognizer = self._recognizer(config)
                recognizer.database = KeyframeDatabase(None, "", network.words, some, network.card.grids)
                found = set()
                for index, stamp in enumerate(sequence.stamps[start:].tolist(), start):
                    with contextlib.suppress(StampError):
                        closures = self._recognize(recognizer, index, stamp).verdict.closures
                        if any(closure.match.session < closure.query.session for closure in closures):
                            found.add(index)
                recognizer.close()
                closed.append(found)
        one, other, both = closed
        return EarlierMaps(len(one), len(other), len(one | other), len(both))

    def _remember(self, database: KeyframeDatabase, images: list[int], shift: int, config: Config) -> dict[int, int]:
        """Make keyframes of images, their stamps moved by `shift` (nanoseconds); return the images by keyframe id."""
        index_of = {}
        closer = LoopCloser(self._verify)
        for index in images:
            keyframe = database.next_keyframe(
                int(self.sequence.stamps[index]) + shift, self._descriptions[index].descriptor,
                self.features(index, self.local_features) if config.verify else None,
            )  # fmt: skip
            database.add(kept(closer.follow(keyframe, self.sequence.camera)))
            index_of[keyframe.id] = index
        return index_of

    def against(self, other: Drive, config: Config) -> Trials:
        """Hold this drive against a map of `other`, which is of another place: every closure into that map is false."""
        database = KeyframeDatabase(None, "", self.network.words, grids=self.network.card.grids)
        shift = int(self.sequence.stamps[0] - BEFORE - other.sequence.stamps[-1])
        index_of = other._remember(database, other.keyframes(config).tolist(), shift, config)
        database.new_session()
        recognizer = self._recognizer(config)
        recognizer.database = database
        trials, closures = 0, []
        for index, stamp in enumerate(self.sequence.stamps.tolist()):
            try:
                recognition = self._recognize(recognizer, index, stamp)
            except StampError:
                continue
            trials += recognition.keyframe is not None
            closures += [
                (index, index_of[closure.match.id], closure.inliers)
                for closure in recognition.verdict.closures
                if closure.match.id in index_of
            ]
        return Trials(self.sequence.name, other.sequence.name, trials, closures)

    def precision_recall(self) -> PrecisionRecall:
        """Return precision and recall over the parameter `min_score`; where nothing is closed there is no point."""
        scores = tqdm(MIN_SCORES, desc="min_score", leave=False, file=sys.stderr)
        points = []
        for score in scores:
            stage = self.through(self.config.replace(min_score=score))
            if stage.precision is not None and stage.recall is not None:
                points.append((score, stage.precision, stage.recall))
        return PrecisionRecall(*np.array(points, np.float64).reshape(-1, 3).T)

    def keyframes(self, config: Config) -> NDArray[np.int64]:
        """Return the images [K] that become keyframes with the parameters of `config`."""
        if config not in self._keyframes:
            self._keyframes[config] = self.through(config).keyframes
        return self._keyframes[config]

    def _recognizer(self, config: Config) -> PlaceRecognizer:
        closer = LoopCloser(self._verify, clock=lambda: 0.0)
        recognizer = PlaceRecognizer(config, self.network, closer, self.local_features)
        recognizer.camera = self.sequence.camera
        return recognizer

    def _recognize(self, recognizer: PlaceRecognizer, index: int, stamp: int, with_depth: bool = False) -> Recognition:
        features, depths = functools.partial(self.features, index), self.sequence.depths
        depth = functools.partial(depths.__getitem__, index) if with_depth and depths is not None else None
        return recognizer.recognize(lambda: self._descriptions[index], stamp, features, depth=depth)

    def _verify(
        self,
        query: Features,
        match: Features,
        camera: Camera | None,
        match_camera: Camera | None,
        pairs: Pairs,
        least: float,
    ) -> Verification:
        # Not by their ids: a map keeps copies with fewer features, which go with it.
        pair = _fingerprint(query), _fingerprint(match), least
        if pair not in self._verified:
            self._verified[pair] = verify(query, match, camera, match_camera, pairs, least)
        return self._verified[pair]


def _without_depth(recognition: Recognition) -> list[LoopConstraint]:
    """Return the relative poses that closures which have depths would have without; nothing where none has any."""
    closures = []
    for closure in recognition.verdict.closures:
        views = closure.views
        if views is not None and (recognition.depth is not None or views.theirs.depths is not None):
            ours, theirs = views.ours._replace(depths=None), views.theirs._replace(depths=None)
            closures.append(dataclasses.replace(closure, views=views._replace(ours=ours, theirs=theirs)))
    return dataclasses.replace(recognition, verdict=Verdict(closures), depth=None).constraints()


def _fingerprint(features: Features) -> bytes:
    return hashlib.blake2b(features.to_bytes(), digest_size=16).digest()


MOST_SAMPLED = 2000
"""Rows of similarities of which the median is taken."""


class Trials(NamedTuple):
    """A drive that was held against a map of another place."""

    drive: str
    map: str
    keyframes: int  # of the drive, each of which was a trial
    closures: list[tuple[int, int, int]]  # query, match (an image of the map's drive) and inliers: all are false


class _SimilarityDatabase(KeyframeDatabase):
    """Keyframes whose similarities [N,N] are known; a similarity s of N bits stands as the distance N (1 - s) / 2.

    They are taken less the first number of `scale`, over the second. Above KNEE distances come closer and closer to 0,
    since of two similarities above 1 the higher one is to be nearer.
    """

    KNEE = 0.9

    def __init__(
        self, similarities: Similarities, scale: tuple[float, float], stamps: NDArray[np.int64], words: int
    ) -> None:
        super().__init__(None, "", words)
        self._similarities = similarities
        self._scale = scale
        self._stamps = stamps  # [N], of the images
        self._bits = words * WORD_BITS
        self._query = 0

    def next_keyframe(
        self, stamp: int, descriptor: Descriptor, features: Features | None = None, thumbnail: bytes | None = None
    ) -> Keyframe:
        """Return the keyframe of the image at `stamp`, about which `distances` is asked next."""
        self._query = int(self._stamps.searchsorted(stamp))
        return super().next_keyframe(stamp, descriptor, features, thumbnail)

    def distances(self, views: NDArray[np.uint64]) -> NDArray[np.uint32]:  # noqa: ARG002 - the query is known
        """Return the distances [K] of the newest keyframe; its descriptor is not looked at."""
        others = self._stamps.searchsorted(self.stamps)
        usual, spread = self._scale
        row = self._similarities.rows(self._query, self._query + 1)[0, others].astype(np.float64)
        similarities = (row - usual) / spread
        above = (np.maximum(similarities, self.KNEE) - self.KNEE) / (1 - self.KNEE)
        similarities = np.where(above > 0, 1 - (1 - self.KNEE) / (1 + above), similarities)
        distances = np.round(self._bits * (1 - similarities) / 2)
        return np.clip(distances, 0, self._bits).astype(np.uint32)
