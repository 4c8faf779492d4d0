# SPDX-License-Identifier: Apache-2.0
"""Keyframes as rows of the server: how they are written, and what is believed of those that come from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from asyncpg import BitString
from numpy.typing import NDArray

from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.local_features.features import Features, FeaturesError
from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.identity import Identity, identity_from
from binvpr_ros.maps.reading import motions_of
from binvpr_ros.maps.schema import LATEST_STAMP
from binvpr_ros.maps.store import MOST_KEYFRAMES, UNKNOWN_WHEREABOUTS, Columns
from binvpr_ros.network.hamming import WORD_BITS, Descriptor

MOST_BYTES = 1 << 16
"""Of a keyframe's features, three times what a map keeps, or of its picture; the server is not asked for more."""
MOST_NAME = 63
"""Bytes of a role's name in PostgreSQL."""
LISTED = 20_000
"""Keyframes in a piece of a list, 500 kB."""
COLUMNS = "keyframe, session, stamp, closes, motion, descriptor"
"""What `columns_of` reads."""
FITS = "realm = $1 AND bit_length(descriptor) = $2 AND (motion IS NULL OR octet_length(motion) = 36)"
"""Of which rows: those of realm $1, with descriptors of $2 bits, and no larger than others."""


class OtherMap(NamedTuple):
    """A map of another robot, or of another day."""

    number: int  # map_no
    robot: str
    identity: Identity


def bits_of(descriptor: NDArray[np.uint64], first: int = 1, count: int = 0) -> BitString:
    """Return `count` bits of a descriptor [W] as SQL has them, from `first` (1 on); all without a count."""
    data = descriptor.astype("<u8").tobytes()
    if not count:
        return BitString.frombytes(data, bitlength=len(data) * 8)
    bits = np.unpackbits(np.frombuffer(data, np.uint8))[first - 1 : first - 1 + count]
    return BitString.frombytes(np.packbits(bits).tobytes(), bitlength=count)


def descriptor_of(bits: BitString) -> Descriptor:
    """Return the descriptor [W] that `bits_of` wrote."""
    return np.frombuffer(bits.bytes, "<u8").astype(np.uint64)


def other_map(row: Mapping[str, Any]) -> OtherMap:
    """Return a map's row of the server."""
    robot = str(row["robot"])[:MOST_NAME]
    name = "".join(letter if letter.isprintable() else "?" for letter in robot)
    return OtherMap(row["map_no"], name, identity_from(str(row["map"]), row["camera"]))


def columns_of(rows: Sequence[Mapping[str, Any]], words: int, whose: OtherMap) -> Columns:
    """Return rows of one map, by ascending keyframe, as columns; raises FleetError where they make no sense.

    They are looked at like those of a stranger's map: whoever may write there, writes what it likes.
    """
    ids = np.array([row["keyframe"] for row in rows], np.int64)
    sessions = np.array([row["session"] for row in rows], np.int64)
    stamps = np.array([row["stamp"] for row in rows], np.int64)
    closes = np.array([NOTHING_CLOSED if row["closes"] is None else row["closes"] for row in rows], np.int64)
    blobs = [row["descriptor"].bytes for row in rows]
    if (
        (np.diff(ids) <= 0).any()
        or (np.diff(sessions) < 0).any()
        or not ((ids >= 0) & (ids < MOST_KEYFRAMES) & (sessions >= 0) & (sessions < MOST_KEYFRAMES)).all()
        or not ((stamps >= -LATEST_STAMP) & (stamps < LATEST_STAMP)).all()
        or any(len(blob) * 8 != words * WORD_BITS for blob in blobs)
    ):
        raise FleetError(f"the keyframes of robot {whose.robot!r} on the server make no sense; its map is left out")
    return Columns(
        ids.astype(np.int32),
        sessions.astype(np.int32),
        stamps,
        np.where((closes >= 0) & (closes < ids), closes, NOTHING_CLOSED).astype(np.int32),
        motions_of(row["motion"] for row in rows),
        np.repeat(UNKNOWN_WHEREABOUTS, len(ids), axis=0),
        np.frombuffer(b"".join(blobs), "<u8").astype(np.uint64).reshape(-1, words),
    )


async def keyframes_of(connection: Any, realm: int, number: int) -> dict[int, int | None]:
    """Return the ids of all keyframes of a map on the server, and what each closes.

    They come in pieces, of which each has the time of a statement, however large the map is.
    """
    found: dict[int, int | None] = {}
    last = -1
    while rows := await connection.fetch(
        "SELECT keyframe, closes FROM keyframes WHERE realm = $1 AND map_no = $2 AND keyframe > $3 "
        "ORDER BY keyframe LIMIT $4", realm, number, last, LISTED,
    ):  # fmt: skip
        found.update(map(tuple, rows))
        last = rows[-1]["keyframe"]
    return found


def features_of(blob: object) -> Features | None:
    """Return the features of a keyframe on the server; None where there are none, or they make no sense."""
    try:
        return Features.from_bytes(blob) if isinstance(blob, bytes) else None
    except FeaturesError:
        return None


def arrays(rows: Iterable[Sequence[Any]], count: int) -> list[list[Any]]:
    """Return rows of `count` values as lists, one for each column."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]
