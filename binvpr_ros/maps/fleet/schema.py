# SPDX-License-Identifier: Apache-2.0
"""The tables of a fleet's map in PostgreSQL, who may write them, and how they become those of the next version.

A realm is a site and a model: descriptors of different models cannot be compared. Each realm has partitions of its own,
so that a site can be moved or dropped as a whole. Row-level security lets a robot write only its own maps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.identity import MOST_CHARACTERS
from binvpr_ros.network.cells import Grids, steady_bits
from binvpr_ros.network.hamming import WORD_BITS

VERSION = 1
ROBOTS = "binvpr_robot"
"""The role that every robot's own role is a member of."""
LEAST_PGVECTOR = (0, 8, 4)
"""Earlier versions may corrupt an index over bits."""
FEWEST_STEADY_BITS = 256
"""With fewer bits that shifts leave alone, an index over them tells places apart too badly; then all bits are in it."""

TABLES = f"""
CREATE SCHEMA binvpr;
CREATE TABLE binvpr.version (version int NOT NULL);
INSERT INTO binvpr.version VALUES ({VERSION});
CREATE TABLE binvpr.realms (
    realm smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site text NOT NULL,
    model_sha256 text NOT NULL,
    bits int NOT NULL,  -- of a descriptor
    index_from int NOT NULL,  -- the first of the bits in the index, from 1 on
    index_bits int NOT NULL,
    UNIQUE (site, model_sha256)
);
CREATE TABLE binvpr.maps (
    map_no int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    map uuid NOT NULL UNIQUE,
    realm smallint NOT NULL REFERENCES binvpr.realms,
    robot name NOT NULL DEFAULT current_user,
    camera text CHECK (length(camera) <= {MOST_CHARACTERS}),  -- as in a map file
    batches bigint NOT NULL DEFAULT 0,  -- that were sent; mirrors ask for those that they do not have
    deletions bigint NOT NULL DEFAULT 0,  -- after which mirrors compare the list of keyframes
    wanted_from int NOT NULL DEFAULT 0,  -- keyframes before it were forgotten on purpose, and are not sent again
    decided int NOT NULL DEFAULT -1,  -- up to this keyframe the robot has looked for closures
    UNIQUE (realm, map_no)
);
CREATE TABLE binvpr.keyframes (
    realm smallint NOT NULL,
    map_no int NOT NULL,
    keyframe int NOT NULL CHECK (keyframe >= 0),
    session int NOT NULL CHECK (session >= 0),
    stamp bigint NOT NULL,  -- nanoseconds, of the robot's clock
    closes int,  -- keyframe of the same map whose place it shows
    motion bytea,  -- homography to the keyframe before, 9 little-endian float32
    descriptor bit varying NOT NULL,
    batch bigint NOT NULL,
    PRIMARY KEY (realm, map_no, keyframe),
    FOREIGN KEY (realm, map_no) REFERENCES binvpr.maps (realm, map_no) ON DELETE CASCADE
) PARTITION BY LIST (realm);
CREATE INDEX ON binvpr.keyframes (map_no, batch, keyframe);
CREATE TABLE binvpr.features (
    realm smallint NOT NULL,
    map_no int NOT NULL,
    keyframe int NOT NULL,
    stamp bigint NOT NULL,  -- for retention
    features bytea,
    thumbnail bytea,
    PRIMARY KEY (realm, map_no, keyframe),
    FOREIGN KEY (realm, map_no) REFERENCES binvpr.maps (realm, map_no) ON DELETE CASCADE
) PARTITION BY LIST (realm);
ALTER TABLE binvpr.features ALTER features SET STORAGE EXTERNAL;  -- they do not compress
ALTER TABLE binvpr.features ALTER thumbnail SET STORAGE EXTERNAL;
CREATE TABLE binvpr.closures (
    map_no int NOT NULL REFERENCES binvpr.maps ON DELETE CASCADE,
    keyframe int NOT NULL,
    to_map uuid NOT NULL,
    to_keyframe int NOT NULL,
    inliers int NOT NULL,
    PRIMARY KEY (map_no, keyframe, to_map, to_keyframe)
);
"""  # noqa: S608 - these are constants
RIGHTS = f"""
GRANT USAGE ON SCHEMA binvpr TO {ROBOTS};
GRANT SELECT ON ALL TABLES IN SCHEMA binvpr TO {ROBOTS};
GRANT INSERT, UPDATE, DELETE ON binvpr.maps, binvpr.keyframes, binvpr.features, binvpr.closures TO {ROBOTS};
"""
_OWN_MAP = "robot = current_user"
_OF_OWN_MAP = "EXISTS (SELECT 1 FROM binvpr.maps m WHERE m.map_no = {table}.map_no AND m.robot = current_user)"


def _policies(table: str, own: str) -> str:
    """Return the statements that let a robot read all rows of a table, and write its `own`."""
    return f"""
ALTER TABLE binvpr.{table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY anybody_reads ON binvpr.{table} FOR SELECT USING (true);
CREATE POLICY own_is_added ON binvpr.{table} FOR INSERT WITH CHECK ({own});
CREATE POLICY own_is_changed ON binvpr.{table} FOR UPDATE USING ({own}) WITH CHECK ({own});
CREATE POLICY own_is_deleted ON binvpr.{table} FOR DELETE USING ({own});
"""


POLICIES = _policies("maps", _OWN_MAP) + "".join(
    _policies(table, _OF_OWN_MAP.format(table=table)) for table in ("keyframes", "features", "closures")
)
FROM_VERSION: dict[int, str] = {}
"""What makes the tables of each earlier version those of the next; the version is set by `init`."""


class Realm(NamedTuple):
    """A site and a model, as the server knows them."""

    number: int
    bits: int
    index_from: int  # from 1 on, as SQL counts
    index_bits: int


def indexed_bits(grids: Grids, bits: int) -> tuple[int, int]:
    """Return the first (from 1 on) and the number of the bits that are indexed: those that a shift leaves alone."""
    steady = steady_bits(grids, 1, bits)
    moved = np.flatnonzero(~steady)
    first = int(moved[-1]) + 1 if moved.size else 0
    return (1, bits) if bits - first < FEWEST_STEADY_BITS else (first + 1, bits - first)


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as 0.8.4."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


async def pgvector(connection: Any) -> str | None:
    """Return the version of pgvector in this database; None where there is none."""
    version: str | None = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    return version


def why_without_index(version: str | None) -> str:
    """Return why the search has no index, and to what size that is good; "" where it has one."""
    if version is not None and numbers_of(version) >= LEAST_PGVECTOR:
        return ""
    least = ".".join(map(str, LEAST_PGVECTOR))
    found = "has no pgvector" if version is None else f"has pgvector {version}, whose indexes may be corrupt"
    return (
        f"the server {found}: the search has no index, which is good to about 100,000 keyframes; install "
        f"pgvector {least} or later"
    )


async def version_of(connection: Any) -> int | None:
    """Return the version of the fleet's tables; None where there are none. Raises FleetError where they are later."""
    if await connection.fetchval("SELECT to_regclass('binvpr.version')") is None:
        return None
    version: int = await connection.fetchval("SELECT version FROM binvpr.version")
    if version > VERSION:
        raise FleetError(
            f"the fleet's map has version {version}, not {VERSION}; upgrade binvpr_ros on this machine", lasting=True
        )
    return version


async def init(connection: Any) -> list[str]:
    """Make the tables, or bring those of an earlier version up to date; return what was done, in sentences.

    It needs an owner of the database, who may create roles. Raises FleetError.
    """
    done = []
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('binvpr init'))")
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", ROBOTS):
            await connection.execute(f"CREATE ROLE {ROBOTS} NOLOGIN")
        found = await version_of(connection)
        if found is None:
            await connection.execute(TABLES + RIGHTS + POLICIES)
            done.append(f"the fleet's map was made, version {VERSION}")
        elif found < VERSION:
            steps = "".join(FROM_VERSION[version] for version in range(found, VERSION))
            await connection.execute(steps)
            await connection.execute("UPDATE binvpr.version SET version = $1", VERSION)
            done.append(f"the fleet's map was brought from version {found} to {VERSION}")
    return done


async def add_pgvector(connection: Any) -> None:
    """Load pgvector into the database where the server has it and this role may do so."""
    if await connection.fetchval("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"):
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")


async def add_realm(connection: Any, site: str, model_sha256: str, words: int, grids: Grids) -> str:
    """Add a site and a model, with partitions of their own; return what was done, "" where they are there."""
    bits = words * WORD_BITS
    first, count = indexed_bits(grids, bits)
    async with connection.transaction():
        number = await connection.fetchval(
            "INSERT INTO binvpr.realms (site, model_sha256, bits, index_from, index_bits) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT DO NOTHING RETURNING realm",
            site, model_sha256, bits, first, count,
        )  # fmt: skip
        if number is None:
            return ""
        # Names cannot be parameters; these are numbers.
        for table in ("keyframes", "features"):
            await connection.execute(
                f"CREATE TABLE binvpr.{table}_{number:d} PARTITION OF binvpr.{table} FOR VALUES IN ({number:d})"
            )
        # What a robot may write must not stop the search of all others.
        await connection.execute(
            f"ALTER TABLE binvpr.keyframes_{number:d} ADD CHECK (bit_length(descriptor) = {bits:d})"
        )
    return f"site {site!r} was added for the model {model_sha256[:12]}"


async def add_indexes(connection: Any) -> list[str]:
    """Index every realm's keyframes where pgvector is there; return what was done, in sentences."""
    if why_without_index(await pgvector(connection)):
        return []
    done = []
    for number, site, first, count in await connection.fetch(
        "SELECT realm, site, index_from, index_bits FROM binvpr.realms "
        "WHERE to_regclass('binvpr.keyframes_' || realm || '_bits') IS NULL"
    ):
        await connection.execute(
            f"CREATE INDEX keyframes_{number:d}_bits ON binvpr.keyframes_{number:d} USING hnsw "
            f"((substring(descriptor from {first:d} for {count:d})::bit({count:d})) bit_hamming_ops)"
        )
        done.append(f"site {site!r} has an index over {count} bits")
    return done


async def add_robot(connection: Any, name: str) -> str:
    """Add a role that may log in and write its own maps; return what was done, "" where it is there."""
    if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
        known = await connection.fetchval("SELECT pg_has_role($1::name, $2::name, 'MEMBER')", name, ROBOTS)
        statement = "" if known else await connection.fetchval("SELECT format('GRANT %I TO %I', $1::text, $2::text)",
                                                               ROBOTS, name)  # fmt: skip
    else:
        statement = await connection.fetchval(
            "SELECT format('CREATE ROLE %I LOGIN IN ROLE %I', $1::text, $2::text)", name, ROBOTS
        )
    if not statement:
        return ""
    await connection.execute(statement)
    return f"robot {name!r} may write its maps; give it a password with: psql -c '\\password {name}'"
