# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.local_features.camera import Camera
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.identity import FIRST_KEYFRAMES, Identity, camera_from, camera_text, is_uuid
from binvpr_ros.maps.opening import opened
from maps.small_maps import CAMERA, MODEL, VERSION_3, WORDS, descriptor, fill, map_of_version

CAMERAS = {
    "rectified": dataclasses.replace(CAMERA, coefficients=np.zeros(0)),
    "plumb_bob": CAMERA,
    "rational": dataclasses.replace(CAMERA, coefficients=np.linspace(0, 0.1, 8)),
    "fisheye": dataclasses.replace(CAMERA, fisheye=True),
    "cropped": dataclasses.replace(CAMERA, matrix=CAMERA.matrix - np.array([[0, 0, 900.5], [0, 0, 0], [0, 0, 0]])),
}


def uuid_of(path: Path) -> str:
    with opened(path) as (connection, facts):
        return Identity.of(connection, facts).uuid


def test_a_new_map_has_a_uuid_of_its_own_which_stays(path: Path, tmp_path: Path) -> None:
    KeyframeDatabase(path, MODEL, WORDS).close()
    KeyframeDatabase(tmp_path / "other.db", MODEL, WORDS).close()
    uuid = uuid_of(path)
    assert is_uuid(uuid)
    assert uuid != uuid_of(tmp_path / "other.db")
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 3)
    database.close()
    assert uuid_of(path) == uuid


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_old_map_has_the_uuid_of_its_content_wherever_it_lies_and_goes_on_with_it(
    path: Path, tmp_path: Path, version: int
) -> None:
    map_of_version(version, path)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    uuid = uuid_of(path)
    assert is_uuid(uuid)
    assert uuid_of(copy) == uuid
    database = KeyframeDatabase(copy, MODEL, WORDS)
    database.add(database.next_keyframe(10**6, descriptor(9)), forgotten=[0, 1])
    database.close()
    assert uuid_of(copy) == uuid
    assert uuid_of(VERSION_3) != uuid
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE keyframes SET stamp = 5 WHERE id = 0")
    assert uuid_of(path) != uuid


def test_the_uuid_of_an_old_map_is_always_the_same() -> None:
    assert uuid_of(VERSION_3) == "679496b2-ae3a-5b77-8ddf-703e8d2ee98e"


def test_the_uuid_of_an_old_map_stays_while_it_grows(path: Path) -> None:
    map_of_version(3, path)
    uuids = set()
    with sqlite3.connect(path) as connection:
        for number in range(3, FIRST_KEYFRAMES + 20):
            row = (number, 0, number, descriptor(number).tobytes())
            connection.execute("INSERT INTO keyframes (id, session, stamp, descriptor) VALUES (?, ?, ?, ?)", row)
            connection.commit()
            if number >= FIRST_KEYFRAMES - 1:
                uuids.add(uuid_of(path))
    assert len(uuids) == 1


def test_two_old_maps_without_keyframes_are_not_taken_for_one(path: Path, tmp_path: Path) -> None:
    uuids = []
    for name in (path, tmp_path / "other.db"):
        map_of_version(2, name)
        with sqlite3.connect(name) as connection:
            connection.execute("DELETE FROM keyframes")
        KeyframeDatabase(name, MODEL, WORDS).close()
        uuids.append(uuid_of(name))
    assert uuids[0] != uuids[1]


@pytest.mark.parametrize("damage", [None, "", "monday", 7, b"\0", "{00000000-0000-0000-0000-000000000000}"])
def test_a_damaged_uuid_is_replaced(path: Path, damage: object) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 2)
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE map SET uuid = ?", (damage,))
    uuid = uuid_of(path)
    assert is_uuid(uuid)
    KeyframeDatabase(path, MODEL, WORDS).close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT uuid FROM map").fetchone() == (uuid,)


@pytest.mark.parametrize("name", CAMERAS)
def test_a_camera_comes_back_from_its_text(name: str) -> None:
    camera = CAMERAS[name]
    found = camera_from(camera_text(camera))
    assert found is not None
    assert (found.size, found.fisheye) == (camera.size, camera.fisheye)
    np.testing.assert_array_equal(found.matrix, camera.matrix)
    np.testing.assert_array_equal(found.coefficients, camera.coefficients)
    points = np.array([[10, 20], [470, 350]], np.float32)
    np.testing.assert_array_equal(found.undistorted(points), camera.undistorted(points))


def test_a_camera_that_a_calibration_describes_comes_back() -> None:
    camera = Camera.calibrated((640, 480), CAMERA.matrix, np.zeros(5), "")
    assert camera_text(camera_from(camera_text(camera))) == camera_text(camera)
    assert camera_text(None) is None
    assert camera_from(None) is None


@pytest.mark.parametrize(
    "change",
    [
        {"size": [0, 360]}, {"size": [480]}, {"size": [480.0, 360]}, {"size": [1 << 16, 1]}, {"size": 7},
        {"matrix": [1.0] * 8}, {"matrix": [float("nan")] * 9}, {"matrix": [0.0] * 9}, {"matrix": [10**400] + [1] * 8},
        {"matrix": {}}, {"matrix": ["x"] * 9}, {"coefficients": [0.0] * 3}, {"coefficients": [float("inf")] * 4},
        {"coefficients": [0.0] * 5, "fisheye": True}, {"coefficients": None},
    ],
)  # fmt: skip
def test_a_camera_that_makes_no_sense_is_none(change: dict[str, object]) -> None:
    facts = json.loads(camera_text(CAMERA) or "")
    assert camera_from(json.dumps(facts)) is not None
    assert camera_from(json.dumps({**facts, **change})) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "null", "{" * 100, "[" * 4000, "[" * 10**6, 7, b"{}", "\udcff"])
def test_a_text_that_is_no_camera_is_none(text: object) -> None:
    assert camera_from(text) is None
