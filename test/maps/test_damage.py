# SPDX-License-Identifier: Apache-2.0
"""Torn, cut and changed maps, and disks that are full or cannot be written: one sentence, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from random_features import random_features

from binvpr_ros.local_features.features import Features
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.maps.command import info, problems, recover
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.network.hamming import Descriptor
from binvpr_ros.network.model_card import ModelCard

MODEL = "a" * 64
WORDS = 16
KEYFRAMES = 12
ORIGINAL = ("map.db", "map.db-wal")
ROOT = Path(__file__).resolve().parents[1]


def descriptor(seed: int) -> Descriptor:
    return np.random.default_rng(seed).integers(0, 2**64, WORDS, np.uint64)


def features(seed: int, count: int = 300) -> Features:
    return random_features(seed, count)


def fill(database: KeyframeDatabase, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        database.add(database.next_keyframe(number * 1000, descriptor(number), features(number)))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content of each file of a folder, and when it was written."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir() if file.is_file()}


def is_whole(database: KeyframeDatabase, count: int) -> bool:
    """Whether the map holds the first `count` keyframes as they were added."""
    return len(database) == count and all(
        np.array_equal(database.keyframe(number).descriptor, descriptor(number))
        and (found := database.features(database.keyframe(number))) is not None
        and found.to_bytes() == features(number).to_bytes()
        for number in range(count)
    )


def is_sentence(text: str) -> bool:
    """Whether it says what is wrong, and then what to do."""
    return re.fullmatch(r"[^;\n]+; [^\n]+", text) is not None


@contextlib.contextmanager
def done_or_refused() -> Iterator[None]:
    """See that what cannot be done is refused in a sentence."""
    try:
        yield
    except DatabaseError as error:
        if not is_sentence(str(error)):
            raise AssertionError(f"no sentence: {error}") from None


class Commits(NamedTuple):
    """A map whose node had its power cut: its files, and how long the write-ahead log was after each keyframe."""

    folder: Path
    lengths: list[int]

    def copy(self, folder: Path) -> Path:
        for name in ORIGINAL:
            shutil.copy(self.folder / name, folder / name)
        return folder / "map.db"


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> Commits:
    folder, cut = tmp_path_factory.mktemp("running"), tmp_path_factory.mktemp("cut")
    database = KeyframeDatabase(folder / "map.db", MODEL, WORDS)
    database.save()  # what comes now is in the log alone
    lengths = [0]
    for number in range(KEYFRAMES):
        fill(database, 1, start=number)
        lengths.append((folder / "map.db-wal").stat().st_size)
    for name in ORIGINAL:
        shutil.copy(folder / name, cut / name)
    database.close()
    return Commits(cut, lengths)


@pytest.mark.parametrize("seed", range(24))
def test_a_torn_log_loses_the_keyframes_from_the_tear_on_and_no_other(
    commits: Commits, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    path, tear = commits.copy(tmp_path), rng.randrange(commits.lengths[-1])
    if seed % 2:  # what the disk had no time to write is missing, or is something else
        os.truncate(tmp_path / "map.db-wal", tear)
    else:
        with (tmp_path / "map.db-wal").open("r+b") as log:
            log.seek(tear)
            log.write(rng.randbytes(commits.lengths[-1] - tear))
    committed = sum(length <= tear for length in commits.lengths[1:])
    database = KeyframeDatabase(path, MODEL, WORDS)
    assert is_whole(database, committed)
    fill(database, KEYFRAMES - committed, start=committed)  # and it goes on
    database.close()
    assert problems(path) == []
    assert is_whole(KeyframeDatabase(path, MODEL, WORDS), KEYFRAMES)


@pytest.fixture(scope="module")
def closed_map(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("closed") / "map.db"
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, KEYFRAMES)
    database.close()
    return path.read_bytes()


def try_all(path: Path) -> None:
    """Do with a damaged map all that `map` and a node do with one."""
    before = path.read_bytes()
    for look in (info, problems):
        with done_or_refused():
            look(path)
    recovered = path.with_name("recovered.db")
    recovered.unlink(missing_ok=True)
    with done_or_refused():
        recover(path, recovered)
        assert problems(recovered) == []
    assert path.read_bytes() == before
    opened: list[KeyframeDatabase] = []
    with done_or_refused():
        opened.append(KeyframeDatabase(path, MODEL, WORDS))
    if not opened:
        assert path.read_bytes() == before
        return
    (database,) = opened
    assert len(database) <= KEYFRAMES
    for number in range(len(database)):
        found = database.features(database.keyframe(number))
        if found is not None and found.to_bytes() != features(number).to_bytes():
            verify(features(number), found)
    database.distances(descriptor(0))
    with done_or_refused():
        fill(database, 1, start=KEYFRAMES)
    with done_or_refused():
        database.save()
    database.close()


@pytest.mark.parametrize("seed", range(20))
def test_a_map_that_was_cut_is_refused_in_a_sentence_and_left_as_it_is(
    closed_map: bytes, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "map.db"
    length = random.Random(seed).randrange(1, len(closed_map))  # noqa: S311 - no secret
    path.write_bytes(closed_map[:length])
    with pytest.raises(DatabaseError) as caught:
        KeyframeDatabase(path, MODEL, WORDS)
    assert is_sentence(str(caught.value))
    assert path.read_bytes() == closed_map[:length]


def test_a_map_that_has_lost_part_of_its_last_page_is_refused_and_recovered(closed_map: bytes, tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    path.write_bytes(closed_map[:-600])
    for look in (info, problems, lambda path: KeyframeDatabase(path, MODEL, WORDS)):
        with pytest.raises(DatabaseError, match="has lost its end; restore a copy of the file, or run: map recover"):
            look(path)
    recover(path, tmp_path / "recovered.db")
    assert len(held(tmp_path / "recovered.db")) >= KEYFRAMES - 1


def held(path: Path) -> dict[int, tuple[bytes, bytes | None]]:
    """Return the descriptors and features of a map by id."""
    database = KeyframeDatabase(path, MODEL, WORDS)
    found = {}
    for keyframe in map(database.keyframe, range(len(database))):
        kept = database.features(keyframe)
        found[keyframe.id] = keyframe.descriptor.tobytes(), None if kept is None else kept.to_bytes()
    database.close()
    return found


@pytest.fixture(scope="module")
def long_map(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("long") / "map.db"
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, 100)
    database.close()
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(10))
def test_what_an_overwritten_part_of_a_map_does_not_hit_is_recovered(
    long_map: bytes, tmp_path: Path, seed: int
) -> None:
    path, recovered = tmp_path / "map.db", tmp_path / "recovered.db"
    path.write_bytes(long_map)
    whole = held(path)
    rng = random.Random(seed)  # noqa: S311 - no secret
    start = rng.randrange(4 * 4096, len(long_map) - 2 * 4096)  # behind the facts and the root
    path.write_bytes(long_map[:start] + rng.randbytes(4096) + long_map[start + 4096 :])
    recover(path, recovered)
    left = held(recovered)
    assert sum(left[number] == whole[number] for number in left) >= 90


def test_what_is_left_of_a_map_that_was_cut_is_recovered(long_map: bytes, tmp_path: Path) -> None:
    path, recovered = tmp_path / "map.db", tmp_path / "recovered.db"
    path.write_bytes(long_map)
    whole = held(path)
    path.write_bytes(long_map[: len(long_map) // 2])
    said = recover(path, recovered)
    left = held(recovered)
    assert said.endswith(f"; what comes after keyframe {len(left) - 1} cannot be looked up")
    assert list(left) == list(range(len(left)))
    assert sum(left[number] == whole[number] for number in left) >= 40


@pytest.mark.parametrize("missing", [False, True])
def test_an_empty_file_whose_log_is_not_is_no_new_map(commits: Commits, tmp_path: Path, missing: bool) -> None:
    path = commits.copy(tmp_path)
    if missing:
        path.unlink()
    else:
        os.truncate(path, 0)
    before = snapshot(tmp_path)
    sentence = "is missing, .*" if missing else "is empty, though map.db-wal is not; copy both files again, or restore"
    with pytest.raises(DatabaseError, match=sentence):
        KeyframeDatabase(path, MODEL, WORDS)
    with pytest.raises(DatabaseError, match="is not a file" if missing else sentence):
        KeyframeDatabase(None, MODEL, WORDS, [path])
    for look in (info, problems):
        with pytest.raises(DatabaseError, match="is not a file" if missing else sentence):
            look(path)
    assert snapshot(tmp_path) == before


def test_a_map_that_was_copied_without_its_log_is_told_so(tmp_path: Path) -> None:
    database = KeyframeDatabase(tmp_path / "map.db", MODEL, WORDS)
    fill(database, 3)
    (tmp_path / "copies").mkdir()
    path = tmp_path / "copies" / "map.db"
    shutil.copy(tmp_path / "map.db", path)
    assert path.stat().st_size == 4096
    before = snapshot(path.parent)
    sentence = re.escape(f"{path} has no tables; copy map.db-wal with it if a node has it open, or name another file")
    with pytest.raises(DatabaseError, match=sentence):
        KeyframeDatabase(path, MODEL, WORDS)
    with pytest.raises(DatabaseError, match=sentence):
        KeyframeDatabase(None, MODEL, WORDS, [path])
    for look in (info, problems):
        with pytest.raises(DatabaseError, match=sentence):
            look(path)
    assert snapshot(path.parent) == before
    shutil.copy(tmp_path / "map.db-wal", path.parent)
    assert is_whole(KeyframeDatabase(path, MODEL, WORDS), 3)
    database.close()


@pytest.mark.parametrize("flips", [1, 4, 64, 1024])
def test_flipped_bits_are_refused_or_do_no_harm(closed_map: bytes, tmp_path: Path, flips: int) -> None:
    rng = random.Random(flips)  # noqa: S311 - no secret
    for number in range(20):
        data = bytearray(closed_map)
        # Half of them where SQLite keeps how the file is laid out.
        reach = 3 * 4096 if number % 2 else len(data)
        for _ in range(flips):
            data[rng.randrange(reach)] ^= 1 << rng.randrange(8)
        path = tmp_path / f"{number}.db"
        path.write_bytes(data)
        try_all(path)


@pytest.mark.parametrize("text", [b"stamp INTEGER NOT NULL", b"id INTEGER PRIMARY KEY", b"descriptor BLOB"])
def test_text_of_the_file_that_is_no_utf8(closed_map: bytes, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "map.db"
    assert text in closed_map
    for start in range(len(text)):
        path.write_bytes(closed_map.replace(text, text[:start] + b"\xff" + text[start + 1 :]))
        try_all(path)


@pytest.mark.parametrize("stamp", [2**63 - 1, -(2**63), 2**31 * 10**9])
def test_a_stamp_that_is_no_time_of_ros(closed_map: bytes, tmp_path: Path, stamp: int) -> None:
    path = tmp_path / "map.db"
    path.write_bytes(closed_map)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE keyframes SET stamp = ? WHERE id = 3", (stamp,))
        connection.commit()
    assert problems(path) == ["keyframe 3: its stamp is out of range"]
    with pytest.raises(DatabaseError, match="is damaged at keyframe 3; restore a copy of the file"):
        KeyframeDatabase(path, MODEL, WORDS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_costs_the_keyframes_from_then_on_and_no_other(small_disk: Path) -> None:
    path, ballast = small_disk / "map.db", small_disk / "ballast"
    ballast.write_bytes(bytes(256 << 10))
    database = KeyframeDatabase(path, MODEL, WORDS)
    with pytest.raises(DatabaseError, match=r"cannot be written \(.*\); check the disk and its space"):
        fill(database, 1000)
    written = len(database) - 1  # the last one is in memory only
    with done_or_refused():
        database.save()
    database.close()
    with done_or_refused():  # there may be no room for so much as an index of the log
        database = KeyframeDatabase(path, MODEL, WORDS)
        assert is_whole(database, written)
        database.close()
    ballast.unlink()
    database = KeyframeDatabase(path, MODEL, WORDS)
    assert is_whole(database, written)
    fill(database, 1, start=written)


def run_without_rights(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user to whom a folder may be read-only."""
    command = [sys.executable, *arguments]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root writes everywhere, and there is no setpriv to take that right away")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def refuse_to_start(path: Path) -> str:
    """Start a node on the map, see that it does not start, and return its sentence."""
    result = run_without_rights("-m", "binvpr_ros.ros.node", "--ros-args", "-p", f"database:={path}")
    output = result.stdout + result.stderr
    assert result.returncode == 1, output
    assert "Traceback" not in output
    (sentence,) = re.findall(r"cannot start: (.*)", output)
    assert is_sentence(sentence)
    return str(sentence)


@pytest.mark.usefixtures("ros")
@pytest.mark.parametrize(
    ("written", "folder_mode", "map_mode", "remedy"),
    [
        (False, 0o555, 0, "name a map file, or a new one in a writable folder"),
        (True, 0o755, 0o444, "make map.db writable"),
        (True, 0o555, 0o644, "copy map.db to a folder that you may write to"),
        (True, 0o555, 0o444, "copy map.db to a folder that you may write to"),
    ],
)
def test_what_cannot_be_written_keeps_the_node_from_starting_and_stays_as_it_is(
    tmp_path: Path, model: Path, written: bool, folder_mode: int, map_mode: int, remedy: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "map.db"
    if written:
        card = ModelCard.read(model)
        KeyframeDatabase(path, card.sha256, card.descriptor_bits // 64).close()
        path.chmod(map_mode)
    before = snapshot(folder)
    folder.chmod(folder_mode)
    sentence = refuse_to_start(path)
    folder.chmod(0o755)  # so that pytest can clear it away
    assert sentence.startswith(f"{path} cannot be opened as a map (")
    assert sentence.endswith(f"); {remedy}")
    assert snapshot(folder) == before


OPEN = f"""
import sys
from pathlib import Path
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
try:
    path = Path(sys.argv[2])
    own, earlier = (path, []) if sys.argv[1] == "database" else (None, [path])
    print(len(KeyframeDatabase(own, {MODEL!r}, {WORDS}, earlier)))
except DatabaseError as error:
    print(error)
"""
COPY_BOTH = "copy map.db and map.db-wal to a folder that you may write to"


@pytest.mark.parametrize(
    ("arguments", "log", "said"),
    [
        (("-c", OPEN, "database"), "full", COPY_BOTH),
        (("-c", OPEN, "maps"), "full", COPY_BOTH),
        (("-m", "binvpr_ros.maps.command", "info"), "full", COPY_BOTH),
        (("-m", "binvpr_ros.maps.command", "check"), "full", COPY_BOTH),
        (("-c", OPEN, "maps"), "indexed", f"{KEYFRAMES}"),
        (("-m", "binvpr_ros.maps.command", "info"), "indexed", f"{KEYFRAMES} keyframes"),
        (("-c", OPEN, "maps"), "empty", "0"),
        (("-m", "binvpr_ros.maps.command", "info"), "empty", "0 keyframes"),
        (("-c", OPEN, "maps"), "unreadable", "make map.db-wal readable"),
        (("-m", "binvpr_ros.maps.command", "info"), "unreadable", "make map.db-wal readable"),
    ],
)
def test_a_map_with_a_log_in_a_folder_that_cannot_be_written(
    commits: Commits, tmp_path: Path, arguments: tuple[str, ...], log: str, said: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = commits.copy(folder)
    if log == "empty":
        os.truncate(folder / "map.db-wal", 0)
    elif log == "indexed":  # as a reader leaves it behind
        assert f"{KEYFRAMES} keyframes" in info(path)
        assert (folder / "map.db-shm").exists()
    elif log == "unreadable":
        (folder / "map.db-wal").chmod(0)
    before = snapshot(folder)
    folder.chmod(0o555)
    result = run_without_rights(*arguments, str(path))
    folder.chmod(0o755)
    output = result.stdout + result.stderr
    assert "Traceback" not in output
    assert re.search(rf"(^|: |; ){said}", output, re.MULTILINE), output
    after = snapshot(folder)
    assert [after[name] for name in ORIGINAL] == [before[name] for name in ORIGINAL]
    assert after.keys() == before.keys()
    if said == COPY_BOTH:  # and that is what helps
        copy = commits.copy(tmp_path)
        assert run_without_rights(*arguments, str(copy)).stdout.split()[0] in (f"{KEYFRAMES}", f"{copy}:")


@pytest.mark.parametrize(
    "arguments", [("-c", OPEN, "database"), ("-c", OPEN, "maps"), ("-m", "binvpr_ros.maps.command", "info")]
)
def test_a_map_in_a_folder_that_cannot_be_searched(
    tmp_path: Path, closed_map: bytes, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "map.db").write_bytes(closed_map)
    folder.chmod(0)
    result = run_without_rights(*arguments, str(folder / "map.db"))
    folder.chmod(0o755)
    output = result.stdout + result.stderr
    assert "Traceback" not in output
    assert re.search(r"map.db cannot be (opened|read) as a map \(Permission denied\); \w+", output)


def test_a_map_with_a_log_on_a_disk_that_is_mounted_read_only(commits: Commits, small_disk: Path) -> None:
    path = commits.copy(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for own, earlier in ((path, []), (None, [path])):
        with pytest.raises(DatabaseError) as caught:
            KeyframeDatabase(own, MODEL, WORDS, earlier)
        assert is_sentence(str(caught.value))
        assert str(caught.value).endswith(f"; {COPY_BOTH}")
    for look in (info, problems):
        with pytest.raises(DatabaseError, match=COPY_BOTH):
            look(path)


@pytest.mark.usefixtures("ros")
def test_a_disk_that_fills_up_is_an_error_in_diagnostics_until_there_is_room_again(
    tmp_path: Path, world_images: list[NDArray[np.uint8]]
) -> None:
    robots = pytest.importorskip("robot")
    from diagnostic_msgs.msg import DiagnosticStatus

    path, log = tmp_path / "map.db", tmp_path / "map.db-wal"
    robot = robots.Robot(tmp_path, "-p", f"database:={path}", "-p", "keyframe_distance:=0.0",
                         "-p", "keyframe_min_interval:=0.0")  # fmt: skip
    try:
        saved = robot.show(world_images[:5], start=10)
        # The system refuses to let a file of the node's grow, as it does where the disk is full.
        _, hard = resource.prlimit(robot.process.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(robot.process.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
        robot.show(world_images[5:10], start=11)
        robot.wait(lambda: robot.listener.level == DiagnosticStatus.ERROR, "diagnostics report an error")
        assert re.fullmatch(
            rf"keyframes are kept in memory only: {path} cannot be written \(.*\); check the disk and its space",
            robot.listener.message,
        )
        assert robot.log.read_text().count("a keyframe is kept in memory only") == 1
        resource.prlimit(robot.process.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        saved += robot.show(world_images[10:15], start=12)
        robot.wait(lambda: robot.listener.level != DiagnosticStatus.ERROR, "diagnostics report no error any more")
        assert robot.count("keyframes") == int(robot.listener.diagnostics["keyframes_matched"]) == 15
    finally:
        robot.close()
    database = KeyframeDatabase(path, *_model_of(path))
    assert database.stamps.tolist() == saved
    assert problems(path) == []


def _model_of(path: Path) -> tuple[str, int]:
    """Return the checksum of a map's model and the words of its descriptors."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        model, words = connection.execute("SELECT model_sha256, descriptor_words FROM map").fetchone()
    return model, words


@pytest.mark.usefixtures("ros")
def test_a_second_node_does_not_start_on_the_map_of_the_first(
    tmp_path: Path, world_images: list[NDArray[np.uint8]]
) -> None:
    robots = pytest.importorskip("robot")
    path = tmp_path / "map.db"
    robot = robots.Robot(tmp_path, "-p", f"database:={path}", "-p", "keyframe_distance:=0.0")
    try:
        robot.show(world_images[:2], start=10)
        assert refuse_to_start(path) == f"{path} is in use by another node; give each node a map of its own"
        robot.show(world_images[2:4], start=11)
    finally:
        robot.close()
    assert len(KeyframeDatabase(path, *_model_of(path))) == 4
