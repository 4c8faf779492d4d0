# SPDX-License-Identifier: Apache-2.0
"""The rows of a map's table of keyframes, and what can be wrong with one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.local_features.features import Features, FeaturesError
from binvpr_ros.maps.errors import REMEDY, DatabaseError
from binvpr_ros.maps.reading import MOTION_BYTES, is_sensible
from binvpr_ros.maps.schema import LATEST_STAMP, Facts, columns
from binvpr_ros.maps.source import OtherClosure
from binvpr_ros.maps.store import MOST_KEYFRAMES
from binvpr_ros.network.hamming import WORD_BITS

INTEGERS = {"id": (0, MOST_KEYFRAMES), "session": (0, 1 << 31), "stamp": (-LATEST_STAMP, LATEST_STAMP)}
"""The least value of each, and what it stays below."""
ESSENTIAL_COLUMNS = (*INTEGERS, "descriptor")
LATER_COLUMNS = ("features", "closes", "thumbnail", "motion")
"""Those that a map of an earlier version may lack."""
JPEG = b"\xff\xd8\xff"
"""How such a file begins."""


def checked_rows(connection: sqlite3.Connection, facts: Facts) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield the keyframes by id, each as its values by column, and a sentence for each thing that is wrong with it.

    Of the later columns there are those that the map has.
    """
    names = names_of(connection)
    before = None
    for values in connection.execute(f"SELECT {', '.join(names)} FROM keyframes ORDER BY id"):  # noqa: S608
        row = dict(zip(names, values, strict=True))
        twice = ["its id occurs twice"] if row["id"] == before else []
        before = row["id"]
        yield row, [*problems_of(row, facts), *twice]


def whole_rows(path: Path, connection: sqlite3.Connection, facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the keyframes as `checked_rows` does; raises DatabaseError at the first that is damaged."""
    for row, sentences in checked_rows(connection, facts):
        for sentence in sentences:
            raise DatabaseError(f"{path} is damaged at keyframe {row['id']}: {sentence}; {REMEDY}")
        yield row


def checked_closures(connection: sqlite3.Connection) -> Iterator[tuple[OtherClosure, list[str]]]:
    """Yield the closures with other maps, each with sentences for what is wrong with it."""
    if columns(connection, "closures"):
        for row in connection.execute("SELECT keyframe, map_uuid, match_id FROM closures ORDER BY keyframe"):
            closure = OtherClosure(*row)
            yield closure, [] if is_sensible(closure) else ["its closure to another map cannot be read"]


def whole_closures(path: Path, connection: sqlite3.Connection) -> Iterator[OtherClosure]:
    """Yield the closures with other maps; raises DatabaseError at the first that is damaged."""
    for closure, sentences in checked_closures(connection):
        for sentence in sentences:
            raise DatabaseError(f"{path} is damaged at keyframe {closure.keyframe}: {sentence}; {REMEDY}")
        yield closure


def names_of(connection: sqlite3.Connection) -> list[str]:
    """Return the columns of the keyframes that are ours: of the later ones those that the map has."""
    there = columns(connection)
    return [*ESSENTIAL_COLUMNS, *(name for name in LATER_COLUMNS if name in there)]


def problems_of(row: dict[str, Any], facts: Facts) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with a keyframe, given as its values by column."""
    length = facts.words * WORD_BITS // 8
    for name, (least, limit) in INTEGERS.items():
        if not isinstance(row[name], int):
            yield f"its {name} is not an integer"
        elif not least <= row[name] < limit:
            yield f"its {name} is out of range"
    descriptor = row["descriptor"]
    if not isinstance(descriptor, bytes) or len(descriptor) != length:
        yield f"its descriptor is not of {length} bytes"
    yield from _later_problems(row)


def _later_problems(row: dict[str, Any]) -> Iterator[str]:
    features, closes, thumbnail, motion = (row.get(name) for name in LATER_COLUMNS)
    if features is not None:
        try:
            Features.from_bytes(features)
        except (FeaturesError, TypeError):
            yield "its features cannot be read"
    if closes is not None and not isinstance(closes, int):
        yield "the keyframe it closes to is not an integer"
    elif closes is not None and isinstance(row["id"], int) and not NOTHING_CLOSED <= closes < row["id"]:
        yield "the keyframe it closes to is not an earlier one"
    if thumbnail is not None and not (isinstance(thumbnail, bytes) and thumbnail.startswith(JPEG)):
        yield "its thumbnail is not a jpeg file"
    if motion is not None and not (isinstance(motion, bytes) and len(motion) == MOTION_BYTES):
        yield f"its motion is not of {MOTION_BYTES} bytes"
