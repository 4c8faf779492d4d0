# SPDX-License-Identifier: Apache-2.0
"""The files of a map on the disk: the map itself, and what SQLite keeps beside it."""

from __future__ import annotations

import os
from pathlib import Path

LOG, INDEX, JOURNAL = "-wal", "-shm", "-journal"
"""What SQLite appends to a file's name for its write-ahead log, the index of that, and the rollback journal."""


def log_of(path: Path) -> Path:
    """Return the write-ahead log of a map, which is there while a node has it open."""
    return beside(path, LOG)


def beside(path: Path, ending: str) -> Path:
    """Return the file that SQLite names like the map, with this ending."""
    file = Path(os.path.realpath(path))  # as SQLite does with a link
    return file.with_name(file.name + ending)


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def in_use(path: Path) -> bool:
    """Say whether a program may have a map open, or has left keyframes in its log."""
    log = log_of(path)
    return size_of(log) > 0 or (log.exists() and beside(path, INDEX).exists())


def way_to_read(path: Path) -> str | None:
    """Return what gives this user the right to read a map; None where that is there."""
    files = (path, log_of(path), beside(path, INDEX))
    return next(
        (f"make {file.name} readable" for file in files if file.exists() and not os.access(file, os.R_OK)), None
    )


def way_to_write(path: Path) -> str | None:
    """Return what gives this user the right to write a map, and SQLite its log; None where that is there."""
    log = log_of(path)
    if not os.access(log.parent, os.W_OK):
        names = f"{path.name} and {log.name}" if size_of(log) else path.name
        return f"copy {names} to a folder that you may write to"
    files = (path, log, beside(path, INDEX))
    return next(
        (f"make {file.name} writable" for file in files if file.exists() and not os.access(file, os.W_OK)), None
    )
