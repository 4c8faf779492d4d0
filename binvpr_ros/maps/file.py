# SPDX-License-Identifier: Apache-2.0
"""MapFile: the SQLite file in which a node keeps its own map."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from binvpr_ros.counted import counted
from binvpr_ros.keyframes import NOTHING_CLOSED, Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.disk import size_of, way_to_write
from binvpr_ros.maps.errors import REMEDY, SQLITE_ERRORS, DatabaseError, first_line, is_damage, is_denial
from binvpr_ros.maps.identity import Identity, camera_text, write_facts
from binvpr_ros.maps.opening import CACHE, distrust, inspected, refuse_orphans
from binvpr_ros.maps.reading import motions_of, read_closures, read_features, read_keyframes, read_thumbnail
from binvpr_ros.maps.schema import FROM_VERSION, SCHEMA, SCHEMA_VERSION, Facts
from binvpr_ros.maps.source import KeyframeSource, OtherClosure
from binvpr_ros.maps.store import Columns, composed

LOCK_TIMEOUT = 0.2
"""Seconds to wait for another program that writes; images are dropped meanwhile."""


class MapFile(KeyframeSource):
    """The map of this node, locked for this process from opening to closing. Every failure is a DatabaseError."""

    def __init__(self, path: Path, model_sha256: str, words: int) -> None:
        self._path = path
        self._words = words
        refuse_orphans(path)
        # Closes in reverse order: closing a descriptor of the file earlier would drop SQLite's own locks on it.
        with contextlib.ExitStack() as resources:
            self._lock = _lock_file(path)
            resources.callback(os.close, self._lock)
            try:
                facts = inspected(path)
                if facts is not None:
                    facts.require(path, model_sha256, words)
                # Calls come from several threads, one at a time: the recognizer holds a lock.
                # Absolute, since SQLite takes ":memory:" for no file, and "file:" for a URI.
                self._connection = sqlite3.connect(
                    path.absolute(), timeout=LOCK_TIMEOUT, check_same_thread=False, isolation_level=None
                )
                resources.callback(self._connection.close)
                self.identity = self._prepare(facts or Facts(0, model_sha256, words))
            except SQLITE_ERRORS as error:
                remedy = REMEDY if is_damage(error) else "name a map file or a new one"
                remedy = (is_denial(error) and way_to_write(path)) or remedy
                raise DatabaseError(f"{path} cannot be opened as a map ({first_line(error)}); {remedy}") from None
            self._resources = resources.pop_all()

    def _prepare(self, facts: Facts) -> Identity:
        """Make a new file, which has version 0, or a map of an earlier version one of the present version."""
        connection = self._connection
        distrust(connection, self._path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(CACHE)
        if not facts.version:
            identity = Identity.new()
            connection.executescript("BEGIN; " + SCHEMA)
            write_facts(connection, facts, identity)
            connection.execute("COMMIT")
            return identity
        if steps := [FROM_VERSION[earlier] for earlier in range(facts.version, SCHEMA_VERSION)]:
            connection.executescript("BEGIN;" + "".join(steps) + "COMMIT;")
        identity = Identity.of(connection, facts)
        if connection.execute("SELECT uuid FROM map").fetchone() != (identity.uuid,):
            connection.execute("UPDATE map SET uuid = ?", (identity.uuid,))
        return identity

    def read(self) -> Iterator[Columns]:
        """Yield all keyframes, by id; closes the file where one is damaged."""
        try:
            yield from read_keyframes(self._connection, self._path, self._words)
        except DatabaseError:
            self.close()
            raise

    def closures(self) -> Iterator[OtherClosure]:
        """Yield the closures with keyframes of other maps; raises DatabaseError where they cannot be read."""
        return read_closures(self._connection, self._path)

    def features(self, number: int) -> Features | None:
        """Return the features of the keyframe of this id; None where there are none, or they cannot be read."""
        return read_features(self._connection, number)

    def thumbnail(self, number: int) -> bytes | None:
        """Return the thumbnail of the keyframe of this id; None where there is none, or it cannot be read."""
        return read_thumbnail(self._connection, number)

    def add(
        self,
        keyframe: Keyframe,
        closure: OtherClosure | None = None,
        camera: Camera | None = None,
        camera_from: int = 0,
        forgotten: Sequence[int] = (),
        changed: Sequence[tuple[Keyframe, OtherClosure | None]] = (),
    ) -> None:
        """Commit `keyframe` with its `closure` with another map, and that the keyframes of the ids `forgotten` go.

        What those that are `changed` close is written anew, each with its closure with another map. `camera` is from
        now on that of the map, surely of the keyframes with ids from `camera_from` on; None changes nothing.
        """
        known = self.identity
        if camera is not None:
            known = known._replace(camera=camera, camera_from=camera_from)
        with self._writing():
            self._connection.execute("BEGIN")
            try:
                self._insert(keyframe)
                for number in forgotten:
                    forget(self._connection, number)
                for one, _ in changed:
                    self._connection.execute("UPDATE keyframes SET closes = ? WHERE id = ?", (_closes(one), one.id))
                for other in (closure, *(other for _, other in changed)):
                    if other is not None:
                        self._connection.execute("INSERT OR REPLACE INTO closures VALUES (?, ?, ?)", other)
                if known != self.identity:
                    text = camera_text(known.camera, known.camera_from)
                    self._connection.execute("UPDATE map SET camera = ?", (text,))
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self.identity = known

    def _insert(self, keyframe: Keyframe) -> None:
        motion = None if keyframe.motion is None else keyframe.motion.astype("<f4").tobytes()
        # A motion leads to the keyframe before, of which the disk may have been full.
        if self._connection.execute("SELECT MAX(id) FROM keyframes").fetchone() != (keyframe.id - 1,):
            motion = None
        features = None if keyframe.features is None else keyframe.features.to_bytes()
        descriptor = keyframe.descriptor.astype("<u8").tobytes()
        self._connection.execute(
            "INSERT INTO keyframes (id, session, stamp, descriptor, closes, motion, features, thumbnail) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                keyframe.id, keyframe.session, keyframe.stamp, descriptor, _closes(keyframe), motion, features,
                keyframe.thumbnail,
            ),
        )  # fmt: skip

    def remember(self, closure: OtherClosure) -> None:
        """Commit a closure with a keyframe of another map, unless that keyframe has one, or is gone."""
        with self._writing():
            self._connection.execute(
                "INSERT OR IGNORE INTO closures SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM keyframes WHERE id = ?)",
                (*closure, closure.keyframe),
            )

    def renew(self) -> None:
        """Give the map a new uuid, since another one goes by the one that it had."""
        identity = self.identity._replace(uuid=Identity.new().uuid)
        with self._writing():
            self._connection.execute("UPDATE map SET uuid = ?", (identity.uuid,))
        self.identity = identity

    def save(self) -> str:
        """Bring the write-ahead log into the file; return a sentence about it."""
        with self._writing():
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise DatabaseError(f"another program has {self._path} open; close it and save again")
            (count,) = self._connection.execute("SELECT COUNT(*) FROM keyframes").fetchone()
        return f"{counted(count, 'keyframe')} in {self._path}"

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


def forget(connection: sqlite3.Connection, number: int) -> None:
    """Delete a keyframe of a map; the motion of the one after it then leads to the one before it."""
    rows = connection.execute(
        "SELECT id, session, motion FROM keyframes WHERE id >= ? ORDER BY id LIMIT 2", (number,)
    ).fetchall()
    if len(rows) == 2 and rows[0][:2] == (number, rows[1][1]) and rows[1][2] is not None:
        motion = composed(*motions_of(blob for _, _, blob in rows))
        # NaN, not null, where it is not known: SQLite writes a row of the same length in place, without its blobs.
        values = (motion.astype("<f4").tobytes(), rows[1][0])
        connection.execute("UPDATE keyframes SET motion = ? WHERE id = ?", values)
    connection.execute("DELETE FROM keyframes WHERE id = ?", (number,))
    connection.execute("DELETE FROM closures WHERE keyframe = ?", (number,))


def _closes(keyframe: Keyframe) -> int | None:
    return None if keyframe.closes == NOTHING_CLOSED else keyframe.closes


def _lock_file(path: Path) -> int:
    """Open the file for this process alone, and return its descriptor; the lock goes with the process."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        remedy = (size_of(path) and way_to_write(path)) or "name a map file, or a new one in a writable folder"
        raise DatabaseError(f"{path} cannot be opened as a map ({error.strerror}); {remedy}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise DatabaseError(f"{path} is in use by another node; give each node a map of its own") from None
        raise DatabaseError(f"{path} cannot be locked ({error.strerror}); keep it on a disk of this machine") from None
    return descriptor
