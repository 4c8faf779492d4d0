# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.keyframes import NOTHING_CLOSED, Keyframe
from binvpr_ros.maps import store as keyframe_store
from binvpr_ros.maps.store import NOT_LOOKED, VIEW_LOST, Columns, KeyframeStore, composed
from binvpr_ros.network.hamming import hamming

WORDS = 3


def keyframe(number: int) -> Keyframe:
    descriptor = np.random.default_rng(number).integers(0, 2**64, WORDS, np.uint64)
    closes = number // 2 if number % 5 else NOTHING_CLOSED
    return Keyframe(number, number // 7, number * 1000, descriptor, closes=closes)


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
                gone = expected.pop(step)
                joined = [one.id for one in expected if one.closes == gone.id]
                assert store.remove(step) == joined
                for at, one in enumerate(expected):
                    if one.id in joined:
                        closes = gone.closes
                        if closes == NOTHING_CLOSED and one.id != joined[0]:
                            closes = joined[0]
                        expected[at] = dataclasses.replace(one, closes=closes)
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


def test_the_motion_after_a_removed_keyframe_leads_to_the_one_before_it() -> None:
    motions = [np.eye(3) + np.random.default_rng(number).normal(0, 0.01, (3, 3)) for number in range(6)]
    store = KeyframeStore(WORDS)
    for number in range(6):
        one = Keyframe(number, number // 5, 0, keyframe(number).descriptor, motion=motions[number].astype(np.float32))
        store.append(Columns.of(one))

    def at(position: int) -> NDArray[np.float32]:
        return store.motions[position].reshape(3, 3) / store.motions[position, 8]

    store.remove(3)
    store.remove(2)
    expected = motions[2] @ motions[3] @ motions[4]
    np.testing.assert_allclose(at(2), expected / expected[2, 2], atol=1e-6)
    store.remove(2)  # the last of its session
    np.testing.assert_allclose(at(2), motions[5] / motions[5][2, 2], atol=1e-6)


def test_beside_an_unknown_motion_none_is_known() -> None:
    store = KeyframeStore(WORDS)
    for number in range(4):
        known = np.eye(3, dtype=np.float32) if number != 1 else None
        store.append(Columns.of(Keyframe(number, 0, 0, keyframe(number).descriptor, motion=known)))
    store.remove(1)
    assert np.isnan(store.motions).all(axis=1).tolist() == [False, True, False]
    zero = composed(np.zeros(9, np.float32), np.eye(3).ravel())
    assert np.isnan(zero).all()


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
