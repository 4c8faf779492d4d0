# SPDX-License-Identifier: Apache-2.0
"""Fleet: a robot's keyframes in the map of its fleet, and the loops that it closes to what the others have seen.

The decision is that of the robot's own map (loop_closure.py), over what the fleet's map has like the query. It comes a
moment after the own one, in a thread of its own, so that recognition never waits for a server.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from binvpr_ros.config import Config
from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.keyframes import Keyframe
from binvpr_ros.local_features.features import Features
from binvpr_ros.loop_closure import LoopCloser, LoopClosure, Refusal, Refused, Verdict
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.fleet.found import OWN, FoundKeyframes, OwnKeyframes, is_own, whole_id
from binvpr_ros.maps.fleet.link import Link, OwnClosure, Robot, Settings, Status
from binvpr_ros.maps.fleet.mirror import Nearest
from binvpr_ros.maps.source import OtherClosure
from binvpr_ros.maps.store import MOST_KEYFRAMES
from binvpr_ros.network.hamming import WORD_BITS, hamming
from binvpr_ros.recognizer import PlaceRecognizer, Recognition

VERIFICATION_TIME = 2.0
"""Seconds, at the least, for the verifications of a keyframe, whose features come over a network."""
CUT_SCORE = 0.8
"""Of the best score: where the last keyframe that a search returned still has it, others may be as good."""
MOST_CANDIDATES = int(Config.bounds("max_candidates")[1])


Publish = Callable[[list[FleetClosure]], None]


class Fleet(Robot):
    """Keeps a recognizer's map and that of its fleet in step; `publish` gets the closures of a keyframe, best first.

    It is called from a thread of its own; `offer`, `status` and `close` may be called from any.
    """

    def __init__(self, recognizer: PlaceRecognizer, publish: Publish) -> None:
        self._recognizer, self._publish = recognizer, publish
        self._live, self._late = LoopCloser(), LoopCloser()  # each sees keyframes in their order
        self._lock = threading.Lock()
        self._closed = 0
        self._refused: Counter[Refusal] = Counter()
        self._warning = ""
        config, card = recognizer.config, recognizer.network.card
        self._link = Link(
            Settings(
                config.fleet,
                config.fleet_site,
                Path(config.database),
                card.sha256,
                recognizer.network.words,
                card.grids,
            ),
            self,
        )
        self._link.start()

    def offer(self, recognition: Recognition) -> None:
        """Take what became of an image; returns at once."""
        if recognition.keyframe is not None and not recognition.failure:
            self._link.offer(self._recognizer.database.in_file(recognition.keyframe))

    @property
    def status(self) -> Status:
        """How the link to the server is."""
        return self._link.status

    @property
    def counts(self) -> tuple[int, Counter[Refusal]]:
        """How many closures there were, and how many places of other maps were refused, by reason."""
        with self._lock:
            return self._closed, self._refused.copy()

    @property
    def warning(self) -> str:
        """Return what kept closures from being found; "" for nothing."""
        return self._warning

    def close(self) -> None:
        """Stop; what is not sent yet is sent next time."""
        self._link.close()

    def shift_cells(self) -> int:
        """Return the parameter of this name."""
        return self._recognizer.config.shift_cells

    def fork(self, reason: str) -> None:
        """Give the map a new uuid: the server has another map under the one that it has."""
        self._warning = f"this map is a copy that went its own way ({reason}); it goes on as a map of its own"
        self._recognizer.renew()

    def decide(self, query: Keyframe, found: FoundKeyframes, nearest: Nearest, *, live: bool) -> list[OwnClosure]:
        """Decide and publish the closures of a query with what was found; return them, best first."""
        config = self._recognizer.config.replace(
            max_candidates=MOST_CANDIDATES,  # of which the own map's are left out
            verification_time=max(self._recognizer.config.verification_time, VERIFICATION_TIME),
        )
        in_file = query.id % MOST_KEYFRAMES
        number, session = self._recognizer.database.numbered(in_file, query.session % MOST_KEYFRAMES)
        # By the ids of all maps that the recognizer has: with those of earlier drives, it closes loops to them too.
        query = dataclasses.replace(query, id=whole_id(OWN, number), session=whole_id(OWN, session))
        camera = self._recognizer.camera
        if not live:
            own = Keyframe(number, session, query.stamp, query.descriptor)
            sure = self._recognizer.database.calibration_is_sure(own)
            camera = self._recognizer.database.camera_of(own) if sure else None

        def like(theirs: Features) -> Features | None:
            if query.features is not None and query.features.tag == theirs.tag:
                return query.features
            self._warning = (
                "maps of the fleet have local features of another kind, so nothing verifies there; let all robots have "
                "the same local_features"
            )
            return None

        # What the own map knows of the place counts as it does in one map of all: a better match there, and a rival.
        found = found.beside(self._own_before(number), query, config.shift_cells)
        if not found.foreign:
            return []
        closer = self._live if live else self._late
        verdict = _of_others(closer.decide(query, found, config, camera, like), self._recognizer.config.max_candidates)
        if _is_cut_short(verdict, nearest, query.descriptor.size * WORD_BITS):
            refused = [Refused(Refusal.AMBIGUOUS, one.match, one.score) for one in verdict.closures]
            verdict = Verdict([], refused + verdict.refused)
        poses = {one.match_id: one.pose for one in Recognition(query, verdict).constraints()}
        closures = []
        for one in verdict.closures:
            whose, match, match_session = found.origin(one.match)
            closures.append(
                FleetClosure(
                    number, session, query.stamp, whose.robot, whose.identity.uuid, match, match_session,
                    one.match.stamp, whose.robot != self._link.robot, one.hamming, one.score, one.inliers,
                    poses.get(one.match.id),
                )
            )  # fmt: skip
        with self._lock:
            self._closed += len(closures)
            self._refused.update(one.reason for one in verdict.refused)
        if closures:
            self._remember(OtherClosure(in_file, closures[0].map_uuid, closures[0].match_id))
            self._publish(closures)
        return [OwnClosure(in_file, one.map_uuid, one.match_id, one.inliers) for one in closures]

    def _own_before(self, number: int) -> OwnKeyframes:
        """Return the own map, and what of it is matched with the keyframe of this id."""
        recognizer, database = self._recognizer, self._recognizer.database
        keyframes, matched = recognizer.matched_before(number)
        return OwnKeyframes(
            keyframes, matched, database.maps, lambda one: recognizer.kept_of(one)[0], database.camera_of,
            database.calibration_is_sure,
        )  # fmt: skip

    def _remember(self, closure: OtherClosure) -> None:
        try:
            self._recognizer.remember(closure)
        except DatabaseError as error:
            self._warning = f"a closure is not kept: {error}"


def _of_others(verdict: Verdict, most: int) -> Verdict:
    """Return what a verdict says of others' maps; closures to the query's own image, which a copy has too, are none.

    Those of one map remain, that of the best: another map may hold a double of the place, of which its robot knows
    nothing.
    """
    closures = [one for one in verdict.closures if not is_own(one.match) and not _is_copy(one)]
    closures = [one for one in closures if one.match.id // MOST_KEYFRAMES == closures[0].match.id // MOST_KEYFRAMES]
    refused = [one for one in verdict.refused if one.match is None or not is_own(one.match)]
    return Verdict(closures[:most], refused)


def _is_copy(closure: LoopClosure) -> bool:
    one, other = closure.query, closure.match
    return one.stamp == other.stamp and not hamming(one.descriptor, other.descriptor)


def _is_cut_short(verdict: Verdict, nearest: Nearest, bits: int) -> bool:
    """Tell whether keyframes that a search left out may be as good as the best that it returned."""
    if nearest.last is None or not verdict.closures or not len(nearest.typical):
        return False
    similarity = [1 - 2 * bits_apart / bits for bits_apart in (
        nearest.last, min(one.hamming for one in verdict.closures), float(np.median(nearest.typical))
    )]  # fmt: skip
    last, best, others = similarity
    others = min(others, LoopCloser.LEAST_NEIGHBOUR_SIMILARITY / 2)
    return last - others >= CUT_SCORE * (best - others)
