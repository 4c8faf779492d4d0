# SPDX-License-Identifier: Apache-2.0
"""What the node says in its log, and how often: a robot that closes loops all day must not fill its disk with it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from binvpr_ros.keyframes import NANOSECONDS, Keyframe
from binvpr_ros.loop_closure import NOT_VERIFIED, LoopClosure, Verdict
from binvpr_ros.ros.diagnostics import Health, Level, Statistics, duration, refusal_of

WARNING_INTERVAL = 5.0
"""Least time in seconds between two sentences of one kind, whatever their causes."""
CLOSURE_INTERVAL = 10.0
"""Least time in seconds between two closures that are told. A session's first in each map is always told."""
SUMMARY_INTERVAL = 300.0
"""Seconds between two summaries."""
PATIENCE = 5
"""Seconds for which a trouble must last before it is told: a camera takes a while to start."""
REMINDER_INTERVAL = 30.0
"""Seconds after which a trouble that lasts is told again; each time twice as many, up to LONGEST_REMINDER_INTERVAL."""
LONGEST_REMINDER_INTERVAL = 600.0
CONVALESCENCE = 60
"""Seconds without trouble after which the next one is new, and told at once."""


class Voice:
    """Says in the log of a node what happens. Its methods may be called from any thread.

    `logger` is that of rclpy, `clock` gives the time in seconds.
    """

    def __init__(self, logger: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._clock = logger, clock
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}
        self._started = self._summed_up = clock()
        self._known: set[tuple[int, Path | None]] = set()
        self._untold = 0  # keyframes that closed a loop since the last closure that was told
        self._troubled: Counter[str] = Counter()  # seconds of each kind since all was well
        self._well = 0  # seconds
        self._told = False  # whether the present trouble was
        self._reminders: dict[str, tuple[float, float]] = {}  # by kind when to tell it again, and the interval then

    def warn(self, kind: str, sentence: str, interval: float = WARNING_INTERVAL) -> None:
        """Warn of each kind of trouble once in `interval` seconds."""
        if self._due(kind, interval):
            self._logger.warning(sentence)

    def tell(self, kind: str, sentence: str) -> None:
        """Say something once in a while of each kind."""
        if self._due(kind, WARNING_INTERVAL):
            self._logger.info(sentence)

    def once(self, kind: str, sentence: str) -> None:
        """Say something that need not be repeated, of each kind once."""
        if self._due(kind, float("inf")):
            self._logger.info(sentence)

    def keyframe(self, keyframe: Keyframe, verdict: Verdict, path_of: Callable[[Keyframe], Path | None]) -> None:
        """Say what became of a new keyframe; `path_of` gives the map file that a keyframe belongs to.

        Closures are told now and then; the first of a session with an earlier one of each map file always is.
        """
        self._logger.debug(_outcome(keyframe, verdict))
        if not verdict.closures:
            return
        earlier = [one for one in verdict.closures if one.match.session != keyframe.session]
        new = [one for one in earlier if (keyframe.session, path_of(one.match)) not in self._known]
        closure = (new or verdict.closures)[0]
        if not self._due("closure", 0.0 if new else CLOSURE_INTERVAL):
            self._untold += 1
            return
        path = path_of(closure.match)
        if closure in earlier:
            self._known.add((keyframe.session, path))
        untold = f"; {self._untold} more since the last line" if self._untold else ""
        self._untold = 0
        self._logger.info(closure_sentence(closure, path) + untold)

    def health(self, well: Health) -> None:
        """Warn of each kind of trouble that lasts, and say when all is over; called once a second.

        Errors are left out: they are told as they happen.
        """
        now = self._clock()
        if well.level == Level.OK:
            if self._told:
                self._logger.info("all is well")
            self._well += 1
            if self._well >= CONVALESCENCE:
                self._reminders.clear()
            self._troubled.clear()
            self._told = False
            return
        self._well = 0
        self._troubled[well.kind] += 1
        due, interval = self._reminders.get(well.kind, (now, REMINDER_INTERVAL))
        if self._troubled[well.kind] >= PATIENCE and now >= due and well.level == Level.WARN:
            self._logger.warning(well.text)
            self._told = True
            self._reminders[well.kind] = now + interval, min(2 * interval, LONGEST_REMINDER_INTERVAL)

    def summary(self, statistics: Statistics) -> None:
        """Say what became of the images, every few minutes; called once a second."""
        now = self._clock()
        if now - self._summed_up >= SUMMARY_INTERVAL:
            if text := statistics.summary():
                self._logger.info(f"summary of the last {duration(now - self._summed_up)}: {text}")
            self._summed_up = now

    def farewell(self, statistics: Statistics) -> None:
        """Say what became of all images, when the node stops."""
        text = statistics.summary(whole=True) or "no image came"
        self._logger.info(f"summary of all {duration(self._clock() - self._started)}: {text}")

    def _due(self, kind: str, interval: float) -> bool:
        """Tell whether nothing of that kind was said in the last `interval` seconds; it is taken to be said now."""
        with self._lock:
            now = self._clock()
            if kind in self._said and now - self._said[kind] < interval:
                return False
            self._said[kind] = now
            return True


def closure_sentence(closure: LoopClosure, path: Path | None) -> str:
    """Return a sentence about a closure, whose match belongs to the map file `path`, None where it is in memory."""
    query, match = closure.query, closure.match
    verified = "not verified" if closure.inliers == NOT_VERIFIED else f"{closure.inliers} inliers"
    seen = ago((query.stamp - match.stamp) / NANOSECONDS)
    facts = f"{seen} (score {closure.score:.2f}, {verified})"
    if match.session == query.session:
        return f"loop closure: keyframe {query.id} shows the place of keyframe {match.id}, {facts}"
    where = f"session {match.session}" + (f" of {path}" if path else "")
    return f"relocalisation: keyframe {query.id} shows the place of keyframe {match.id} in {where}, {facts}"


def ago(seconds: float) -> str:
    """Return how long ago something was; what is ahead has another clock, or a bag that was replayed anew."""
    return f"{duration(seconds)} ago" if seconds >= 0 else f"with a stamp {duration(-seconds)} ahead"


def _outcome(keyframe: Keyframe, verdict: Verdict) -> str:
    """Return what became of a keyframe, for who looks closely."""
    if verdict.closures:
        ids = ", ".join(str(closure.match.id) for closure in verdict.closures)
        return f"keyframe {keyframe.id}: closes loops with {ids}"
    best, reason = verdict.best, refusal_of(verdict)
    match = f"; best match {best.match.id}, score {best.score:.2f}" if best is not None and best.match else ""
    return f"keyframe {keyframe.id}: {reason.value if reason else 'nothing matched'}{match}"
