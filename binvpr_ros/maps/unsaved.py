# SPDX-License-Identifier: Apache-2.0
"""The local features of keyframes that are in no map file: the latest in memory, the others on a disk."""

from __future__ import annotations

import os
import re
import tempfile
import weakref
from pathlib import Path
from typing import IO, NamedTuple

from binvpr_ros.local_features.features import Features, FeaturesError

MOST_IN_MEMORY = 256
"""Keyframes, of some 20 kB each."""
LEAST_FREE = 256 << 20
"""Bytes that are left free on the disk, for the others who need it."""
SLOT = 4096
"""Bytes, of which each keyframe takes a whole number, so that what was forgotten leaves room for another."""
RAM_DISKS = ("tmpfs", "ramfs", "rootfs", "devtmpfs")
RAM_DEVICES = ("/dev/ram", "/dev/zram")
MOUNTS = Path("/proc/self/mounts")


class _Place(NamedTuple):
    """Where features lie in the file."""

    offset: int
    length: int

    @property
    def slots(self) -> int:
        return -(-self.length // SLOT)


class UnsavedFeatures:
    """Features by the id of their keyframe, MOST_IN_MEMORY in memory and the earlier ones in a file without a name.

    Where no disk has room for these they are dropped: their keyframes can no longer be verified. Nothing is raised.
    """

    def __init__(self) -> None:
        self._latest: dict[int, Features] = {}
        self._places: dict[int, _Place] = {}
        self._free: dict[int, list[int]] = {}  # offsets, by slots
        self._end = 0
        self._file: IO[bytes] | None = None
        self.dropped = 0
        """Keyframes whose features no disk had room for."""

    def add(self, number: int, features: Features) -> None:
        """Keep the features of a keyframe with an id above all others."""
        self._latest[number] = features
        if len(self._latest) > MOST_IN_MEMORY:
            oldest = next(iter(self._latest))
            self.dropped += not self._write(oldest, self._latest.pop(oldest))

    def get(self, number: int) -> Features | None:
        """Return the features of a keyframe; None where they are not kept."""
        place = self._places.get(number)
        if place is None or self._file is None:
            return self._latest.get(number)
        try:
            return Features.from_bytes(os.pread(self._file.fileno(), place.length, place.offset))
        except (OSError, FeaturesError):
            return None

    def forget(self, number: int) -> None:
        """Drop the features of a keyframe, if there are any."""
        self._latest.pop(number, None)
        place = self._places.pop(number, None)
        if place is not None:
            self._free.setdefault(place.slots, []).append(place.offset)

    def close(self) -> None:
        """Drop all."""
        self._latest, self._places = {}, {}
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, number: int, features: Features) -> bool:
        """Write the features of a keyframe to the file; return whether that was done."""
        data = features.to_bytes()
        if self._file is None:
            self._file = _open_file()
            if self._file is None:
                return False
            weakref.finalize(self, self._file.close)
        descriptor, slots = self._file.fileno(), _Place(0, len(data)).slots
        reused = self._free.get(slots)
        offset = reused[-1] if reused else self._end
        try:
            if not reused and _free_bytes(descriptor) < LEAST_FREE:
                return False
            if os.pwrite(descriptor, data, offset) != len(data):
                return False
        except OSError:
            return False
        if reused:
            reused.pop()
        else:
            self._end += slots * SLOT
        self._places[number] = _Place(offset, len(data))
        return True


def _open_file() -> IO[bytes] | None:
    """Return a file without a name, in the first folder for such files that lies on a disk with room; or None."""
    for folder in _folders():
        try:
            if not in_memory(folder) and _free_bytes(folder) >= LEAST_FREE:
                return tempfile.TemporaryFile(dir=folder, prefix="binvpr_ros.", buffering=0)
        except OSError:
            continue
    return None


def _folders() -> tuple[Path, ...]:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - which raises nothing
    return Path(os.environ.get("TMPDIR") or "/tmp"), Path("/var/tmp"), Path(cache)  # noqa: S108 - files without a name


def in_memory(folder: Path) -> bool:
    """Tell whether a folder lies on a RAM disk, or may; raises OSError where that cannot be looked up."""
    real = os.fsencode(os.path.realpath(folder)) + b"/"
    longest, answer = 0, True
    for line in MOUNTS.read_bytes().splitlines():
        device, at, kind = line.split(b" ")[:3]
        # Spaces in a name are written as \040. What is mounted later on the same folder hides what was there.
        at = re.sub(rb"\\([0-7]{3})", lambda digits: bytes([int(digits[1], 8)]), at).rstrip(b"/") + b"/"
        if real.startswith(at) and len(at) >= longest:
            longest = len(at)
            answer = os.fsdecode(kind) in RAM_DISKS or os.fsdecode(device).startswith(RAM_DEVICES)
    return answer


def _free_bytes(file: Path | int) -> int:
    status = os.statvfs(file)
    return status.f_bavail * status.f_frsize
