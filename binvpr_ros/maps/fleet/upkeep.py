# SPDX-License-Identifier: Apache-2.0
"""What people do with a fleet's map: look at it, send and fetch whole maps, forget what is old."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from binvpr_ros.counted import counted
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.maps.command.new_map import insert, new_map
from binvpr_ros.maps.command.rows import problems_of
from binvpr_ros.maps.fleet import sending
from binvpr_ros.maps.fleet.errors import FleetError, ForkError
from binvpr_ros.maps.fleet.outbox import Outbox
from binvpr_ros.maps.fleet.rows import MOST_BYTES, other_map
from binvpr_ros.maps.fleet.schema import VERSION, pgvector, version_of, why_without_index
from binvpr_ros.maps.fleet.server import NOTHING, realm_of
from binvpr_ros.maps.identity import is_uuid, write_facts
from binvpr_ros.maps.schema import Facts
from binvpr_ros.maps.store import MOST_KEYFRAMES
from binvpr_ros.network.hamming import WORD_BITS

ROWS_AT_ONCE = 64
DAY = 86400


async def status(connection: Any) -> list[str]:
    """Return what the server holds, line by line; raises FleetError where it holds no map of a fleet."""
    version = await version_of(connection)
    if version is None:
        raise FleetError(NOTHING, lasting=True)
    found = await pgvector(connection)
    lines = [f"version {version} of {VERSION}, pgvector {found or 'none'}"]
    lines += [sentence] if (sentence := why_without_index(found)) else []
    realms = await connection.fetch("SELECT realm, site, model_sha256, bits FROM realms ORDER BY site, realm")
    for realm, site, model, bits in realms:
        lines.append(f"site {site!r}, model {model[:12]}, {bits} bits")
        maps = await connection.fetch(
            "SELECT map, map_no, robot, camera, count(k.*) AS keyframes, max(stamp) AS newest, "
            "(SELECT count(*) FROM features f WHERE f.realm = m.realm AND f.map_no = m.map_no) AS features, "
            "(SELECT count(*) FROM closures c WHERE c.map_no = m.map_no) AS closures "
            "FROM maps m LEFT JOIN keyframes k USING (realm, map_no) WHERE realm = $1 "
            "GROUP BY realm, map_no ORDER BY robot, map_no", realm,
        )  # fmt: skip
        for row in maps:
            newest = "" if row["newest"] is None else f", the newest of {_time(row['newest'])}"
            lines.append(
                f"  {row['map']} of robot {other_map(row).robot!r}: {counted(row['keyframes'], 'keyframe')}, "
                f"{row['features']} with features, {counted(row['closures'], 'closure')} with others{newest}"
            )
    return lines


def _time(stamp: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(stamp / NANOSECONDS))


async def push(connection: Any, site: str, path: Path) -> str:
    """Send what the server lacks of a map file; return a sentence about it. Raises FleetError and DatabaseError."""
    with contextlib.closing(Outbox(path)) as outbox:
        realm = await realm_of(connection, site, outbox.facts.model, outbox.facts.words * WORD_BITS)
        try:
            own = await sending.register(connection, realm, outbox)
            differs = await sending.difference(connection, own, outbox)
            await sending.delete(connection, own, differs.surplus, differs.changed)
            for start in range(0, len(differs.missing), sending.BATCH):
                await sending.send(connection, own, outbox.letters(differs.missing[start : start + sending.BATCH]))
        except ForkError as error:
            raise FleetError(
                f"{path} is a copy that went its own way ({error}); open it with a node whose fleet is this one, which "
                "makes it a map of its own", lasting=True,
            ) from None  # fmt: skip
        await sending.publish_closures(connection, own, [(*closure, -1) for closure in outbox.closures()])
    return f"{path}: {counted(len(differs.missing), 'keyframe')} sent, {len(differs.surplus)} deleted"


async def pull(connection: Any, uuid: str, output: Path) -> str:
    """Write a map of the server into a new map file; return a sentence about it. Raises FleetError, DatabaseError."""
    row = await _map(connection, uuid)
    whose = other_map(row)
    facts = Facts(0, row["model_sha256"], row["bits"] // WORD_BITS)
    last, count = -1, 0
    with new_map(output) as new:
        write_facts(new, facts, whose.identity)
        while True:
            rows = await connection.fetch(
                "SELECT k.keyframe AS id, session, k.stamp, descriptor, features, closes, thumbnail, motion "
                "FROM keyframes k LEFT JOIN features f "
                "ON f.realm = k.realm AND f.map_no = k.map_no AND f.keyframe = k.keyframe "
                "AND octet_length(features) <= $4 AND coalesce(octet_length(thumbnail), 0) <= $4 "
                "WHERE k.realm = $1 AND k.map_no = $2 AND k.keyframe > $3 ORDER BY k.keyframe LIMIT $5",
                row["realm"], whose.number, last, MOST_BYTES, ROWS_AT_ONCE,
            )  # fmt: skip
            if not rows:
                break
            for one in rows:
                values = {**one, "descriptor": one["descriptor"].bytes}
                for sentence in problems_of(values, facts):
                    raise FleetError(f"keyframe {one['id']} on the server makes no sense: {sentence}", lasting=True)
                insert(new, values)
            last, count = rows[-1]["id"], count + len(rows)
    return f"{output}: {counted(count, 'keyframe')} of robot {whose.robot!r}"


async def forget_map(connection: Any, uuid: str) -> str:
    """Delete a map with all that belongs to it; return a sentence about it. Raises FleetError."""
    row = await _map(connection, uuid)
    if not row["writable"]:
        raise FleetError(
            f"the map {uuid} is of robot {row['robot']!r}; forget it as that, or as the owner", lasting=True
        )
    own = sending.OwnMap(row["realm"], row["map_no"], 0, 0, row["robot"])
    await _delete_up_to(connection, own, MOST_KEYFRAMES - 1)
    await connection.execute("DELETE FROM maps WHERE map_no = $1", own.number)
    return f"the map {uuid} of robot {row['robot']!r} was deleted; a robot that still has it sends it again"


async def forget_old(connection: Any, site: str, days: float, *, features_only: bool) -> str:
    """Delete the keyframes of a site, or only their features, that are older than so many days; return a sentence.

    A robot deletes only its own, the owner of the database all. The age is that by the robots' clocks. What is deleted
    so is not sent again. Raises FleetError.
    """
    before = time.time_ns() - round(days * DAY * NANOSECONDS)
    maps = await connection.fetch(
        "SELECT realm, map_no, robot FROM maps JOIN realms USING (realm) "
        "WHERE site = $1 AND (robot = current_user OR NOT row_security_active('maps')) ORDER BY map_no",
        site,
    )
    if not maps:
        raise FleetError(
            f"there are no maps at site {site!r} that this user may change; see: binvpr fleet status URL", lasting=True
        )
    total = 0
    for realm, number, robot in maps:
        own = sending.OwnMap(realm, number, 0, 0, robot)
        if features_only:
            total += await connection.fetchval(
                "WITH gone AS (DELETE FROM features WHERE realm = $1 AND map_no = $2 AND stamp < $3 RETURNING 1) "
                "SELECT count(*) FROM gone", realm, number, before,
            )  # fmt: skip
            continue
        # Before the first young one: a session of a wrong clock must not take the young ones before it along.
        until = await connection.fetchval(
            "SELECT coalesce(min(keyframe) FILTER (WHERE stamp >= $3), max(keyframe) + 1, 0) FROM keyframes "
            "WHERE realm = $1 AND map_no = $2", realm, number, before,
        )  # fmt: skip
        total += await _delete_up_to(connection, own, until)
    what = "features of " if features_only else ""
    return f"site {site!r}: {what}{counted(total, 'keyframe')} older than {days:g} days deleted"


async def _delete_up_to(connection: Any, own: sending.OwnMap, keyframe: int) -> int:
    """Delete the keyframes of a map before one, which are not wanted from then on; return how many there were."""
    await connection.execute(
        "UPDATE maps SET wanted_from = greatest(wanted_from, $2) WHERE map_no = $1", own.number, keyframe
    )  # fmt: skip
    rows = await connection.fetch(
        "SELECT keyframe FROM keyframes WHERE realm = $1 AND map_no = $2 AND keyframe < $3 ORDER BY keyframe",
        own.realm, own.number, keyframe,
    )  # fmt: skip
    await sending.delete(connection, own, [number for (number,) in rows], [])
    return len(rows)


async def _map(connection: Any, uuid: str) -> Any:
    row = None
    if is_uuid(uuid):
        row = await connection.fetchrow(
            "SELECT map, map_no, robot, camera, realm, model_sha256, bits, "
            "robot = current_user OR NOT row_security_active('maps') AS writable "
            "FROM maps JOIN realms USING (realm) WHERE map = $1", uuid,
        )  # fmt: skip
    if row is None:
        raise FleetError(f"the fleet has no map {uuid}; see: binvpr fleet status URL", lasting=True)
    return row
