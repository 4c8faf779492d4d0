# SPDX-License-Identifier: Apache-2.0
"""GraphFile: the SQLite file that keeps what a pose graph was told; its poses are computed from that again."""

from __future__ import annotations

import contextlib
import fcntl
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
                self._connection = sqlite3.connect(path.absolute(), check_same_thread=False, isolation_level=None)
                resources.callback(self._connection.close)
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
            raise GraphFileError(
                f"{self._path} cannot be opened ({error.strerror}); name a file in a writable folder"
            ) from None

    def _prepare(self) -> None:
        connection = self._connection
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if (tables or application) and (application, version) != (APPLICATION, VERSION):
            raise GraphFileError(f"{self._path} is no pose graph of this version; name another file")
        connection.execute("PRAGMA journal_mode=WAL")
        # Nothing is lost with the process. Where the power fails, the last seconds may be, and the file stays whole.
        connection.execute("PRAGMA synchronous=NORMAL")
        if not tables:
            connection.executescript(SCHEMA)

    def read(self) -> tuple[list[Transform], list[KeyframeRow], list[ConstraintRow]]:
        """Return all sessions (about where each begins, in the map), keyframes and constraints, in order."""
        execute = self._connection.execute
        with self._sentences("read", "restore a copy of the file, or name a new one"):
            sessions = [_array(blob, 4, 4) for (blob,) in execute("SELECT start FROM sessions ORDER BY id")]
            keyframes = [
                KeyframeRow(session, stamp, _array(pose, 4, 4), None if noise is None else _array(noise, 6, 6))
                for session, stamp, pose, noise in execute(
                    "SELECT session, stamp, pose, covariance FROM keyframes ORDER BY id"
                )
            ]
            constraints = []
            for query, match, *ids, pose, covariance, scale_known, inliers, distance in execute(
                "SELECT query, match, query_id, match_id, query_session, match_session, pose, covariance, scale_known, "
                "inliers, distance FROM constraints ORDER BY id"
            ):
                transform = _array(pose, 4, 4)
                relative = RelativePose(
                    transform[:3, :3], transform[:3, 3], _array(covariance, 6, 6), bool(scale_known), inliers
                )
                query_stamp, match_stamp = keyframes[query].stamp, keyframes[match].stamp
                constraint = LoopConstraint(ids[0], ids[1], ids[2], ids[3], query_stamp, match_stamp, relative)
                constraints.append(ConstraintRow(query, match, constraint, distance))
            if any(not 0 <= keyframe.session < len(sessions) for keyframe in keyframes):
                raise ValueError("a keyframe is of no session")
            if any(min(row.query, row.match) < 0 or row.query == row.match for row in constraints):
                raise ValueError("a constraint is not between two keyframes")
        return sessions, keyframes, constraints

    def add_session(self, start: Transform) -> None:
        """Commit that a session begins, whose odometry's frame is at about `start` [4,4] in the map."""
        with self._writing():
            self._connection.execute("INSERT INTO sessions VALUES (?, ?)", (None, start.tobytes()))

    def add_keyframe(self, row: KeyframeRow, number: int) -> None:
        """Commit a keyframe."""
        noise = None if row.covariance is None else row.covariance.tobytes()
        values = number, row.session, row.stamp, row.pose.tobytes(), noise
        with self._writing():
            self._connection.execute("INSERT INTO keyframes VALUES (?, ?, ?, ?, ?)", values)

    def add_constraint(self, row: ConstraintRow) -> None:
        """Commit a constraint."""
        one, pose = row.constraint, row.constraint.pose
        transform = np.eye(4)
        transform[:3, :3], transform[:3, 3] = pose.rotation, pose.translation
        values = (
            None, row.query, row.match, one.query_id, one.match_id, one.query_session, one.match_session,
            transform.tobytes(), pose.covariance.tobytes(), pose.scale_known, pose.inliers, row.distance,
        )  # fmt: skip
        with self._writing():
            self._connection.execute("INSERT INTO constraints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return self._sentences("written", "check the disk and its space")

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


def _array(blob: bytes, *shape: int) -> NDArray[np.float64]:
    """Return an array of a blob; raises ValueError where it is none of that shape, or not finite."""
    array = np.frombuffer(blob, np.float64).reshape(shape).copy()
    if not np.isfinite(array).all():
        raise ValueError("a number is not finite")
    return array
