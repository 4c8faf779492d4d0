# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from random_features import random_features

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps import file as map_file
from binvpr_ros.maps import store as keyframe_store
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.maps.file import SCHEMA_VERSION
from binvpr_ros.maps.store import INITIAL_CAPACITY
from binvpr_ros.network.hamming import Descriptor, hamming

MODEL = "a" * 64
WORDS = 4


def descriptor(seed: int) -> Descriptor:
    return np.random.default_rng(seed).integers(0, 2**64, WORDS, np.uint64)


def features(seed: int, count: int = 5) -> Features:
    return random_features(seed, count)


def fill(database: KeyframeDatabase, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        database.add(database.next_keyframe(number * 1000, descriptor(number)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "map.db"


@pytest.fixture(params=["memory", "file"])
def database(request: pytest.FixtureRequest, path: Path) -> KeyframeDatabase:
    return KeyframeDatabase(None if request.param == "memory" else path, MODEL, WORDS)


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


def test_a_keyframe_is_in_the_file_when_add_returns(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 1)
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT id, session, stamp FROM keyframes").fetchall() == [(0, 0, 0)]


def test_save_leaves_one_file_that_can_be_copied(path: Path, tmp_path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 4)
    assert database.save() == f"4 keyframes in {path}"
    shutil.copy(path, tmp_path / "copy.db")
    assert len(KeyframeDatabase(tmp_path / "copy.db", MODEL, WORDS)) == 4


def test_saving_without_a_file_is_an_error() -> None:
    with pytest.raises(DatabaseError, match="start the node with the parameter database"):
        KeyframeDatabase(None, MODEL, WORDS).save()


def test_descriptors_of_another_model_are_refused(path: Path) -> None:
    KeyframeDatabase(path, MODEL, WORDS).close()
    with pytest.raises(DatabaseError, match="was made with another model"):
        KeyframeDatabase(path, "b" * 64, WORDS)


def test_a_map_of_a_later_version_is_refused(path: Path) -> None:
    KeyframeDatabase(path, MODEL, WORDS).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE map SET schema_version = 99")
    with pytest.raises(DatabaseError, match="has map version 99"):
        KeyframeDatabase(path, MODEL, WORDS)


def test_a_file_that_is_no_map_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("no map at all, but somebody's text, longer than the header of SQLite" * 20)
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="cannot be opened as a map"):
        KeyframeDatabase(path, MODEL, WORDS)
    assert path.read_bytes() == before


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


def test_somebody_elses_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(DatabaseError, match="cannot be opened as a map"):
        KeyframeDatabase(path, MODEL, WORDS)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]


def snapshot(folder: Path) -> tuple[int, dict[str, tuple[bytes, int]]]:
    """Return when a folder was changed, and of each of its files the content, and when it was written."""
    files = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir() if file.is_file()}
    return folder.stat().st_mtime_ns, files


def rosbag(path: Path) -> None:
    """Write the file of a ROS 2 bag."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")
    from rosbags.typesys import Stores, get_typestore

    typestore = get_typestore(Stores.ROS2_HUMBLE)
    message = typestore.types["std_msgs/msg/String"](data="hello" * 100)
    folder = path.parent / "bag"
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=typestore)
        for stamp in range(50):
            writer.write(connection, stamp, typestore.serialize_cdr(message, "std_msgs/msg/String"))
    (folder / "bag.db3").rename(path)
    shutil.rmtree(folder)


def rtabmap(path: Path) -> None:
    """Write a database with tables and a trigger, as a SLAM system does."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE Node (id INTEGER PRIMARY KEY, map_id INTEGER NOT NULL, weight INTEGER, pose BLOB);"
            "CREATE TABLE Link (from_id INTEGER, to_id INTEGER, type INTEGER, transform BLOB);"
            "CREATE INDEX IDX_Link ON Link (from_id, to_id);"
            "CREATE TRIGGER insert_Node BEFORE INSERT ON Node BEGIN SELECT 1; END;"
            "INSERT INTO Node VALUES (1, 0, 1, zeroblob(4000)), (2, 0, 1, zeroblob(4000))"
        )


def other_model(path: Path) -> None:
    database = KeyframeDatabase(path, "b" * 64, WORDS)
    fill(database, 3)
    database.close()


def later_version(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 3)
    database.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE map SET schema_version = 99")
        connection.commit()


def earlier_version_of_another_model(path: Path) -> None:
    map_of_version(1, path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE map SET model_sha256 = 'b'")
        connection.commit()


def no_tables(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
        connection.commit()


def leave(path: Path, mode: str, state: str, change: str) -> None:
    """Leave a database in a journal mode as a program does that is done, in the middle of `change`, or killed then."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
    if state == "closed":
        return
    running = path.parent / "running"
    running.mkdir()
    path.rename(running / path.name)
    with contextlib.closing(sqlite3.connect(running / path.name, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size=1")  # so that what is not committed is in the file already
        connection.execute(change)
        connection.execute("BEGIN")
        connection.execute(change)
        for file in running.iterdir():
            if state == "in use" or not file.name.endswith("-shm"):
                shutil.copy(file, path.parent)
    shutil.rmtree(running)
    assert any(_size(file) for file in path.parent.glob(f"{path.name}-*l"))


def _size(path: Path) -> int:
    return path.stat().st_size


NEW_TABLE = "CREATE TABLE IF NOT EXISTS t AS SELECT randomblob(300000)"
NEW_MESSAGE = "INSERT INTO messages (topic_id, timestamp, data) VALUES (1, 1, randomblob(300000))"
NEW_FEATURES = "UPDATE keyframes SET features = randomblob(300000)"
STRANGERS: list[tuple[Callable[[Path], None], str, str]] = [
    (rosbag, NEW_MESSAGE, r"cannot be opened as a map \(it has other tables\); name another file"),
    (rtabmap, "INSERT INTO Link VALUES (1, 2, 0, randomblob(300000))", "does more than hold data"),
    (other_model, NEW_FEATURES, "was made with another model"),
    (later_version, NEW_FEATURES, "has map version 99"),
    (earlier_version_of_another_model, "UPDATE keyframes SET descriptor = randomblob(300000)", "with another model"),
]
"""Databases that a node must not write, what is written to each while it is left, and why it is refused."""


@pytest.mark.parametrize("state", ["closed", "in use", "killed"])
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize(("write", "change", "sentence"), STRANGERS)
def test_not_a_byte_is_written_to_a_database_that_is_no_map_of_this_node(
    path: Path, write: Callable[[Path], None], change: str, sentence: str, mode: str, state: str
) -> None:
    write(path)
    leave(path, mode, state, change)
    before = snapshot(path.parent)
    with pytest.raises(DatabaseError, match=sentence):
        KeyframeDatabase(path, MODEL, WORDS)
    assert snapshot(path.parent) == before


def test_a_database_whose_tables_are_all_in_its_log(path: Path) -> None:
    no_tables(path)
    leave(path, "WAL", "killed", NEW_TABLE)
    before = snapshot(path.parent)
    with pytest.raises(DatabaseError, match="it has other tables"):
        KeyframeDatabase(path, MODEL, WORDS)
    assert snapshot(path.parent) == before


@pytest.mark.parametrize(
    "content", [b"a text that somebody wrote\n" * 200, b"\xff\xd8\xff\xe0" + bytes(5000), b"SQLite"]
)
@pytest.mark.parametrize("ending", ["", "-wal", "-journal"])
def test_not_a_byte_is_written_to_a_file_that_is_no_database(path: Path, content: bytes, ending: str) -> None:
    path.write_bytes(content)
    if ending:
        path.with_name(path.name + ending).write_bytes(b"of somebody" * 500)
    before = snapshot(path.parent)
    with pytest.raises(DatabaseError, match=r"cannot be opened as a map .*; name a map file or a new one"):
        KeyframeDatabase(path, MODEL, WORDS)
    assert snapshot(path.parent) == before


def test_nothing_is_written_to_a_folder_or_a_database_without_tables(path: Path, tmp_path: Path) -> None:
    no_tables(path)
    before = snapshot(tmp_path)
    with pytest.raises(DatabaseError, match=r"has no tables; copy map\.db-wal with it"):
        KeyframeDatabase(path, MODEL, WORDS)
    assert snapshot(tmp_path) == before
    path.unlink()
    path.mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(DatabaseError, match=r"cannot be opened as a map \(Is a directory\)"):
        KeyframeDatabase(path, MODEL, WORDS)
    assert (snapshot(tmp_path), list(path.iterdir())) == (before, [])


@pytest.mark.parametrize("number", ["application_id", "user_version"])
@pytest.mark.parametrize("in_log", [False, True])
def test_nothing_is_written_to_an_open_database_that_another_program_has_marked(
    path: Path, number: str, in_log: bool
) -> None:
    statements = ["PRAGMA journal_mode=WAL", f"PRAGMA {number}=7", "SELECT * FROM sqlite_master"]
    if not in_log:
        statements[:2] = statements[1::-1]
    program = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2:]: connection.execute(statement).fetchall()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path, *statements], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        before = snapshot(path.parent)
        assert set(before[1]) == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
        assert bool(before[1][f"{path.name}-wal"][0]) == in_log
        with pytest.raises(DatabaseError, match="has no tables"):
            KeyframeDatabase(path, MODEL, WORDS)
        assert snapshot(path.parent) == before
        other.communicate(timeout=30)


@pytest.mark.parametrize(("mode", "ending"), [("DELETE", "-journal"), ("WAL", "-wal")])
@pytest.mark.parametrize("content", ["map", "empty", "missing"])
def test_the_log_or_journal_of_another_database_is_not_played_into_a_map(
    path: Path, tmp_path: Path, content: str, mode: str, ending: str
) -> None:
    stranger = tmp_path / "stranger" / "bag.db3"
    stranger.parent.mkdir()
    rosbag(stranger)
    leave(stranger, mode, "killed", NEW_MESSAGE)
    if content == "map":
        database = KeyframeDatabase(path, MODEL, WORDS)
        fill(database, 3)
        database.close()
    elif content == "empty":
        path.touch()
    shutil.copy(stranger.with_name(stranger.name + ending), path.with_name(path.name + ending))
    shutil.rmtree(stranger.parent)
    before = snapshot(tmp_path)
    with pytest.raises(
        DatabaseError, match="it has other tables" if content == "map" else f"{path} is {content}, though"
    ):
        KeyframeDatabase(path, MODEL, WORDS)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("state", ["empty", "no page yet", "a page", "an empty log", "a torn log"])
def test_a_map_whose_node_was_killed_as_it_began_it_is_a_new_one(path: Path, tmp_path: Path, state: str) -> None:
    folder = tmp_path / "running"
    folder.mkdir()
    if state == "empty":
        path.touch()
    else:
        with contextlib.closing(sqlite3.connect(folder / path.name, isolation_level=None)) as connection:
            if state.endswith("log"):
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("SELECT * FROM sqlite_master")
                if state == "a torn log":
                    connection.execute("CREATE TABLE map (schema_version INTEGER)")
                    os.truncate(folder / "map.db-wal", 5000)
            else:  # SQLite writes its first page as any other transaction
                connection.execute("PRAGMA cache_size=1")
                connection.execute("BEGIN")
                connection.execute(NEW_TABLE)
            for file in folder.iterdir():
                shutil.copy(file, path.parent)
        if state == "no page yet":
            os.truncate(path, 0)
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 2)
    database.close()
    assert len(KeyframeDatabase(path, MODEL, WORDS)) == 2


def test_a_map_that_was_killed_is_found_through_a_link(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    database = KeyframeDatabase(folder / "map.db", MODEL, WORDS)
    fill(database, 3)
    copies = tmp_path / "copies"
    copies.mkdir()
    for name in ("map.db", "map.db-wal"):
        shutil.copy(folder / name, copies / name)
    path.symlink_to(copies / "map.db")
    assert len(KeyframeDatabase(None, MODEL, WORDS, [path])) == 3
    assert len(KeyframeDatabase(path, MODEL, WORDS)) == 3


def test_an_earlier_map_that_is_no_map_gets_nothing_beside_it(path: Path) -> None:
    rosbag(path)
    leave(path, "WAL", "killed", NEW_MESSAGE)
    before = snapshot(path.parent)
    with pytest.raises(DatabaseError, match="it has other tables"):
        KeyframeDatabase(None, MODEL, WORDS, [path])
    assert snapshot(path.parent) == before


def test_an_earlier_map_that_was_rubbish_for_a_while_is_verified_again(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    database.add(database.next_keyframe(0, descriptor(0), features(0), b"jpeg"))
    database.close()
    reader = KeyframeDatabase(None, MODEL, WORDS, [path])
    content = path.read_bytes()
    for rubbish in (b"somebody's text", b"", content[:5000]):
        path.write_bytes(rubbish)
        assert reader.features(reader.keyframe(0)) is None
        assert reader.thumbnail(reader.keyframe(0)) is None
        restored = path.with_suffix(".restored") if rubbish == b"" else path
        restored.write_bytes(content)
        restored.replace(path)
        deadline = time.monotonic() + 20 * map_file.RETRY_INTERVAL
        while (found := reader.features(reader.keyframe(0))) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found is not None
        assert found.to_bytes() == features(0).to_bytes()
        assert reader.thumbnail(reader.keyframe(0)) == b"jpeg"
    reader.close()
    assert str(path) not in {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be opened as a map"):
        KeyframeDatabase(tmp_path / "nowhere" / "map.db", MODEL, WORDS)


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
    monkeypatch.setattr(map_file, "ROWS_READ", 3)
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
    monkeypatch.setattr(map_file, "ROWS_READ", rows_read)
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


def test_a_keyframe_that_cannot_be_written_is_kept_in_memory(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 1)
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE keyframes")
    with pytest.raises(DatabaseError, match="cannot be written"):
        fill(database, 1, start=1)
    np.testing.assert_array_equal(database.ids, [0, 1])


def test_save_says_when_another_program_keeps_the_file_from_being_whole(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 1)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM keyframes").fetchone()
    fill(database, 1, start=1)
    with pytest.raises(DatabaseError, match=r"another program has .* open; close it and save again"):
        database.save()
    reader.close()
    assert database.save().startswith("2 keyframes in")


def test_a_map_belongs_to_one_node_at_a_time(path: Path) -> None:
    first = KeyframeDatabase(path, MODEL, WORDS)
    with pytest.raises(DatabaseError, match="is in use by another node; give each node a map of its own"):
        KeyframeDatabase(path, MODEL, WORDS)
    fill(first, 1)
    first.close()
    assert len(KeyframeDatabase(path, MODEL, WORDS)) == 1


@pytest.mark.parametrize(("replaced", "sentence"), [(False, "was removed while in use"), (True, "was replaced while")])
def test_a_map_that_is_taken_away_is_noticed(path: Path, replaced: bool, sentence: str) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 1)
    path.rename(path.with_suffix(".old"))
    if replaced:
        path.write_text("somebody's text")
    with pytest.raises(DatabaseError, match=sentence):
        fill(database, 1, start=1)
    with pytest.raises(DatabaseError, match=sentence):
        database.save()


def test_a_map_that_does_not_name_its_model(path: Path) -> None:
    KeyframeDatabase(path, MODEL, WORDS).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM map")
    with pytest.raises(DatabaseError, match="does not say which model"):
        KeyframeDatabase(path, MODEL, WORDS)


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


def map_of_version(version: int, path: Path) -> None:
    """Write a map of three keyframes, as it was before there were features, or before there were thumbnails."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE map (schema_version INTEGER NOT NULL, model_sha256 TEXT NOT NULL, "
            "descriptor_words INTEGER NOT NULL)"
        )
        connection.execute(
            "CREATE TABLE keyframes (id INTEGER PRIMARY KEY, session INTEGER NOT NULL, stamp INTEGER NOT NULL, "
            "descriptor BLOB NOT NULL  -- packed bits, little-endian words of 64\n)"
        )
        if version == 2:
            connection.execute("ALTER TABLE keyframes ADD COLUMN features BLOB")
            connection.execute("ALTER TABLE keyframes ADD COLUMN closes INTEGER")
        connection.execute("INSERT INTO map VALUES (?, ?, ?)", (version, MODEL, WORDS))
        rows = [(number, 0, number * 1000, descriptor(number).tobytes()) for number in range(3)]
        connection.executemany("INSERT INTO keyframes (id, session, stamp, descriptor) VALUES (?, ?, ?, ?)", rows)


@pytest.mark.parametrize("version", [1, 2])
def test_a_map_of_an_earlier_version_opens_and_goes_on_as_version_3(path: Path, version: int) -> None:
    map_of_version(version, path)
    database = KeyframeDatabase(path, MODEL, WORDS)
    np.testing.assert_array_equal(database.stamps, np.arange(3) * 1000)
    assert database.features(database.keyframe(1)) is None
    assert database.thumbnail(database.keyframe(1)) is None
    database.add(database.next_keyframe(9, descriptor(3), features(3), b"jpeg"))
    database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT schema_version FROM map").fetchone() == (SCHEMA_VERSION,) == (3,)
    database = KeyframeDatabase(path, MODEL, WORDS)
    assert [database.features(database.keyframe(at)) is not None for at in range(4)] == [False, False, False, True]
    assert database.thumbnail(database.keyframe(3)) == b"jpeg"


def test_a_map_of_version_1_of_another_model_is_left_alone(path: Path) -> None:
    map_of_version(1, path)
    with pytest.raises(DatabaseError, match="was made with another model"):
        KeyframeDatabase(path, "b" * 64, WORDS)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT schema_version FROM map").fetchone() == (1,)


def test_earlier_maps_are_matched_as_if_they_were_one_with_this(tmp_path: Path, path: Path) -> None:
    for name, numbers in (("monday", (0, 1, 2)), ("tuesday", (3, 4))):
        earlier = KeyframeDatabase(tmp_path / f"{name}.db", MODEL, WORDS)
        for number in numbers:
            keyframe = earlier.next_keyframe(number * 1000, descriptor(number), features(number), b"%d" % number)
            earlier.add(dataclasses.replace(keyframe, closes=0 if number in (2, 4) else NOTHING_CLOSED))
            earlier.new_session()
        earlier.close()
    before = {file: file.read_bytes() for file in tmp_path.glob("*.db")}
    database = KeyframeDatabase(path, MODEL, WORDS, sorted(before))
    assert (len(database), database.own) == (5, 0)
    keyframe = database.next_keyframe(5000, descriptor(5), features(5))
    assert (keyframe.id, keyframe.session) == (5, 5)
    database.add(dataclasses.replace(keyframe, closes=1))
    database.add(dataclasses.replace(database.next_keyframe(6000, descriptor(6)), closes=5))
    assert database.ids.tolist() == list(range(7))
    assert database.sessions.tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert database.closes.tolist() == [NOTHING_CLOSED, NOTHING_CLOSED, 0, NOTHING_CLOSED, 3, 1, 5]
    for number in range(6):
        assert database.distances(descriptor(number))[number] == 0
        found = database.features(database.keyframe(number))
        assert found is not None
        assert found.to_bytes() == features(number).to_bytes()
        assert database.thumbnail(database.keyframe(number)) == (b"%d" % number if number < 5 else None)
    assert database.features(database.keyframe(6)) is None
    database.reset()
    assert len(database) == 0
    database.reload()
    assert len(database) == 7
    database.close()
    assert {file: file.read_bytes() for file in tmp_path.glob("*day.db")} == before
    alone = KeyframeDatabase(path, MODEL, WORDS)  # the file knows of no other map
    assert (alone.ids.tolist(), alone.sessions.tolist(), alone.closes.tolist()) == ([0, 1], [0, 0], [NOTHING_CLOSED, 0])


def test_an_earlier_map_may_be_in_use(tmp_path: Path, path: Path) -> None:
    writer = KeyframeDatabase(path, MODEL, WORDS)
    fill(writer, 3)
    assert len(KeyframeDatabase(tmp_path / "own.db", MODEL, WORDS, [path])) == 3
    fill(writer, 1, start=3)
    assert len(KeyframeDatabase(None, MODEL, WORDS, [path])) == 4


def test_an_earlier_map_that_another_node_goes_on_with_keeps_its_features(path: Path) -> None:
    """Which node starts first makes no difference."""

    def fill_with_features(database: KeyframeDatabase, numbers: range) -> None:
        for number in numbers:
            database.add(database.next_keyframe(number * 1000, descriptor(number), features(number)))

    writer = KeyframeDatabase(path, MODEL, WORDS)
    fill_with_features(writer, range(300))
    writer.close()
    reader = KeyframeDatabase(None, MODEL, WORDS, [path])

    def known() -> list[int]:
        found = [reader.features(reader.keyframe(number)) for number in range(300)]
        return [number for number, one in enumerate(found) if one and one.to_bytes() == features(number).to_bytes()]

    assert known() == list(range(300))
    writer = KeyframeDatabase(path, MODEL, WORDS)
    fill_with_features(writer, range(300, 600))
    writer.add(writer.next_keyframe(10**12, descriptor(0)), forgotten=range(0, 300, 2))
    assert known() == list(range(1, 300, 2))
    writer.save()
    assert known() == list(range(1, 300, 2))
    writer.close()
    assert known() == list(range(1, 300, 2))
    path.rename(path.with_suffix(".moved"))
    assert known() == list(range(1, 300, 2))
    path.write_text("somebody's text")
    assert known() == list(range(1, 300, 2))
    reader.close()


@pytest.mark.parametrize("version", [1, 2])
def test_an_earlier_map_of_an_earlier_version_is_read_and_left_as_it_is(path: Path, version: int) -> None:
    map_of_version(version, path)
    content = path.read_bytes()
    database = KeyframeDatabase(None, MODEL, WORDS, [path])
    assert database.distances(descriptor(1))[1] == 0
    assert database.closes.tolist() == [NOTHING_CLOSED] * 3
    assert database.features(database.keyframe(0)) is None
    assert database.thumbnail(database.keyframe(0)) is None
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (None, "is no file; name a map file"),
        ("UPDATE map SET model_sha256 = 'b'", "was made with another model"),
        ("UPDATE map SET schema_version = 99", "has map version 99, not"),
        ("UPDATE keyframes SET id = 2147483646", "has too many keyframes, or sessions, beside the other maps"),
        ("UPDATE keyframes SET session = 2147483646", "has too many keyframes, or sessions, beside the other maps"),
        ("UPDATE keyframes SET descriptor = zeroblob(3)", "is damaged at keyframe 0"),
    ],
)
def test_an_earlier_map_that_cannot_be_used_is_named(
    tmp_path: Path, path: Path, change: str | None, sentence: str
) -> None:
    good, bad = tmp_path / "good.db", tmp_path / "bad.db"
    for file in (good, bad):
        database = KeyframeDatabase(file, MODEL, WORDS)
        fill(database, 1)
        database.add(database.next_keyframe(1, descriptor(1)))
        database.close()
    if change is None:
        bad.unlink()
    else:
        with sqlite3.connect(bad) as connection:
            connection.execute(change + (" WHERE id = 1" if " id " in change else ""))
    with pytest.raises(DatabaseError, match=f"{bad} {sentence}"):
        KeyframeDatabase(path, MODEL, WORDS, [good, bad])
    assert len(KeyframeDatabase(path, MODEL, WORDS, [good])) == 2  # nothing was left open or locked


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ESTALE, "cannot be reached (Stale file handle); check its disk"),
     (errno.ENOENT, "was removed while in use; restart the node")],
)  # fmt: skip
def test_a_disk_that_is_gone(path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 2)

    def gone(_self: Path) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", gone)
        with pytest.raises(DatabaseError, match=re.escape(f"{path} {sentence}")):
            database.add(database.next_keyframe(3000, descriptor(3)))
        with pytest.raises(DatabaseError, match=re.escape(sentence)):
            database.save()
    assert len(database) == 3  # in memory


def test_a_disk_that_knows_no_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unable)
    with pytest.raises(
        DatabaseError, match=r"cannot be locked \(No locks available\); keep it on a disk of this machine"
    ):
        KeyframeDatabase(path, MODEL, WORDS)


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


def test_a_full_map_makes_room_by_what_has_another_view(database: KeyframeDatabase) -> None:
    config = Config(max_keyframes=6, exclusion_time=1.0, exclusion_keyframes=1)
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
    config = Config(max_keyframes=10, exclusion_time=1.0, exclusion_keyframes=1)
    for number in range(70):
        keyframe = database.next_keyframe(number * 1_000_000_000, descriptor(number % 5))
        database.add(keyframe, forgotten=database.redundant(config) if number >= 40 else [])
    assert database.own == 10
    kept = {bytes(database.keyframe(position).descriptor) for position in range(len(database))}
    assert kept == {bytes(descriptor(number)) for number in range(5)}
