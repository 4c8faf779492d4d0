# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.maps.command import problems
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.reading import read_closures
from binvpr_ros.maps.source import OtherClosure
from binvpr_ros.maps.store import INITIAL_CAPACITY
from maps.small_maps import MODEL, WORDS, descriptor, features, fill

CONFIG = Config(exclusion_time=1.0, exclusion_keyframes=1, keyframe_distance=0.04)


def test_distances_are_exact_and_in_order(database: KeyframeDatabase) -> None:
    fill(database, 20)
    distances = database.distances(descriptor(7))
    assert distances.shape == (20,)
    assert distances.argmin() == 7
    assert distances[7] == 0
    assert distances[3] == sum((int(a) ^ int(b)).bit_count() for a, b in zip(descriptor(3), descriptor(7), strict=True))


def test_keyframes_come_back_as_they_were_added(database: KeyframeDatabase) -> None:
    fill(database, 3)
    keyframe = database.keyframe(2)
    assert (keyframe.id, keyframe.session, keyframe.stamp) == (2, 0, 2000)
    np.testing.assert_array_equal(keyframe.descriptor, descriptor(2))


def test_memory_grows(database: KeyframeDatabase) -> None:
    fill(database, INITIAL_CAPACITY + 1)
    assert len(database) == INITIAL_CAPACITY + 1
    assert database.distances(descriptor(0))[0] == 0
    assert database.distances(descriptor(INITIAL_CAPACITY))[-1] == 0


def test_an_empty_database_has_no_distances(database: KeyframeDatabase) -> None:
    assert database.distances(descriptor(0)).shape == (0,)


def test_after_a_reset_earlier_keyframes_are_not_matched_until_a_reload(database: KeyframeDatabase) -> None:
    fill(database, 5)
    database.reset()
    assert len(database) == 0
    fill(database, 2, start=5)
    np.testing.assert_array_equal(database.ids, [5, 6])
    np.testing.assert_array_equal(database.sessions, [1, 1])
    assert database.keyframe(0).id == 5
    database.reload()
    np.testing.assert_array_equal(database.ids, range(7))
    np.testing.assert_array_equal(database.sessions, [0] * 5 + [1] * 2)


def test_a_file_brings_back_everything_and_begins_a_session(path: Path) -> None:
    first = KeyframeDatabase(path, MODEL, WORDS)
    fill(first, 5)
    first.reset()
    fill(first, 3, start=5)
    first.close()
    second = KeyframeDatabase(path, MODEL, WORDS)
    assert second.session == 2
    np.testing.assert_array_equal(second.ids, range(8))
    np.testing.assert_array_equal(second.stamps, np.arange(8) * 1000)
    assert second.next_keyframe(0, descriptor(0)).id == 8
    assert second.distances(descriptor(6))[6] == 0


def test_saving_without_a_file_is_an_error() -> None:
    with pytest.raises(DatabaseError, match="start the node with the parameter database"):
        KeyframeDatabase(None, MODEL, WORDS).save()


def test_a_keyframe_that_cannot_be_written_is_kept_in_memory(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 1)
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE keyframes")
    with pytest.raises(DatabaseError, match="cannot be written"):
        fill(database, 1, start=1)
    np.testing.assert_array_equal(database.ids, [0, 1])


def test_features_come_back_from_memory_and_from_the_file(database: KeyframeDatabase) -> None:
    database.add(database.next_keyframe(0, descriptor(0), features(0)))
    fill(database, 1, start=1)
    found = database.features(database.keyframe(0))
    assert found is not None
    for array, expected in zip(found, features(0), strict=True):
        np.testing.assert_array_equal(array, expected)
    assert database.features(database.keyframe(1)) is None


def test_features_of_a_keyframe_that_cannot_be_written_are_kept_in_memory(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    path.unlink()
    with pytest.raises(DatabaseError):
        database.add(database.next_keyframe(0, descriptor(0), features(0)))
    assert database.features(database.keyframe(0)) is not None


def test_what_a_keyframe_closed_comes_back(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 2)
    database.add(dataclasses.replace(database.next_keyframe(5, descriptor(2)), closes=1))
    database.close()
    database = KeyframeDatabase(path, MODEL, WORDS)
    np.testing.assert_array_equal(database.closes, [NOTHING_CLOSED, NOTHING_CLOSED, 1])
    assert database.keyframe(2).closes == 1


@pytest.mark.parametrize("in_file", [False, True])
def test_thumbnails_come_back(path: Path, in_file: bool) -> None:
    database = KeyframeDatabase(path if in_file else None, MODEL, WORDS)
    database.add(database.next_keyframe(1, descriptor(0), thumbnail=b"jpeg"))
    database.add(database.next_keyframe(2, descriptor(1)))
    assert [database.thumbnail(database.keyframe(at)) for at in range(2)] == [b"jpeg", None]
    database.close()


def test_in_memory_the_latest_thumbnails_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binvpr_ros.maps.database.MOST_THUMBNAILS", 2)
    database = KeyframeDatabase(None, MODEL, WORDS)
    for number in range(3):
        database.add(database.next_keyframe(number, descriptor(number), thumbnail=bytes([number])))
    assert [database.thumbnail(database.keyframe(at)) for at in range(3)] == [None, b"\1", b"\2"]


def test_without_a_file_and_where_it_fails_the_latest_features_stay_in_memory_and_the_others_go_to_a_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("binvpr_ros.maps.unsaved.MOST_IN_MEMORY", 2)
    monkeypatch.setattr("binvpr_ros.maps.unsaved.in_memory", lambda _folder: False)
    monkeypatch.setattr("binvpr_ros.maps.unsaved.LEAST_FREE", 0)
    for own in (None, path):
        database = KeyframeDatabase(own, MODEL, WORDS)
        if own is not None:
            own.unlink()
        for number in range(6):
            with contextlib.suppress(DatabaseError):
                database.add(database.next_keyframe(number, descriptor(number), features(number)))
        for number in range(6):
            found = database.features(database.keyframe(number))
            assert found is not None
            assert found.to_bytes() == features(number).to_bytes()
        assert len(database._features._latest) == 2
        assert database.features_dropped == 0
        database.close()


def test_what_is_forgotten_goes_from_memory_and_from_the_file(database: KeyframeDatabase, path: Path) -> None:
    fill(database, 4)
    database.reset()
    fill(database, 1, start=4)
    database.add(database.next_keyframe(5000, descriptor(5), features(5)), forgotten=[2])
    assert database.ids.tolist() == [4, 5]
    database.add(database.next_keyframe(6000, descriptor(6)), forgotten=[5])
    assert database.ids.tolist() == [4, 6]
    database.reload()
    assert database.ids.tolist() == [0, 1, 3, 4, 6]
    assert database.distances(descriptor(3))[2] == 0
    assert database.own == 5
    if path.exists():
        database.close()
        assert KeyframeDatabase(path, MODEL, WORDS).ids.tolist() == [0, 1, 3, 4, 6]


def test_views_of_one_place_stay_joined_when_the_one_goes_that_joined_them(
    database: KeyframeDatabase, path: Path
) -> None:
    def add(closes: int, forgotten: list[int]) -> None:
        number = database.next_keyframe(0, descriptor(0)).id
        keyframe = database.next_keyframe(number * 1000, descriptor(number), features(number))
        database.add(dataclasses.replace(keyframe, closes=closes), forgotten)

    for closes in (NOTHING_CLOSED, 0, 1, 0, NOTHING_CLOSED, 1):
        add(closes, [])
    closes_of: dict[int, int] = {}
    for closes, forgotten, closes_of in (
        (4, [1], {0: -1, 2: 0, 3: 0, 4: -1, 5: 0, 6: 4}),
        (0, [0], {2: -1, 3: 2, 4: -1, 5: 2, 6: 4, 7: 2}),  # which was seen again just now
        (7, [2, 3], {4: -1, 5: -1, 6: 4, 7: 5, 8: 7}),
    ):
        add(closes, forgotten)
        assert dict(zip(database.ids.tolist(), database.closes.tolist(), strict=True)) == closes_of
    database.close()
    if path.exists():
        again = KeyframeDatabase(path, MODEL, WORDS)
        assert dict(zip(again.ids.tolist(), again.closes.tolist(), strict=True)) == closes_of
        assert again.features(again.keyframe(2)) is not None
        again.close()
        assert problems(path) == []


def test_a_full_map_makes_room_by_what_has_another_view(database: KeyframeDatabase) -> None:
    config = CONFIG.replace(max_keyframes=6)
    for number in range(40):
        stamp = number * 1_000_000_000
        keyframe = database.next_keyframe(stamp, descriptor(number % 5))
        database.add(keyframe, forgotten=database.redundant(config))
        assert database.own <= 6
    kept = {bytes(database.keyframe(position).descriptor) for position in range(len(database))}
    assert kept == {bytes(descriptor(number)) for number in range(5)}
    fill(database, 3, start=40)  # places never seen
    assert len(database.redundant(config)) == 1  # it has three more than it is to have, and but one second view
    assert database.redundant(Config()) == []
    database.reset()
    fill(database, 1, start=43)
    assert database.redundant(config) == []  # the other keyframes are kept, and not matched


def test_a_map_that_is_too_large_becomes_smaller(database: KeyframeDatabase) -> None:
    config = CONFIG.replace(max_keyframes=10)
    for number in range(70):
        keyframe = database.next_keyframe(number * 1_000_000_000, descriptor(number % 5))
        database.add(keyframe, forgotten=database.redundant(config) if number >= 40 else [])
    assert database.own == 10
    kept = {bytes(database.keyframe(position).descriptor) for position in range(len(database))}
    assert kept == {bytes(descriptor(number)) for number in range(5)}


def test_a_copy_that_goes_its_own_way_gets_a_uuid_of_its_own(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 3)
    database.close()
    with opened(path) as (connection, facts):
        before = Identity.of(connection, facts).uuid
    database = KeyframeDatabase(path, MODEL, WORDS)
    database.renew()
    fill(database, 1, 3)
    database.close()
    with opened(path) as (connection, facts):
        assert Identity.of(connection, facts).uuid != before
    assert len(KeyframeDatabase(path, MODEL, WORDS)) == 4


def test_a_closure_with_a_map_that_is_not_here_is_kept_and_the_first_of_a_keyframe_stays(
    path: Path, tmp_path: Path
) -> None:
    other = KeyframeDatabase(tmp_path / "other.db", MODEL, WORDS)
    fill(other, 2)
    other.close()
    with opened(tmp_path / "other.db") as (connection, facts):
        uuid = Identity.of(connection, facts).uuid
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 3, 10)
    for match in (1, 0):
        database.remember(OtherClosure(2, uuid, match))
    database.remember(OtherClosure(9, uuid, 0))  # of a keyframe that is gone
    database.close()
    with opened(path) as (connection, _):
        assert list(read_closures(connection, path)) == [(2, uuid, 1)]
    database = KeyframeDatabase(path, MODEL, WORDS, [tmp_path / "other.db"])
    assert database.closes.tolist() == [NOTHING_CLOSED] * 4 + [1]
    assert database.numbered(2, 0) == (4, database.keyframe(4).session)
    assert (database.in_file(database.keyframe(4)).id, database.in_file(database.keyframe(4)).session) == (2, 0)
    database.close()
    KeyframeDatabase(None, MODEL, WORDS).renew()  # there is no file, and nothing to do
