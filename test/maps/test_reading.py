# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.maps import reading
from binvpr_ros.maps import store as keyframe_store
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.network.hamming import hamming
from maps.small_maps import MODEL, WORDS, descriptor, features, fill, motion


@pytest.mark.parametrize("change", ["id = 4294967296", "id = -1", "session = -1", "session = 2147483648"])
def test_numbers_that_the_topic_has_no_room_for_are_damage(path: Path, change: str) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    database.add(database.next_keyframe(1, descriptor(1)))
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE keyframes SET {change}")  # noqa: S608 - our own words
    connection.close()
    with pytest.raises(DatabaseError, match="restore a copy of the file"):
        KeyframeDatabase(path, MODEL, WORDS)


def test_a_damaged_keyframe_is_named(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 3)
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE keyframes SET descriptor = x'00' WHERE id = 1")
    with pytest.raises(DatabaseError, match="is damaged at keyframe 1"):
        KeyframeDatabase(path, MODEL, WORDS)


def test_a_keyframe_whose_session_is_no_number_is_refused_and_the_file_let_go(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 1)
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE keyframes SET session = 'first'")
    for _ in range(2):  # were the file still locked, the second refusal would be another
        with pytest.raises(DatabaseError, match="cannot be read"):
            KeyframeDatabase(path, MODEL, WORDS)


@pytest.mark.parametrize("value", ["'text'", "1.5", "x'3132'", str(2**40)])
def test_a_session_that_no_session_can_be_is_refused(path: Path, value: str) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 3)
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE keyframes SET session = {value} WHERE id = 2")  # noqa: S608 - our own values
    with pytest.raises(DatabaseError, match=r"cannot be read .*; restore a copy of the file"):
        KeyframeDatabase(path, MODEL, WORDS)


@pytest.mark.parametrize(
    ("descriptor", "sentence"),
    [
        ("zeroblob(31)", "is damaged at keyframe 7;"),
        ("zeroblob(33)", "is damaged at keyframe 7;"),
        ("zeroblob(0)", "is damaged at keyframe 7;"),
        (f"'{'a' * 32}'", "cannot be read"),
        ("7", "cannot be read"),
    ],
)
def test_damage_is_found_wherever_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, descriptor: str, sentence: str
) -> None:
    monkeypatch.setattr(reading, "ROWS_READ", 3)
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 10)
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE keyframes SET descriptor = {descriptor} WHERE id = 7")  # noqa: S608 - our own values
    for _ in range(2):  # were the file still locked, the second refusal would be another
        with pytest.raises(DatabaseError, match=sentence):
            KeyframeDatabase(path, MODEL, WORDS)


@pytest.mark.parametrize("rows_read", [1, 3, 8, 100])
@pytest.mark.parametrize("block", [1, 5, 8])
@pytest.mark.parametrize("forgotten", [0, 4, 8, 11, 20])
def test_blocks_are_not_seen_from_outside(
    path: Path, monkeypatch: pytest.MonkeyPatch, rows_read: int, block: int, forgotten: int
) -> None:
    monkeypatch.setattr(reading, "ROWS_READ", rows_read)
    monkeypatch.setattr(keyframe_store, "BLOCK", block)
    first = KeyframeDatabase(path, MODEL, WORDS)
    fill(first, forgotten)
    first.close()
    database = KeyframeDatabase(path, MODEL, WORDS)
    database.reset()
    fill(database, 20 - forgotten, start=forgotten)
    for start in (forgotten, 0):
        keyframes = [database.keyframe(index) for index in range(len(database))]
        assert [keyframe.id for keyframe in keyframes] == list(range(start, 20))
        expected = [hamming(keyframe.descriptor, descriptor(9)) for keyframe in keyframes]
        np.testing.assert_array_equal(database.distances(descriptor(9)), expected)
        np.testing.assert_array_equal([keyframe.stamp for keyframe in keyframes], database.stamps)
        database.reload()


@pytest.mark.parametrize("damage", [b"0", "text", 7, bytes(35), np.full(9, np.inf, "<f4").tobytes()])
def test_damaged_motions_are_not_known(path: Path, damage: object) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    for number in range(3):
        database.add(dataclasses.replace(database.next_keyframe(0, descriptor(number)), motion=motion(number)))
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE keyframes SET motion = ? WHERE id = 1", (damage,))
    database = KeyframeDatabase(path, MODEL, WORDS)
    assert database.motion(0, 1) is None
    assert database.motion(1, 2) is not None


def test_damaged_features_are_none(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    database.add(database.next_keyframe(0, descriptor(0), features(0)))
    database.close()
    for damage in (b"0", "text", 7):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE keyframes SET features = ?", (damage,))
        database = KeyframeDatabase(path, MODEL, WORDS)
        assert database.features(database.keyframe(0)) is None
        database.close()
