# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.local_features.camera import Camera
from binvpr_ros.maps.command import problems
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from maps.small_maps import CAMERA, MODEL, WORDS, descriptor, features, fill, kept_motions, motion


def test_a_keyframe_is_in_the_file_when_add_returns(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 1)
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT id, session, stamp FROM keyframes").fetchall() == [(0, 0, 0)]


def test_motions_come_back(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    for number in range(4):
        keyframe = database.next_keyframe(number, descriptor(number))
        database.add(dataclasses.replace(keyframe, motion=None if number == 0 else motion(number)))
    in_memory = database.motion(0, 3)
    database.close()
    database = KeyframeDatabase(path, MODEL, WORDS)
    assert in_memory is not None
    np.testing.assert_array_equal(database.motion(0, 3), in_memory)
    database.close()
    for number, found in enumerate(kept_motions(path)[1:], 1):
        assert found is not None
        np.testing.assert_allclose(found, motion(number) / motion(number)[2, 2], atol=1e-6)


def test_the_motion_after_a_forgotten_keyframe_leads_to_the_one_before_it(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    steps = [motion(number).astype(np.float64) for number in range(9)]
    for number in range(6):
        keyframe = database.next_keyframe(number, descriptor(number))
        database.add(dataclasses.replace(keyframe, motion=motion(number) if number % 3 else None))
    database.add(dataclasses.replace(database.next_keyframe(6, descriptor(6)), motion=motion(6)), forgotten=[1, 5])
    database.add(dataclasses.replace(database.next_keyframe(7, descriptor(7)), motion=motion(7)), forgotten=[3, 6])
    assert database.ids.tolist() == [0, 2, 4, 7]
    in_memory = database._store.motions.copy()
    database.close()
    expected = [None, steps[1] @ steps[2], None, steps[5] @ steps[6] @ steps[7]]
    for at, (found, motions) in enumerate(zip(kept_motions(path), expected, strict=True)):
        assert (found is None) == (motions is None) == np.isnan(in_memory[at]).any()
        if found is not None and motions is not None:
            np.testing.assert_allclose(found, motions / motions[2, 2], atol=1e-5)
            np.testing.assert_allclose(in_memory[at].reshape(3, 3) / in_memory[at, 8], found, atol=1e-5)
    assert problems(path) == []


def test_a_motion_to_a_keyframe_that_could_not_be_written_is_not_known(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)

    def add(number: int, forgotten: list[int]) -> None:
        keyframe = database.next_keyframe(number, descriptor(number))
        database.add(dataclasses.replace(keyframe, motion=motion(number)), forgotten=forgotten)

    for number in range(3):
        add(number, [])
    moved = path.rename(path.with_suffix(".gone"))
    with pytest.raises(DatabaseError):
        add(3, [1])
    moved.rename(path)
    add(4, [])
    add(5, [2])
    assert database.ids.tolist() == [0, 3, 4, 5]
    database.close()
    known = [None, motion(1), None, motion(5)]  # of 0, 1, 4 and 5: that 1 is forgotten could not be written
    for found, expected in zip(kept_motions(path), known, strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            np.testing.assert_allclose(found, expected / expected[2, 2], atol=1e-6)


def test_to_forget_a_keyframe_does_not_write_the_features_of_the_next_one_again(path: Path) -> None:
    written = []
    for known in (False, True):
        database = KeyframeDatabase(path.with_name(f"{known}.db"), MODEL, WORDS)
        for number in range(20):
            keyframe = database.next_keyframe(number, descriptor(number), features(number, 500))
            database.add(dataclasses.replace(keyframe, motion=motion(number) if known else None))
        database.save()
        for number in range(20, 40):
            keyframe = database.next_keyframe(number, descriptor(number), features(number, 500))
            keyframe = dataclasses.replace(keyframe, motion=motion(number) if known else None)
            database.add(keyframe, forgotten=[2 * (number - 20)])
        written.append(path.with_name(f"{known}.db-wal").stat().st_size)
        database.close()
    assert written[1] < 1.1 * written[0]


def test_the_camera_is_kept_with_the_keyframes(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    database.add(database.next_keyframe(0, descriptor(0)))
    assert database.camera_of(database.keyframe(0)) is None
    database.add(database.next_keyframe(1, descriptor(1)), camera=dataclasses.replace(CAMERA, size=(640, 480)))
    database.add(database.next_keyframe(2, descriptor(2)), camera=CAMERA)
    database.add(database.next_keyframe(3, descriptor(3)))  # as after a start, before the calibration has come
    for again in (False, True):
        if again:
            database.close()
            database = KeyframeDatabase(path, MODEL, WORDS)
        camera = database.camera_of(database.keyframe(0))
        assert camera is not None
        assert (camera.size, camera.fisheye) == (CAMERA.size, False)
        np.testing.assert_array_equal(camera.matrix, CAMERA.matrix)
        np.testing.assert_array_equal(camera.coefficients, CAMERA.coefficients)


def test_of_which_keyframes_the_calibration_is_sure(path: Path) -> None:
    other = dataclasses.replace(CAMERA, size=(640, 480))
    again = dataclasses.replace(CAMERA, matrix=CAMERA.matrix.copy())
    drives: list[tuple[list[Camera | None], list[bool]]] = [
        ([None, CAMERA, again], [False, True, True]),
        ([None, again], [False, True, True, True, True]),  # the camera of before, of which no message had come yet
        ([None], [False] * 6),  # maybe another one
        ([again, other, None, other], [False] * 9 + [True]),
        ([other], [False] * 9 + [True] * 2),
    ]
    for cameras, sure in drives:
        database = KeyframeDatabase(path, MODEL, WORDS)
        for camera in cameras:
            number = len(database)
            database.add(database.next_keyframe(number, descriptor(number)), camera=camera)
        assert [database.calibration_is_sure(database.keyframe(at)) for at in range(len(database))] == sure
        database.close()
    new = KeyframeDatabase(path.with_name("new.db"), MODEL, WORDS, [path])
    assert [new.calibration_is_sure(new.keyframe(at)) for at in range(len(new))] == sure
    new.close()


def test_save_leaves_one_file_that_can_be_copied(path: Path, tmp_path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 4)
    assert database.save() == f"4 keyframes in {path}"
    shutil.copy(path, tmp_path / "copy.db")
    assert len(KeyframeDatabase(tmp_path / "copy.db", MODEL, WORDS)) == 4


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
