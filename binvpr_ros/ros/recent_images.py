# SPDX-License-Identifier: Apache-2.0
"""Recent images by their stamps, until a back end says which of them are its keyframes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

TOLERANCE = 1_000_000
"""Nanoseconds by which the stamp that a back end names may be off: ORB-SLAM keeps seconds as a double."""


class Answer(NamedTuple, Generic[T]):
    """What an image or a stamp that came has settled: images that are keyframes, and stamps for which none came."""

    images: list[T]
    without_image: list[int]  # nanoseconds


class RecentImages(Generic[T]):
    """The latest `capacity` images, and as many stamps at most that wait for theirs.

    A stamp and its image, which is the nearest one within TOLERANCE, may come in either order. Images come in the order
    of their stamps, so one that is later than a stamp that waits says that the stamp's own was lost on the way.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._images: OrderedDict[int, T] = OrderedDict()
        self._awaited: dict[int, None] = {}  # in the order in which they came
        self._newest: int | None = None  # stamp of an image

    def add(self, stamp: int, image: T) -> Answer[T]:
        """Take an image, taken at `stamp` (nanoseconds)."""
        if self._newest is not None and stamp < self._newest:
            self._images.clear()  # the time has leapt back: what was later will never be asked for
        self._newest = stamp
        passed = sorted(awaited for awaited in self._awaited if awaited <= stamp + TOLERANCE)
        for awaited in passed:
            del self._awaited[awaited]
        if (own := _nearest(passed, stamp)) is not None:
            passed.remove(own)
            return Answer([image], passed)
        self._images[stamp] = image
        while len(self._images) > self._capacity:
            self._images.popitem(last=False)
        return Answer([], passed)

    def ask(self, stamp: int) -> Answer[T]:
        """Take the stamp (nanoseconds) of a keyframe."""
        if (own := _nearest(self._images, stamp)) is not None:
            return Answer([self._images.pop(own)], [])
        if self._newest is not None and stamp <= self._newest + TOLERANCE:
            return Answer([], [stamp])
        self._awaited[stamp] = None
        if len(self._awaited) > self._capacity:
            # The one that has waited longest: its image was lost, or it was never a stamp of this camera.
            longest = next(iter(self._awaited))
            del self._awaited[longest]
            return Answer([], [longest])
        return Answer([], [])


def _nearest(stamps: Iterable[int], stamp: int) -> int | None:
    """Return the one of `stamps` that is nearest to `stamp`, or None where none is within TOLERANCE."""
    nearest = min(stamps, key=lambda one: abs(one - stamp), default=None)
    return nearest if nearest is not None and abs(nearest - stamp) <= TOLERANCE else None
