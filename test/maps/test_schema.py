# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.keyframes import KEPT_FEATURES, NOTHING_CLOSED
from binvpr_ros.maps.command import problems
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.maps.schema import SCHEMA_VERSION
from maps.small_maps import CAMERA, MODEL, VERSION_3, WORDS, descriptor, features, map_of_version, motion

JPEG = b"\xff\xd8\xff"


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


def test_a_map_that_does_not_name_its_model(path: Path) -> None:
    KeyframeDatabase(path, MODEL, WORDS).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM map")
    with pytest.raises(DatabaseError, match="does not say which model"):
        KeyframeDatabase(path, MODEL, WORDS)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_map_of_an_earlier_version_opens_and_goes_on_as_version_4(path: Path, version: int) -> None:
    map_of_version(version, path)
    database = KeyframeDatabase(path, MODEL, WORDS)
    np.testing.assert_array_equal(database.stamps, np.arange(3) * 1000)
    assert database.features(database.keyframe(1)) is None
    assert database.thumbnail(database.keyframe(1)) is None
    database.add(database.next_keyframe(9, descriptor(3), features(3), JPEG))
    fourth = dataclasses.replace(database.next_keyframe(10, descriptor(4)), motion=motion(4))
    database.add(fourth, camera=CAMERA)
    database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT schema_version FROM map").fetchone() == (SCHEMA_VERSION,) == (4,)
    database = KeyframeDatabase(path, MODEL, WORDS)
    assert [database.features(database.keyframe(at)) is not None for at in range(4)] == [False, False, False, True]
    assert database.thumbnail(database.keyframe(3)) == JPEG
    step = database.motion(3, 4)
    assert step is not None
    np.testing.assert_allclose(step / step[2, 2], motion(4) / motion(4)[2, 2], atol=1e-6)
    assert database.motion(1, 2) is None
    assert database.camera_of(database.keyframe(0)) is not None
    database.close()
    assert problems(path) == []


@pytest.mark.parametrize("own", [False, True])
def test_a_map_that_the_program_of_version_3_wrote(path: Path, tmp_path: Path, own: bool) -> None:
    """Its features have no tag."""
    shutil.copy(VERSION_3, path)
    old = KeyframeDatabase(path if own else tmp_path / "own.db", MODEL, WORDS, [] if own else [path])
    assert (old.ids.tolist(), old.sessions.tolist()) == ([0, 1, 2, 3], [0, 0, 1, 1])
    assert old.closes.tolist() == [NOTHING_CLOSED, NOTHING_CLOSED, 0, NOTHING_CLOSED]
    for number in range(4):
        keyframe = old.keyframe(number)
        assert (keyframe.stamp, keyframe.descriptor.tolist()) == (number * 1000, descriptor(number).tolist())
        found = old.features(keyframe)
        assert found is not None
        assert found.to_bytes() == features(number, 12).to_bytes()
        assert (old.thumbnail(keyframe) or b"").startswith(JPEG)
        assert old.camera_of(keyframe) is None
    old.close()
    assert (path.read_bytes() == VERSION_3.read_bytes()) == (not own)
    assert problems(path) == problems(VERSION_3) == []


def test_more_features_than_are_kept_today_come_back(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    database.add(database.next_keyframe(1, descriptor(1), features(1, 3 * KEPT_FEATURES)))
    found = database.features(database.keyframe(0))
    assert found is not None
    assert len(found.positions) == 3 * KEPT_FEATURES


def test_a_map_of_version_1_of_another_model_is_left_alone(path: Path) -> None:
    map_of_version(1, path)
    with pytest.raises(DatabaseError, match="was made with another model"):
        KeyframeDatabase(path, "b" * 64, WORDS)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT schema_version FROM map").fetchone() == (1,)
