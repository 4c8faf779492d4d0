# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.opening import opened
from maps.command.written_maps import FEATURES, MODEL, SECOND, THUMBNAIL, WORDS, descriptor, run, write_map
from maps.small_maps import CAMERA, kept_motions


def test_a_map_of_the_first_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.db"
    with sqlite3.connect(old) as connection:
        connection.executescript(
            "CREATE TABLE map (schema_version INTEGER, model_sha256 TEXT, descriptor_words INTEGER);"
            "CREATE TABLE keyframes (id INTEGER PRIMARY KEY, session INTEGER, stamp INTEGER, descriptor BLOB);"
        )
        connection.execute("INSERT INTO map VALUES (1, ?, ?)", (MODEL, WORDS))
        connection.execute("INSERT INTO keyframes VALUES (0, 0, 7, ?)", (descriptor(0).tobytes(),))
    connection.close()
    new = write_map(tmp_path / "new.db", 50)
    assert run(monkeypatch, "check", old) == 0
    assert run(monkeypatch, "merge", old, new, "--output", tmp_path / "both.db") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'both.db'}: 7 keyframes in 3 sessions"
    assert KeyframeDatabase(tmp_path / "both.db", MODEL, WORDS).closes.tolist() == [-1, -1, -1, 1, -1, -1, 4]


def test_merge_numbers_on(office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, both = write_map(tmp_path / "lab.db", 5000), tmp_path / "both.db"
    before = office.read_bytes()
    assert run(monkeypatch, "merge", office, lab, "--output", both) == 0
    assert office.read_bytes() == before
    database = KeyframeDatabase(both, MODEL, WORDS)
    assert database.ids.tolist() == list(range(12))
    assert database.sessions.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert database.stamps[6] == 5000 * SECOND + 5
    assert database.closes.tolist() == [-1, -1, 0, -1, -1, 3, -1, -1, 6, -1, -1, 9]
    np.testing.assert_array_equal(database.keyframe(10).descriptor, descriptor(5004))
    features = database.features(database.keyframe(11))
    assert features is not None
    np.testing.assert_array_equal(features.descriptors, FEATURES.descriptors)
    assert database.thumbnail(database.keyframe(11)) == THUMBNAIL
    assert database.thumbnail(database.keyframe(10)) is None
    assert database.session == 4
    database.close()
    motions, parts = kept_motions(both), [*kept_motions(office), *kept_motions(lab)]
    assert [one is None for one in motions] == [True, False, False] * 4
    for found, expected in zip(motions, parts, strict=True):
        assert found is expected is None or np.array_equal(found, expected)  # type: ignore[arg-type]


def test_what_was_closed_in_a_part_that_comes_before_is_a_closure_within_the_merged_map(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, other, own = write_map(tmp_path / "lab.db", 5000), write_map(tmp_path / "other.db", 6000), tmp_path / "own.db"
    database = KeyframeDatabase(own, MODEL, WORDS, [office, other, lab])
    for closes in (1, 8, NOTHING_CLOSED, 15):
        database.add(dataclasses.replace(database.next_keyframe(7000 * SECOND, descriptor(1)), closes=closes))
    database.add(dataclasses.replace(database.next_keyframe(7000 * SECOND, descriptor(1)), closes=18))
    database.close()
    merged = tmp_path / "merged.db"
    assert run(monkeypatch, "merge", lab, office, own, "--output", merged) == 0
    assert run(monkeypatch, "check", merged) == 0
    for earlier, expected in (([], [7, -1, -1, 3, 12]), ([other], [13, 2, -1, 9, 18])):
        database = KeyframeDatabase(merged, MODEL, WORDS, earlier)
        assert database.closes[-5:].tolist() == expected
        database.close()
    uuids = [identity(path).uuid for path in (lab, office, own, merged)]
    assert len(set(uuids)) == 4


@pytest.mark.parametrize("same", [False, True])
def test_the_camera_of_a_merged_map(office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    lab, third = write_map(tmp_path / "lab.db", 5000), write_map(tmp_path / "third.db", 6000)
    for path, size in ((office, CAMERA.size), (lab, CAMERA.size if same else (96, 64))):
        database = KeyframeDatabase(path, MODEL, WORDS)
        camera = dataclasses.replace(CAMERA, size=size)
        database.add(database.next_keyframe(7000 * SECOND, descriptor(1)), camera=camera)
        database.close()
    assert run(monkeypatch, "merge", third, office, lab, "--output", tmp_path / "merged.db") == 0
    merged = identity(tmp_path / "merged.db").camera
    assert (merged and merged.size) == (CAMERA.size if same else None)


def identity(path: Path) -> Identity:
    with opened(path) as (connection, facts):
        return Identity.of(connection, facts)


def test_maps_that_do_not_go_together(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other, output = write_map(tmp_path / "other.db", 1, model="b" * 64), tmp_path / "both.db"
    assert run(monkeypatch, "merge", office, other, "--output", output) == 1
    assert f"{other} was made with another model than {office}; merge maps of one model" in capsys.readouterr().err
    assert run(monkeypatch, "merge", office, tmp_path / "none.db", "--output", output) == 1
    assert run(monkeypatch, "merge", office, office.parent / "." / office.name, "--output", output) == 1
    assert f"{office} is named twice; name each map once" in capsys.readouterr().err
    assert run(monkeypatch, "merge", office, write_map(tmp_path / "lab.db", 5000), "--output", office) == 1
    assert f"{office} exists; name a new file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["lab.db", "office.db", "other.db"]
    with pytest.raises(SystemExit):
        run(monkeypatch, "merge", office, "--output", output)
