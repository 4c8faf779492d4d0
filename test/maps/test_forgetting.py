# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED, Keyframe
from binvpr_ros.maps.forgetting import most_redundant
from binvpr_ros.maps.store import Columns, KeyframeStore
from binvpr_ros.network.hamming import Descriptor

WORDS = 16
BITS = 64 * WORDS
CONFIG = Config(exclusion_time=2.0, exclusion_keyframes=2, keyframe_distance=0.04)


def place(seed: int, changed_bits: int = 0) -> Descriptor:
    """A view of a place, which differs from its first view in so many bits."""
    bits = np.random.default_rng(seed).integers(0, 2, BITS).astype(bool)
    bits[:changed_bits] ^= True
    return np.packbits(bits, bitorder="little").view(np.uint64)


def store_of(*views: Descriptor, closes: dict[int, int] | None = None) -> KeyframeStore:
    """A map with a keyframe a second."""
    store = KeyframeStore(WORDS)
    for number, view in enumerate(views):
        closed = (closes or {}).get(number, NOTHING_CLOSED)
        store.append(Columns.of(Keyframe(number, 0, number * NANOSECONDS, view, closes=closed)))
    return store


NEWEST = [place(seed) for seed in (90, 91, 92)]


def test_the_view_that_is_nearest_to_another_goes() -> None:
    store = store_of(place(1), place(2), place(1, 30), place(2, 20), *NEWEST)
    assert most_redundant(store, 0, CONFIG) in ([1], [3])
    assert sorted(most_redundant(store, 0, CONFIG, count=2)) in ([0, 1], [0, 3], [1, 2], [2, 3])
    assert len(most_redundant(store, 0, CONFIG, count=4)) == 2  # a view of each place stays


def test_a_map_of_single_views_loses_none() -> None:
    assert most_redundant(store_of(*(place(seed) for seed in range(9)), *NEWEST), 0, CONFIG) == []
    far = place(3, round(0.04 * BITS) + 1)  # the policy would have made it a keyframe beside the other
    assert most_redundant(store_of(place(3), far, *NEWEST), 0, CONFIG) == []


@pytest.mark.parametrize("first", [0, 1])
def test_two_views_that_a_closure_has_joined_are_of_one_place(first: int) -> None:
    """However much the place has changed; where the earlier one is of a map that is read alone it does not count."""
    store = store_of(place(1), place(2), place(3), *NEWEST, closes={2: 0})
    assert most_redundant(store, first, CONFIG) in (([0], [2]) if first == 0 else ([],))


def test_the_present_stays() -> None:
    store = store_of(place(1), place(2), place(3), place(5), place(5))
    assert most_redundant(store, 0, CONFIG) == []
    assert most_redundant(store_of(), 0, CONFIG) == []


def test_a_map_forgets_down_to_one_view_of_each_place() -> None:
    views = [place(seed, 2 * time) for time in range(6) for seed in range(20)]
    store = store_of(*views, *NEWEST)
    while positions := most_redundant(store, 0, CONFIG):
        store.remove(*positions)
    kept = [store.keyframe(position).id % 20 for position in range(20)]
    assert len(store) == 23
    assert sorted(kept) == list(range(20))
