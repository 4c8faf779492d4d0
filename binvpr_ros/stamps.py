# SPDX-License-Identifier: Apache-2.0
"""Stamps of a stream of images: which follow the present, and when time itself has leapt.

A stamp that does not follow is one of three things. It is *late*: at most a window before the present; such an image
says nothing, but a second of them in order says that time has leapt back. It *leaps*: farther off than the window, and
ahead also farther than the images' own interval explains; a single image may be mistaken, so a second one nearer to the
new time than to the old one has to confirm it. Or it is *chosen*: a back end has made the image its keyframe, which
takes the stamp ahead at once.
"""

from __future__ import annotations

from typing import NamedTuple

from binvpr_ros.keyframes import NANOSECONDS

SHORTEST_LEAP = 1.0
"""Seconds by which a stamp must be off before time is thought to have leapt."""
LEAP_INTERVALS = 5
"""Intervals between the last two images by which it must be ahead, too: they may come seldom."""


class StampError(ValueError):
    """An image's stamp does not follow that of the image before."""


class _Late(NamedTuple):
    """Images in a row that are late."""

    first: int
    last: int


class Stamps:
    """The present, in nanoseconds, as the stamps of images take it ahead."""

    def __init__(self) -> None:
        self._present: int | None = None
        self._interval = 0  # between the last two images
        self._leapt_to: int | None = None  # where a leap leads that is not confirmed yet
        self._late: _Late | None = None

    def advance(self, stamp: int, window: float, chosen: bool = False) -> bool:
        """Take `stamp` as the present; return True where time has leapt back, so that a new session begins.

        `window` are the seconds of the exclusion window; `chosen` says that a back end has named the stamp. Raises
        StampError for a stamp that does not follow, unless it confirms a leap.
        """
        present = self._present
        if present is None:
            self._accept(stamp, since=stamp)
            return False
        reach = round(max(window, SHORTEST_LEAP) * NANOSECONDS)
        step = stamp - present
        if step > 0 and (chosen or step <= max(reach, LEAP_INTERVALS * self._interval)):
            self._accept(stamp, since=present)
            return False
        before = self._confirmed_by_late_images(stamp) if abs(step) <= reach else self._confirmed_leap(stamp, present)
        self._accept(stamp, since=before)
        return step < 0

    def _accept(self, stamp: int, since: int) -> None:
        """Make `stamp` the present, which follows the image at `since`."""
        self._present, self._interval = stamp, stamp - since
        self._leapt_to = self._late = None

    def _confirmed_by_late_images(self, stamp: int) -> int:
        """Return the stamp of the late image before where late images have gone on in order for long enough."""
        first, before = self._late if self._late is not None and stamp > self._late.last else _Late(stamp, stamp)
        self._late = _Late(first, stamp)
        if stamp - first < round(SHORTEST_LEAP * NANOSECONDS):
            raise StampError(f"its stamp ({stamp / NANOSECONDS:.3f} s) is not later than the last image's")
        return before

    def _confirmed_leap(self, stamp: int, present: int) -> int:
        """Return where the leap led that this image confirms: it is nearer to there than to the present."""
        if self._leapt_to is None or not 0 < stamp - self._leapt_to < abs(stamp - present):
            self._leapt_to = stamp
            raise StampError(f"its stamp leaps by {(stamp - present) / NANOSECONDS:.3f} s")
        return self._leapt_to
