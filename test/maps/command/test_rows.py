# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from maps.command.written_maps import MODEL, WORDS, run, write_map

UNREADABLE = "its closure to another map cannot be read"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE keyframes SET descriptor = x'00' WHERE id = 3", "keyframe 3: its descriptor is not of 32 bytes"),
        ("UPDATE keyframes SET stamp = 'noon' WHERE id = 1", "keyframe 1: its stamp is not an integer"),
        ("UPDATE keyframes SET features = x'0102' WHERE id = 5", "keyframe 5: its features cannot be read"),
        ("UPDATE keyframes SET thumbnail = x'89504e47' WHERE id = 5", "keyframe 5: its thumbnail is not a jpeg file"),
        ("UPDATE keyframes SET closes = 'x' WHERE id = 2", "keyframe 2: the keyframe it closes to is not an integer"),
        ("UPDATE keyframes SET closes = 2 WHERE id = 2", "keyframe 2: the keyframe it closes to is not an earlier one"),
        ("UPDATE keyframes SET motion = x'00' WHERE id = 2", "keyframe 2: its motion is not of 36 bytes"),
        ("INSERT INTO closures VALUES (2, 'monday', 1)", f"keyframe 2: {UNREADABLE}"),
        ("INSERT INTO closures SELECT 3, uuid, 'x' FROM map", f"keyframe 3: {UNREADABLE}"),
        ("INSERT INTO closures SELECT -3, uuid, 1 FROM map", f"keyframe -3: {UNREADABLE}"),
        ("UPDATE keyframes SET session = -1 WHERE id = 4", "keyframe 4: its session is out of range"),
        ("UPDATE keyframes SET id = 4294967296 WHERE id = 5", "keyframe 4294967296: its id is out of range"),
    ],
)
def test_check_names_what_is_damaged(
    office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str, sentence: str
) -> None:
    with sqlite3.connect(office) as connection:
        connection.execute(damage)
    connection.close()
    assert run(monkeypatch, "check", office) == 1
    assert capsys.readouterr().out.splitlines() == [f"{office}: problems: 1", f"  {sentence}"]
    lab = write_map(office.with_name("lab.db"), 5000)
    before = sorted(office.parent.iterdir())
    commands = [["merge", lab, office, "--output", office.with_name("x.db")], ["export", office]]
    for command in commands[: 1 if "closures" in damage else 2]:  # what closes a loop is not exported
        assert run(monkeypatch, *command) == 1
        said = capsys.readouterr().err
        number, _, what = sentence.partition(": ")
        assert (
            said == f"map: {office} is damaged at {number}: {what}; restore a copy of the file, or run: map recover\n"
        )
    assert sorted(office.parent.iterdir()) == before


def test_a_table_that_has_an_id_twice(
    office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(office) as connection:
        connection.executescript(
            "CREATE TABLE copy AS SELECT * FROM keyframes; INSERT INTO copy SELECT * FROM keyframes WHERE id = 2;"
            "DROP TABLE keyframes; ALTER TABLE copy RENAME TO keyframes"
        )
    connection.close()
    assert run(monkeypatch, "check", office) == 1
    assert capsys.readouterr().out.splitlines() == [f"{office}: problems: 1", "  keyframe 2: its id occurs twice"]
    lab = write_map(office.with_name("lab.db"), 5000)
    assert run(monkeypatch, "merge", lab, office, "--output", office.with_name("x.db")) == 1
    assert "is damaged at keyframe 2: its id occurs twice" in capsys.readouterr().err
    with pytest.raises(DatabaseError, match="is damaged at keyframe 2; restore a copy of the file"):
        KeyframeDatabase(office, MODEL, WORDS)
