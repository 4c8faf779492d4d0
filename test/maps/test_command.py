# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import dataclasses
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.images import thumbnail
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.command import main
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.network.hamming import Descriptor

MODEL = "a" * 64
WORDS = 4
THUMBNAIL = thumbnail(np.zeros((48, 64), np.uint8))
SECOND = 1_000_000_000
FEATURES = Features((64, 48), np.zeros((2, 2), np.uint16), np.zeros(2, np.uint8), np.ones((2, 32), np.uint8))


def descriptor(seed: int) -> Descriptor:
    return np.random.default_rng(seed).integers(0, 2**63, WORDS).astype(np.uint64)


def write_map(path: Path, first: int, model: str = MODEL) -> Path:
    """Write a map of two sessions of three keyframes; the third alone closes one, has features, and a thumbnail."""
    for session in range(2):
        database = KeyframeDatabase(path, model, WORDS)
        for number in range(3):
            stamp = (first + 100 * session + number) * SECOND + 5
            keyframe = database.next_keyframe(stamp, descriptor(first + 3 * session + number))
            if number == 2:
                keyframe = dataclasses.replace(keyframe, features=FEATURES, closes=keyframe.id - 2, thumbnail=THUMBNAIL)
            database.add(keyframe)
        database.close()
    return path


@pytest.fixture
def office(tmp_path: Path) -> Path:
    return write_map(tmp_path / "office.db", 1000)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["map", *map(str, arguments)])
    return main()


def test_info(office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "info", office) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{office}: 6 keyframes in 2 sessions, ")
    assert lines[1] == f"model {MODEL}, 256 bits; map version 3; 2 keyframes with local features, 2 with a thumbnail"
    assert lines[2] == "session 0: 3 keyframes from 1000.000 s, over 2.000 s"
    assert lines[3] == "session 1: 3 keyframes from 1100.000 s, over 2.000 s"


def test_a_map_in_use_and_one_that_cannot_be_written_are_read(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_use = KeyframeDatabase(office, MODEL, WORDS)
    in_use.add(in_use.next_keyframe(2000 * SECOND, descriptor(1)))
    assert run(monkeypatch, "info", office) == 0
    assert ": 7 keyframes in 3 sessions" in capsys.readouterr().out
    in_use.close()
    locked = tmp_path / "locked"
    locked.mkdir()
    (locked / "map.db").write_bytes(office.read_bytes())
    (locked / "map.db").chmod(0o444)
    locked.chmod(0o555)
    assert run(monkeypatch, "check", locked / "map.db") == 0
    locked.chmod(0o755)
    assert [path.name for path in locked.iterdir()] == ["map.db"]


def test_the_size_of_a_map_in_use_has_its_log_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database = KeyframeDatabase(tmp_path / "map.db", MODEL, WORDS)
    for number in range(40):
        database.add(database.next_keyframe(number * SECOND, descriptor(number), FEATURES, THUMBNAIL * 20))
    assert run(monkeypatch, "info", tmp_path / "map.db") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert float(line.split()[-2]) == round((tmp_path / "map.db-wal").stat().st_size / 2**20, 1) > 0.1
    database.close()


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


def test_export(office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "office.csv"
    assert run(monkeypatch, "export", office, "--output", output) == 0
    with output.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list("012345")
    assert (rows[4]["session"], rows[4]["stamp"]) == ("1", "1101.000000005")
    assert bytes.fromhex(rows[4]["descriptor"]) == descriptor(1004).tobytes()
    assert run(monkeypatch, "export", office, "--output", output) == 1


def test_what_reads_the_export_may_stop_reading(office: Path) -> None:
    command = f"{shlex.join([sys.executable, '-m', 'binvpr_ros.maps.command', 'export', str(office)])} | head -n 0"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_export_thumbnails(office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "thumbnails"
    assert run(monkeypatch, "export", office, "--output", tmp_path / "office.csv", "--thumbnails", folder) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "000002.jpg": THUMBNAIL,
        "000005.jpg": THUMBNAIL,
    }
    assert run(monkeypatch, "export", office, "--output", tmp_path / "again.csv", "--thumbnails", folder) == 1


def test_a_map_without_thumbnails_exports_none(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(office) as connection:
        connection.execute("UPDATE keyframes SET thumbnail = NULL")
    connection.close()
    output, folder = tmp_path / "office.csv", tmp_path / "thumbnails"
    assert run(monkeypatch, "export", office, "--output", output, "--thumbnails", folder) == 1
    assert "keeps no thumbnails; leave out --thumbnails" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE keyframes SET descriptor = x'00' WHERE id = 3", "keyframe 3: its descriptor is not of 32 bytes"),
        ("UPDATE keyframes SET stamp = 'noon' WHERE id = 1", "keyframe 1: its stamp is no integer"),
        ("UPDATE keyframes SET features = x'0102' WHERE id = 5", "keyframe 5: its features cannot be read"),
        ("UPDATE keyframes SET thumbnail = x'89504e47' WHERE id = 5", "keyframe 5: its thumbnail is no jpeg file"),
        ("UPDATE keyframes SET closes = 'x' WHERE id = 2", "keyframe 2: what it closes is no integer"),
        ("UPDATE keyframes SET closes = 2 WHERE id = 2", "keyframe 2: what it closes is no earlier keyframe"),
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
    for command in (["merge", lab, office, "--output", office.with_name("x.db")], ["export", office]):
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
    assert capsys.readouterr().out.splitlines() == [f"{office}: problems: 1", "  keyframe 2: its id is there twice"]
    lab = write_map(office.with_name("lab.db"), 5000)
    assert run(monkeypatch, "merge", lab, office, "--output", office.with_name("x.db")) == 1
    assert "is damaged at keyframe 2: its id is there twice" in capsys.readouterr().err
    with pytest.raises(DatabaseError, match="is damaged at keyframe 2; restore a copy of the file"):
        KeyframeDatabase(office, MODEL, WORDS)


def test_a_map_of_two_models(office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(office) as connection:
        connection.execute("INSERT INTO map SELECT * FROM map")
    connection.close()
    assert run(monkeypatch, "check", office) == 1
    assert "does not say which model it was made with" in capsys.readouterr().out
    with pytest.raises(DatabaseError, match="does not say which model it was made with"):
        KeyframeDatabase(office, MODEL, WORDS)


@pytest.mark.parametrize("words", ["abc", 0, -1, 100_000_000, None])
def test_a_map_that_lies_about_its_descriptors(
    office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: object
) -> None:
    with sqlite3.connect(office) as connection:
        connection.execute("DROP TABLE map")
        connection.execute("CREATE TABLE map (schema_version, model_sha256, descriptor_words)")
        connection.execute("INSERT INTO map VALUES (2, 'a', ?)", (words,))
    connection.close()
    assert run(monkeypatch, "info", office) == 1
    assert "does not say which model it was made with" in capsys.readouterr().err


def test_an_endless_view_is_no_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "view.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE map (schema_version, model_sha256, descriptor_words); INSERT INTO map VALUES (2, 'a', 4);"
            "CREATE VIEW keyframes AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
            "SELECT id, 0 AS session, 0 AS stamp, x'00' AS descriptor FROM n"
        )
    connection.close()
    assert run(monkeypatch, "info", path) == 1
    assert "does more than hold data" in capsys.readouterr().err
    with pytest.raises(DatabaseError, match="does more than hold data"):
        KeyframeDatabase(path, "a", WORDS)


@pytest.mark.parametrize("command", ["info", "check"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "is no file; name a map file"), (b"no map at all" * 100, "cannot be read as a map"),
     (b"", "has no tables; copy x.db-wal with it if a node has it open, or name another file")],
)  # fmt: skip
def test_what_is_no_map_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes | None,
    sentence: str, command: str,
) -> None:  # fmt: skip
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    assert run(monkeypatch, command, path) == 1
    said = capsys.readouterr()
    assert sentence in said.out + said.err
    assert "Traceback" not in said.err
    assert [found.name for found in tmp_path.iterdir()] == ([] if content is None else ["x.db"])


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


@pytest.mark.parametrize("command", ["recover", "merge"])
def test_a_new_map_takes_no_file_of_another(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    part = office.rename(tmp_path / "new.db.part")
    maps = [part, write_map(tmp_path / "lab.db", 5000)] if command == "merge" else [part]
    output, log = tmp_path / "new.db", tmp_path / "new.db-wal"
    log.write_bytes(b"of a map that stood here")
    assert run(monkeypatch, command, *maps, "--output", output) == 1
    assert f"{log} exists; name a new file" in capsys.readouterr().err
    log.unlink()
    assert run(monkeypatch, command, *maps, "--output", output) == 0
    assert run(monkeypatch, "check", output, *maps) == 0
    assert run(monkeypatch, command, *maps, "--output", tmp_path / "nowhere" / "new.db") == 1
    assert "new.db cannot be written (No such file or directory); name a new file elsewhere" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == sorted([*maps, output])


def test_an_export_that_fails_leaves_nothing(office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, output = tmp_path / "thumbnails", tmp_path / "office.csv"
    assert run(monkeypatch, "export", office, "--output", "/nowhere/office.csv", "--thumbnails", folder) == 1
    assert not folder.exists()
    with sqlite3.connect(office) as connection:
        connection.execute("UPDATE keyframes SET descriptor = x'00' WHERE id = 3")
    connection.close()
    assert run(monkeypatch, "export", office, "--output", output, "--thumbnails", folder) == 1
    assert not folder.exists()
    assert not output.exists()


def test_a_cut_map_is_sent_to_recovery(
    office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    office.write_bytes(office.read_bytes()[:-4096])
    assert run(monkeypatch, "check", office) == 1
    assert "malformed); restore a copy of the file, or run: map recover" in capsys.readouterr().out
    with pytest.raises(DatabaseError, match="or run: map recover"):
        KeyframeDatabase(office, MODEL, WORDS)
