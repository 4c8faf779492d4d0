# SPDX-License-Identifier: Apache-2.0
"""KeyframeDatabase: descriptors in memory for search, one SQLite file for keeps."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.descriptor import WORD_BITS, Descriptor, hamming
from binvpr_ros.features import Features, FeaturesError
from binvpr_ros.keyframes import NOTHING_CLOSED, Keyframe

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE map (schema_version INTEGER NOT NULL, model_sha256 TEXT NOT NULL, descriptor_words INTEGER NOT NULL);
CREATE TABLE keyframes (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    stamp INTEGER NOT NULL,  -- nanoseconds
    descriptor BLOB NOT NULL,  -- packed bits, little-endian words of 64
    features BLOB,  -- features.py says how; null: not kept
    closes INTEGER  -- id of the keyframe whose place it was found to show; null: of none
);
"""
FROM_VERSION_1 = """
ALTER TABLE keyframes ADD COLUMN features BLOB;
ALTER TABLE keyframes ADD COLUMN closes INTEGER;
UPDATE map SET schema_version = 2;
"""
INITIAL_CAPACITY = 1024
BLOCK = 1 << 15
"""Keyframes whose descriptors lie in one piece. Memory for them grows by a block, and nothing is ever copied."""
MOST_KEYFRAMES = 1 << 32
ROWS_READ = 256
"""Keyframes that are read from the file at a time; what Python makes of more does not stay in the processor's cache."""
MOST_BYTES = 1 << 20
"""Of a row of the file: more than any keyframe has, and less than what would fill the memory."""
SQLITE_ERRORS = (sqlite3.Error, MemoryError, UnicodeDecodeError)
"""How the module sqlite3 reports what SQLite refuses: also that a value is too large, and in words out of the file."""
LOCK_TIMEOUT = 0.2
"""Seconds to wait for another program that writes; images are dropped meanwhile."""


Number = TypeVar("Number", np.int32, np.int64)


class DatabaseError(RuntimeError):
    """The map file cannot be used or written; the message names the file and says what to do."""


class _Keyframes(NamedTuple):
    """Some keyframes, column by column."""

    ids: NDArray[np.int64]  # [n], ascending
    sessions: NDArray[np.int32]  # [n]
    stamps: NDArray[np.int64]  # [n], nanoseconds
    closes: NDArray[np.int64]  # [n], ids, or NOTHING_CLOSED
    descriptors: NDArray[np.uint64]  # [n,W]


class KeyframeDatabase:
    """All keyframes of a map. `path` None keeps them in memory only.

    A keyframe is committed to the file before `add` returns. One process at a time opens a map. Keyframes of sessions
    before a reset stay in the file and are not matched until `reload`.
    """

    def __init__(self, path: Path | None, model_sha256: str, descriptor_words: int) -> None:
        self._size = 0
        self._first_matched = 0
        self._ids = np.empty(INITIAL_CAPACITY, np.int64)
        self._sessions = np.empty(INITIAL_CAPACITY, np.int32)
        self._stamps = np.empty(INITIAL_CAPACITY, np.int64)
        self._closes = np.empty(INITIAL_CAPACITY, np.int64)
        self._words = descriptor_words
        self._blocks: list[NDArray[np.uint64]] = []  # [BLOCK,W] each
        self._features: dict[int, Features] = {}  # by id, of the keyframes that are in no file
        self.session = 0
        self._next_id = 0
        self._file = None if path is None else _MapFile(path, model_sha256, descriptor_words)
        for keyframes in self._file.read() if self._file is not None else ():
            self._remember(keyframes)
            self.session = max(self.session, int(keyframes.sessions.max()) + 1)

    def __len__(self) -> int:
        """Return the number K of keyframes that can be matched."""
        return self._size - self._first_matched

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids [K], ascending."""
        return self._ids[self._first_matched : self._size]

    @property
    def sessions(self) -> NDArray[np.int32]:
        """Sessions [K]."""
        return self._sessions[self._first_matched : self._size]

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Stamps [K], nanoseconds."""
        return self._stamps[self._first_matched : self._size]

    @property
    def closes(self) -> NDArray[np.int64]:
        """Ids [K] of the keyframes whose places they were found to show, or NOTHING_CLOSED."""
        return self._closes[self._first_matched : self._size]

    def distances(self, descriptor: Descriptor) -> NDArray[np.uint32]:
        """Return the Hamming distance of `descriptor` to every keyframe [K]; exact."""
        first = self._first_matched
        distances = np.empty(len(self), np.uint32)
        for number in range(first // BLOCK, len(self._blocks)):
            start, stop = max(first, number * BLOCK), min(self._size, (number + 1) * BLOCK)
            rows = self._blocks[number][start - number * BLOCK : stop - number * BLOCK]
            hamming(rows, descriptor, distances[start - first : stop - first])
        return distances

    def keyframe(self, index: int) -> Keyframe:
        """Return the keyframe at position `index` of the arrays above, without its features."""
        at = range(self._first_matched, self._size)[index]
        descriptor = self._blocks[at // BLOCK][at % BLOCK].copy()
        number, session, stamp = int(self._ids[at]), int(self._sessions[at]), int(self._stamps[at])
        return Keyframe(number, session, stamp, descriptor, closes=int(self._closes[at]))

    def features(self, keyframe: Keyframe) -> Features | None:
        """Return the features of a keyframe of the map; None where there are none, or they cannot be read."""
        if keyframe.id in self._features or self._file is None:
            return self._features.get(keyframe.id)
        return self._file.features(keyframe.id)

    def next_keyframe(self, stamp: int, descriptor: Descriptor, features: Features | None = None) -> Keyframe:
        """Return the keyframe that an image of the present session would become; `add` keeps it."""
        return Keyframe(self._next_id, self.session, stamp, descriptor, features)

    def add(self, keyframe: Keyframe) -> None:
        """Keep `keyframe`; where it cannot be written it is kept in memory alone, and DatabaseError is raised."""
        self._remember(
            _Keyframes(
                np.array([keyframe.id], np.int64),
                np.array([keyframe.session], np.int32),
                np.array([keyframe.stamp], np.int64),
                np.array([keyframe.closes], np.int64),
                keyframe.descriptor[np.newaxis],
            )
        )
        if keyframe.features is not None:
            self._features[keyframe.id] = keyframe.features
        if self._file is not None:
            self._file.add(keyframe)
            self._features.pop(keyframe.id, None)

    def save(self) -> str:
        """Bring all that was committed into the one file, so that it can be copied; return a sentence about it."""
        if self._file is None:
            raise DatabaseError("there is no file to save to; start the node with the parameter database")
        return self._file.save()

    def reset(self) -> None:
        """Begin a new session and match no more against what came before; it stays in the file."""
        self._first_matched = self._size
        self.session += 1

    def new_session(self) -> None:
        """Begin a new session that is matched against the earlier ones."""
        self.session += 1

    def reload(self) -> None:
        """Match against all keyframes of the map again."""
        self._first_matched = 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remember(self, keyframes: _Keyframes) -> None:
        start, stop = self._size, self._size + len(keyframes.ids)
        if stop > len(self._ids):
            # One after the other, since what is copied is there twice; what was never written to takes no memory.
            capacity = max(stop, 2 * len(self._ids))
            self._ids = _with_capacity(self._ids, capacity)
            self._sessions = _with_capacity(self._sessions, capacity)
            self._stamps = _with_capacity(self._stamps, capacity)
            self._closes = _with_capacity(self._closes, capacity)
        self._ids[start:stop] = keyframes.ids
        self._sessions[start:stop] = keyframes.sessions
        self._stamps[start:stop] = keyframes.stamps
        self._closes[start:stop] = keyframes.closes
        descriptors = keyframes.descriptors
        while len(descriptors):
            at = self._size % BLOCK
            if at == 0:
                self._blocks.append(np.empty((BLOCK, self._words), np.uint64))
            rows = self._blocks[-1][at : at + len(descriptors)]
            rows[:] = descriptors[: len(rows)]
            descriptors = descriptors[len(rows) :]
            self._size += len(rows)
        self._next_id = int(keyframes.ids[-1]) + 1


def _with_capacity(values: NDArray[Number], capacity: int) -> NDArray[Number]:
    larger = np.empty(capacity, values.dtype)
    larger[: len(values)] = values
    return larger


class _MapFile:
    """The SQLite file of a map, locked for this process from opening to closing; every failure is a DatabaseError."""

    def __init__(self, path: Path, model_sha256: str, descriptor_words: int) -> None:
        self._path = path
        self._words = descriptor_words
        # Closes in reverse order: closing a descriptor of the file earlier would drop SQLite's own locks on it.
        with contextlib.ExitStack() as resources:
            self._lock = _lock_file(path)
            resources.callback(os.close, self._lock)
            log = path.with_name(path.name + "-wal")
            if not path.stat().st_size and log.exists() and log.stat().st_size:
                # SQLite would delete the log, and the keyframes that are in it alone.
                raise DatabaseError(f"{path} is empty, though {log} is not; restore a copy of the file")
            try:
                # Calls come from several threads, one at a time: the recognizer holds a lock.
                # Absolute, since SQLite takes ":memory:" for no file, and "file:" for a URI.
                self._connection = sqlite3.connect(
                    path.absolute(), timeout=LOCK_TIMEOUT, check_same_thread=False, isolation_level=None
                )
                resources.callback(self._connection.close)
                self._prepare(model_sha256)
            except SQLITE_ERRORS as error:
                raise DatabaseError(
                    f"{path} cannot be opened as a map ({error}); name a map file or a new one"
                ) from None
            self._resources = resources.pop_all()

    def add(self, keyframe: Keyframe) -> None:
        """Commit `keyframe`."""
        features = None if keyframe.features is None else keyframe.features.to_bytes()
        closes = None if keyframe.closes == NOTHING_CLOSED else keyframe.closes
        row = (
            keyframe.id, keyframe.session, keyframe.stamp, keyframe.descriptor.astype("<u8").tobytes(), features, closes
        )  # fmt: skip
        with self._writing():
            self._connection.execute("INSERT INTO keyframes VALUES (?, ?, ?, ?, ?, ?)", row)

    def features(self, number: int) -> Features | None:
        """Return the features of the keyframe of this id; None where there are none, or they cannot be read."""
        try:
            row = self._connection.execute("SELECT features FROM keyframes WHERE id = ?", (number,)).fetchone()
            return None if row is None or row[0] is None else Features.from_bytes(row[0])
        except (*SQLITE_ERRORS, FeaturesError, TypeError):
            return None  # what cannot be verified is refused, which says so

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

    def _prepare(self, model_sha256: str) -> None:
        """Make a new file a map, and hold an old one against this program and its model."""
        path, connection = self._path, self._connection
        if hasattr(connection, "setlimit"):  # Python 3.11
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        connection.execute("PRAGMA trusted_schema=OFF")
        # Views, triggers and virtual tables, which are code in a file of data, have no page of their own.
        if connection.execute("SELECT 1 FROM sqlite_master WHERE IFNULL(rootpage, 0) = 0").fetchone() is not None:
            raise DatabaseError(f"{path} does more than hold data; name another map file")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        if tables and {"map", "keyframes"} - {name for (name,) in tables}:
            raise DatabaseError(f"{path} cannot be opened as a map (it has other tables); name a map file or a new one")
        if not tables:
            connection.executescript("BEGIN; " + SCHEMA)
            connection.execute("INSERT INTO map VALUES (?, ?, ?)", (SCHEMA_VERSION, model_sha256, self._words))
            connection.execute("COMMIT")
        facts = connection.execute("SELECT schema_version, model_sha256, descriptor_words FROM map").fetchone()
        if facts is None:
            raise DatabaseError(f"{path} does not say which model it was made with; restore a copy of the file")
        version, model, words = facts
        if version not in (1, SCHEMA_VERSION):
            raise DatabaseError(f"{path} has map version {version}, not {SCHEMA_VERSION}; upgrade binvpr_ros")
        if model != model_sha256 or words != self._words:
            raise DatabaseError(f"{path} was made with another model (SHA-256 {model}); use that model or another file")
        if version == 1:
            connection.executescript("BEGIN;" + FROM_VERSION_1 + "COMMIT;")

    def read(self) -> Iterator[_Keyframes]:
        """Yield all keyframes, by id; closes the file where one is damaged."""
        size = self._words * WORD_BITS // 8
        try:
            # What closes nothing comes as a number from SQLite, which takes less time than to replace it here.
            rows = self._connection.execute(
                f"SELECT id, session, stamp, IFNULL(closes, {NOTHING_CLOSED}), descriptor FROM keyframes ORDER BY id"  # noqa: S608
            )
            while some := rows.fetchmany(ROWS_READ):
                ids, sessions, stamps, closes, blobs = zip(*some, strict=True)
                for number, session, blob in zip(ids, sessions, blobs, strict=True):
                    # Rows of the topic have 32 bits for an id.
                    if len(blob) != size or not 0 <= number < MOST_KEYFRAMES or session < 0:
                        raise DatabaseError(f"{self._path} is damaged at keyframe {number}; restore a copy of the file")
                yield _Keyframes(
                    # SQLite keeps a text in an INTEGER column too, and a fraction, which an array of integers refuses.
                    np.frombuffer(array("q", ids), np.int64),
                    np.frombuffer(array("i", sessions), np.int32),
                    np.frombuffer(array("q", stamps), np.int64),
                    np.frombuffer(array("q", closes), np.int64),
                    np.frombuffer(b"".join(blobs), "<u8").reshape(-1, self._words),
                )
        except DatabaseError:
            self.close()
            raise
        except (*SQLITE_ERRORS, ValueError, TypeError, OverflowError) as error:
            self.close()
            raise DatabaseError(f"{self._path} cannot be read ({error}); restore a copy of the file") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Make sure that the file is still the one that was opened, and put what SQLite says into a sentence."""
        try:
            if not os.path.samestat(self._path.stat(), os.fstat(self._lock)):
                raise DatabaseError(f"{self._path} was replaced while in use; restart the node")
            yield
        except FileNotFoundError:
            raise DatabaseError(f"{self._path} was removed while in use; restart the node") from None
        except (*SQLITE_ERRORS, OverflowError) as error:
            raise DatabaseError(f"{self._path} cannot be written ({error}); check the disk and its space") from None


def _lock_file(path: Path) -> int:
    """Open the file for this process alone, and return its descriptor; the lock goes with the process."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be opened as a map ({error.strerror}); name a map file, or a new one in a writable folder"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise DatabaseError(f"{path} is in use by another node; give each node a map of its own") from None
    return descriptor
