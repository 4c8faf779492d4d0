# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from maps.small_maps import MODEL, WORDS, fill, map_of_version


def test_a_file_that_is_no_map_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("no map at all, but somebody's text, longer than the header of SQLite" * 20)
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="cannot be opened as a map"):
        KeyframeDatabase(path, MODEL, WORDS)
    assert path.read_bytes() == before


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
    (rtabmap, "INSERT INTO Link VALUES (1, 2, 0, randomblob(300000))", "contains views or triggers"),
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


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be opened as a map"):
        KeyframeDatabase(tmp_path / "nowhere" / "map.db", MODEL, WORDS)
