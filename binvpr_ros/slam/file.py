# SPDX-License-Identifier: Apache-2.0
"""GraphFile: the SQLite file that keeps what a pose graph was told; its poses are computed from that again."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.loop_constraint import LoopConstraint, RelativePose
from binvpr_ros.maps.errors import SQLITE_ERRORS, DatabaseError, first_line
from binvpr_ros.maps.opening import distrust
from binvpr_ros.slam.poses import Transform

APPLICATION = 0x62767067
"""By which SQLite tells a file of this kind: bvpg."""
VERSION = 1
PATIENCE = 0.1
"""Seconds to wait for another process that has the file's lock."""
ORTHONORMAL = 1e-6
"""By which a rotation matrix times its transpose may fail to be the identity."""
SCHEMA = f"""
BEGIN;
CREATE TABLE sessions (id INTEGER PRIMARY KEY, start BLOB NOT NULL);
CREATE TABLE keyframes (id INTEGER PRIMARY KEY, session INTEGER NOT NULL, stamp INTEGER NOT NULL, pose BLOB NOT NULL,
    covariance BLOB);
CREATE TABLE constraints (id INTEGER PRIMARY KEY, query INTEGER NOT NULL, match INTEGER NOT NULL,
    query_id INTEGER NOT NULL, match_id INTEGER NOT NULL, query_session INTEGER NOT NULL,
    match_session INTEGER NOT NULL, pose BLOB NOT NULL, covariance BLOB NOT NULL, scale_known INTEGER NOT NULL,
    inliers INTEGER NOT NULL, distance REAL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""


class GraphFileError(RuntimeError):
    """The file of a pose graph cannot be used or written; the message names it and says what to do."""


class KeyframeRow(NamedTuple):
    """A keyframe; rows are numbered from 0."""

    session: int
    stamp: int  # nanoseconds
    pose: Transform  # [4,4], of the camera in the odometry's frame
    covariance: NDArray[np.float64] | None  # [6,6] of the step from the keyframe before, where odometry tells it


class ConstraintRow(NamedTuple):
    """A loop constraint between two keyframes, which are named by the numbers of their rows."""

    query: int
    match: int
    constraint: LoopConstraint
    distance: (
        float | None
    )  # metres between the cameras, where a constraint without scale has to be told; None: not known


class GraphFile:
    """The file, locked for this process from opening to closing. Every failure is a GraphFileError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.ExitStack() as resources:
            self._lock(resources)
            with self._sentences("opened as a pose graph", "name a file that pose_graph made, or a new one"):
                self._connection = sqlite3.connect(
                    path.absolute(), timeout=PATIENCE, check_same_thread=False, isolation_level=None
                )
                resources.callback(self._connection.close)
                # Nobody else can have the file's lock then, for which each keyframe would have to wait.
                self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                distrust(self._connection, path)
                self._prepare()
            self._resources = resources.pop_all()

    def _lock(self, resources: contextlib.ExitStack) -> None:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            resources.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GraphFileError(f"{self._path} is in use by another node; give each node a graph of its own") from None
        except OSError as error:
            self._require_folder()
            raise GraphFileError(
                f"{self._path} cannot be opened ({error.strerror}); name a file in a writable folder"
            ) from None
        self._require_folder()

    def _require_folder(self) -> None:
        """SQLite makes a log beside the file, and says of a folder where it cannot that the file cannot be opened."""
        folder = self._path.absolute().parent
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise GraphFileError(
                f"the folder {folder} is not writable; change its permissions, or name a graph in another folder"
            )

    def _prepare(self) -> None:
        connection = self._connection
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if (tables or application) and (application, version) != (APPLICATION, VERSION):
            raise GraphFileError(f"{self._path} is not a pose graph of this version; name another file")
        connection.execute("PRAGMA journal_mode=WAL")
        # Nothing is lost with the process. Where the power fails, the last seconds may be, and the file stays whole.
        connection.execute("PRAGMA synchronous=NORMAL")
        if not tables:
            connection.executescript(SCHEMA)

    def read(self) -> tuple[list[Transform], list[KeyframeRow], list[ConstraintRow]]:
        """Return all sessions (about where each begins, in the map), keyframes and constraints, in order."""
        execute = self._connection.execute
        with self._sentences("read", "restore a copy of the file, or name a new one"):
            for table, first in (("sessions", 1), ("keyframes", 0), ("constraints", 1)):
                least, count = execute(f"SELECT MIN(id), COUNT(*) FROM {table}").fetchone()  # noqa: S608
                (most,) = execute(f"SELECT MAX(id) FROM {table}").fetchone()  # noqa: S608
                if count and (least, most) != (first, first + count - 1):
                    raise ValueError(f"rows of the table {table} are missing")
            sessions = [_pose(blob) for (blob,) in execute("SELECT start FROM sessions ORDER BY id")]
            keyframes = [
                KeyframeRow(session, stamp, _pose(pose), None if noise is None else _array(noise, 6, 6))
                for session, stamp, pose, noise in execute(
                    "SELECT session, stamp, pose, covariance FROM keyframes ORDER BY id"
                )
            ]
            for keyframe in keyframes:
                _require_whole(keyframe.session, keyframe.stamp)
            constraints = []
            for query, match, *ids, pose, covariance, scale_known, inliers, distance in execute(
                "SELECT query, match, query_id, match_id, query_session, match_session, pose, covariance, scale_known, "
                "inliers, distance FROM constraints ORDER BY id"
            ):
                _require_whole(query, match, *ids, scale_known, inliers)
                if distance is not None and not math.isfinite(distance):
                    raise ValueError("a number is not finite")
                transform = _pose(pose)
                relative = RelativePose(
                    transform[:3, :3], transform[:3, 3], _array(covariance, 6, 6), bool(scale_known), inliers
                )
                query_stamp, match_stamp = keyframes[query].stamp, keyframes[match].stamp
                constraint = LoopConstraint(ids[0], ids[1], ids[2], ids[3], query_stamp, match_stamp, relative)
                constraints.append(ConstraintRow(query, match, constraint, distance))
            if any(not 0 <= keyframe.session < len(sessions) for keyframe in keyframes):
                raise ValueError("a keyframe belongs to no session")
            if any(min(row.query, row.match) < 0 or row.query == row.match for row in constraints):
                raise ValueError("a constraint is not between two keyframes")
        return sessions, keyframes, constraints

    def add_keyframe(self, row: KeyframeRow, number: int, start: Transform | None = None) -> None:
        """Commit a keyframe; `start` where a session begins with it, whose odometry's frame is there in the map, about.

        Raises ValueError for numbers that are not finite.
        """
        noise = None if row.covariance is None else _blob(row.covariance)
        values = number, row.session, row.stamp, _blob(row.pose), noise
        session = None if start is None else (row.session + 1, _blob(start))
        with self._writing():
            self._connection.execute("BEGIN")
            if session is not None:
                self._connection.execute("INSERT INTO sessions VALUES (?, ?)", session)
            self._connection.execute("INSERT INTO keyframes VALUES (?, ?, ?, ?, ?)", values)
            self._connection.execute("COMMIT")

    def add_constraint(self, row: ConstraintRow) -> None:
        """Commit a constraint; raises ValueError for numbers that are not finite."""
        one, pose = row.constraint, row.constraint.pose
        transform = np.eye(4)
        transform[:3, :3], transform[:3, 3] = pose.rotation, pose.translation
        values = (
            None, row.query, row.match, one.query_id, one.match_id, one.query_session, one.match_session,
            _blob(transform), _blob(pose.covariance), pose.scale_known, pose.inliers, row.distance,
        )  # fmt: skip
        with self._writing():
            self._connection.execute("INSERT INTO constraints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._sentences("written", "check the disk and its space"):
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file, and let others have it."""
        self._resources.close()

    @contextlib.contextmanager
    def _sentences(self, what: str, remedy: str) -> Iterator[None]:
        """Put what SQLite says, and what is wrong with a row, into a sentence."""
        try:
            yield
        except DatabaseError as error:  # of `distrust`
            raise GraphFileError(str(error)) from None
        except (*SQLITE_ERRORS, OverflowError, ValueError, IndexError, TypeError) as error:
            raise GraphFileError(f"{self._path} cannot be {what} ({first_line(error)}); {remedy}") from None


def _require_whole(*numbers: int) -> None:
    """SQLite lets any value into any column."""
    if not all(type(number) is int for number in numbers):
        raise ValueError("a number is not an integer")


def _blob(array: NDArray[np.float64]) -> bytes:
    if not np.isfinite(array).all():
        raise ValueError("a number of a keyframe or a constraint is not finite; check odometry and constraints")
    return np.ascontiguousarray(array, np.float64).tobytes()


def _pose(blob: bytes) -> Transform:
    pose = _array(blob, 4, 4)
    rotation = pose[:3, :3]
    off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not off < ORTHONORMAL or np.linalg.det(rotation) < 0 or pose[3].tolist() != [0, 0, 0, 1]:
        raise ValueError("a pose is not a rotation")
    return pose


def _array(blob: bytes, *shape: int) -> NDArray[np.float64]:
    """Return an array of a blob; raises ValueError where it is none of that shape, or not finite."""
    array = np.frombuffer(blob, np.float64).reshape(shape).copy()
    if not np.isfinite(array).all():
        raise ValueError("a number is not finite")
    return array
