# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.maps import store as keyframe_store
from binvpr_ros.maps.store import NOT_LOOKED, VIEW_LOST, Columns, KeyframeStore
from binvpr_ros.network.hamming import hamming

WORDS = 3


def keyframe(number: int) -> Keyframe:
    descriptor = np.random.default_rng(number).integers(0, 2**64, WORDS, np.uint64)
    return Keyframe(number, number // 7, number * 1000, descriptor, closes=number // 2)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-1, 40), max_size=60), st.sampled_from([1, 3, 1000]))
def test_keyframes_come_and_go_as_in_a_list(steps: list[int], block: int) -> None:
    """-1 adds a keyframe, a number removes the one at that position."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyframe_store, "BLOCK", block)
        patch.setattr(keyframe_store, "INITIAL_CAPACITY", 2)
        store, expected = KeyframeStore(WORDS), []
        most = 0
        for number, step in enumerate(steps):
            if step < 0:
                expected.append(keyframe(number))
                store.append(Columns.of(expected[-1]))
            elif step < len(expected):
                del expected[step]
                store.remove(step)
            most = max(most, len(expected))
            assert len(store) == len(expected)
            assert store.ids.tolist() == [one.id for one in expected]
            assert store.sessions.tolist() == [one.session for one in expected]
            assert store.stamps.tolist() == [one.stamp for one in expected]
            assert store.closes.tolist() == [one.closes for one in expected]
            query, shifted = (keyframe(name).descriptor for name in (1000, 1001))
            for first in range(len(expected) + 1):
                distances = [int(hamming(one.descriptor, query)) for one in expected[first:]]
                assert store.distances(query, first).tolist() == distances
                others = [int(hamming(one.descriptor, shifted)) for one in expected[first:]]
                nearest = [min(pair) for pair in zip(distances, others, strict=True)]
                assert store.distances(np.stack([query, shifted]), first).tolist() == nearest
            for position, one in enumerate(expected):
                np.testing.assert_array_equal(store.keyframe(position).descriptor, one.descriptor)
        assert len(store._blocks) <= -(-most // block)  # the room of what went was used again


def test_many_keyframes_at_once_fill_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyframe_store, "BLOCK", 4)
    some = [Columns.of(keyframe(number)) for number in range(11)]
    store = KeyframeStore(WORDS)
    store.append(Columns(*(np.concatenate(column) for column in zip(*some, strict=True))))
    np.testing.assert_array_equal(store.keyframe(10).descriptor, keyframe(10).descriptor)
    store.remove(0)
    store.append(Columns.of(keyframe(11)))
    assert store.distances(keyframe(11).descriptor)[-1] == 0
    assert store.distances(keyframe(1).descriptor)[0] == 0


def test_what_is_known_of_other_views_moves_with_the_keyframes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyframe_store, "INITIAL_CAPACITY", 2)
    store = KeyframeStore(WORDS)
    for number in range(4):
        store.append(Columns.of(keyframe(number)))
        assert store.views[number] == NOT_LOOKED
        store.views[number], store.view_distances[number] = (number + 1) % 4, 10 * number
    store.remove(1)
    assert store.views.tolist() == [VIEW_LOST, 3, 0]
    store.append(Columns.of(keyframe(4)))
    assert store.views.tolist() == [VIEW_LOST, 3, 0, NOT_LOOKED]
    assert store.view_distances[1:3].tolist() == [20, 30]
