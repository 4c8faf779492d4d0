# SPDX-License-Identifier: Apache-2.0
"""Write a new map file as a whole, or not at all."""

from __future__ import annotations

import contextlib
import glob
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from binvpr_ros.maps.disk import JOURNAL, log_of
from binvpr_ros.maps.errors import SQLITE_ERRORS, DatabaseError, first_line
from binvpr_ros.maps.schema import SCHEMA


@contextlib.contextmanager
def new_map(output: Path) -> Iterator[sqlite3.Connection]:
    """Give a map without facts to be filled, which stands at `output` once it is whole; raises DatabaseError."""
    # SQLite would take the log of a map that stood there for one of the new map.
    for file in (output, log_of(output), output.with_name(output.name + JOURNAL)):
        if file.exists():
            raise DatabaseError(f"{file} exists; name a new file")
    prefix = f".{output.name}."
    for left in filter(Path.is_dir, output.parent.glob(f"{glob.escape(prefix)}*")):
        print(
            f"{left} was left by a program that was killed, or belongs to one that still runs; remove it if none does",
            file=sys.stderr,
        )
    try:
        beside = tempfile.TemporaryDirectory(dir=output.parent, prefix=prefix)
    except OSError as error:
        raise DatabaseError(f"{output} cannot be written ({error.strerror}); name a new file elsewhere") from None
    with beside as folder:
        part = Path(folder, "map.db")
        try:
            with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as connection:
                connection.executescript("BEGIN; " + SCHEMA)
                yield connection
                connection.execute("COMMIT")
            part.rename(output)
        except SQLITE_ERRORS as error:
            reason = first_line(error)
            raise DatabaseError(f"{output} cannot be written ({reason}); check the disk and its space") from None


def insert(connection: sqlite3.Connection, values: dict[str, Any]) -> None:
    """Add a keyframe, given as its values by column."""
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO keyframes ({', '.join(values)}) VALUES ({places})", tuple(values.values()))  # noqa: S608
