# SPDX-License-Identifier: Apache-2.0
"""Small maps, for tests of maps."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from random_features import random_features

from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.hamming import Descriptor

MODEL = "a" * 64
WORDS = 4
VERSION_3 = Path(__file__).with_name("version_3.map")
"""Four keyframes in two sessions, as the program wrote them that had version 3: 12 features each, and a thumbnail."""
CAMERA = Camera((480, 360), np.array([[400.0, 0, 240], [0, 410, 180], [0, 0, 1]]), np.array([0.1, -0.2, 0, 0]))


def descriptor(seed: int) -> Descriptor:
    return np.random.default_rng(seed).integers(0, 2**64, WORDS, np.uint64)


def features(seed: int, count: int = 5) -> Features:
    return random_features(seed, count)


def fill(database: KeyframeDatabase, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        database.add(database.next_keyframe(number * 1000, descriptor(number)))


def motion(seed: int) -> NDArray[np.float32]:
    """A homography near that of a camera at rest."""
    noise = np.random.default_rng(seed).normal(0, 0.01, (3, 3))
    return (np.eye(3) + noise).astype(np.float32)


def kept_motions(path: Path) -> list[NDArray[np.float64] | None]:
    """Return the motions of a map that nobody has open, as it keeps them; None where they are not known."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        blobs = [blob for (blob,) in connection.execute("SELECT motion FROM keyframes ORDER BY id")]
    found = [None if blob is None else np.frombuffer(blob, "<f4").reshape(3, 3).astype(np.float64) for blob in blobs]
    return [None if one is None or np.isnan(one).any() else one / one[2, 2] for one in found]


def map_of_version(version: int, path: Path) -> None:
    """Write a map of three keyframes, as it was before there were features, thumbnails (version 2), or motions."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE map (schema_version INTEGER NOT NULL, model_sha256 TEXT NOT NULL, "
            "descriptor_words INTEGER NOT NULL)"
        )
        connection.execute(
            "CREATE TABLE keyframes (id INTEGER PRIMARY KEY, session INTEGER NOT NULL, stamp INTEGER NOT NULL, "
            "descriptor BLOB NOT NULL  -- packed bits, little-endian words of 64\n)"
        )
        if version >= 2:
            connection.execute("ALTER TABLE keyframes ADD COLUMN features BLOB")
            connection.execute("ALTER TABLE keyframes ADD COLUMN closes INTEGER")
        if version >= 3:
            connection.execute("ALTER TABLE keyframes ADD COLUMN thumbnail BLOB")
        connection.execute("INSERT INTO map VALUES (?, ?, ?)", (version, MODEL, WORDS))
        rows = [(number, 0, number * 1000, descriptor(number).tobytes()) for number in range(3)]
        connection.executemany("INSERT INTO keyframes (id, session, stamp, descriptor) VALUES (?, ?, ?, ?)", rows)
