# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED, Keyframe
from binvpr_ros.maps.forgetting import SEARCHES, most_redundant
from binvpr_ros.maps.store import UNKNOWN_MOTION, UNKNOWN_WHEREABOUTS, Columns, KeyframeStore
from binvpr_ros.network.hamming import Descriptor, hamming

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


class CountingStore(KeyframeStore):
    """A store that counts how often it is searched."""

    searches = 0

    def distances(self, views: NDArray[np.uint64], first: int = 0) -> NDArray[np.uint32]:
        self.searches += 1
        return super().distances(views, first)


def random_columns(count: int, seed: int) -> Columns:
    """Keyframes of as many places, one a second."""
    numbers = np.arange(count, dtype=np.int32)
    descriptors = np.random.default_rng(seed).integers(0, 2**64, (count, WORDS), np.uint64)
    closes = np.full(count, NOTHING_CLOSED, np.int32)
    motions, whereabouts = (np.repeat(one, count, axis=0) for one in (UNKNOWN_MOTION, UNKNOWN_WHEREABOUTS))
    sessions, stamps = np.zeros(count, np.int32), numbers * np.int64(NANOSECONDS)
    return Columns(numbers, sessions, stamps, closes, motions, whereabouts, descriptors)


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


def test_in_a_large_map_only_a_few_keyframes_are_looked_at() -> None:
    store = CountingStore(WORDS)
    count = 150_000
    store.append(random_columns(count, seed=0))
    for number in range(count, count + 20):  # the robot stands still
        store.append(Columns.of(Keyframe(number, 0, number * NANOSECONDS, place(7))))
        before = store.searches
        positions = most_redundant(store, 0, CONFIG)
        assert store.searches - before <= SEARCHES
        assert all(store.ids[position] >= count for position in positions)
        for position in positions:
            store.remove(position)
    assert len(store) == count + CONFIG.exclusion_keyframes


def test_what_was_found_is_remembered() -> None:
    store = CountingStore(WORDS)
    store.append(random_columns(3 * SEARCHES, seed=1))
    for searches in (1, 2, 3, 3, 3):
        assert most_redundant(store, 0, CONFIG) == []
        assert store.searches == searches * SEARCHES
    number = len(store)
    store.append(Columns.of(Keyframe(number, 0, number * NANOSECONDS, store.keyframe(5).descriptor)))
    assert most_redundant(store, 0, CONFIG) == [5]
    assert store.searches == 3 * SEARCHES + 1
    assert most_redundant(store, 0, CONFIG) == [5]
    store.remove(5)
    assert most_redundant(store, 0, CONFIG) == []
    assert store.searches == 3 * SEARCHES + 2  # the other view has lost its own


def test_another_keyframe_distance_or_another_part_of_the_map_is_looked_at_anew() -> None:
    store = store_of(place(3), place(3, 60), *NEWEST)  # 6% of the bits
    assert most_redundant(store, 0, CONFIG) == []
    assert most_redundant(store, 0, CONFIG.replace(keyframe_distance=0.08)) == [0]
    assert most_redundant(store, 0, CONFIG) == []
    store = store_of(place(3), place(3, 20), place(3, 10), *NEWEST)
    assert most_redundant(store, 2, CONFIG) == []
    assert most_redundant(store, 0, CONFIG) == [0]


@pytest.mark.parametrize("seed", range(5))
def test_once_all_is_looked_at_the_nearest_of_all_goes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    views = [place(int(rng.integers(9)), int(rng.integers(1, 60))) for _ in range(100)]
    store = store_of(*views, *NEWEST)
    config = CONFIG.replace(exclusion_keyframes=3)
    for _ in range(40):
        for _ in range(5):
            positions = most_redundant(store, 0, config)
        descriptors = np.array([store.keyframe(position).descriptor for position in range(len(store))])
        distances = np.array([hamming(descriptors, descriptor) for descriptor in descriptors], np.int64)
        np.fill_diagonal(distances, BITS)
        settled = distances[:-3]
        assert settled[positions[0]].min() == settled.min()
        store.remove(*positions)
