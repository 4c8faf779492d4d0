# SPDX-License-Identifier: Apache-2.0
"""Keyframe, and the policy that decides which image becomes one."""

from __future__ import annotations

from dataclasses import dataclass

from binvpr_ros.config import Config
from binvpr_ros.local_features.features import Features
from binvpr_ros.network.hamming import WORD_BITS, Descriptor, hamming

NANOSECONDS = 1_000_000_000
NOTHING_CLOSED = -1


@dataclass(frozen=True, eq=False)
class Keyframe:
    """An image that is remembered: `id` counts over all sessions of a map, `stamp` is in nanoseconds.

    `features`, and the `thumbnail` (a small jpeg file), are those of the newest keyframe, None where they were not
    asked for; of an earlier one they are asked of the database. `closes` is the id of the keyframe whose place it was
    found to show, or NOTHING_CLOSED.
    """

    id: int
    session: int
    stamp: int
    descriptor: Descriptor
    features: Features | None = None
    closes: int = NOTHING_CLOSED
    thumbnail: bytes | None = None


class KeyframePolicy:
    """An image becomes a keyframe by change of its descriptor, within a least and a longest interval."""

    def __init__(self) -> None:
        self._last: Keyframe | None = None

    def wants(self, stamp: int, descriptor: Descriptor, config: Config) -> bool:
        """Tell whether the image at `stamp` (nanoseconds) shall become a keyframe; the first one does."""
        if self._last is None:
            return True
        interval = (stamp - self._last.stamp) / NANOSECONDS
        if interval < config.keyframe_min_interval:
            return False
        if interval >= config.keyframe_max_interval:
            return True
        changed = int(hamming(self._last.descriptor, descriptor)) / (descriptor.size * WORD_BITS)
        return changed >= config.keyframe_distance

    def accept(self, keyframe: Keyframe) -> None:
        """Take `keyframe` as the newest."""
        self._last = keyframe
