# SPDX-License-Identifier: Apache-2.0
"""Recent images by their stamps, until a back end says which of them are its keyframes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

TOLERANCE = 1_000_000
"""Nanoseconds by which the stamp that a back end names may be off: ORB-SLAM keeps seconds as a double."""

MOST_BYTES = 64 << 20
"""Bytes of the images that are kept: 72 colour images of 640x480, or 10 of 1920x1080."""


class Answer(NamedTuple, Generic[T]):
    """What an image or a stamp that came has settled: images that are keyframes, and stamps for which none came."""

    images: list[T]
    without_image: list[int]  # nanoseconds


class RecentImages(Generic[T]):
    """The latest `capacity` images, or fewer where more would exceed MOST_BYTES; `size` gives the bytes of one.

    As many stamps at most wait for their images. A stamp and its image, which is the nearest one within TOLERANCE, may
    come in either order. Images come in the order of their stamps, so one that is later than a stamp that waits says
    that the stamp's own was lost on the way.
    """

    def __init__(self, capacity: int, size: Callable[[T], int]) -> None:
        self._capacity = capacity
        self._size = size
        self._images: OrderedDict[int, T] = OrderedDict()
        self._bytes = 0  # of the images
        self._awaited: dict[int, None] = {}  # in the order in which they came
        self._newest: int | None = None  # stamp of an image
        self.fit: int | None = None
        """How many images MOST_BYTES had room for when one was last dropped; None where the number was the limit."""

    def add(self, stamp: int, image: T) -> Answer[T]:
        """Take an image, taken at `stamp` (nanoseconds)."""
        if self._newest is not None and stamp < self._newest:
            for later in list(self._images):
                self._take(later)  # the time has leapt back: what was later will never be asked for
        self._newest = stamp
        passed = sorted(awaited for awaited in self._awaited if awaited <= stamp + TOLERANCE)
        for awaited in passed:
            del self._awaited[awaited]
        if (own := _nearest(passed, stamp)) is not None:
            passed.remove(own)
            return Answer([image], passed)
        if stamp in self._images:
            self._take(stamp)
        self._images[stamp] = image
        self._bytes += self._size(image)
        while len(self._images) > self._capacity or (self._bytes > MOST_BYTES and len(self._images) > 1):
            self.fit = len(self._images) - 1 if self._bytes > MOST_BYTES else None
            self._take(next(iter(self._images)))
        return Answer([], passed)

    def ask(self, stamp: int) -> Answer[T]:
        """Take the stamp (nanoseconds) of a keyframe."""
        if (own := _nearest(self._images, stamp)) is not None:
            return Answer([self._take(own)], [])
        if self._newest is not None and stamp <= self._newest + TOLERANCE:
            return Answer([], [stamp])
        self._awaited[stamp] = None
        if len(self._awaited) > self._capacity:
            # The one that has waited longest: its image was lost, or it was never a stamp of this camera.
            longest = next(iter(self._awaited))
            del self._awaited[longest]
            return Answer([], [longest])
        return Answer([], [])

    def _take(self, stamp: int) -> T:
        """Return the image with this very stamp, which is kept no longer."""
        image = self._images.pop(stamp)
        self._bytes -= self._size(image)
        return image


def _nearest(stamps: Iterable[int], stamp: int) -> int | None:
    """Return the one of `stamps` that is nearest to `stamp`, or None where none is within TOLERANCE."""
    nearest = min(stamps, key=lambda one: abs(one - stamp), default=None)
    return nearest if nearest is not None and abs(nearest - stamp) <= TOLERANCE else None
