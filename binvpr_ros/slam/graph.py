# SPDX-License-Identifier: Apache-2.0
"""PoseGraph: keyframes by odometry and loop constraints in, their poses in one map out."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.loop_constraint import LoopConstraint
from binvpr_ros.maps.errors import first_line
from binvpr_ros.slam.consistency import GATE, Constraints, Ends, beside_each_other, beside_odometry, outvoted, squared
from binvpr_ros.slam.file import ConstraintRow, GraphFile, GraphFileError, KeyframeRow
from binvpr_ros.slam.poses import Transform, adjoints, carried, differences, inverse, measured
from binvpr_ros.slam.solver import CAUCHY, Factor, Knowledge, Solver

TREMBLE = np.deg2rad(0.05), 0.002
"""Radians and metres of noise in each step: of a robot at rest too, whose keyframes lie between two measurements."""
LEAST_SHARE, MOST_SHARE = 0.001, 1.0
"""Shares of a step between which the deviation that odometry tells of it is credible."""
LEAST_EIGENVALUE = 1e-9
"""By which a covariance may fail to be positive semidefinite: it is the difference of two."""
VOID = 1e3
"""Metres: the deviation of what is not known."""
SHORTEST_DISTANCE = 0.5
"""Metres between two cameras, below which the noise of a direction does not shrink: estimates are no better."""
LEAST_SURE = 0.5
"""Radians: a direction whose deviation is larger tells nothing. Errors of that size are not normal in its tangent, and
views from one spot have them: many would pull a route about that odometry has right."""
MOST_COMPARED = 200
"""Constraints that a new one is held against: farther along the route odometry says too little, and work is bounded."""
TYING = 2
"""Constraints that must agree before they tie a session to the map: one by itself nothing could contradict."""


class Fate(enum.Enum):
    """What became of a constraint."""

    USED = "used"
    ODOMETRY = "contradicts_odometry"
    OTHERS = "contradicts_others"
    GRAPH = "contradicts_graph"  # all the others together: the robust solver leaves it next to no weight
    WAITING = "waits_for_session"  # for another that agrees on where its session is in the map
    UNKNOWN = "unknown_keyframe"


REFUSALS = (Fate.ODOMETRY, Fate.OTHERS, Fate.GRAPH)


@dataclass(frozen=True)
class OdometryNoise:
    """By how much odometry may be off, which is two standard deviations."""

    drift: float  # share of the way, and of the turn
    turn: float  # degrees for each metre of the way

    def of_step(self, motion: Transform, told: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the covariance [6,6] of the motion [4,4] between two keyframes, `told` by odometry, or by a rule."""
        way = float(np.linalg.norm(motion[:3, 3]))
        turn = float(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1.0, 1.0)))
        least = np.repeat(np.square(TREMBLE), 3)
        if told is not None:
            return told + np.diag(least)
        drift, turning = self.drift / 2, np.deg2rad(self.turn) / 2
        # Errors of a metre are taken as one: the square root of so many metres is as many deviations.
        return np.diag(least + np.repeat([turning**2 * way + (drift * turn) ** 2, drift**2 * way], 3))


class Refused(NamedTuple):
    """A constraint that is refused, and those that it contradicts."""

    constraint: LoopConstraint
    fate: Fate
    against: tuple[LoopConstraint, ...]


class Report(NamedTuple):
    """What has become of all constraints."""

    counts: Counter[Fate]
    refused: list[Refused]


class Placed(NamedTuple):
    """A keyframe with its pose [4,4] in the map; `number` counts all keyframes of the graph."""

    number: int
    session: int
    stamp: int
    pose: Transform


class _Judgement(NamedTuple):
    """What a constraint says, [4,4] and [6,6], and what it contradicts."""

    motion: Transform
    covariance: NDArray[np.float64]
    travelled: tuple[float, float]  # metres to query and match
    contradicts_odometry: bool
    against: list[int]  # other constraints, by their numbers


class _Keyframes:
    """What consistency needs of all keyframes, in arrays that grow."""

    def __init__(self) -> None:
        self.count = 0
        self._poses, self._noise, self._travelled = np.empty((64, 4, 4)), np.empty((64, 6, 6)), np.empty(64)

    def add(self, pose: Transform, noise: NDArray[np.float64], travelled: float) -> None:
        if self.count == len(self._travelled):
            self._poses, self._noise, self._travelled = (
                np.concatenate([some, np.empty_like(some)]) for some in (self._poses, self._noise, self._travelled)
            )
        self._poses[self.count], self._noise[self.count], self._travelled[self.count] = pose, noise, travelled
        self.count += 1

    def ends(self, chosen: NDArray[np.int64]) -> Ends:
        return Ends(self._poses[chosen], self._noise[chosen], self._travelled[chosen])


class PoseGraph:
    """Keyframes of one camera in sessions, each with an odometry that starts anywhere; the first one's is the map's.

    Poses are those of the camera: in the frame of its session's odometry, or in the map's. Keeps what it is told in the
    file at `path`, None for memory only; raises GraphFileError. Not for several threads at a time.
    """

    def __init__(self, path: Path | None, noise: OdometryNoise) -> None:
        self._noise = noise
        self._file = None if path is None else GraphFile(path)
        self._starts: list[Transform] = []  # of each session: its odometry's frame in the map, guessed when it began
        self._begun: tuple[Transform, Transform] | None = None  # the same of one without keyframes yet, and its pose
        self._rows: list[KeyframeRow] = []
        self._steps: list[Factor | None] = []  # from the keyframe before each; None where a session begins
        self._keyframes = _Keyframes()
        self._by_stamp: dict[int, list[int]] = {}
        self._constraints: list[ConstraintRow] = []
        self._motions: list[Transform] = []
        self._covariances: list[NDArray[np.float64]] = []
        self._travelled: list[tuple[float, float]] = []  # metres to query and match
        self._groups: dict[tuple[int, int], list[int]] = {}  # constraints by the sessions of query and match
        self._beside_odometry: set[int] = set()  # constraints that contradict it
        self._contradictions: dict[int, set[int]] = {}
        self._outvoted: set[int] = set()
        self._tied: set[int] = set()  # sessions
        self._used: set[int] = set()  # constraints
        self._solver = Solver()
        self.unknown = 0  # constraints whose keyframes are not known
        if path is not None and self._file is not None:
            try:
                self._resume(self._file)
            except GraphFileError:
                self._file.close()
                raise
            except (RuntimeError, ValueError) as error:  # of GTSAM and NumPy: numbers that nobody has measured
                self._file.close()
                raise GraphFileError(
                    f"{path} cannot be solved ({first_line(error)}); restore a copy of the file, or name a new one"
                ) from None

    def _resume(self, file: GraphFile) -> None:
        sessions, keyframes, constraints = file.read()
        self._starts = sessions
        for row in keyframes:
            self._remember(row)
        for constraint in constraints:
            self._take(constraint, self._judged(constraint))
        self._tied, self._used = self._standing()
        if self._rows:
            self._solver = Solver.of(self._knowledge())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    @property
    def session(self) -> int:
        """The number of the present session; -1 before the first."""
        return len(self._starts) - (self._begun is None)

    @property
    def counts(self) -> Counter[Fate]:
        """How many constraints met which fate."""
        return self.report().counts

    @property
    def size(self) -> int:
        """How many keyframes there are."""
        return len(self._rows)

    @property
    def is_tied(self) -> bool:
        """Whether it is known where the present session is in the map."""
        return self.session in self._tied

    @property
    def correction(self) -> Transform:
        """The pose [4,4] of the present odometry's frame in the map."""
        if self._begun is not None:
            return self._begun[0]
        if self.is_tied:
            newest = len(self._rows) - 1
            return self._solver.pose(newest) @ inverse(self._rows[newest].pose)
        return self._starts[-1] if self._starts else np.eye(4)

    def begin(self, pose: Transform, before: Transform | None = None) -> None:
        """Begin a session, whose odometry has the camera at `pose` [4,4]; `before` is where that of the last had it.

        Until constraints tie it to the map, the robot is taken to be where the last session ended. The file keeps a
        session from its first keyframe on.
        """
        last = before
        if last is None and self._begun is not None:
            last = self._begun[1]
        elif last is None and self._rows and self._rows[-1].session == self.session:
            last = self._rows[-1].pose
        start = self.correction if last is None or self.session < 0 else self.correction @ last @ inverse(pose)
        self._begun = start, pose

    def add(self, stamp: int, pose: Transform, covariance: NDArray[np.float64] | None = None) -> bool:
        """Add a keyframe at `stamp` (nanoseconds), whose camera is at `pose` [4,4] by odometry; False if it is late.

        `covariance` [6,6] is that of the step from the keyframe before (poses.py), where odometry tells it.
        """
        if self.session < 0:
            raise ValueError("no session has begun; begin one before its keyframes")
        before = self._rows[-1] if self._rows and self._rows[-1].session == self.session else None
        if before is not None and stamp <= before.stamp:
            return False
        if covariance is not None and not _credible(covariance, inverse(before.pose) @ pose if before else None):
            covariance = None
        row = KeyframeRow(self.session, stamp, pose, covariance)
        start = None if self._begun is None else self._begun[0]
        if self._file is not None:
            self._file.add_keyframe(row, len(self._rows), start)
        if start is not None:
            self._starts.append(start)
            self._begun = None
        self._remember(row)
        newest = len(self._rows) - 1
        step = self._steps[newest]
        if step is None:
            if newest == 0:
                self._tied.add(self.session)
                self._solver.add(Knowledge({newest: self._starts[-1] @ pose}, anchor=newest))
        elif self.session in self._tied:
            self._solver.add(Knowledge({newest: self._solver.pose(newest - 1) @ step.motion}, [step]))
        return True

    def _remember(self, row: KeyframeRow) -> None:
        number = len(self._rows)
        self._rows.append(row)
        self._by_stamp.setdefault(row.stamp, []).append(number)
        if number and self._rows[number - 1].session == row.session:
            before = self._keyframes.ends(np.array([number - 1]))
            motion = inverse(self._rows[number - 1].pose) @ row.pose
            step = Factor(number - 1, number, motion, self._noise.of_step(motion, row.covariance))
            self._steps.append(step)
            pose = before.poses[0] @ step.motion
            noise = before.noise[0] + carried(step.covariance, adjoints(pose))
            travelled = before.travelled[0] + float(np.linalg.norm(step.motion[:3, 3]))
            self._keyframes.add(pose, noise, travelled)
        else:
            self._steps.append(None)
            self._keyframes.add(np.eye(4), np.zeros((6, 6)), 0.0)

    def knows(self, stamp: int) -> bool:
        """Tell whether there is a keyframe of that stamp."""
        return stamp in self._by_stamp

    def constrain(self, constraint: LoopConstraint) -> Fate:
        """Take a loop constraint, and return what became of it; that may change as others come."""
        ends = self._ends_of(constraint)
        if ends is None:
            self.unknown += 1
            return Fate.UNKNOWN
        distance = None if constraint.pose.scale_known else self._distance(*ends, constraint)
        row = ConstraintRow(*ends, constraint, distance)
        judgement = self._judged(row)  # before it is kept: what cannot be judged would be in every later start's way
        if self._file is not None:
            self._file.add_constraint(row)
        self._take(row, judgement)
        self._decide()
        return self.fate(len(self._constraints) - 1)

    def _ends_of(self, constraint: LoopConstraint) -> tuple[int, int] | None:
        """Return the numbers of a constraint's keyframes; None where one is not known.

        Stamps may come twice, of a bag that is played again; the image, and so the place, is then the same.
        """
        query = self._by_stamp.get(constraint.query_stamp, [-1])[-1]
        matches = [number for number in self._by_stamp.get(constraint.match_stamp, ()) if number != query]
        if query < 0 or not matches:
            return None
        if constraint.match_session != constraint.query_session:
            matches = [one for one in matches if self._rows[one].session != self._rows[query].session] or matches
        return query, matches[-1]

    def _distance(self, query: int, match: int, constraint: LoopConstraint) -> float | None:
        """Return how far, in metres, the query's camera is in the direction of a constraint; None where unknown."""
        sessions = {self._rows[number].session for number in (query, match)}
        if sessions <= self._tied:
            there, here = self._solver.pose(match), self._solver.pose(query)
        elif len(sessions) == 1:
            there, here = self._rows[match].pose, self._rows[query].pose
        else:
            return None
        return float(constraint.pose.translation @ (inverse(there) @ here)[:3, 3])

    def _judged(self, row: ConstraintRow) -> _Judgement:
        """Hold a constraint against odometry, and against all others between the same sessions."""
        motion, covariance = measured(row.constraint.pose)
        if not row.constraint.pose.scale_known:
            motion, covariance = _with_distance(motion, covariance, row.distance)
        query, match = (self._keyframes.ends(np.array([number])) for number in (row.query, row.match))
        own = Constraints(query, match, motion[None], covariance[None])
        travelled = float(query.travelled[0]), float(match.travelled[0])
        sessions = self._sessions_of(row)
        against: list[int] = []
        contradicts_odometry = sessions[0] == sessions[1] and bool(beside_odometry(own)[0] > GATE)
        if not contradicts_odometry and (group := self._groups.get(sessions)):
            near = self._nearest(travelled, np.array(group))
            against = near[beside_each_other(own, self._stacked(near.tolist())) > GATE].tolist()
        return _Judgement(motion, covariance, travelled, contradicts_odometry, against)

    def _take(self, row: ConstraintRow, judgement: _Judgement) -> None:
        """Remember a constraint, and what it contradicts."""
        number = len(self._constraints)
        self._constraints.append(row)
        self._motions.append(judgement.motion)
        self._covariances.append(judgement.covariance)
        self._travelled.append(judgement.travelled)
        if judgement.contradicts_odometry:
            self._beside_odometry.add(number)
            return
        for other in judgement.against:
            self._contradictions.setdefault(number, set()).add(other)
            self._contradictions.setdefault(other, set()).add(number)
        if judgement.against:
            self._outvoted = outvoted(self._contradictions)
        self._groups.setdefault(self._sessions_of(row), []).append(number)

    def _sessions_of(self, row: ConstraintRow) -> tuple[int, int]:
        return self._rows[row.query].session, self._rows[row.match].session

    def _nearest(self, travelled: tuple[float, float], others: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the MOST_COMPARED constraints of `others` that are the nearest to one along the route."""
        if len(others) <= MOST_COMPARED:
            return others
        ways = np.abs(np.array(self._travelled)[others] - travelled).sum(axis=1)
        return np.sort(others[np.argpartition(ways, MOST_COMPARED)[:MOST_COMPARED]])

    def _stacked(self, numbers: list[int]) -> Constraints:
        queries, matches = (
            self._keyframes.ends(np.array([getattr(self._constraints[number], end) for number in numbers]))
            for end in ("query", "match")
        )
        motions, covariances = (
            np.stack([some[number] for number in numbers]) for some in (self._motions, self._covariances)
        )
        return Constraints(queries, matches, motions, covariances)

    def _decide(self) -> None:
        """Use all constraints that stand, and the sessions that they tie to the map."""
        before, (tied, used) = (self._tied, self._used), self._standing()
        self._tied, self._used = tied, used
        new_sessions, new = tied - before[0], sorted(used - before[1])
        if not (tied >= before[0] and used >= before[1]) or len(new_sessions) > 1:
            self._solver = Solver.of(self._knowledge())
            return
        guesses: dict[int, Transform] = {}
        steps: list[Factor] = []
        for session in new_sessions:
            start = self._start(session, new)
            numbers = self._of_session(session)
            guesses = {number: start @ self._rows[number].pose for number in numbers}
            steps = [step for number in numbers if (step := self._steps[number])]
        if new:
            self._solver.add(Knowledge(guesses, steps, [self._loop(number) for number in new]))

    def _standing(self) -> tuple[set[int], set[int]]:
        """Return the sessions that are tied to the map, and the constraints that are used."""
        standing = {
            sessions: [number for number in group if number not in self._outvoted]
            for sessions, group in self._groups.items()
        }
        ties = {
            sessions for sessions, some in standing.items()
            if len({self._constraints[one].query for one in some if self._constraints[one].constraint.pose.scale_known})
            >= TYING
        }  # fmt: skip
        tied = {self._rows[0].session} if self._rows else set()
        while new := [sessions for sessions in ties if len(tied & set(sessions)) == 1 and len(set(sessions)) == 2]:
            tied.update(*new)
        used = {number for sessions, some in standing.items() if tied.issuperset(sessions) for number in some}
        return tied, {number for number in used if self._has_scale(number)}

    def _has_scale(self, number: int) -> bool:
        row = self._constraints[number]
        return row.constraint.pose.scale_known or row.distance is not None

    def _start(self, session: int, constraints: list[int]) -> Transform:
        """Return where the odometry's frame of a session is in the map, by the first of the constraints with one."""
        for number in constraints:
            row, motion = self._constraints[number], self._motions[number]
            query, match = self._rows[row.query], self._rows[row.match]
            if query.session != match.session and row.constraint.pose.scale_known:
                if query.session == session:
                    return self._solver.pose(row.match) @ motion @ inverse(query.pose)
                return self._solver.pose(row.query) @ inverse(motion) @ inverse(match.pose)
        return self._starts[session]

    def _of_session(self, session: int) -> list[int]:
        return [number for number, row in enumerate(self._rows) if row.session == session]

    def _loop(self, number: int) -> Factor:
        row = self._constraints[number]
        return Factor(row.match, row.query, self._motions[number], self._covariances[number])

    def _knowledge(self) -> Knowledge:
        """Return all that is used, with guesses by constraints where there are any, and by odometry between them."""
        numbers = [number for number, row in enumerate(self._rows) if row.session in self._tied]
        loops = [self._loop(number) for number in sorted(self._used)]
        steps = [step for number in numbers if (step := self._steps[number])]
        return Knowledge(self._guesses(numbers), steps, loops, anchor=numbers[0])

    def _guesses(self, numbers: list[int]) -> dict[int, Transform]:
        to_others: dict[int, list[tuple[int, Transform]]] = {}
        for number in sorted(self._used):
            row, motion = self._constraints[number], self._motions[number]
            if row.constraint.pose.scale_known:
                to_others.setdefault(row.query, []).append((row.match, motion))
                to_others.setdefault(row.match, []).append((row.query, inverse(motion)))
        first = self._rows[numbers[0]]
        guesses = {numbers[0]: self._starts[first.session] @ first.pose}
        placed = 0
        while placed < len(guesses):  # the sessions in turn, as they are tied
            placed = len(guesses)
            for number in numbers:
                near = [(other, motion) for other, motion in to_others.get(number, ()) if other in guesses]
                if number in guesses:
                    continue
                if near:
                    guesses[number] = guesses[near[0][0]] @ near[0][1]
                elif (step := self._steps[number]) and step.start in guesses:
                    guesses[number] = guesses[step.start] @ step.motion
            for number in reversed(numbers):
                if (step := self._steps[number]) and number in guesses and step.start not in guesses:
                    guesses[step.start] = guesses[number] @ inverse(step.motion)
        return guesses

    def settle(self) -> None:
        """Optimise until nothing changes any more; it takes a second for each 10,000 keyframes."""
        self._solver.settle()

    def placed(self) -> list[Placed]:
        """Return all keyframes that are tied to the map, in the order in which they came, with their poses."""
        poses = self._solver.poses()
        return [
            Placed(number, self._rows[number].session, self._rows[number].stamp, pose) for number, pose in poses.items()
        ]

    def fate(self, number: int) -> Fate:
        """Return what has become of the constraint that came as number `number`."""
        if number in self._used:
            return Fate.USED
        if number in self._beside_odometry:
            return Fate.ODOMETRY
        return Fate.OTHERS if number in self._outvoted else Fate.WAITING

    def refused(self) -> list[Refused]:
        """Return the constraints that are refused, with those that they contradict."""
        return self.report().refused

    def report(self) -> Report:
        """Return what has become of all constraints; it takes some milliseconds for each thousand keyframes."""
        outliers = self._outliers()
        fates = [Fate.GRAPH if number in outliers else self.fate(number) for number in range(len(self._constraints))]
        counts = Counter(fates)
        counts[Fate.UNKNOWN] = self.unknown
        refused = [
            Refused(
                self._constraints[number].constraint,
                fate,
                tuple(self._constraints[other].constraint for other in sorted(self._contradictions.get(number, ()))),
            )
            for number, fate in enumerate(fates)
            if fate in REFUSALS
        ]
        return Report(counts, refused)

    def _outliers(self) -> set[int]:
        """Return the constraints that are used, and far from what all that is used says together."""
        numbers = sorted(self._used)
        if not numbers:
            return set()
        poses = self._solver.poses()
        ends = [(self._constraints[number].match, self._constraints[number].query) for number in numbers]
        there, here = (np.stack([poses[pair[end]] for pair in ends]) for end in (0, 1))
        motions, covariances = (np.stack([some[one] for one in numbers]) for some in (self._motions, self._covariances))
        errors = differences(inverse(motions) @ inverse(there) @ here)
        return {
            number for number, far in zip(numbers, squared(errors, covariances) > (2 * CAUCHY) ** 2, strict=True) if far
        }

    def factors(self) -> tuple[list[Factor], list[Factor]]:
        """Return what is used: the steps of odometry, and the loops, between the keyframes by their numbers."""
        if not self._rows:
            return [], []
        knowledge = self._knowledge()
        return list(knowledge.steps), list(knowledge.loops)


def _credible(covariance: NDArray[np.float64], motion: Transform | None) -> bool:
    """Tell whether what odometry says of the noise of a step may be true: drivers often fill in constants."""
    if motion is None or not np.isfinite(covariance).all():
        return False
    values = np.linalg.eigvalsh(covariance / 2 + covariance.T / 2)  # the sum of two finite numbers may not be finite
    way = float(np.linalg.norm(motion[:3, 3]))
    deviation = float(np.sqrt(max(np.trace(covariance[3:, 3:]), 0.0)))
    return bool(values[0] > -LEAST_EIGENVALUE and LEAST_SHARE * way <= deviation <= MOST_SHARE * way)


def _with_distance(
    motion: Transform, covariance: NDArray[np.float64], distance: float | None
) -> tuple[Transform, NDArray[np.float64]]:
    """Return a motion whose translation is a direction, and its covariance, with the estimated distance (metres).

    Across the direction the noise is that of the direction, at this distance, where it is known to LEAST_SURE; along it
    nothing is known. Where the query's camera is estimated to be behind instead, it is taken to be near.
    """
    known = 0.0 if distance is None else distance
    along = motion[:3, :3].T @ motion[:3, 3]  # in the query's axes
    variances, axes = np.linalg.eigh(covariance[3:, 3:])
    unsure = axes[:, variances > LEAST_SURE**2]
    scale = np.eye(6)
    scale[3:, 3:] -= unsure @ unsure.T
    scale[3:, 3:] *= max(abs(known), SHORTEST_DISTANCE)
    covariance = carried(covariance, scale)
    deviation = VOID if known > 0 or distance is None else max(-known, SHORTEST_DISTANCE)
    covariance[3:, 3:] += deviation**2 * np.outer(along, along) + VOID**2 * unsure @ unsure.T
    motion = motion.copy()
    motion[:3, 3] *= max(known, 0.0)
    return motion, covariance
