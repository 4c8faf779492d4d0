# SPDX-License-Identifier: Apache-2.0
"""Which keyframe a full map can best do without."""

from __future__ import annotations

import numpy as np

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED
from binvpr_ros.maps.store import NOT_LOOKED, ONLY_VIEW, VIEW_LOST, KeyframeStore
from binvpr_ros.network.hamming import WORD_BITS

SEARCHES = 4
"""Keyframes whose other views are looked for at a time: each is compared with the whole map."""


def most_redundant(store: KeyframeStore, first: int, config: Config, count: int = 1) -> list[int]:
    """Return the positions of the most redundant keyframes from `first` on, `count` of them at most.

    Redundant is what has another view of its place in the map: a keyframe so near that the policy would not have made
    one of it (`keyframe_distance`), or one that a loop closure has joined with it. Those that are nearest to another
    view go, which stays; the only view of a place never goes. Those within the exclusion window stay too: the present
    is followed from keyframe to keyframe.

    Each call looks at SEARCHES keyframes more, and `store` remembers what was found: at the newest one, at those whose
    nearest other view has gone, and at some that were never looked at. The choice is among those that were.
    """
    ids, views, distances = store.ids[first:], store.views[first:], store.view_distances[first:]
    if len(ids) <= config.exclusion_keyframes:
        return []
    window = round(config.exclusion_time * NANOSECONDS)
    settled = np.abs(store.stamps[first:] - store.stamps[-1]) >= window
    settled[len(ids) - config.exclusion_keyframes :] = False
    if store.viewed_as != (viewed_as := (first, config.keyframe_distance)):
        views[:], store.viewed_as = NOT_LOOKED, viewed_as
    lost, unknown = np.flatnonzero(views == VIEW_LOST), np.flatnonzero(views == NOT_LOOKED)
    newest, others = unknown[-1:], unknown[:-1]
    spread = others[np.linspace(0, len(others) - 1, min(len(others), SEARCHES)).astype(int)]
    for position in np.concatenate([newest, lost, spread])[:SEARCHES].tolist():
        _look(store, first, position, config.keyframe_distance)
    may_go = settled & (views >= 0)
    gone: list[int] = []
    while len(gone) < count and may_go.any():
        candidates = np.flatnonzero(may_go)
        position = int(candidates[distances[candidates].argmin()])
        gone.append(first + position)
        may_go &= views != ids[position]  # whether they have yet another view, a later call finds out
        may_go[[position, ids.searchsorted(views[position])]] = False
    return gone


def _look(store: KeyframeStore, first: int, position: int, keyframe_distance: float) -> None:
    """Write the nearest other view of the keyframe at `first + position`, and whose nearest view it is itself."""
    ids, closes = store.ids[first:], store.closes[first:]
    views, view_distances = store.views[first:], store.view_distances[first:]
    descriptor = store.keyframe(first + position).descriptor
    distances = store.distances(descriptor, first)
    is_view = distances < keyframe_distance * descriptor.size * WORD_BITS
    is_view |= closes == ids[position]
    if closes[position] != NOTHING_CLOSED:
        is_view |= ids == closes[position]
    is_view[position] = False
    found = np.flatnonzero(is_view)[::-1]  # of equally near ones the newest is taken, since the oldest goes first
    nearer = found[(views[found] == ONLY_VIEW) | ((views[found] >= 0) & (distances[found] < view_distances[found]))]
    views[nearer], view_distances[nearer] = ids[position], distances[nearer]
    if found.size:
        nearest = found[distances[found].argmin()]
        views[position], view_distances[position] = ids[nearest], distances[nearest]
    else:
        views[position] = ONLY_VIEW
