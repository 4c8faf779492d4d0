# SPDX-License-Identifier: Apache-2.0
"""Which keyframe a full map can best do without."""

from __future__ import annotations

import numpy as np

from binvpr_ros.config import Config
from binvpr_ros.descriptor import WORD_BITS
from binvpr_ros.keyframe_store import KeyframeStore
from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED

SAMPLED = 32
"""Keyframes that are looked at for one that is forgotten: each is compared with the whole map."""


def most_redundant(store: KeyframeStore, first: int, config: Config) -> int | None:
    """Return the position of the most redundant keyframe from `first` on, or None: each is the only view of its place.

    Redundant is what has another view of its place in the map: a keyframe so near that the policy would not have made
    one of it (`keyframe_distance`), or one that a loop closure has joined with it. Of SAMPLED keyframes drawn at
    random, the one that is nearest to another view goes. Those within the exclusion window stay: the present is
    followed from keyframe to keyframe.
    """
    ids, closes = store.ids[first:], store.closes[first:]
    if len(ids) <= config.exclusion_keyframes:
        return None
    window = round(config.exclusion_time * NANOSECONDS)
    settled = np.abs(store.stamps[first:] - store.stamps[-1]) >= window
    settled[len(ids) - config.exclusion_keyframes :] = False
    rng = np.random.default_rng(int(ids[-1]))  # the same map forgets the same
    positions = np.flatnonzero(settled)
    drawn = rng.permutation(positions)[:SAMPLED]
    least, found = np.inf, None
    for position in drawn:
        descriptor = store.keyframe(first + int(position)).descriptor
        distances = store.distances(descriptor, first)
        views = distances < config.keyframe_distance * descriptor.size * WORD_BITS
        views |= closes == ids[position]
        if closes[position] != NOTHING_CLOSED:
            views |= ids == closes[position]
        views[position] = False
        if views.any() and distances[views].min() < least:
            least, found = distances[views].min(), first + int(position)
    return found
