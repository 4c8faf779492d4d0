# SPDX-License-Identifier: Apache-2.0
"""Which keyframe a full map can best do without."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED
from binvpr_ros.maps.store import KeyframeStore
from binvpr_ros.network.hamming import WORD_BITS

SAMPLED = 32
"""Keyframes that are looked at for one that is forgotten: each is compared with the whole map."""


def most_redundant(store: KeyframeStore, first: int, config: Config, count: int = 1) -> list[int]:
    """Return the positions of the most redundant keyframes from `first` on, `count` of them at most.

    Redundant is what has another view of its place in the map: a keyframe so near that the policy would not have made
    one of it (`keyframe_distance`), or one that a loop closure has joined with it. Of SAMPLED keyframes drawn at
    random, those that are nearest to another view go, which stays; none where each of these is the only view of its
    place. Those within the exclusion window stay too: the present is followed from keyframe to keyframe.
    """
    ids, closes = store.ids[first:], store.closes[first:]
    if len(ids) <= config.exclusion_keyframes:
        return []
    window = round(config.exclusion_time * NANOSECONDS)
    settled = np.abs(store.stamps[first:] - store.stamps[-1]) >= window
    settled[len(ids) - config.exclusion_keyframes :] = False
    rng = np.random.default_rng(int(ids[-1]))  # the same map forgets the same
    positions = np.flatnonzero(settled)
    drawn = rng.permutation(positions)[:SAMPLED]
    found: list[tuple[int, int, NDArray[np.intp]]] = []  # how near another view is, the position, and other views
    for position in drawn.tolist():
        descriptor = store.keyframe(first + position).descriptor
        distances = store.distances(descriptor, first)
        views = distances < config.keyframe_distance * descriptor.size * WORD_BITS
        views |= closes == ids[position]
        if closes[position] != NOTHING_CLOSED:
            views |= ids == closes[position]
        views[position] = False
        if views.any():
            found.append((int(distances[views].min()), position, np.flatnonzero(views)))
    gone: list[int] = []
    staying: set[int] = set()
    for _, position, others in sorted(found, key=lambda one: one[0]):
        others_left = set(others.tolist()) - set(gone)
        if len(gone) < count and position not in staying and others_left:
            gone.append(position)
            staying |= others_left
    return [first + position for position in gone]
