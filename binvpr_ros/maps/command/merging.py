# SPDX-License-Identifier: Apache-2.0
"""Several maps as one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from binvpr_ros.counted import counted
from binvpr_ros.maps.command.new_map import insert, new_map
from binvpr_ros.maps.command.rows import whole_closures, whole_rows
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.identity import Identity, camera_from, camera_text, write_facts
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.schema import Facts
from binvpr_ros.maps.source import OtherClosure


def merge(paths: Sequence[Path], output: Path) -> str:
    """Write one new map with the sessions of several, numbered on in their order; return a sentence about it.

    They must be of one model. The maps themselves stay as they are. What a keyframe closed in a map that was named
    before its own is a closure within the new map. That has the camera of those whose camera is known, if they are of
    one. Raises DatabaseError.
    """
    files = [path.resolve() for path in paths]
    if twice := [path for path, file in zip(paths, files, strict=True) if files.count(file) > 1]:
        raise DatabaseError(f"{twice[0]} is named twice; name each map once")
    with new_map(output) as merged:
        first: Facts | None = None
        keyframes = sessions = 0
        ids: dict[str, range] = {}  # in the new map, of the maps that are there already
        cameras: set[str | None] = set()
        sure = True  # that each image is of its map's camera
        for path in paths:
            with opened(path) as (connection, facts):
                identity = Identity.of(connection, facts)
                if first is not None and facts[1:] != first[1:]:
                    raise DatabaseError(
                        f"{path} was made with another model than {paths[0]}; merge maps of one model, which "
                        "`map redescribe` makes"
                    )
                first = first or facts
                closes = _closures(whole_closures(path, connection), merged, keyframes, ids)
                rows, start = whole_rows(path, connection, facts), keyframes
                keyframes, sessions = _append(rows, closes, merged, keyframes, sessions)
                ids.setdefault(identity.uuid, range(start, keyframes))
                cameras.add(camera_text(identity.camera))
                sure = sure and identity.camera is not None and not identity.camera_from
        assert first is not None  # noqa: S101 -- the command asks for two files at least
        cameras.discard(None)
        camera = camera_from(cameras.pop()) if len(cameras) == 1 else None
        write_facts(merged, first, Identity.new()._replace(camera=camera, camera_from=0 if sure else keyframes))
        (count,) = merged.execute("SELECT COUNT(*) FROM keyframes").fetchone()
    return f"{output}: {counted(count, 'keyframe')} in {counted(sessions, 'session')}"


def _closures(
    closures: Iterator[OtherClosure], merged: sqlite3.Connection, first: int, ids: Mapping[str, range]
) -> dict[int, int]:
    """Return what keyframes, by their ids, closed in the maps with these `ids`; copy their closures with others.

    `first` is the first id of the keyframes' own map in the new one.
    """
    closes = {}
    for closure in closures:
        if closure.map_uuid not in ids:
            merged.execute(
                "INSERT OR REPLACE INTO closures VALUES (?, ?, ?)", closure._replace(keyframe=first + closure.keyframe)
            )
        elif closure.match < len(ids[closure.map_uuid]):
            closes[closure.keyframe] = ids[closure.map_uuid][closure.match]
    return closes


def _append(
    rows: Iterator[dict[str, Any]], closes: Mapping[int, int], merged: sqlite3.Connection, ids: int, sessions: int
) -> tuple[int, int]:
    """Copy all keyframes, their ids from `ids` on and their sessions from `sessions` on; return what comes next.

    `closes` is what they closed in other maps.
    """
    numbers: dict[int, int] = {}  # of sessions: those without keyframes are left out
    last = ids - 1
    for values in rows:
        number = values["id"]
        values["id"] = last = number + ids
        values["session"] = numbers.setdefault(values["session"], sessions + len(numbers))
        if number in closes:
            values["closes"] = closes[number]
        elif values.get("closes") is not None:
            values["closes"] += ids
        insert(merged, values)
    return last + 1, sessions + len(numbers)
