# SPDX-License-Identifier: Apache-2.0
"""The robot's own map as its outbox: what the server does not have yet is read from the file, whenever it is sent."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from binvpr_ros.keyframes import NOTHING_CLOSED, Keyframe
from binvpr_ros.maps.errors import SQLITE_ERRORS, DatabaseError, first_line
from binvpr_ros.maps.fleet.rows import features_of
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.reading import motions_of, read_closures
from binvpr_ros.maps.schema import Facts, columns
from binvpr_ros.maps.source import OtherClosure

AT_ONCE = 500
"""Numbers in a statement of SQLite, which takes 999 at the least."""


class Letter(NamedTuple):
    """A keyframe as the file holds it."""

    keyframe: int
    session: int
    stamp: int  # nanoseconds
    closes: int | None
    motion: bytes | None
    descriptor: bytes
    features: bytes | None
    thumbnail: bytes | None

    def as_keyframe(self) -> Keyframe:
        """Return the keyframe, by the file's own ids."""
        motion = motions_of([self.motion])[0]
        return Keyframe(
            self.keyframe,
            self.session,
            self.stamp,
            np.frombuffer(self.descriptor, "<u8").astype(np.uint64),
            features_of(self.features),
            NOTHING_CLOSED if self.closes is None else self.closes,
            motion=None if np.isnan(motion).any() else motion.reshape(3, 3),
        )


class Outbox:
    """A map file, opened read-only beside the node that writes it. Every failure is a DatabaseError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.ExitStack() as resources:
            self._connection, self.facts = resources.enter_context(opened(path))
            there = columns(self._connection)
            # Maps of earlier versions, which `binvpr fleet push` sends too, had fewer columns.
            names = ["closes", "motion", "descriptor", "features", "thumbnail"]
            self._names = ", ".join(["id, session, stamp", *(name if name in there else "NULL" for name in names)])
            self._closes = "closes" if "closes" in there else "NULL"
            self._resources = resources.pop_all()

    def identity(self) -> Identity:
        """Return which map it is now, and its camera."""
        facts: Facts = self.facts
        try:
            return Identity.of(self._connection, facts)
        except SQLITE_ERRORS as error:
            raise self._unreadable(error) from None

    def letters(self, numbers: Sequence[int]) -> list[Letter]:
        """Return those keyframes of these ids that there are, ascending."""
        found: list[Letter] = []
        for start in range(0, len(numbers), AT_ONCE):
            some = numbers[start : start + AT_ONCE]
            places = ", ".join("?" * len(some))
            rows = self._rows(f"SELECT {self._names} FROM keyframes WHERE id IN ({places}) ORDER BY id", some)  # noqa: S608
            # SQLite keeps values of any type: what is no blob is nothing, as it is where a node reads it.
            found += [Letter(*row[:4], *(one if isinstance(one, bytes) else None for one in row[4:])) for row in rows]
        return found

    def numbers(self, after: int = -1) -> dict[int, int | None]:
        """Return the ids of all keyframes after one, ascending, and what each closes."""
        return dict(self._rows(f"SELECT id, {self._closes} FROM keyframes WHERE id > ? ORDER BY id", (after,)))  # noqa: S608

    def count(self, low: int, high: int) -> int:
        """Return how many keyframes have ids from `low` to `high`."""
        (number,) = self._rows("SELECT COUNT(*) FROM keyframes WHERE id BETWEEN ? AND ?", (low, high))[0]
        return int(number)

    def last(self) -> int:
        """Return the id of the newest keyframe, -1 where there is none."""
        (number,) = self._rows("SELECT MAX(id) FROM keyframes", ())[0]
        return -1 if number is None else int(number)

    def closures(self) -> list[OtherClosure]:
        """Return the closures with other maps."""
        return list(read_closures(self._connection, self._path))

    def close(self) -> None:
        """Close the file."""
        self._resources.close()

    def _rows(self, statement: str, values: Sequence[int]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except SQLITE_ERRORS as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: BaseException) -> DatabaseError:
        return DatabaseError(f"{self._path} cannot be read ({first_line(error)}); it is read again later")
