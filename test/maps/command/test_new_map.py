# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from maps.command.written_maps import run, write_map


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


def test_what_a_killed_program_has_left_is_named(
    office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = tmp_path / ".new.db.left"
    left.mkdir()
    (tmp_path / ".new.db.swp").touch()  # of an editor, say
    assert run(monkeypatch, "recover", office, "--output", tmp_path / "new.db") == 0
    named = f"{left} was left by a program that was killed, or belongs to one that still runs; remove it if none does\n"
    assert capsys.readouterr().err == named
