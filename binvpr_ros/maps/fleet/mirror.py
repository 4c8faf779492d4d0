# SPDX-License-Identifier: Apache-2.0
"""Mirror: the maps of all others of a small site in memory, searched exactly, and there while the server is not."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.fleet.found import Stretch, best_sessions, whole_id
from binvpr_ros.maps.fleet.rows import COLUMNS, FITS, OtherMap, columns_of, keyframes_of, other_map
from binvpr_ros.maps.fleet.schema import Realm
from binvpr_ros.maps.store import Columns, KeyframeStore, joined

MOST_MIRRORED = 100_000
"""Keyframes of a site that is mirrored, 30 MB; larger ones are searched on the server."""
ROWS_AT_ONCE = 500
"""150 kB, for which a slow network has ANSWER_SECONDS."""
COMPARE_SECONDS = 60.0
"""Between two looks at what others have deleted: their maps forget a keyframe for each new one when they are full."""
REFUSED_SECONDS = 600.0
"""After which the maps that made no sense are read again, from their start."""


class Nearest(NamedTuple):
    """What is like a query, and how like it the whole is."""

    stretches: list[Stretch]
    typical: NDArray[np.uint32]  # [N], distances of keyframes from all over the map
    last: int | None = None  # distance of the last keyframe that was looked at, where there may be more of them


class _Mirrored:
    """One map of another."""

    def __init__(self, whose: OtherMap, words: int, deletions: int) -> None:
        self.whose = whose
        self.store = KeyframeStore(words)
        self._words = words
        self.batches = 0  # that there were when it was read to its end
        self.read = (0, -1)  # batch and keyframe of the last row
        self.deletions = deletions
        self.compared = time.monotonic()

    def take(self, keyframes: Columns) -> None:
        """Take in keyframes; those of a gap that was filled come between those that are here."""
        keyframes = keyframes.only(~np.isin(keyframes.ids, self.store.ids))
        if not len(keyframes.ids):
            return
        if len(self.store) and keyframes.ids[0] < self.store.ids[-1]:
            before, self.store = self.store.columns(0, len(self.store)), KeyframeStore(self._words)
            both = joined([before, keyframes])
            keyframes = both.only(both.ids.argsort())
        sessions = np.concatenate([self.store.sessions[-1:], keyframes.sessions])
        if (np.diff(sessions) < 0).any():
            raise FleetError(f"the sessions of robot {self.whose.robot!r} make no sense; its map is left out")
        self.store.append(keyframes)

    def keep(self, stays: NDArray[np.bool_]) -> None:
        """Drop the keyframes that do not stay [K]."""
        before, self.store = self.store, KeyframeStore(self._words)
        if stays.any():
            kept = before.columns(0, len(before)).only(stays)
            closes = np.where(np.isin(kept.closes, kept.ids), kept.closes, NOTHING_CLOSED).astype(np.int32)
            # What lay between two that are neighbours now is not known any more.
            motions = kept.motions.copy()
            motions[np.flatnonzero(np.diff(np.flatnonzero(stays)) > 1) + 1] = np.nan
            self.store.append(kept._replace(closes=closes, motions=motions))


class Mirror:
    """All maps of a realm but the robot's own; of more than `most` keyframes it reads only that there are more."""

    def __init__(self, words: int, most: int = MOST_MIRRORED) -> None:
        self._words, self._most = words, most
        self._maps: dict[int, _Mirrored] = {}
        self.refused: dict[int, str] = {}
        """Maps that are left out, and why."""
        self._again = 0.0  # when they are tried again

    def __len__(self) -> int:
        """Return the number of keyframes."""
        return sum(len(one.store) for one in tuple(self._maps.values()))

    @property
    def maps(self) -> int:
        """How many maps there are."""
        return len(self._maps)

    async def refresh(self, connection: Any, realm: Realm, own: int) -> None:
        """Read what has come since the last time; raises FleetError where the server cannot be read."""
        rows = await connection.fetch(
            "SELECT map_no, map, robot, camera, batches, deletions FROM maps "
            "WHERE realm = $1 AND map_no <> $2 AND batches > 0",  # those to which nothing was sent have no keyframes
            realm.number, own,
        )  # fmt: skip
        there = {row["map_no"]: row for row in rows}
        self._maps = {number: one for number, one in self._maps.items() if number in there}
        self.refused = {number: why for number, why in self.refused.items() if number in there}
        now = time.monotonic()
        again = now >= self._again
        if again:
            self._again = now + REFUSED_SECONDS
        for number, row in there.items():
            if number in self.refused and not again:
                continue
            whose = other_map(row)
            try:
                await self._follow(connection, realm, whose, row["batches"], row["deletions"])
                self.refused.pop(number, None)
            except FleetError as error:
                self._maps.pop(number, None)
                self.refused[number] = str(error)

    async def _follow(self, connection: Any, realm: Realm, whose: OtherMap, batches: int, deletions: int) -> None:
        """Bring one map up to date."""
        known = self._maps.get(whose.number)
        again = known is None or whose.identity.uuid != known.whose.identity.uuid or batches < known.batches
        if known is None or again:  # a server that was restored has older rows, and gives numbers out again
            known = self._maps[whose.number] = _Mirrored(whose, self._words, deletions)
        known.whose = whose
        if deletions != known.deletions and time.monotonic() - known.compared >= COMPARE_SECONDS:
            await self._forget(connection, realm, known)
            known.deletions, known.compared = deletions, time.monotonic()
        if batches > known.batches and await self._read(connection, realm, known):
            known.batches = batches

    async def _read(self, connection: Any, realm: Realm, known: _Mirrored) -> bool:
        """Read what was sent since the last row that came, also where a slow network broke off before the end.

        Return whether there is no more of it; there may be where the mirror is full.
        """
        while len(self) <= self._most:
            rows = await connection.fetch(
                f"SELECT {COLUMNS}, batch FROM keyframes WHERE {FITS} AND map_no = $3 AND (batch, keyframe) > ($4, $5) "  # noqa: S608
                "ORDER BY batch, keyframe LIMIT $6",
                realm.number, realm.bits, known.whose.number, *known.read, ROWS_AT_ONCE,
            )  # fmt: skip
            if not rows:
                return True
            known.take(columns_of(sorted(rows, key=lambda row: row["keyframe"]), self._words, known.whose))
            known.read = rows[-1]["batch"], rows[-1]["keyframe"]
        return False

    async def _forget(self, connection: Any, realm: Realm, known: _Mirrored) -> None:
        """Drop what is not on the server any more."""
        there = await keyframes_of(connection, realm.number, known.whose.number)
        stays = np.isin(known.store.ids, list(there))
        if not stays.all():
            known.keep(stays)

    def nearest(self, views: NDArray[np.uint64]) -> Nearest:
        """Return the sessions that are nearest to a query's views [V,W]; exact."""
        maps = [one for one in self._maps.values() if len(one.store)]
        if not maps:
            return Nearest([], np.empty(0, np.uint32))
        distances = np.concatenate([one.store.distances(views) for one in maps])
        sessions = np.concatenate([whole_id(one.whose.number, 0) + one.store.sessions.astype(np.int64) for one in maps])
        starts = np.cumsum([0, *(len(one.store) for one in maps)])
        stretches = []
        for span in best_sessions(distances, sessions):
            at = int(starts.searchsorted(span.start, side="right")) - 1
            low = int(starts[at])
            columns = maps[at].store.columns(span.start - low, span.stop - low)
            stretches.append(Stretch(maps[at].whose, columns, distances[span]))
        return Nearest(stretches, distances)
