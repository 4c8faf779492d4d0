# SPDX-License-Identifier: Apache-2.0
"""The file of a map: one SQLite database, which one node writes and anybody may read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED, Keyframe
from binvpr_ros.local_features.features import Features, FeaturesError
from binvpr_ros.maps.store import MOST_KEYFRAMES, Columns
from binvpr_ros.network.hamming import WORD_BITS

SCHEMA_VERSION = 3
SCHEMA = """
CREATE TABLE map (schema_version INTEGER NOT NULL, model_sha256 TEXT NOT NULL, descriptor_words INTEGER NOT NULL);
CREATE TABLE keyframes (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    stamp INTEGER NOT NULL,  -- nanoseconds
    descriptor BLOB NOT NULL,  -- packed bits, little-endian words of 64
    features BLOB,  -- features.py says how; null: not kept
    closes INTEGER,  -- id of the keyframe whose place it was found to show; null: of none
    thumbnail BLOB  -- a small jpeg file; null: not kept
);
"""
FROM_VERSION = {
    1: """
ALTER TABLE keyframes ADD COLUMN features BLOB;
ALTER TABLE keyframes ADD COLUMN closes INTEGER;
UPDATE map SET schema_version = 2;
""",
    2: """
ALTER TABLE keyframes ADD COLUMN thumbnail BLOB;
UPDATE map SET schema_version = 3;
""",
}
"""What makes a map of each earlier version one of the next."""
MOST_WORDS = 1 << 16
LATEST_STAMP = (1 << 31) * NANOSECONDS
"""Nanoseconds: the seconds of a ROS time have 32 bits, one of them for the sign."""
ROWS_READ = 256
"""Keyframes that are read from the file at a time; what Python makes of more does not stay in the processor's cache."""
MOST_BYTES = 1 << 20
"""Of a row of the file: more than any keyframe has, and less than what would fill the memory."""
REMEDY = "restore a copy of the file, or run: map recover"
SQLITE_ERRORS = (sqlite3.Error, MemoryError, UnicodeDecodeError)
"""How the module sqlite3 reports what SQLite refuses: also that a value is too large, and in words out of the file."""
CACHE = "PRAGMA cache_size = -256"
"""KiB that SQLite keeps of a file: what is searched lies in memory already, and features are read once."""
LOCK_TIMEOUT = 0.2
"""Seconds to wait for another program that writes; images are dropped meanwhile."""
RETRY_INTERVAL = 1.0
"""Seconds between attempts to open an earlier map that cannot be read; verification asks for it many times a second."""
FACTS_BYTES = 1 << 20
"""The start of a file, with the list of its tables and the facts of a map, which are on a map's first two pages."""
LOG, INDEX, JOURNAL = "-wal", "-shm", "-journal"
"""What SQLite appends to a file's name for its write-ahead log, the index of that, and the rollback journal."""
JOURNAL_PAGES = slice(16, 20)
"""Where a rollback journal says how many pages the file had before its transaction."""


class DatabaseError(RuntimeError):
    """The map file cannot be used or written; the message names the file and says what to do."""


def first_line(error: BaseException) -> str:
    """Return what SQLite says without the statement that it may repeat after that."""
    return str(error).partition("\n")[0]


def _is_denial(error: BaseException) -> bool:
    """Say whether SQLite means that it may not open or write a file, or not make one beside it."""
    return "unable to open" in str(error) or "readonly" in str(error)


def _way_to_read(path: Path) -> str | None:
    """Return what gives this user the right to read a map; None where that is there."""
    files = (path, log_of(path), _beside(path, INDEX))
    return next(
        (f"make {file.name} readable" for file in files if file.exists() and not os.access(file, os.R_OK)), None
    )


def _way_to_write(path: Path) -> str | None:
    """Return what gives this user the right to write a map, and SQLite its log; None where that is there."""
    log = log_of(path)
    if not os.access(log.parent, os.W_OK):
        names = f"{path.name} and {log.name}" if _size(log) else path.name
        return f"copy {names} to a folder that you may write to"
    files = (path, log, _beside(path, INDEX))
    return next(
        (f"make {file.name} writable" for file in files if file.exists() and not os.access(file, os.W_OK)), None
    )


def _is_damage(error: BaseException) -> bool:
    """Say whether SQLite means that the file is one of its own, and damaged."""
    return "malformed" in str(error)


class Facts(NamedTuple):
    """What a map file says of itself."""

    version: int
    model: str  # SHA-256
    words: int  # of a descriptor

    @classmethod
    def of(cls, connection: sqlite3.Connection, path: Path) -> Facts:
        """Read them; raises DatabaseError where they make no sense, or a later program wrote them."""
        rows = connection.execute("SELECT schema_version, model_sha256, descriptor_words FROM map LIMIT 2").fetchall()
        facts = cls(*rows[0]) if len(rows) == 1 else None
        if (
            facts is None
            or not isinstance(facts.model, str)
            or not isinstance(facts.words, int)
            or not 0 < facts.words <= MOST_WORDS
        ):
            raise DatabaseError(f"{path} does not say which model it was made with; restore a copy of the file")
        if facts.version not in range(1, SCHEMA_VERSION + 1):
            raise DatabaseError(f"{path} has map version {facts.version}, not {SCHEMA_VERSION}; upgrade binvpr_ros")
        return facts

    def require(self, path: Path, model_sha256: str, words: int) -> None:
        """Raise DatabaseError where the map is of another model."""
        if (self.model, self.words) != (model_sha256, words):
            raise DatabaseError(
                f"{path} was made with another model (SHA-256 {self.model}); use that model or another file"
            )


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
        raise DatabaseError(f"{path} is no file; name a map file")
    _keep_orphans(path)
    try:
        # SQLite would make an index for a log, and leave it behind, also where the file is no map.
        if _size(log_of(path)) and not _beside(path, INDEX).exists():
            with _untouched(path, cut) as connection:
                _require_map(connection, path)
        # Where nobody has the map open, SQLite need not make a write-ahead log, which it would leave behind.
        with _connected(path, "mode=ro" if _in_use(path) else "immutable=1", cut) as connection:
            _require_map(connection, path)
            connection.execute(CACHE)
            yield connection, Facts.of(connection, path)
    except SQLITE_ERRORS as error:
        remedy = REMEDY if _is_damage(error) and not cut else "restore a copy of the file"
        remedy = _way_to_read(path) or (_is_denial(error) and _way_to_write(path)) or remedy
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
    endings = [ending for ending in (LOG, JOURNAL) if _size(_beside(path, ending))]
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
            os.truncate(copy, _size(path))
            for ending in endings:
                shutil.copyfile(_beside(path, ending), _beside(copy, ending))
        except OSError as error:
            remedy = _way_to_read(path) or "make room for temporary files, or set TMPDIR"
            raise DatabaseError(f"{path} and its log cannot be read ({error.strerror}); {remedy}") from None
        yield resources.enter_context(_connected(copy, "mode=rw", cut))


def _tables(connection: sqlite3.Connection, path: Path) -> set[str]:
    """Return the names of a file's tables; raises DatabaseError where it holds more than data."""
    _distrust(connection, path)
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _require_map(connection: sqlite3.Connection, path: Path) -> None:
    """Raise DatabaseError where a file has not the tables of a map."""
    tables = _tables(connection, path)
    if not tables:
        log = log_of(path).name
        raise DatabaseError(f"{path} has no tables; copy {log} with it if a node has it open, or name another file")
    if {"map", "keyframes"} - tables:
        raise DatabaseError(f"{path} cannot be opened as a map (it has other tables); name another file")


def _inspected(path: Path) -> Facts | None:
    """Return the facts of a map, or None if the file may become a new map, without writing anything.

    Raises DatabaseError, or one of SQLITE_ERRORS, if the file is neither.
    """
    if not _size(path):
        return None
    with _untouched(path) as connection:
        # A node that is killed while it creates a map leaves a file without tables, and its log or first journal.
        if (
            not _tables(connection, path)
            and not _is_marked(connection)
            and (log_of(path).exists() or _is_first(_beside(path, JOURNAL)))
        ):
            return None
        _require_map(connection, path)
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


def _keep_orphans(path: Path) -> None:
    """Raise DatabaseError where a file is empty or missing, and not its log or journal, which SQLite would delete."""
    log, journal = log_of(path), _beside(path, JOURNAL)
    orphan = log if _size(log) else journal
    if not _size(path) and _size(orphan) and not (orphan == journal and _is_first(journal)):
        state = "empty" if path.exists() else "missing"
        raise DatabaseError(
            f"{path} is {state}, though {orphan.name} is not; copy both files again, or restore a copy of the file"
        )


def _distrust(connection: sqlite3.Connection, path: Path) -> None:
    """Take the file for one from a stranger: it holds data, of a size to be expected, and nothing that runs."""
    if hasattr(connection, "setlimit"):  # Python 3.11
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    connection.execute("PRAGMA trusted_schema=OFF")
    # Views, triggers and virtual tables, which are code in a file of data, have no page of their own.
    if connection.execute("SELECT 1 FROM sqlite_master WHERE IFNULL(rootpage, 0) = 0").fetchone() is not None:
        raise DatabaseError(f"{path} does more than hold data; name another map file")


def columns(connection: sqlite3.Connection) -> list[str]:
    """Return the names of a keyframe's columns: earlier versions had fewer."""
    return [row[1] for row in connection.execute("PRAGMA table_info(keyframes)")]


def _read(connection: sqlite3.Connection, path: Path, words: int) -> Iterator[Columns]:
    """Yield all keyframes, by id; raises DatabaseError where one is damaged."""
    size = words * WORD_BITS // 8
    try:
        closes = f"IFNULL(closes, {NOTHING_CLOSED})" if "closes" in columns(connection) else str(NOTHING_CLOSED)
        # What closes nothing comes as a number from SQLite, which takes less time than to replace it here.
        rows = connection.execute(f"SELECT id, session, stamp, {closes}, descriptor FROM keyframes ORDER BY id")  # noqa: S608
        last = -1
        while some := rows.fetchmany(ROWS_READ):
            ids, sessions, stamps, closed, blobs = zip(*some, strict=True)
            for number, session, blob in zip(ids, sessions, blobs, strict=True):
                # Rows of the topic have 32 bits for an id, and a stranger's table may have one twice.
                if len(blob) != size or not last < number < MOST_KEYFRAMES or session < 0:
                    raise DatabaseError(f"{path} is damaged at keyframe {number}; {REMEDY}")
                last = number
            # SQLite keeps a text in an INTEGER column too, and a fraction, which an array of integers refuses.
            times = np.frombuffer(array("q", stamps), np.int64)
            if (wrong := np.flatnonzero((times < -LATEST_STAMP) | (times >= LATEST_STAMP))).size:
                raise DatabaseError(f"{path} is damaged at keyframe {ids[wrong[0]]}; {REMEDY}")
            yield Columns(
                np.frombuffer(array("i", ids), np.int32),
                np.frombuffer(array("i", sessions), np.int32),
                times,
                np.frombuffer(array("i", closed), np.int32),
                np.frombuffer(b"".join(blobs), "<u8").reshape(-1, words),
            )
    except (*SQLITE_ERRORS, ValueError, TypeError, OverflowError) as error:
        raise DatabaseError(f"{path} cannot be read ({first_line(error)}); {REMEDY}") from None


def _features(connection: sqlite3.Connection, number: int) -> Features | None:
    try:
        row = connection.execute("SELECT features FROM keyframes WHERE id = ?", (number,)).fetchone()
        return None if row is None or row[0] is None else Features.from_bytes(row[0])
    except (*SQLITE_ERRORS, FeaturesError, TypeError):
        return None  # what cannot be verified is refused, which says so


def _thumbnail(connection: sqlite3.Connection, number: int) -> bytes | None:
    try:
        row = connection.execute("SELECT thumbnail FROM keyframes WHERE id = ?", (number,)).fetchone()
    except SQLITE_ERRORS:
        return None
    return row[0] if row is not None and isinstance(row[0], bytes) else None


class EarlierMap:
    """A map that is matched against and never written here, though maybe by another node.

    Every failure is a DatabaseError, but for those of `features` and `thumbnail`, which know nothing then.
    """

    def __init__(self, path: Path, model_sha256: str, words: int) -> None:
        self._path, self._model, self._words = path, model_sha256, words
        self._next_attempt = 0.0  # monotonic seconds
        self._open()

    def _open(self) -> None:
        self._seen: _Trace | None = None  # of the file as it was opened; None while it is not open
        trace = _trace(self._path)
        with contextlib.ExitStack() as resources:
            self._connection, facts = resources.enter_context(opened(self._path))
            facts.require(self._path, self._model, self._words)
            self._resources = resources.pop_all()
        self._seen = trace

    def _current(self) -> sqlite3.Connection | None:
        """Return the connection, a new one where the file was written since: what is known of its pages is wrong.

        Where another file has taken its place, what was opened stays. Where the file cannot be opened, return None and
        try again after RETRY_INTERVAL.
        """
        trace, seen = _trace(self._path), self._seen
        if seen is not None:
            if trace is None or trace == seen or trace.file != seen.file:
                return self._connection
            self._resources.close()
        elif time.monotonic() < self._next_attempt:
            return None
        try:
            self._open()
        except DatabaseError:
            self._next_attempt = time.monotonic() + RETRY_INTERVAL
            return None
        return self._connection

    def read(self) -> Iterator[Columns]:
        """Yield all keyframes, by id; raises DatabaseError where one is damaged."""
        return _read(self._connection, self._path, self._words)

    def features(self, number: int) -> Features | None:
        """Return the features of the keyframe of this id; None where there are none, or they cannot be read."""
        connection = self._current()
        return None if connection is None else _features(connection, number)

    def thumbnail(self, number: int) -> bytes | None:
        """Return the thumbnail of the keyframe of this id; None where there is none, or it cannot be read."""
        connection = self._current()
        return None if connection is None else _thumbnail(connection, number)

    def close(self) -> None:
        """Close the file."""
        self._resources.close()


class _Trace(NamedTuple):
    """What changes where another process writes a map, or ends to."""

    file: int
    written: int  # nanoseconds
    size: int
    in_use: bool


def _trace(path: Path) -> _Trace | None:
    """Return what a map's file is like now; None where it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _Trace(stat.st_ino, stat.st_mtime_ns, stat.st_size, _in_use(path))


def log_of(path: Path) -> Path:
    """Return the write-ahead log of a map, which is there while a node has it open."""
    return _beside(path, LOG)


def _beside(path: Path, ending: str) -> Path:
    file = Path(os.path.realpath(path))  # as SQLite does with a link
    return file.with_name(file.name + ending)


def _in_use(path: Path) -> bool:
    """Say whether a program may have a map open, or has left keyframes in its log."""
    log = log_of(path)
    return _size(log) > 0 or (log.exists() and _beside(path, INDEX).exists())


def _size(path: Path) -> int:
    """Return the size of a file in bytes, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class MapFile:
    """The map of this node, locked for this process from opening to closing. Every failure is a DatabaseError."""

    def __init__(self, path: Path, model_sha256: str, words: int) -> None:
        self._path = path
        self._words = words
        _keep_orphans(path)
        # Closes in reverse order: closing a descriptor of the file earlier would drop SQLite's own locks on it.
        with contextlib.ExitStack() as resources:
            self._lock = _lock_file(path)
            resources.callback(os.close, self._lock)
            try:
                facts = _inspected(path)
                if facts is not None:
                    facts.require(path, model_sha256, words)
                # Calls come from several threads, one at a time: the recognizer holds a lock.
                # Absolute, since SQLite takes ":memory:" for no file, and "file:" for a URI.
                self._connection = sqlite3.connect(
                    path.absolute(), timeout=LOCK_TIMEOUT, check_same_thread=False, isolation_level=None
                )
                resources.callback(self._connection.close)
                self._prepare(facts or Facts(0, model_sha256, words))
            except SQLITE_ERRORS as error:
                remedy = REMEDY if _is_damage(error) else "name a map file or a new one"
                remedy = (_is_denial(error) and _way_to_write(path)) or remedy
                raise DatabaseError(f"{path} cannot be opened as a map ({first_line(error)}); {remedy}") from None
            self._resources = resources.pop_all()

    def _prepare(self, facts: Facts) -> None:
        """Make a new file, which has version 0, or a map of an earlier version one of the present version."""
        connection = self._connection
        _distrust(connection, self._path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(CACHE)
        if not facts.version:
            connection.executescript("BEGIN; " + SCHEMA)
            connection.execute("INSERT INTO map VALUES (?, ?, ?)", (SCHEMA_VERSION, facts.model, facts.words))
            connection.execute("COMMIT")
        elif steps := [FROM_VERSION[earlier] for earlier in range(facts.version, SCHEMA_VERSION)]:
            connection.executescript("BEGIN;" + "".join(steps) + "COMMIT;")

    def read(self) -> Iterator[Columns]:
        """Yield all keyframes, by id; closes the file where one is damaged."""
        try:
            yield from _read(self._connection, self._path, self._words)
        except DatabaseError:
            self.close()
            raise

    def features(self, number: int) -> Features | None:
        """Return the features of the keyframe of this id; None where there are none, or they cannot be read."""
        return _features(self._connection, number)

    def thumbnail(self, number: int) -> bytes | None:
        """Return the thumbnail of the keyframe of this id; None where there is none, or it cannot be read."""
        return _thumbnail(self._connection, number)

    def add(self, keyframe: Keyframe, forgotten: Sequence[int] = ()) -> None:
        """Commit `keyframe`, and with it that the keyframes of the ids `forgotten` go."""
        descriptor = keyframe.descriptor.astype("<u8").tobytes()
        features = None if keyframe.features is None else keyframe.features.to_bytes()
        closes = None if keyframe.closes == NOTHING_CLOSED else keyframe.closes
        row = (keyframe.id, keyframe.session, keyframe.stamp, descriptor, features, closes, keyframe.thumbnail)
        with self._writing():
            self._connection.execute("BEGIN")
            try:
                self._connection.execute("INSERT INTO keyframes VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                self._connection.executemany("DELETE FROM keyframes WHERE id = ?", [(number,) for number in forgotten])
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def save(self) -> str:
        """Bring the write-ahead log into the file; return a sentence about it."""
        with self._writing():
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise DatabaseError(f"another program has {self._path} open; close it and save again")
            (count,) = self._connection.execute("SELECT COUNT(*) FROM keyframes").fetchone()
        return f"{count} keyframes in {self._path}"

    def close(self) -> None:
        """Close the file, and let others have it."""
        self._resources.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Make sure that the file is still the one that was opened, and put what SQLite says into a sentence."""
        try:
            if not os.path.samestat(self._path.stat(), os.fstat(self._lock)):
                raise DatabaseError(f"{self._path} was replaced while in use; restart the node")
            yield
        except FileNotFoundError:
            raise DatabaseError(f"{self._path} was removed while in use; restart the node") from None
        except OSError as error:  # of a disk that is gone, or a network's
            raise DatabaseError(f"{self._path} cannot be reached ({error.strerror}); check its disk") from None
        except (*SQLITE_ERRORS, OverflowError) as error:
            reason = first_line(error)
            raise DatabaseError(f"{self._path} cannot be written ({reason}); check the disk and its space") from None


def _lock_file(path: Path) -> int:
    """Open the file for this process alone, and return its descriptor; the lock goes with the process."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        remedy = (_size(path) and _way_to_write(path)) or "name a map file, or a new one in a writable folder"
        raise DatabaseError(f"{path} cannot be opened as a map ({error.strerror}); {remedy}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise DatabaseError(f"{path} is in use by another node; give each node a map of its own") from None
        raise DatabaseError(f"{path} cannot be locked ({error.strerror}); keep it on a disk of this machine") from None
    return descriptor
