# SPDX-License-Identifier: Apache-2.0
"""Search: the nearest keyframes of a large site, found on the server.

pgvector's HNSW index (Malkov and Yashunin, PAMI 2020) holds the bits that a shift of the image leaves alone, so that
one search stands for all views of the query. What it finds is put in order by all bits and all views, in SQL too, and
only the best come to the robot, with the keyframes around them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.fleet.found import MOST_SESSIONS, Stretch
from binvpr_ros.maps.fleet.mirror import Nearest
from binvpr_ros.maps.fleet.rows import COLUMNS, FITS, OtherMap, bits_of, columns_of, descriptor_of, other_map
from binvpr_ros.maps.fleet.schema import Realm
from binvpr_ros.maps.store import Columns
from binvpr_ros.network.hamming import nearest_view

CANDIDATES = 400
"""Of the index, which are put in order by all bits and views."""
AROUND = 10
"""Of so many in a row only the nearest comes to the robot, so that a place where one stood does not hide another."""
WITH_NEIGHBOURS = 16
"""Of those, the nearest, which come with AROUND keyframes before and after them."""
SAMPLE = 1_000
"""Keyframes from all over the map, for the similarity to the map as a whole."""
SAMPLE_SECONDS = 600.0

Range = tuple[int, int, int]
"""A map, and its first and last keyframe of a stretch."""


class Search:
    """The search in a realm over all maps but the robot's own."""

    def __init__(self, realm: Realm, own: int, words: int, *, index: bool) -> None:
        self._realm, self._own, self._words, self._index = realm, own, words, index
        self._sample: NDArray[np.uint64] = np.empty((0, words), np.uint64)
        self._sampled = -np.inf
        self.refused: dict[int, str] = {}
        """Maps that the latest search has left out, and why."""

    async def nearest(self, connection: Any, views: NDArray[np.uint64]) -> Nearest:
        """Return what is nearest to a query's views [V,W]."""
        self.refused = {}
        rows, last = await self.candidates(connection, views)
        chosen = _of_best_sessions(rows)
        sessions = {(number, session) for number, _, session, _ in chosen}
        stretches = []
        for columns, whose in await self._around(connection, [(number, one) for number, one, _, _ in chosen]):
            for session, start, stop in _runs(columns.sessions):
                if (whose.number, session) in sessions:
                    part = columns.only(slice(start, stop))
                    stretches.append(Stretch(whose, part, nearest_view(part.descriptors, views)))
        await self._take_sample(connection)
        return Nearest(stretches, nearest_view(self._sample, views), last)

    async def candidates(
        self, connection: Any, views: NDArray[np.uint64]
    ) -> tuple[list[tuple[int, int, int, int]], int | None]:
        """Return map, keyframe, session and distance of the nearest by the index in the best sessions, nearest first.

        Of AROUND keyframes in a row only the nearest. And the distance of the last of the CANDIDATES that were looked
        at, None where there are no more of them. Where shifts move bits that are in the index, each view that differs
        there is searched for by itself.
        """
        first, count = self._realm.index_from, self._realm.index_bits
        every = [bits_of(view) for view in views]
        # Numbers that a type or an index must have as such; the statement's values are parameters.
        terms = (f"bit_count(descriptor # ($3::varbit[])[{number + 1:d}])" for number in range(len(every)))
        distance = f"least({', '.join(terms)})"
        order = f"substring(descriptor from {first:d} for {count:d})::bit({count:d}) <~> $4::bit({count:d})"
        parts = {part.bytes: part for part in (bits_of(view, first, count) for view in views)}
        if not self._index:
            order, parts = f"{distance}, $4::bit({count:d})", dict(itertools.islice(parts.items(), 1))
        statement = (
            f"WITH near AS MATERIALIZED (SELECT map_no, keyframe, session, descriptor FROM keyframes "  # noqa: S608
            f"WHERE realm = $1 AND map_no <> $2 ORDER BY {order} LIMIT {CANDIDATES:d}), "
            f"ranked AS MATERIALIZED (SELECT map_no, keyframe, session, {distance} AS distance FROM near), "
            f"stretches AS (SELECT DISTINCT ON (map_no, session, keyframe / {AROUND:d}) *, "
            "max(distance) OVER () AS last, count(*) OVER () AS found "
            f"FROM ranked ORDER BY map_no, session, keyframe / {AROUND:d}, distance) "
            "SELECT map_no, keyframe, session, distance, last, found FROM stretches JOIN (SELECT map_no, session "
            f"FROM ranked GROUP BY map_no, session ORDER BY min(distance) LIMIT {MOST_SESSIONS:d}) AS best "
            "USING (map_no, session)"
        )
        found: set[tuple[int, int, int, int]] = set()
        lasts = []
        for part in parts.values():
            rows = await connection.fetch(statement, self._realm.number, self._own, every, part)
            found.update(tuple(row)[:4] for row in rows)
            lasts += [row["last"] for row in rows[:1] if row["found"] >= CANDIDATES]
        return sorted(found, key=lambda row: row[3]), min(lasts, default=None)

    async def _around(self, connection: Any, chosen: Sequence[tuple[int, int]]) -> list[tuple[Columns, OtherMap]]:
        """Return keyframes of maps with those around them, one piece for each map."""
        if not chosen:
            return []
        numbers, lows, highs = zip(*_ranges(chosen), strict=True)
        rows = await connection.fetch(
            # Laterally, so that each range is looked up in the index, and no map is read as a whole.
            "SELECT k.* FROM unnest($3::int[], $4::int[], $5::int[]) AS r(m, low, high), "  # noqa: S608
            f"LATERAL (SELECT map_no, {COLUMNS} FROM keyframes "
            f"WHERE {FITS} AND map_no = r.m AND keyframe BETWEEN r.low AND r.high OFFSET 0) AS k "
            "ORDER BY map_no, keyframe",
            self._realm.number, self._realm.bits, numbers, lows, highs,
        )  # fmt: skip
        # After their keyframes: a robot writes its new camera before those that it took.
        maps = {row["map_no"]: other_map(row) for row in await connection.fetch(
            "SELECT map_no, map, robot, camera FROM maps WHERE realm = $1 AND map_no = ANY($2::int[])",
            self._realm.number, list(set(numbers)),
        )}  # fmt: skip
        pieces = []
        for number, some in itertools.groupby(rows, key=lambda row: row["map_no"]):
            if (whose := maps.get(number)) is not None:  # or it was deleted meanwhile
                try:
                    pieces.append((columns_of(list(some), self._words, whose), whose))
                except FleetError as error:
                    self.refused[number] = str(error)
        return pieces

    async def _take_sample(self, connection: Any) -> None:
        if time.monotonic() - self._sampled < SAMPLE_SECONDS:
            return
        rows = await connection.fetch(
            # Of pages, or a small table may give none; one row in a page would be too few.
            f"SELECT descriptor FROM keyframes TABLESAMPLE SYSTEM ($4) WHERE {FITS} AND map_no <> $3 LIMIT {SAMPLE}",  # noqa: S608
            self._realm.number, self._realm.bits, self._own, await self._share(connection),
        )  # fmt: skip
        self._sample = np.array([descriptor_of(bits) for (bits,) in rows], np.uint64).reshape(-1, self._words)
        self._sampled = time.monotonic()

    async def _share(self, connection: Any) -> float:
        """Return the percentage of the pages that holds about three times SAMPLE keyframes."""
        rows = await connection.fetchval(
            "SELECT sum(reltuples) FROM pg_class WHERE oid = ('binvpr.keyframes_' || $1::int)::regclass",
            self._realm.number,
        )
        return float(min(100.0, 300.0 * SAMPLE / max(rows or 0, 1)))


def _of_best_sessions(rows: Sequence[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Return the rows of the MOST_SESSIONS sessions that come first."""
    sessions = list(dict.fromkeys((number, session) for number, _, session, _ in rows))[:MOST_SESSIONS]
    return [row for row in rows if (row[0], row[2]) in sessions]


def _ranges(chosen: Sequence[tuple[int, int]]) -> list[Range]:
    """Return keyframes of maps, nearest first, as ranges, the nearest with neighbours, and overlapping ones as one."""
    around = [(one, AROUND if rank < WITH_NEIGHBOURS else 0) for rank, one in enumerate(chosen)]
    ranges: list[Range] = []
    for number, low, high in sorted((number, max(one - more, 0), one + more) for (number, one), more in around):
        if ranges and ranges[-1][0] == number and low <= ranges[-1][2] + 1:
            ranges[-1] = (number, ranges[-1][1], max(ranges[-1][2], high))
        else:
            ranges.append((number, low, high))
    return ranges


def _runs(sessions: NDArray[np.int32]) -> Iterator[tuple[int, int, int]]:
    """Yield each session with its first position, and that after its last."""
    starts = [0, *(np.flatnonzero(np.diff(sessions)) + 1).tolist(), len(sessions)]
    for start, stop in itertools.pairwise(starts):
        yield int(sessions[start]), start, stop
