# SPDX-License-Identifier: Apache-2.0
"""Which map a file is, wherever it lies, and which camera took its images."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from typing import NamedTuple, TypeGuard

import numpy as np

from binvpr_ros.local_features.camera import LENSES, Camera
from binvpr_ros.maps.schema import SCHEMA_VERSION, Facts, columns
from binvpr_ros.maps.store import MOST_KEYFRAMES

DERIVED = uuid.UUID("b4c7b54c-6a0e-4c5b-9d5e-2f6e0d1c7a43")
"""The namespace of the uuids of maps that were made before maps had one."""
FIRST_KEYFRAMES = 16
"""From which the uuid of such a map is derived: they stay while the map grows."""
MOST_CHARACTERS = 4096
"""Of a camera: more than any has."""
MOST_PIXELS = 1 << 16
"""Width and height of an image stay below it."""


class Identity(NamedTuple):
    """What tells a map from others, and the camera that took its latest images (None: not known).

    It surely took those of the keyframes with ids from `camera_from` on; of those before another one may have.
    """

    uuid: str
    camera: Camera | None = None
    camera_from: int = 0

    @classmethod
    def new(cls) -> Identity:
        """Return the identity of a map that begins now."""
        return cls(str(uuid.uuid4()))

    @classmethod
    def of(cls, connection: sqlite3.Connection, facts: Facts) -> Identity:
        """Read the identity of a map; that of an earlier version, or a damaged one, is derived from its content."""
        kept: object = None
        camera: object = None
        if {"uuid", "camera"} <= set(columns(connection, "map")):
            kept, camera = connection.execute("SELECT uuid, camera FROM map").fetchone()
        uuid_of_map = kept if is_uuid(kept) else _derived(connection, facts)
        return identity_from(uuid_of_map, camera)


def identity_from(uuid_of_map: str, camera: object) -> Identity:
    """Return the identity of a map whose camera is as `camera_text` wrote it; what makes no sense is not known."""
    return Identity(uuid_of_map, camera_from(camera), _first_keyframe(camera))


def is_uuid(value: object) -> TypeGuard[str]:
    """Tell whether a value of a map is a uuid, as it is written there."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _derived(connection: sqlite3.Connection, facts: Facts) -> str:
    """Return the uuid of a map by its model and its first keyframes: the same wherever the file lies."""
    rows = connection.execute(
        "SELECT id, stamp, descriptor FROM keyframes ORDER BY id LIMIT ?", (FIRST_KEYFRAMES,)
    ).fetchall()
    if not rows:  # nothing is known of it, and nobody has closed a loop to it
        return str(uuid.uuid4())
    content = hashlib.sha256(repr((facts.model, rows)).encode("utf-8", "backslashreplace")).hexdigest()
    return str(uuid.uuid5(DERIVED, content))


def write_facts(connection: sqlite3.Connection, facts: Facts, identity: Identity) -> None:
    """Write what a new map says of itself; its version is the present one."""
    row = (SCHEMA_VERSION, facts.model, facts.words, identity.uuid, camera_text(identity.camera, identity.camera_from))
    connection.execute("INSERT INTO map VALUES (?, ?, ?, ?, ?)", row)


def camera_text(camera: Camera | None, first: int = 0) -> str | None:
    """Return a camera as JSON: its size, matrix (9 numbers), coefficients, and whether it is a fisheye.

    And `first`, the id of the keyframe from which on it surely took the images, where that is not 0.
    """
    if camera is None:
        return None
    since = {"from": first} if first else {}
    return json.dumps({
        "size": list(camera.size),
        "matrix": camera.matrix.ravel().tolist(),
        "coefficients": camera.coefficients.ravel().tolist(),
        "fisheye": camera.fisheye,
        **since,
    })  # fmt: skip


def _first_keyframe(text: object) -> int:
    """Return the `first` that `camera_text` wrote; 0 where there is none, as in maps of before."""
    if camera_from(text) is None:
        return 0
    first = json.loads(str(text)).get("from", 0)
    # What makes no sense tells that nothing is sure.
    return first if type(first) is int and 0 <= first < MOST_KEYFRAMES else MOST_KEYFRAMES


def camera_from(text: object) -> Camera | None:
    """Return the camera that `camera_text` wrote; None where there is none, or it makes no sense."""
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        return None
    try:
        facts = json.loads(text)
        width, height = facts["size"]
        matrix = np.array(facts["matrix"], np.float64).reshape(3, 3)
        coefficients = np.array(facts["coefficients"], np.float64).reshape(-1)
        fisheye = facts["fisheye"] is True
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    lens = LENSES["fisheye"] if fisheye else (*LENSES["plumb_bob"], *LENSES["rational_polynomial"])
    sensible = (
        all(isinstance(length, int) and 0 < length < MOST_PIXELS for length in (width, height))
        and np.isfinite(matrix).all()
        and np.isfinite(coefficients).all()
        and min(matrix[0, 0], matrix[1, 1]) > 0
        and len(coefficients) in lens
    )
    return Camera((width, height), matrix, coefficients, fisheye) if sensible else None
