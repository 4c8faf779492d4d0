# SPDX-License-Identifier: Apache-2.0
"""The route with its loop closures, for people to look at: keyframes, placed by an odometry."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from binvpr_ros.keyframes import NANOSECONDS, Keyframe

Position = tuple[float, float, float]
"""x, y and z in metres."""
Orientation = tuple[float, float, float, float]
"""x, y, z and w of a quaternion."""

MOST_KEYFRAMES = 10_000
"""Latest keyframes that are shown: a message of twice as many points takes a tenth of a second of a processor."""
MOST_ODOMETRY = 4096
"""Latest odometry that is kept: 20 s at 200 Hz. A back end may name a keyframe a while after it was seen."""
MOST_WAITING = 256
LONGEST_GAP = 2 * NANOSECONDS
"""Between two odometry messages, over which a keyframe's position is interpolated."""
SHORTEST_RESTART = 1 * NANOSECONDS
FEWEST_RESTART = 4
"""Time and number of messages for which odometry must continue from an earlier stamp to count as a restarted bag."""


class Drawing(NamedTuple):
    """What there is to draw, in the odometry's frame."""

    frame: str
    routes: dict[int, list[Position]]  # of each session, its keyframes in order
    closures: list[tuple[Position, Position]]  # from a keyframe to the one whose place it shows


class _Node(NamedTuple):
    """A keyframe, and the ids of those whose place it was found to show."""

    id: int
    session: int
    stamp: int
    closes: tuple[int, ...]


class Graph:
    """Places keyframes by odometry, and remembers the latest MOST_KEYFRAMES. Its methods may be called from any thread.

    A keyframe waits for odometry of its time or later, and is ignored if there is none around its time. Odometry in
    another frame starts a new graph, since the two cannot be drawn together. Late or repeated odometry is ignored.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame = ""
        self._odometry: deque[tuple[int, Position]] = deque(maxlen=MOST_ODOMETRY)
        self._late: deque[tuple[int, Position]] = deque(maxlen=MOST_ODOMETRY)  # in order, and all before the last above
        self._waiting: deque[_Node] = deque(maxlen=MOST_WAITING)
        self._placed: dict[int, tuple[_Node, Position]] = {}  # by id, oldest first
        self._first_session = 0
        self._changed = False

    def add_odometry(self, stamp: int, frame: str, position: Position, orientation: Orientation) -> None:
        """Add the position of the robot at `stamp` (nanoseconds), in the coordinates of `frame`.

        Ignore a pose that is not finite or all zeros, quaternion included: it means that the position is unknown. A
        zero quaternion by itself is common, for example from GPS, which measures positions only.
        """
        pose = (*position, *orientation)
        if not all(map(math.isfinite, pose)) or not any(pose):
            return
        with self._lock:
            if frame != self._frame:
                self._forget()
                self._odometry.clear()
                self._late.clear()
                self._frame = frame
            if not self._odometry or stamp > self._odometry[-1][0]:
                self._late.clear()
                self._odometry.append((stamp, position))
            elif stamp < self._odometry[-1][0]:
                self._add_late(stamp, position)
            self._place()

    def _add_late(self, stamp: int, position: Position) -> None:
        """Add late odometry; once it continues from there, the bag has restarted, and it replaces the earlier run."""
        if self._late and stamp < self._late[-1][0]:
            self._late.clear()
        if not self._late or stamp > self._late[-1][0]:
            self._late.append((stamp, position))
        if len(self._late) >= FEWEST_RESTART and stamp - self._late[0][0] >= SHORTEST_RESTART:
            before = self._odometry[-1][0]
            # Keyframes that have come since belong to the new run, those that waited at its start do not.
            new = [node for node in self._waiting if abs(node.stamp - stamp) < abs(node.stamp - before)]
            self._waiting = deque(new, maxlen=MOST_WAITING)
            self._odometry, self._late = self._late, deque(maxlen=MOST_ODOMETRY)

    def add(self, keyframe: Keyframe, matches: Iterable[Keyframe]) -> None:
        """Take a keyframe, and those whose place it was found to show."""
        with self._lock:
            if keyframe.session >= self._first_session:
                closes = tuple(match.id for match in matches)
                self._waiting.append(_Node(keyframe.id, keyframe.session, keyframe.stamp, closes))
                self._place()

    def begin(self, session: int) -> None:
        """Show no more what came before `session`, as after a reset."""
        with self._lock:
            self._first_session = session
            self._forget()

    def changes(self) -> Drawing | None:
        """Return all that there is to draw; None where that is what it was at the last call."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            placed = list(self._placed.values())
            frame, position_of = self._frame, {node.id: position for node, position in placed}
        routes: dict[int, list[Position]] = {}
        for node, position in placed:
            routes.setdefault(node.session, []).append(position)
        closures = [
            (position, position_of[match]) for node, position in placed for match in node.closes if match in position_of
        ]
        return Drawing(frame, routes, closures)

    def _forget(self) -> None:
        self._waiting.clear()
        self._changed |= bool(self._placed)
        self._placed.clear()

    def _place(self) -> None:
        """Place the keyframes that no later odometry can place better."""
        if len(self._late) > 1:  # a new run may have begun, which these keyframes may belong to
            return
        while self._waiting and self._odometry and self._waiting[0].stamp <= self._odometry[-1][0]:
            node = self._waiting.popleft()
            position = _interpolated(self._odometry, node.stamp)
            if position is None:
                continue
            self._placed[node.id] = node, position
            self._changed = True
            if len(self._placed) > MOST_KEYFRAMES:
                del self._placed[next(iter(self._placed))]


def _interpolated(odometry: Sequence[tuple[int, Position]], stamp: int) -> Position | None:
    """Return where the robot was at `stamp`, which is not after the last of `odometry`; None where that is unknown."""
    at = bisect_left(odometry, stamp, key=lambda measured: measured[0])
    later, there = odometry[at]
    if later == stamp:
        return there
    if at == 0 or later - odometry[at - 1][0] > LONGEST_GAP:
        return None
    earlier, here = odometry[at - 1]
    share = (stamp - earlier) / (later - earlier)
    x, y, z = (start + share * (end - start) for start, end in zip(here, there, strict=True))
    return x, y, z
