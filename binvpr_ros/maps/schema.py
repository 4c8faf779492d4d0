# SPDX-License-Identifier: Apache-2.0
"""The tables of a map file, and what a map says of itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.maps.errors import DatabaseError

SCHEMA_VERSION = 4
SCHEMA = """
CREATE TABLE map (
    schema_version INTEGER NOT NULL,
    model_sha256 TEXT NOT NULL,
    descriptor_words INTEGER NOT NULL,
    uuid TEXT,  -- by which other maps name this one; null: the one that identity.py derives
    camera TEXT  -- the latest that is known, as identity.py writes it; null: not known
);
CREATE TABLE keyframes (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    stamp INTEGER NOT NULL,  -- nanoseconds
    descriptor BLOB NOT NULL,  -- packed bits, little-endian words of 64
    closes INTEGER,  -- id of the keyframe whose place it was found to show; null: of none in this map
    motion BLOB,  -- homography to the row before in its session, 9 little-endian float32; null, or NaN: not known
    features BLOB,  -- features.py says how; null: not kept
    thumbnail BLOB  -- a small jpeg file; null: not kept
);
CREATE TABLE closures (  -- with keyframes of other maps, which are never written
    keyframe INTEGER PRIMARY KEY,
    map_uuid TEXT NOT NULL,
    match_id INTEGER NOT NULL  -- id in that map
);
"""
FROM_VERSION = {
    1: """
ALTER TABLE keyframes ADD COLUMN features BLOB;
ALTER TABLE keyframes ADD COLUMN closes INTEGER;
UPDATE map SET schema_version = 2;
""",
    2: """
ALTER TABLE keyframes ADD COLUMN thumbnail BLOB;
UPDATE map SET schema_version = 3;
""",
    3: """
ALTER TABLE map ADD COLUMN uuid TEXT;
ALTER TABLE map ADD COLUMN camera TEXT;
ALTER TABLE keyframes ADD COLUMN motion BLOB;
CREATE TABLE closures (keyframe INTEGER PRIMARY KEY, map_uuid TEXT NOT NULL, match_id INTEGER NOT NULL);
UPDATE map SET schema_version = 4;
""",
}
"""What makes a map of each earlier version one of the next."""
MOST_WORDS = 1 << 16
LATEST_STAMP = (1 << 31) * NANOSECONDS
"""Nanoseconds: the seconds of a ROS time have 32 bits, one of them for the sign."""


class Facts(NamedTuple):
    """What a map file says of itself."""

    version: int
    model: str  # SHA-256
    words: int  # of a descriptor

    @classmethod
    def of(cls, connection: sqlite3.Connection, path: Path) -> Facts:
        """Read them; raises DatabaseError where they make no sense, or a later program wrote them."""
        rows = connection.execute("SELECT schema_version, model_sha256, descriptor_words FROM map LIMIT 2").fetchall()
        facts = cls(*rows[0]) if len(rows) == 1 else None
        if (
            facts is None
            or not isinstance(facts.model, str)
            or not isinstance(facts.words, int)
            or not 0 < facts.words <= MOST_WORDS
        ):
            raise DatabaseError(f"{path} does not say which model it was made with; restore a copy of the file")
        if facts.version not in range(1, SCHEMA_VERSION + 1):
            raise DatabaseError(f"{path} has map version {facts.version}, not {SCHEMA_VERSION}; upgrade binvpr_ros")
        return facts

    def require(self, path: Path, model_sha256: str, words: int) -> None:
        """Raise DatabaseError where the map is of another model."""
        if (self.model, self.words) != (model_sha256, words):
            raise DatabaseError(
                f"{path} was made with another model (SHA-256 {self.model}); use that model or another file, or make a "
                "map for this model with `map redescribe`"
            )


def columns(connection: sqlite3.Connection, table: str = "keyframes") -> list[str]:
    """Return the names of a table's columns, none where there is no such table: earlier versions had fewer."""
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
