# SPDX-License-Identifier: Apache-2.0
"""Keyframe, and the policy that decides which image becomes one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.local_features.features import Features
from binvpr_ros.network.hamming import WORD_BITS, Descriptor, hamming
from binvpr_ros.odometry import Whereabouts

NANOSECONDS = 1_000_000_000
NOTHING_CLOSED = -1
KEPT_FEATURES = 540
"""That a map keeps of a keyframe: half of what is found, 20 kB. A query is matched with all of its own."""


@dataclass(frozen=True, eq=False)
class Keyframe:
    """An image that is remembered: `id` counts over all sessions of a map, `stamp` is in nanoseconds.

    `features`, and the `thumbnail` (a small jpeg file), are those of the newest keyframe, None where they were not
    asked for; of an earlier one they are asked of the database. `closes` is the id of the keyframe whose place it was
    found to show, or NOTHING_CLOSED. `motion` is the homography [3,3] from it to the keyframe before it in its session
    (geometry.Verification), `whereabouts` are those by odometry; None where that is not known.
    """

    id: int
    session: int
    stamp: int
    descriptor: Descriptor
    features: Features | None = None
    closes: int = NOTHING_CLOSED
    thumbnail: bytes | None = None
    motion: NDArray[np.float32] | None = None
    whereabouts: Whereabouts | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of what a map keeps of it: nearly all are its features."""
        features = 0 if self.features is None else self.features.nbytes
        return self.descriptor.nbytes + features + len(self.thumbnail or b"")


FAST_CHANGE = 0.3
"""Share of the descriptor's bits in a change that is much at once: views half of which are the same, about."""
FAST_INTERVAL = 0.25
"""Of `keyframe_min_interval`, after which a keyframe may follow another one when the view changes fast."""
LOOK_INTERVAL = 0.1
"""Of `keyframe_min_interval`, within which an image need not be looked at after one that showed little change."""
LITTLE_CHANGE = 0.5 * FAST_CHANGE


class KeyframePolicy:
    """An image becomes a keyframe when its descriptor has changed, and a while has gone by.

    The while is shorter when the view changes fast, so that the camera's motion can be followed from keyframe to
    keyframe. While it changes little, not every image of a fast camera is looked at.
    """

    def __init__(self) -> None:
        self._last: Keyframe | None = None
        self._calm: int | None = None  # the stamp of the latest image that was looked at, where it showed little change

    def too_soon(self, stamp: int, config: Config) -> bool:
        """Tell whether the image at `stamp` (nanoseconds) need not be looked at.

        It comes too soon after the last keyframe to be one, or soon after an image that showed little change.
        """
        interval = config.keyframe_min_interval * NANOSECONDS
        after_keyframe = self._last is not None and 0 <= stamp - self._last.stamp < FAST_INTERVAL * interval
        return after_keyframe or (self._calm is not None and 0 <= stamp - self._calm < LOOK_INTERVAL * interval)

    def rest(self, stamp: int) -> None:
        """Take it that the image at `stamp` was looked at, and shows nothing that changes fast."""
        self._calm = stamp

    def wants(self, stamp: int, descriptor: Descriptor, config: Config) -> bool:
        """Tell whether the image at `stamp` (nanoseconds) shall become a keyframe; the first one does."""
        if self._last is None:
            return True
        interval = (stamp - self._last.stamp) / NANOSECONDS
        if interval < FAST_INTERVAL * config.keyframe_min_interval:
            return False
        change = _change(self._last.descriptor, descriptor)
        self._calm = stamp if change < LITTLE_CHANGE else None
        soon = interval < config.keyframe_min_interval
        return change >= (max(FAST_CHANGE, config.keyframe_distance) if soon else config.keyframe_distance)

    def accept(self, keyframe: Keyframe) -> None:
        """Take `keyframe` as the newest."""
        self._last = keyframe


def _change(one: Descriptor, other: Descriptor) -> float:
    """Return the share of bits in which two descriptors differ."""
    return int(hamming(one, other)) / (one.size * WORD_BITS)
