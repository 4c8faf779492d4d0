# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binvpr_ros.local_features.features import Features
from binvpr_ros.maps import unsaved
from binvpr_ros.maps.unsaved import SLOT, UnsavedFeatures, in_memory
from maps.small_maps import features

KEPT = 3


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is taken for one on a disk, whatever it is on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(unsaved, "MOST_IN_MEMORY", KEPT)
    monkeypatch.setattr(unsaved, "LEAST_FREE", 0)
    monkeypatch.setattr(unsaved, "in_memory", lambda _folder: False)
    return folder


def known(kept: UnsavedFeatures, count: int) -> list[int]:
    """Return which keyframes' features are kept; they must be the right ones."""
    found = {number: kept.get(number) for number in range(count)}
    assert all(one is None or one.to_bytes() == features(number).to_bytes() for number, one in found.items())
    return [number for number, one in found.items() if one is not None]


def folder_of(kept: UnsavedFeatures) -> Path:
    """Return the folder of the file, whose name is that of one that was deleted."""
    assert kept._file is not None
    return Path(f"/proc/self/fd/{kept._file.fileno()}").readlink().parent


def filled(count: int) -> UnsavedFeatures:
    kept = UnsavedFeatures()
    for number in range(count):
        kept.add(number, features(number))
    return kept


def test_the_latest_are_in_memory_and_the_others_in_a_file_without_a_name(disk: Path) -> None:
    kept = filled(10)
    assert known(kept, 11) == list(range(10))
    assert len(kept._latest) == KEPT
    assert list(disk.iterdir()) == []
    assert kept._file is not None
    assert folder_of(kept) == disk
    assert os.fstat(kept._file.fileno()).st_size <= 7 * SLOT
    assert kept.dropped == 0


def test_the_file_is_closed_with_what_it_belongs_to() -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    before = files()
    kept, other = filled(10), filled(10)
    assert files() == before + 2
    kept.close()
    kept.close()
    assert known(kept, 10) == []
    del other
    gc.collect()
    assert files() == before


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=60))
def test_features_come_and_go_as_in_a_dictionary(steps: list[tuple[bool, int]]) -> None:
    """Of each step it is told whether one comes, and how many features it has, or else which one goes."""
    kept = UnsavedFeatures()
    expected: dict[int, Features] = {}
    for number, (comes, value) in enumerate(steps):
        if comes:
            expected[number] = features(number, value)
            kept.add(number, expected[number])
        elif expected:
            gone = sorted(expected)[value % len(expected)]
            del expected[gone]
            kept.forget(gone)
        for at in range(len(steps)):
            found = kept.get(at)
            assert (found is None) == (at not in expected)
            assert found is None or found.to_bytes() == expected[at].to_bytes()
    kept.close()


def test_the_room_of_what_was_forgotten_is_used_again() -> None:
    kept = filled(10)
    assert kept._file is not None
    size = os.fstat(kept._file.fileno()).st_size
    for number in range(10, 60):
        kept.forget(number - 10)
        kept.add(number, features(number))
    assert os.fstat(kept._file.fileno()).st_size <= size + SLOT
    assert known(kept, 60) == list(range(50, 60))


def test_where_all_folders_are_in_memory_the_earlier_ones_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsaved, "in_memory", lambda _folder: True)
    kept = filled(10)
    assert known(kept, 10) == [7, 8, 9]
    assert kept.dropped == 7


def test_the_first_folder_that_is_on_a_disk_is_taken(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(unsaved, "in_memory", lambda folder: folder != cache)
    kept = filled(10)
    assert folder_of(kept) == cache
    monkeypatch.setattr(unsaved, "in_memory", lambda folder: folder not in (cache, disk))
    disk.rmdir()
    kept = filled(10)
    assert folder_of(kept) == cache


def test_on_a_full_disk_they_are_dropped_until_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = filled(5)
    with monkeypatch.context() as patched:
        patched.setattr(unsaved, "LEAST_FREE", 1 << 62)
        kept.add(5, features(5))
        kept.add(6, features(6))
    assert kept.dropped == 2
    kept.add(7, features(7))
    assert known(kept, 8) == [0, 1, 4, 5, 6, 7]

    def full(_descriptor: int, data: bytes, _offset: int) -> int:
        if len(kept._latest) % 2:
            raise OSError(28, "No space left on device")
        return len(data) - 1

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        kept.add(8, features(8))
        patched.setattr(unsaved, "MOST_IN_MEMORY", KEPT - 1)
        kept.add(9, features(9))
    assert kept.dropped == 4


def test_what_cannot_be_read_again_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = filled(5)
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    assert known(kept, 5) == [2, 3, 4]

    def gone(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", gone)
    assert known(kept, 5) == [2, 3, 4]


@pytest.mark.parametrize(
    ("folder", "answer"),
    [
        ("/", False),
        ("/tmp", True),  # noqa: S108
        ("/tmp/a/b", True),  # noqa: S108
        ("/tmpfs", False),  # noqa: S108
        ("/var/tmp", False),  # noqa: S108
        ("/run/user/1000", True),
        ("/run/user/1000/disk", False),
        ("/mnt/a folder", True),
        ("/mnt/swap", True),
        ("/mnt/hidden/x", False),
    ],
)
def test_a_folder_on_a_ram_disk_is_told_by_how_it_is_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, answer: bool
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "rootfs / rootfs rw 0 0\n"
        "/dev/sda1 / ext4 rw 0 0\n"
        "proc /proc proc rw 0 0\n"
        "tmpfs /tmp tmpfs rw 0 0\n"
        "tmpfs /run/user/1000 tmpfs rw 0 0\n"
        "/dev/sdb /run/user/1000/disk ext4 rw 0 0\n"
        "ramfs /mnt/a\\040folder ramfs rw 0 0\n"
        "/dev/zram1 /mnt/swap ext4 rw 0 0\n"
        "tmpfs /mnt/hidden tmpfs rw 0 0\n"
        "/dev/sdc /mnt/hidden xfs rw 0 0\n"
    )
    monkeypatch.setattr(unsaved, "MOUNTS", mounts)
    monkeypatch.setattr(os.path, "realpath", str)
    assert in_memory(Path(folder)) == answer


def test_this_computer_has_shared_memory_that_is_no_disk() -> None:
    assert in_memory(Path("/dev/shm"))  # noqa: S108


def test_without_a_list_of_mounts_nothing_is_known_to_be_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsaved, "in_memory", in_memory)
    monkeypatch.setattr(unsaved, "MOUNTS", tmp_path / "none")
    assert known(filled(5), 5) == [2, 3, 4]
