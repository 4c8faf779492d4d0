# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import pytest

from binvpr_ros.config import LOCAL_MODEL, share_directory
from binvpr_ros.local_features.features import LEARNED
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.network.model_card import ModelCard
from maps.command.written_maps import FEATURES, MODEL, SECOND, THUMBNAIL, WORDS, descriptor, run
from maps.small_maps import CAMERA, VERSION_3


def test_info(office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "info", office) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{office}: 6 keyframes in 2 sessions, ")
    features = "2 keyframes with local features (orb), 2 with a thumbnail"
    assert lines[1] == f"model {MODEL}, 256 bits; map version 4; {features}"
    with sqlite3.connect(office) as connection:
        (uuid,) = connection.execute("SELECT uuid FROM map").fetchone()
    assert lines[2] == f"uuid {uuid}; camera not known"
    assert lines[3] == "session 0: 3 keyframes from 1000.000 s, over 2.000 s"
    assert lines[4] == "session 1: 3 keyframes from 1100.000 s, over 2.000 s"


def test_info_names_a_packaged_model_and_counts_one_keyframe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    database = KeyframeDatabase(tmp_path / "map.db", ModelCard.read(model).sha256, WORDS)
    database.add(database.next_keyframe(SECOND, descriptor(1), FEATURES))
    database.close()
    assert run(monkeypatch, "info", tmp_path / "map.db") == 0
    lines = capsys.readouterr().out.splitlines()
    assert ": 1 keyframe in 1 session, " in lines[0]
    assert lines[1].startswith("model binvpr20r, 256 bits; map version ")
    assert lines[1].endswith("; 1 keyframe with local features (orb), 0 with a thumbnail")
    assert lines[3] == "session 0: 1 keyframe from 1.000 s, over 0.000 s"


def test_info_counts_the_kinds_of_local_features(
    office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = int(ModelCard.read(share_directory() / "models" / LOCAL_MODEL).sha256[:2], 16)
    kinds = [FEATURES._replace(tag=(LEARNED, model)) for model in (packaged, packaged, packaged, packaged ^ 1)]
    with sqlite3.connect(office) as connection:
        for number, kind in enumerate(kinds):
            values = (kind.to_bytes(), (0, 1, 3, 4)[number])
            connection.execute("UPDATE keyframes SET features = ? WHERE id = ?", values)
        connection.execute("UPDATE keyframes SET features = 7 WHERE id = 2")
    connection.close()
    assert run(monkeypatch, "info", office) == 0
    found = f"(3 learned, 1 damaged, 1 of another network, {packaged ^ 1:02x}..., 1 orb)"
    assert f"; 6 keyframes with local features {found}, 2 with" in capsys.readouterr().out


@pytest.mark.parametrize("fisheye", [False, True])
def test_info_about_the_camera(
    office: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fisheye: bool
) -> None:
    database = KeyframeDatabase(office, MODEL, WORDS)
    camera = dataclasses.replace(CAMERA, fisheye=fisheye)
    database.add(database.next_keyframe(2000 * SECOND, descriptor(1)), camera=camera)
    database.close()
    assert run(monkeypatch, "info", office) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("uuid "))
    lens = "fisheye" if fisheye else "lens"
    assert line.endswith(f"; camera of 480x360 pixels, focal length 405.0 pixels, 4 coefficients of its {lens}")


def test_info_about_a_map_of_an_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the uuid that it gets when it goes on."""
    old = tmp_path / "old.db"
    shutil.copy(VERSION_3, old)
    lines = []
    for _ in range(2):
        assert run(monkeypatch, "info", old) == 0
        lines.append(capsys.readouterr().out.splitlines())
        KeyframeDatabase(old, MODEL, WORDS).close()
    assert lines[0][2] == lines[1][2]
    assert ("map version 3;" in lines[0][1], "map version 4;" in lines[1][1]) == (True, True)


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
    assert "contains views or triggers" in capsys.readouterr().err
    with pytest.raises(DatabaseError, match="contains views or triggers"):
        KeyframeDatabase(path, "a", WORDS)


@pytest.mark.parametrize("command", ["info", "check"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "is not a file; name a map file"), (b"no map at all" * 100, "cannot be read as a map"),
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
