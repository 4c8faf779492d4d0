# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from maps.command.written_maps import MODEL, WORDS, descriptor, run
from maps.small_maps import CAMERA, kept_motions


@pytest.mark.parametrize(
    ("damage", "kept", "in_part"),
    [
        ("UPDATE keyframes SET descriptor = x'00' WHERE id = 3", [0, 1, 2, 4, 5], 0),
        ("UPDATE keyframes SET stamp = 'noon' WHERE id = 1", [0, 2, 3, 4, 5], 0),
        ("UPDATE keyframes SET features = x'0102' WHERE id = 5", [0, 1, 2, 3, 4, 5], 1),
        ("UPDATE keyframes SET closes = 'x', thumbnail = 'y' WHERE id = 2", [0, 1, 2, 3, 4, 5], 1),
        ("DELETE FROM keyframes WHERE id IN (0, 3)", [1, 2, 4, 5], 0),
    ],
)
def test_recover_keeps_what_is_whole(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str,
    kept: list[int], in_part: int,
) -> None:  # fmt: skip
    with sqlite3.connect(office) as connection:
        connection.execute(damage)
    connection.close()
    before, output = office.read_bytes(), tmp_path / "recovered.db"
    assert run(monkeypatch, "recover", office, "--output", output) == 0
    missed = "at most 1 cannot be read" if in_part == 0 and len(kept) == 5 else "no other was found"
    assert capsys.readouterr().out == f"{output}: {len(kept)} keyframes, {in_part} of them in part; {missed}\n"
    assert office.read_bytes() == before
    assert run(monkeypatch, "check", output) == 0
    database = KeyframeDatabase(output, MODEL, WORDS)
    assert database.ids.tolist() == kept
    for index, number in enumerate(kept):
        np.testing.assert_array_equal(database.keyframe(index).descriptor, descriptor(1000 + number))
    database.close()


def test_what_follows_a_lost_keyframe_has_no_motion(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept_motions(office)
    with sqlite3.connect(office) as connection:
        connection.execute("UPDATE keyframes SET descriptor = x'00' WHERE id = 1")
        connection.execute("UPDATE keyframes SET motion = x'00' WHERE id = 4")
    connection.close()
    output = tmp_path / "recovered.db"
    assert run(monkeypatch, "recover", office, "--output", output) == 0
    assert run(monkeypatch, "check", output) == 0
    found = kept_motions(output)
    assert [one is None for one in found] == [True, True, True, True, False]
    np.testing.assert_array_equal(found[4], before[5])


def test_recover_keeps_the_uuid_the_camera_and_the_closures_with_other_maps(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, output = tmp_path / "own.db", tmp_path / "recovered.db"
    database = KeyframeDatabase(own, MODEL, WORDS, [office])
    for number in (3, 4, 5):
        keyframe = dataclasses.replace(database.next_keyframe(number, descriptor(number)), closes=number)
        database.add(keyframe, camera=CAMERA)
    database.close()
    with sqlite3.connect(own) as connection:
        connection.execute("UPDATE keyframes SET descriptor = x'00' WHERE id = 1")
        connection.execute("UPDATE closures SET map_uuid = 'x' WHERE keyframe = 2")
    connection.close()
    assert run(monkeypatch, "recover", own, "--output", output) == 0
    assert run(monkeypatch, "check", output) == 0
    with sqlite3.connect(output) as connection, sqlite3.connect(own) as other:
        facts = "SELECT * FROM map"
        assert connection.execute(facts).fetchall() == other.execute(facts).fetchall()
        assert [row[::2] for row in connection.execute("SELECT * FROM closures")] == [(0, 3)]
    assert KeyframeDatabase(output, MODEL, WORDS, [office]).closes.tolist()[-2:] == [3, NOTHING_CLOSED]


def test_a_cut_map_is_sent_to_recovery(
    office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    office.write_bytes(office.read_bytes()[:-4096])
    assert run(monkeypatch, "check", office) == 1
    assert "malformed); restore a copy of the file, or run: map recover" in capsys.readouterr().out
    with pytest.raises(DatabaseError, match="or run: map recover"):
        KeyframeDatabase(office, MODEL, WORDS)
