# SPDX-License-Identifier: Apache-2.0
"""Where the robot is by its odometry, as far as that tells two places apart.

Two doors that look the same are told apart by nothing else: no view, and no sequence of views, says which one it is.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Position = tuple[float, float, float]
"""x, y and z in metres."""

LATEST = 1000
"""Latest odometry that is kept: 5 s at 200 Hz, since an image may be in work for a while."""
STALE = 0.5
"""Seconds from which odometry no longer says where the robot is, and beyond which a stamp is no late one."""
STEP = 0.05
"""Metres that the robot must have moved so that they count as travelled: odometry of a robot at rest trembles."""
FASTEST = 50.0
"""Metres a second; what moves faster has jumped: its odometry started anew."""
JUMP = 1.0
"""Metres that it moves in any time without a jump: stamps are not exact."""
RADIUS = 1.0
"""Metres by which views of one place may be apart, beside the drift."""


class Whereabouts(NamedTuple):
    """Where the robot was; comparable with others of the same run alone."""

    run: int
    position: Position
    travelled: float  # metres, since the run began


class Odometry:
    """Follows the odometry of a robot. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame = ""
        self._latest: deque[tuple[int, Whereabouts]] = deque(maxlen=LATEST)  # with stamps, which ascend in a run
        self._counted: Position = (0.0, 0.0, 0.0)  # up to where the way is counted as travelled

    def add(self, stamp: int, frame: str, position: Position) -> None:
        """Take the position of the robot at `stamp` (nanoseconds) in `frame`.

        Ignore one that is not finite, or late. Odometry that jumps in time or space has started anew: another run.
        """
        if not all(map(math.isfinite, position)):
            return
        with self._lock:
            before, latest = self._latest[-1] if self._latest else (stamp, None)
            seconds = (stamp - before) * 1e-9
            if latest is not None and frame == self._frame and seconds > -STALE:
                if seconds < 0:
                    return
                if math.dist(position, latest.position) <= max(FASTEST * seconds, JUMP):
                    step = math.dist(position, self._counted)
                    if step >= STEP:
                        self._counted = position
                    travelled = latest.travelled + (step if step >= STEP else 0.0)
                    self._latest.append((stamp, Whereabouts(latest.run, position, travelled)))
                    return
            run = 0 if latest is None else latest.run + 1
            self._frame, self._counted = frame, position
            self._latest.clear()
            self._latest.append((stamp, Whereabouts(run, position, 0.0)))

    def at(self, stamp: int) -> Whereabouts | None:
        """Return where the robot was at about `stamp` (nanoseconds); None where that is not known."""
        with self._lock:
            known = min(self._latest, key=lambda known: abs(known[0] - stamp), default=None)
        return None if known is None or abs(known[0] - stamp) * 1e-9 > STALE else known[1]


def too_far(here: Whereabouts, others: NDArray[np.float64], drift: float) -> NDArray[np.bool_]:
    """Tell which `others` [K,5] cannot be the place `here`, though odometry drifts by that share of the way.

    Each is a run, a position and the way travelled; NaN, or another run, is no reason.
    """
    with np.errstate(invalid="ignore"):
        distances = np.linalg.norm(others[:, 1:4] - here.position, axis=1)
        far = distances > RADIUS + drift * np.abs(here.travelled - others[:, 4])
        result: NDArray[np.bool_] = far & (others[:, 0] == here.run)
    return result
