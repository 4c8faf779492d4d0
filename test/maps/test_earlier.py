# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.maps import earlier
from binvpr_ros.maps.command import merge
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from maps.small_maps import CAMERA, MODEL, WORDS, descriptor, features, fill, map_of_version, motion


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
        deadline = time.monotonic() + 20 * earlier.RETRY_INTERVAL
        while (found := reader.features(reader.keyframe(0))) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found is not None
        assert found.to_bytes() == features(0).to_bytes()
        assert reader.thumbnail(reader.keyframe(0)) == b"jpeg"
    reader.close()
    assert str(path) not in {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}


def test_keyframes_that_two_maps_hold_are_told(tmp_path: Path, path: Path) -> None:
    part, simulated, merged = tmp_path / "part.db", tmp_path / "simulated.db", tmp_path / "merged.db"
    for file, first in ((part, 0), (simulated, 10)):
        database = KeyframeDatabase(file, MODEL, WORDS)
        for number in range(3):  # with stamps that come again
            database.add(database.next_keyframe(number * 1000, descriptor(first + number)))
        database.close()
    merge([part, simulated], merged)
    for maps, told in (
        ([part, simulated], ""),
        ([merged], ""),
        (
            [merged, part],
            f"the maps hold 3 keyframes twice, the first of them in {part}, so that each closure with these is "
            "published twice; leave out copies, and maps that another was merged from",
        ),
    ):
        database = KeyframeDatabase(path, MODEL, WORDS, maps)
        assert database.repeated() == told
        database.close()


def test_a_map_alone_may_have_seen_a_recording_again(path: Path) -> None:
    for _ in range(2):
        database = KeyframeDatabase(path, MODEL, WORDS)
        database.add(database.next_keyframe(1000, descriptor(0)))
        assert not database.repeated()
        database.close()


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
    assert database.maps == len(before) + 1
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
    paths = [database.path_of(database.keyframe(number)) for number in range(7)]
    assert paths == [tmp_path / "monday.db"] * 3 + [tmp_path / "tuesday.db"] * 2 + [path] * 2
    database.reset()
    assert len(database) == 0
    database.reload()
    assert len(database) == 7
    database.close()
    assert {file: file.read_bytes() for file in tmp_path.glob("*day.db")} == before
    alone = KeyframeDatabase(path, MODEL, WORDS)
    assert (alone.ids.tolist(), alone.sessions.tolist(), alone.closes.tolist()) == ([0, 1], [0, 0], [NOTHING_CLOSED, 0])


def map_at(path: Path, first: int, camera: Camera | None = None) -> Path:
    database = KeyframeDatabase(path, MODEL, WORDS)
    for number in range(first, first + 3):
        keyframe = dataclasses.replace(database.next_keyframe(number * 1000, descriptor(number)), motion=motion(number))
        database.add(keyframe, camera=camera)
    database.close()
    return path


def close_loops(path: Path, earlier: list[Path], *ids: int) -> None:
    """Add a keyframe for each of these ids, which closes a loop to it."""
    database = KeyframeDatabase(path, MODEL, WORDS, earlier)
    for number in ids:
        database.add(dataclasses.replace(database.next_keyframe(10**6, descriptor(90)), closes=number))
    database.close()


def test_loops_closed_to_earlier_maps_come_back_with_them_wherever_they_lie(path: Path, tmp_path: Path) -> None:
    monday, tuesday = map_at(tmp_path / "monday.db", 0), map_at(tmp_path / "tuesday.db", 10)
    before = [monday.read_bytes(), tuesday.read_bytes()]
    close_loops(path, [monday, tuesday], 2, 4, NOTHING_CLOSED, 7)
    assert [monday.read_bytes(), tuesday.read_bytes()] == before
    (tmp_path / "moved").mkdir()
    moved = monday.rename(tmp_path / "moved" / "another name.db")

    def closes(*earlier: Path) -> list[int]:
        database = KeyframeDatabase(path, MODEL, WORDS, earlier)
        found = database.closes[-4:].tolist()
        assert [database.keyframe(len(database) - 4 + at).closes for at in range(4)] == found
        database.close()
        return found

    assert closes(moved, tuesday) == [2, 4, -1, 7]
    assert closes(tuesday, moved) == [5, 1, -1, 7]
    assert closes(tuesday) == [-1, 1, -1, 4]
    close_loops(path, [tuesday], NOTHING_CLOSED)  # what was closed in the other one stays in the file
    assert closes(moved, tuesday)[:-1] == [4, -1, 7]
    assert KeyframeDatabase(None, MODEL, WORDS, [path, tuesday, moved]).closes[:4].tolist() == [10, 6, -1, 1]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_loop_closed_to_a_map_of_an_earlier_version_comes_back_when_that_has_gone_on(
    path: Path, tmp_path: Path, version: int
) -> None:
    old = tmp_path / "old.db"
    map_of_version(version, old)
    close_loops(path, [old], 1)
    database = KeyframeDatabase(old, MODEL, WORDS)
    database.add(database.next_keyframe(10**6, descriptor(5)), forgotten=[0])
    database.close()
    assert KeyframeDatabase(path, MODEL, WORDS, [old]).closes.tolist()[-1] == 1


def test_closures_that_name_no_keyframe_of_a_map_are_left_alone(path: Path, tmp_path: Path) -> None:
    monday = map_at(tmp_path / "monday.db", 0)
    close_loops(path, [monday], 2)
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT * FROM closures").fetchall()
        for change in ("match_id = 3", "match_id = -1", "keyframe = 7", "map_uuid = 'x'", "match_id = 'x'"):
            connection.execute(f"UPDATE closures SET {change}")  # noqa: S608 - our own values
            connection.commit()
            database = KeyframeDatabase(path, MODEL, WORDS, [monday])
            assert database.closes.tolist() == [NOTHING_CLOSED] * 4
            database.close()
            connection.execute("DELETE FROM closures")
            connection.execute("INSERT INTO closures VALUES (?, ?, ?)", rows[0])
    connection.close()
    assert KeyframeDatabase(path, MODEL, WORDS, [monday]).closes.tolist() == [NOTHING_CLOSED] * 3 + [2]


def test_what_a_copy_of_a_map_closed_in_the_map_is_no_closure_within_the_copy(path: Path, tmp_path: Path) -> None:
    monday = map_at(tmp_path / "monday.db", 0)
    shutil.copy(monday, path)
    close_loops(monday, [], NOTHING_CLOSED, NOTHING_CLOSED)
    close_loops(path, [monday], 4)
    for maps, closes in (([monday], 4), ([], NOTHING_CLOSED)):
        database = KeyframeDatabase(path, MODEL, WORDS, maps)
        assert database.closes[-1] == closes
        database.close()


def test_a_closure_of_a_keyframe_that_is_not_there_is_none_of_another_map(path: Path, tmp_path: Path) -> None:
    monday, tuesday = map_at(tmp_path / "monday.db", 0), map_at(tmp_path / "tuesday.db", 10)
    close_loops(path, [monday], 1)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE closures SET keyframe = 2")
    connection.close()
    database = KeyframeDatabase(None, MODEL, WORDS, [path, monday, tuesday])
    assert database.closes.tolist() == [NOTHING_CLOSED] * 7


def test_what_is_forgotten_takes_its_closure_with_it(path: Path, tmp_path: Path) -> None:
    monday = map_at(tmp_path / "monday.db", 0)
    close_loops(path, [monday], 2, 1)
    database = KeyframeDatabase(path, MODEL, WORDS, [monday])
    database.add(database.next_keyframe(10**7, descriptor(91)), forgotten=[3])
    database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT keyframe, match_id FROM closures").fetchall() == [(1, 1)]


def test_what_closed_a_forgotten_keyframe_closes_what_that_closed_in_an_earlier_map(path: Path, tmp_path: Path) -> None:
    monday = map_at(tmp_path / "monday.db", 0)
    close_loops(path, [monday], 1, 3)
    database = KeyframeDatabase(path, MODEL, WORDS, [monday])
    database.add(database.next_keyframe(10**7, descriptor(91)), forgotten=[3])
    assert database.closes.tolist()[3:] == [1, NOTHING_CLOSED]
    database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT keyframe, match_id FROM closures").fetchall() == [(1, 1)]
        assert connection.execute("SELECT id, closes FROM keyframes").fetchall() == [(1, None), (2, None)]
    connection.close()
    assert KeyframeDatabase(path, MODEL, WORDS, [monday]).closes.tolist()[3:] == [1, NOTHING_CLOSED]


def test_motions_and_cameras_of_earlier_maps_are_their_own(path: Path, tmp_path: Path) -> None:
    monday = map_at(tmp_path / "monday.db", 0, CAMERA)
    tuesday = map_at(tmp_path / "tuesday.db", 10)
    database = KeyframeDatabase(path, MODEL, WORDS, [monday, tuesday])
    keyframe = database.next_keyframe(10**6, descriptor(20))
    other = dataclasses.replace(CAMERA, size=(640, 480))
    database.add(keyframe, camera=other)
    cameras = [database.camera_of(database.keyframe(at)) for at in range(7)]
    assert [camera and camera.size for camera in cameras] == [CAMERA.size] * 3 + [None] * 3 + [other.size]
    expected = motion(11).astype(np.float64) @ motion(12)
    found = database.motion(3, 5)
    assert found is not None
    np.testing.assert_allclose(found / found[2, 2], expected / expected[2, 2], atol=1e-6)
    assert database.motion(2, 3) is None  # of two maps


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


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_earlier_map_of_an_earlier_version_is_read_and_left_as_it_is(path: Path, version: int) -> None:
    map_of_version(version, path)
    content = path.read_bytes()
    database = KeyframeDatabase(None, MODEL, WORDS, [path])
    assert database.distances(descriptor(1))[1] == 0
    assert database.closes.tolist() == [NOTHING_CLOSED] * 3
    assert database.features(database.keyframe(0)) is None
    assert database.thumbnail(database.keyframe(0)) is None
    assert database.motion(0, 1) is None
    assert database.camera_of(database.keyframe(0)) is None
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (None, "is not a file; name a map file"),
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
