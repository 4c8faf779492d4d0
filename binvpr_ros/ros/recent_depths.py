# SPDX-License-Identifier: Apache-2.0
"""Recent depth images by their stamps, for the images of a colour or grey camera that need them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.ros.recent_images import MOST_BYTES

T = TypeVar("T")

TOLERANCE = NANOSECONDS // 50
"""Nanoseconds by which the stamps of an image and of its depth may differ: of cameras that are not synchronised."""
LONGEST_WAIT = 0.1
"""Seconds for which the depth of an image is waited for, while depth images come."""
ALIVE = 1.0
"""Seconds since the latest depth image, for which more are expected."""


MOST_IN_VAIN = 2
"""Waits in a row that were in vain, after which none is made until one would have helped: the closures wait too."""


class RecentDepths(Generic[T]):
    """The latest `capacity` depth images, or fewer where more would exceed MOST_BYTES; `size` gives the bytes of one.

    One thread adds, another asks.
    """

    def __init__(self, capacity: int, size: Callable[[T], int]) -> None:
        self._capacity, self._size = capacity, size
        self._images: OrderedDict[int, T] = OrderedDict()
        self._bytes = 0
        self._came = -float("inf")  # time at which the latest one came
        self._in_vain = 0  # latest waits in a row
        self._missed = 0, -float("inf")  # the latest stamp whose depth was not there, and when it was asked for
        self._changed = threading.Condition()

    @property
    def any_came(self) -> bool:
        """Whether a depth image has come since the start."""
        return self._came > -float("inf")

    def add(self, stamp: int, image: T) -> None:
        """Take a depth image, taken at `stamp` (nanoseconds)."""
        with self._changed:
            if self._images and stamp < next(reversed(self._images)):
                self._images.clear()  # the time has leapt back
                self._bytes = 0
            if (before := self._images.pop(stamp, None)) is not None:
                self._bytes -= self._size(before)
            self._images[stamp] = image
            self._bytes += self._size(image)
            while len(self._images) > self._capacity or (self._bytes > MOST_BYTES and len(self._images) > 1):
                self._bytes -= self._size(self._images.popitem(last=False)[1])
            self._came = time.monotonic()
            missed, asked = self._missed
            if abs(stamp - missed) <= TOLERANCE and self._came - asked <= LONGEST_WAIT:
                self._in_vain = 0
            self._changed.notify_all()

    def at(self, stamp: int) -> T | None:
        """Return the depth image of the image taken at `stamp`: of the very stamp, or the nearest within TOLERANCE.

        Where depth images come and its own may still be on its way, wait for that, LONGEST_WAIT at most, unless the
        latest MOST_IN_VAIN waits were in vain.
        """
        with self._changed:
            asked = time.monotonic()
            waits = asked - self._came <= ALIVE and self._in_vain < MOST_IN_VAIN and not self._has_passed(stamp)
            if waits:
                self._changed.wait_for(lambda: self._has_passed(stamp), LONGEST_WAIT)
            nearest = min(self._images, key=lambda one: abs(one - stamp), default=None)
            if nearest is None or abs(nearest - stamp) > TOLERANCE:
                self._in_vain += waits
                self._missed = stamp, asked
                return None
            self._in_vain = 0
            return self._images[nearest]

    def _has_passed(self, stamp: int) -> bool:
        """Tell whether no depth image that is nearer to `stamp` will come."""
        return bool(self._images) and next(reversed(self._images)) >= stamp
