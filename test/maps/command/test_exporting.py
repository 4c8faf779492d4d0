# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maps.command.written_maps import THUMBNAIL, descriptor, run
from maps.small_maps import motion


def test_export(office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "office.csv"
    assert run(monkeypatch, "export", office, "--output", output) == 0
    with output.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list("012345")
    assert (rows[4]["session"], rows[4]["stamp"]) == ("1", "1101.000000005")
    assert bytes.fromhex(rows[4]["descriptor"]) == descriptor(1004).tobytes()
    assert [row["motion"] == "" for row in rows] == [True, False, False] * 2
    numbers = np.array(rows[4]["motion"].split(), np.float32).reshape(3, 3)
    np.testing.assert_array_equal(numbers, motion(1004))
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
