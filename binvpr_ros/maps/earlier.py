# SPDX-License-Identifier: Apache-2.0
"""EarlierMap: the file of an earlier map as a source of keyframes."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.disk import in_use
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.reading import read_closures, read_features, read_keyframes, read_thumbnail
from binvpr_ros.maps.source import KeyframeSource, OtherClosure
from binvpr_ros.maps.store import Columns

RETRY_INTERVAL = 1.0
"""Seconds between attempts to open an earlier map that cannot be read; verification asks for it many times a second."""


class EarlierMap(KeyframeSource):
    """A map that is matched against and never written here, though maybe by another node.

    Every failure is a DatabaseError, but for those of `features` and `thumbnail`, which know nothing then.
    """

    def __init__(self, path: Path, model_sha256: str, words: int) -> None:
        self._path, self._model, self._words = path, model_sha256, words
        self._next_attempt = 0.0  # monotonic seconds
        self.identity = self._open()

    def _open(self) -> Identity:
        self._seen: _Trace | None = None  # of the file as it was opened; None while it is not open
        trace = _trace(self._path)
        with contextlib.ExitStack() as resources:
            self._connection, facts = resources.enter_context(opened(self._path))
            facts.require(self._path, self._model, self._words)
            identity = Identity.of(self._connection, facts)
            self._resources = resources.pop_all()
        self._seen = trace
        return identity

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
        return read_keyframes(self._connection, self._path, self._words)

    def closures(self) -> Iterator[OtherClosure]:
        """Yield the closures with keyframes of other maps; raises DatabaseError where they cannot be read."""
        return read_closures(self._connection, self._path)

    def features(self, number: int) -> Features | None:
        """Return the features of the keyframe of this id; None where there are none, or they cannot be read."""
        connection = self._current()
        return None if connection is None else read_features(connection, number)

    def thumbnail(self, number: int) -> bytes | None:
        """Return the thumbnail of the keyframe of this id; None where there is none, or it cannot be read."""
        connection = self._current()
        return None if connection is None else read_thumbnail(connection, number)

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
    return _Trace(stat.st_ino, stat.st_mtime_ns, stat.st_size, in_use(path))
