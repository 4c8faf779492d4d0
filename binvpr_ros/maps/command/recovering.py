# SPDX-License-Identifier: Apache-2.0
"""What can still be read of a damaged map."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from binvpr_ros.counted import counted
from binvpr_ros.maps.command.new_map import insert, new_map
from binvpr_ros.maps.command.rows import ESSENTIAL_COLUMNS, names_of, problems_of
from binvpr_ros.maps.errors import SQLITE_ERRORS, DatabaseError
from binvpr_ros.maps.identity import Identity, write_facts
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.reading import read_closures
from binvpr_ros.maps.schema import Facts
from binvpr_ros.maps.source import OtherClosure
from binvpr_ros.maps.store import MOST_KEYFRAMES

MOST_LOST_IDS = 1_000_000
"""Ids in a row without a keyframe that can be read, after which recovery looks for no more: seconds."""


def recover(path: Path, output: Path) -> str:
    """Write one new map of the keyframes of a damaged one that can be read; return a sentence about it.

    Of a keyframe whose features, closure or thumbnail are damaged the rest is kept, and of one that follows a lost one
    all but the motion. Ids, sessions and the uuid stay as they are, and so does the damaged map. Raises DatabaseError
    where no keyframe can be read.
    """
    with new_map(output) as recovered, opened(path, cut=True) as (connection, facts):
        names = names_of(connection)
        kept = in_part = lost = last = 0
        unknown = ""
        for row, missed in _salvaged_rows(connection, facts, names):
            if row is None and missed == MOST_LOST_IDS:
                unknown = f"; what comes after keyframe {last} cannot be looked up"
                break
            lost += missed
            if row is not None:
                kept, in_part, last = kept + 1, in_part + (len(row) < len(names)), row["id"]
                if missed:
                    row.pop("motion", None)
                insert(recovered, row)
        if not kept:
            raise DatabaseError(f"{path} holds no keyframe that can be read; restore a copy of the file")
        _insert_closures(_closures(path, connection), recovered)
        write_facts(recovered, facts, _identity(connection, facts))
    # An id that cannot be looked up may be one that was forgotten.
    said = f"at most {lost} cannot be read" if lost else "no other was found"
    return f"{output}: {counted(kept, 'keyframe')}, {in_part} of them in part; {said}{unknown}"


def _closures(path: Path, connection: sqlite3.Connection) -> list[OtherClosure]:
    """Return the closures with other maps that can be read."""
    closures = []
    with contextlib.suppress(DatabaseError):
        for closure in read_closures(connection, path):
            closures.append(closure)  # noqa: PERF402 - what came before an error stays
    return closures


def _insert_closures(closures: Sequence[OtherClosure], recovered: sqlite3.Connection) -> None:
    """Add closures with other maps to those keyframes that are there."""
    for closure in closures:
        if recovered.execute("SELECT 1 FROM keyframes WHERE id = ?", closure[:1]).fetchone():
            recovered.execute("INSERT OR REPLACE INTO closures VALUES (?, ?, ?)", closure)


def _identity(connection: sqlite3.Connection, facts: Facts) -> Identity:
    try:
        return Identity.of(connection, facts)
    except SQLITE_ERRORS:
        return Identity.new()


def _salvaged_rows(
    connection: sqlite3.Connection, facts: Facts, names: Sequence[str]
) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Yield what is whole of a damaged map's keyframes, each with how many ids just before it cannot be read.

    The last is None, where ids at the end cannot be read.
    """
    number = missed = 0
    while missed < MOST_LOST_IDS and number < MOST_KEYFRAMES:
        row = None
        with contextlib.suppress(*SQLITE_ERRORS):
            # Each by itself: a query over all ends at the first damaged page, but the tree leads past it.
            found = connection.execute(
                "SELECT id FROM keyframes WHERE id >= ? ORDER BY id LIMIT 1", (number,)
            ).fetchone()
            if found is None:
                break
            if not number <= found[0] < MOST_KEYFRAMES:
                raise sqlite3.DatabaseError("its ids are in disorder")
            row = _salvaged(connection, facts, names, found[0])
        if row is None:  # what was found may be rubbish, with an id far behind others
            number, missed = number + 1, missed + 1
        else:
            yield row, missed
            number, missed = row["id"] + 1, 0
    if missed:
        yield None, missed


def _salvaged(connection: sqlite3.Connection, facts: Facts, names: Sequence[str], number: int) -> dict[str, Any] | None:
    """Return what is whole of a keyframe, by those column names; None where that is no keyframe any more."""

    def read(name: str) -> Any:
        found = connection.execute(f"SELECT {name} FROM keyframes WHERE id = ?", (number,)).fetchone()  # noqa: S608
        if found is None:
            raise sqlite3.DatabaseError("its ids are in disorder")
        return found[0]

    try:
        row = {name: read(name) for name in ESSENTIAL_COLUMNS}
    except SQLITE_ERRORS:
        return None
    if any(problems_of(row, facts)):
        return None
    for name in names[len(ESSENTIAL_COLUMNS) :]:
        with contextlib.suppress(*SQLITE_ERRORS):
            more = {**row, name: read(name)}
            if not any(problems_of(more, facts)):
                row = more
    return row
