# SPDX-License-Identifier: Apache-2.0
"""Read keyframes, their features and their thumbnails from an open map file."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.local_features.features import Features, FeaturesError
from binvpr_ros.maps.errors import REMEDY, SQLITE_ERRORS, DatabaseError, first_line
from binvpr_ros.maps.identity import is_uuid
from binvpr_ros.maps.schema import LATEST_STAMP, columns
from binvpr_ros.maps.source import OtherClosure
from binvpr_ros.maps.store import MOST_KEYFRAMES, UNKNOWN_MOTION, UNKNOWN_WHEREABOUTS, Columns
from binvpr_ros.network.hamming import WORD_BITS

ROWS_READ = 256
"""Keyframes that are read from the file at a time; what Python makes of more does not stay in the processor's cache."""
MOTION_BYTES = 36
UNKNOWN_MOTION_BYTES = UNKNOWN_MOTION.astype("<f4").tobytes()


def read_keyframes(connection: sqlite3.Connection, path: Path, words: int) -> Iterator[Columns]:
    """Yield all keyframes, by id; raises DatabaseError where one is damaged."""
    size = words * WORD_BITS // 8
    try:
        there = columns(connection)
        # What closes nothing comes as a number from SQLite, which takes less time than to replace it here.
        closes = f"IFNULL(closes, {NOTHING_CLOSED})" if "closes" in there else str(NOTHING_CLOSED)
        names = ["id", "session", "stamp", closes, "motion" if "motion" in there else "NULL", "descriptor"]
        rows = connection.execute(f"SELECT {', '.join(names)} FROM keyframes ORDER BY id")  # noqa: S608
        last = -1
        while some := rows.fetchmany(ROWS_READ):
            ids, sessions, stamps, closed, motions, blobs = zip(*some, strict=True)
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
                motions_of(motions),
                np.repeat(UNKNOWN_WHEREABOUTS, len(ids), axis=0),
                np.frombuffer(b"".join(blobs), "<u8").reshape(-1, words),
            )
    except (*SQLITE_ERRORS, ValueError, TypeError, OverflowError) as error:
        raise DatabaseError(f"{path} cannot be read ({first_line(error)}); {REMEDY}") from None


def motions_of(blobs: Iterable[object]) -> NDArray[np.float32]:
    """Return motions [n,9] as a file keeps them; NaN where one is not known, or cannot be read."""
    known = [blob if isinstance(blob, bytes) and len(blob) == MOTION_BYTES else UNKNOWN_MOTION_BYTES for blob in blobs]
    motions = np.frombuffer(b"".join(known), "<f4").reshape(-1, 9).astype(np.float32)
    motions[~np.isfinite(motions).all(axis=1)] = np.nan
    return motions


def read_closures(connection: sqlite3.Connection, path: Path) -> Iterator[OtherClosure]:
    """Yield the closures with other maps, those left out that make no sense; raises DatabaseError."""
    try:
        if not columns(connection, "closures"):
            return
        for row in connection.execute("SELECT keyframe, map_uuid, match_id FROM closures"):
            closure = OtherClosure(*row)
            if is_sensible(closure):
                yield closure
    except SQLITE_ERRORS as error:
        raise DatabaseError(f"{path} cannot be read ({first_line(error)}); {REMEDY}") from None


def is_sensible(closure: OtherClosure) -> bool:
    """Tell whether a closure out of a file names two keyframes, and a map."""
    numbers = (closure.keyframe, closure.match)
    return is_uuid(closure.map_uuid) and all(isinstance(n, int) and 0 <= n < MOST_KEYFRAMES for n in numbers)


def read_features(connection: sqlite3.Connection, number: int) -> Features | None:
    """Return the features of the keyframe of this id; None where there are none, or they cannot be read."""
    try:
        row = connection.execute("SELECT features FROM keyframes WHERE id = ?", (number,)).fetchone()
        return None if row is None or row[0] is None else Features.from_bytes(row[0])
    except (*SQLITE_ERRORS, FeaturesError, TypeError):
        return None  # what cannot be verified is refused, which says so


def read_thumbnail(connection: sqlite3.Connection, number: int) -> bytes | None:
    """Return the thumbnail of the keyframe of this id; None where there is none, or it cannot be read."""
    try:
        row = connection.execute("SELECT thumbnail FROM keyframes WHERE id = ?", (number,)).fetchone()
    except SQLITE_ERRORS:
        return None
    return row[0] if row is not None and isinstance(row[0], bytes) else None
