# SPDX-License-Identifier: Apache-2.0
"""Send a robot's own map to the server: each keyframe once, whatever broke before.

The server's keyframes of the map are the acknowledgement, so nothing is written down on the robot. What is missing
there is sent, be it new or a gap that a restored server has; what the robot has forgotten since is deleted. Where the
server holds other keyframes under the same numbers, one of the two is a copy that went its own way: `ForkError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from asyncpg import BitString

from binvpr_ros.maps.fleet.errors import FleetError, ForkError
from binvpr_ros.maps.fleet.outbox import Letter, Outbox
from binvpr_ros.maps.fleet.rows import arrays, keyframes_of
from binvpr_ros.maps.fleet.schema import Realm
from binvpr_ros.maps.identity import camera_text

BATCH = 64
"""Keyframes in a transaction, about a megabyte."""
LOCKS = 0x62_76
"""The class of the advisory locks; the number of a map is the other half."""
COMPARED = 64
"""Latest keyframes whose content is compared: a copy that went its own way differs in all since then."""


class OwnMap(NamedTuple):
    """The robot's map on the server."""

    realm: int
    number: int  # map_no
    wanted_from: int  # keyframes before it are not sent
    decided: int  # up to this keyframe closures were looked for
    robot: str  # as which it is written
    camera: str | None = None  # as in the map file


class Difference(NamedTuple):
    """By what the server's map differs from the robot's."""

    missing: list[int]  # that the server lacks
    surplus: list[int]  # that the robot has forgotten
    changed: list[tuple[int, int | None]]  # what a keyframe closes now


async def register(connection: Any, realm: Realm, outbox: Outbox, *, decided: int = -1) -> OwnMap:
    """Find or begin the robot's map on the server, and lock it for this connection.

    The keyframes of a new map up to `decided` were decided before: after a fork, those that the original has too.
    Raises ForkError where the map there is another one's, and FleetError where it cannot be written.
    """
    identity = outbox.identity()
    await connection.execute(
        "INSERT INTO maps (map, realm, decided) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        identity.uuid, realm.number, decided,
    )  # fmt: skip
    row = await connection.fetchrow(
        "SELECT map_no, realm, robot = current_user AS own, robot, camera, wanted_from, decided, site "
        "FROM maps "
        "JOIN realms USING (realm) WHERE map = $1", identity.uuid,
    )  # fmt: skip
    if not row["own"]:
        common = await _common(connection, row["realm"], row["map_no"], outbox)
        raise ForkError(f"robot {row['robot']!r} writes a map of the same uuid", common)
    if row["realm"] != realm.number:
        raise FleetError(
            f"this map belongs to site {row['site']!r} of the fleet, or to another model there; set fleet_site to "
            "that, name a new file as database, or have it sent anew with: binvpr fleet forget URL --map "
            f"{identity.uuid}", lasting=True,
        )  # fmt: skip
    number: int = row["map_no"]
    await _compare(connection, realm, number, outbox)
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", LOCKS, number):
        raise FleetError("this map is being sent by another connection, maybe one that has not ended yet; waiting")
    await _compare(connection, realm, number, outbox)  # now that nobody else writes it
    own = OwnMap(realm.number, number, row["wanted_from"], row["decided"], row["robot"], row["camera"])
    return await note_camera(connection, own, outbox)


async def note_camera(connection: Any, own: OwnMap, outbox: Outbox) -> OwnMap:
    """Write the map's camera where it has changed; return the map as it is now."""
    identity = outbox.identity()
    camera = camera_text(identity.camera, identity.camera_from)
    if camera == own.camera:
        return own
    await connection.execute("UPDATE maps SET camera = $2 WHERE map_no = $1", own.number, camera)
    return own._replace(camera=camera)


async def _compare(connection: Any, realm: Realm, number: int, outbox: Outbox) -> None:
    """Raise ForkError where the latest keyframes of the server are not those of the robot."""
    rows = await connection.fetch(
        "SELECT keyframe, stamp, descriptor FROM keyframes WHERE realm = $1 AND map_no = $2 "
        "ORDER BY keyframe DESC LIMIT $3", realm.number, number, COMPARED,
    )  # fmt: skip
    if not rows:
        return
    if rows[0]["keyframe"] > outbox.last():
        common = await _common(connection, realm.number, number, outbox)
        raise ForkError("the server has keyframes that this map never had", common)
    own = {letter.keyframe: letter for letter in outbox.letters([row["keyframe"] for row in rows])}
    for row in rows:
        letter = own.get(row["keyframe"])
        if letter is not None and not _alike(letter, row):
            common = await _common(connection, realm.number, number, outbox)
            raise ForkError("the server has other keyframes under the numbers of this map's", common)


async def _common(connection: Any, realm: int, number: int, outbox: Outbox) -> int:
    """Return the last keyframe that the server and the robot hold alike; -1 for none."""
    below = outbox.last() + 1
    while rows := await connection.fetch(
        "SELECT keyframe, stamp, descriptor FROM keyframes WHERE realm = $1 AND map_no = $2 AND keyframe < $3 "
        "ORDER BY keyframe DESC LIMIT $4", realm, number, below, COMPARED,
    ):  # fmt: skip
        own = {letter.keyframe: letter for letter in outbox.letters([row["keyframe"] for row in rows])}
        for row in rows:
            letter = own.get(row["keyframe"])
            if letter is not None and _alike(letter, row):
                return letter.keyframe
        below = rows[-1]["keyframe"]
    return -1


def _alike(letter: Letter, row: Any) -> bool:
    return (letter.stamp, letter.descriptor) == (row["stamp"], row["descriptor"].bytes)


async def difference(connection: Any, own: OwnMap, outbox: Outbox) -> Difference:
    """Compare the list of the server's keyframes with the robot's."""
    there = await keyframes_of(connection, own.realm, own.number)
    here = outbox.numbers(own.wanted_from - 1)
    return Difference(
        [number for number in here if number not in there],
        sorted(number for number in there if number not in here),
        [(number, closes) for number, closes in here.items() if number in there and there[number] != closes],
    )


async def send(connection: Any, own: OwnMap, letters: Sequence[Letter]) -> None:
    """Send keyframes in one transaction; sent again they change nothing. Raises ForkError."""
    if not letters:
        return
    numbers, sessions, stamps, closes, motions, blobs, features, thumbnails = arrays(letters, 8)
    bits = [BitString.frombytes(blob, bitlength=len(blob) * 8) for blob in blobs]
    async with connection.transaction():
        batch = await connection.fetchval(
            "UPDATE maps SET batches = batches + 1 WHERE map_no = $1 RETURNING batches", own.number
        )
        if batch is None:
            raise FleetError("the map was forgotten on the server; it is sent again")
        await connection.execute(
            "INSERT INTO keyframes (realm, map_no, batch, keyframe, session, stamp, closes, motion, descriptor) "
            "SELECT $1, $2, $3, * FROM unnest($4::int[], $5::int[], $6::bigint[], $7::int[], $8::bytea[], "
            "$9::varbit[]) ON CONFLICT DO NOTHING",
            own.realm, own.number, batch, numbers, sessions, stamps, closes, motions, bits,
        )  # fmt: skip
        equal = await connection.fetchval(
            "SELECT count(*) FROM keyframes k JOIN unnest($3::int[], $4::bigint[], $5::varbit[]) AS o(n, s, d) "
            "ON k.keyframe = o.n AND k.stamp = o.s AND k.descriptor = o.d WHERE k.realm = $1 AND k.map_no = $2",
            own.realm, own.number, numbers, stamps, bits,
        )  # fmt: skip
        if equal != len(numbers):
            raise ForkError("the server has other keyframes under the numbers of this map's")
        await connection.execute(
            "INSERT INTO features (realm, map_no, keyframe, stamp, features, thumbnail) "
            "SELECT $1, $2, * FROM unnest($3::int[], $4::bigint[], $5::bytea[], $6::bytea[]) AS o(n, s, f, t) "
            "WHERE f IS NOT NULL OR t IS NOT NULL ON CONFLICT DO NOTHING",
            own.realm, own.number, numbers, stamps, features, thumbnails,
        )  # fmt: skip


async def delete(
    connection: Any, own: OwnMap, numbers: Sequence[int], changed: Sequence[tuple[int, int | None]]
) -> None:
    """Delete keyframes that the robot has forgotten, and write what others close now."""
    for start in range(0, len(numbers), BATCH):
        some = list(numbers[start : start + BATCH])
        async with connection.transaction():
            mine = own.realm, own.number, some
            await connection.execute(
                "DELETE FROM features WHERE realm = $1 AND map_no = $2 AND keyframe = ANY($3::int[])", *mine
            )
            await connection.execute(
                "DELETE FROM keyframes WHERE realm = $1 AND map_no = $2 AND keyframe = ANY($3::int[])", *mine
            )
            await connection.execute(
                "DELETE FROM closures WHERE map_no = $1 AND keyframe = ANY($2::int[])", own.number, some
            )
            await connection.execute("UPDATE maps SET deletions = deletions + 1 WHERE map_no = $1", own.number)
    for start in range(0, len(changed), BATCH):
        keyframes, closes = arrays(changed[start : start + BATCH], 2)
        await connection.execute(
            "UPDATE keyframes k SET closes = o.c FROM unnest($3::int[], $4::int[]) AS o(n, c) "
            "WHERE k.realm = $1 AND k.map_no = $2 AND k.keyframe = o.n", own.realm, own.number, keyframes, closes,
        )  # fmt: skip


async def publish_closures(connection: Any, own: OwnMap, closures: Sequence[tuple[int, str, int, int]]) -> None:
    """Write closures with keyframes of other maps: keyframe, uuid of the other map, keyframe there, inliers."""
    if closures:
        await connection.execute(
            "INSERT INTO closures (map_no, keyframe, to_map, to_keyframe, inliers) "
            "SELECT $1, * FROM unnest($2::int[], $3::uuid[], $4::int[], $5::int[]) ON CONFLICT DO NOTHING",
            own.number, *arrays(closures, 4),
        )  # fmt: skip


async def note_decided(connection: Any, own: OwnMap, keyframe: int) -> None:
    """Write up to which keyframe closures were looked for, so that a robot that was killed goes on from there."""
    await connection.execute("UPDATE maps SET decided = greatest(decided, $2) WHERE map_no = $1", own.number, keyframe)
