# SPDX-License-Identifier: Apache-2.0
"""Open a map file without trusting it, and without writing to a file that is not a map."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from binvpr_ros.maps.disk import INDEX, JOURNAL, LOG, beside, in_use, log_of, size_of, way_to_read, way_to_write
from binvpr_ros.maps.errors import REMEDY, SQLITE_ERRORS, DatabaseError, first_line, is_damage, is_denial
from binvpr_ros.maps.schema import Facts

MOST_BYTES = 1 << 20
"""Of a row of the file: more than any keyframe has, and less than what would fill the memory."""
CACHE = "PRAGMA cache_size = -256"
"""KiB that SQLite keeps of a file: what is searched lies in memory already, and features are read once."""
FACTS_BYTES = 1 << 20
"""The start of a file, with the list of its tables and the facts of a map, which are on a map's first two pages."""
JOURNAL_PAGES = slice(16, 20)
"""Where a rollback journal says how many pages the file had before its transaction."""


@contextlib.contextmanager
def opened(path: Path, *, cut: bool = False) -> Iterator[tuple[sqlite3.Connection, Facts]]:
    """Open a map read-only, also one that a node has in use; every failure is a DatabaseError.

    With `cut` also a file that has lost its end, of which what is left can be read.
    """
    try:
        is_file = path.is_file()
    except OSError as error:
        raise DatabaseError(f"{path} cannot be read as a map ({error.strerror}); make its folder readable") from None
    if not is_file:
        raise DatabaseError(f"{path} is not a file; name a map file")
    refuse_orphans(path)
    try:
        # SQLite would make an index for a log, and leave it behind, also where the file is no map.
        if size_of(log_of(path)) and not beside(path, INDEX).exists():
            with _untouched(path, cut) as connection:
                _require_map(connection, path)
        # Where nobody has the map open, SQLite need not make a write-ahead log, which it would leave behind.
        with _connected(path, "mode=ro" if in_use(path) else "immutable=1", cut) as connection:
            _require_map(connection, path)
            if not cut:
                _refuse_cut(connection, path)
            connection.execute(CACHE)
            yield connection, Facts.of(connection, path)
    except SQLITE_ERRORS as error:
        remedy = REMEDY if is_damage(error) and not cut else "restore a copy of the file"
        remedy = way_to_read(path) or (is_denial(error) and way_to_write(path)) or remedy
        raise DatabaseError(f"{path} cannot be read as a map ({first_line(error)}); {remedy}") from None


@contextlib.contextmanager
def _connected(path: Path, mode: str, cut: bool) -> Iterator[sqlite3.Connection]:
    # Calls come from several threads, one at a time: the recognizer holds a lock.
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
        if cut:  # else SQLite refuses all of a file that is shorter than its header says
            connection.execute("PRAGMA writable_schema=ON")
        yield connection


@contextlib.contextmanager
def _untouched(path: Path, cut: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a file for its tables and the facts of a map, and write neither to it nor to its folder.

    SQLite plays back a log or a journal as it opens a file. It does so here in a copy.
    """
    endings = [ending for ending in (LOG, JOURNAL) if size_of(beside(path, ending))]
    if not endings:
        with _connected(path, "immutable=1", cut) as connection:
            yield connection
        return
    with contextlib.ExitStack() as resources:
        try:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="binvpr_ros.")))
            copy = folder / "map.db"
            with path.open("rb") as file:
                copy.write_bytes(file.read(FACTS_BYTES))
            os.truncate(copy, size_of(path))
            for ending in endings:
                shutil.copyfile(beside(path, ending), beside(copy, ending))
        except OSError as error:
            remedy = way_to_read(path) or "make room for temporary files, or set TMPDIR"
            raise DatabaseError(f"{path} and its log cannot be read ({error.strerror}); {remedy}") from None
        yield resources.enter_context(_connected(copy, "mode=rw", cut))


def _tables(connection: sqlite3.Connection, path: Path) -> set[str]:
    """Return the names of a file's tables; raises DatabaseError where it holds more than data."""
    distrust(connection, path)
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _require_map(connection: sqlite3.Connection, path: Path) -> None:
    """Raise DatabaseError where a file has not the tables of a map."""
    tables = _tables(connection, path)
    if not tables:
        log = log_of(path).name
        raise DatabaseError(f"{path} has no tables; copy {log} with it if a node has it open, or name another file")
    if {"map", "keyframes"} - tables:
        raise DatabaseError(f"{path} cannot be opened as a map (it has other tables); name another file")


def _refuse_cut(connection: sqlite3.Connection, path: Path) -> None:
    """Raise DatabaseError where a file has lost a part of its last page, which SQLite would read as zeros."""
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    # What a log or a journal holds may make it whole.
    if size_of(path) % page and not size_of(log_of(path)) and not size_of(beside(path, JOURNAL)):
        raise DatabaseError(f"{path} has lost its end; {REMEDY}")


def inspected(path: Path) -> Facts | None:
    """Return the facts of a map, or None if the file may become a new map, without writing anything.

    Raises DatabaseError, or one of SQLITE_ERRORS, if the file is neither.
    """
    if not size_of(path):
        return None
    with _untouched(path) as connection:
        # A node that is killed while it creates a map leaves a file without tables, and its log or first journal.
        if (
            not _tables(connection, path)
            and not _is_marked(connection)
            and (log_of(path).exists() or _is_first(beside(path, JOURNAL)))
        ):
            return None
        _require_map(connection, path)
        _refuse_cut(connection, path)
        return Facts.of(connection, path)


def _is_marked(connection: sqlite3.Connection) -> bool:
    """Return whether another program has set one of the two numbers that SQLite reserves for applications."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return (application, version) != (0, 0)


def _is_first(journal: Path) -> bool:
    """Return whether a journal is that of a file's first transaction, so that undoing it loses nothing."""
    try:
        with journal.open("rb") as file:
            return file.read(JOURNAL_PAGES.stop)[JOURNAL_PAGES] == bytes(4)
    except OSError:
        return False


def refuse_orphans(path: Path) -> None:
    """Raise DatabaseError where an empty or missing file has a log or journal with data, which SQLite would delete."""
    log, journal = log_of(path), beside(path, JOURNAL)
    orphan = log if size_of(log) else journal
    if not size_of(path) and size_of(orphan) and not (orphan == journal and _is_first(journal)):
        state = "empty" if path.exists() else "missing"
        raise DatabaseError(
            f"{path} is {state}, though {orphan.name} is not; copy both files again, or restore a copy of the file"
        )


def distrust(connection: sqlite3.Connection, path: Path) -> None:
    """Treat the file as a stranger's: limit the size of what is read, and raise DatabaseError where it holds code."""
    if hasattr(connection, "setlimit"):  # Python 3.11
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    connection.execute("PRAGMA trusted_schema=OFF")
    # Views, triggers and virtual tables, which are code in a file of data, have no page of their own.
    if connection.execute("SELECT 1 FROM sqlite_master WHERE IFNULL(rootpage, 0) = 0").fetchone() is not None:
        raise DatabaseError(f"{path} contains views or triggers, which maps do not have; name another map file")
