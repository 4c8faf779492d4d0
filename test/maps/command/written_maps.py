# SPDX-License-Identifier: Apache-2.0
"""Maps on which the command is run, and how."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.images import thumbnail
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.command import main
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.hamming import Descriptor
from maps.small_maps import motion

MODEL = "a" * 64
WORDS = 4
THUMBNAIL = thumbnail(np.zeros((48, 64), np.uint8))
SECOND = 1_000_000_000
FEATURES = Features((64, 48), np.zeros((2, 2), np.uint16), np.zeros(2, np.uint8), np.ones((2, 32), np.uint8))


def descriptor(seed: int) -> Descriptor:
    return np.random.default_rng(seed).integers(0, 2**63, WORDS).astype(np.uint64)


def write_map(path: Path, first: int, model: str = MODEL) -> Path:
    """Write a map of two sessions of three keyframes; the third alone closes one, has features, and a thumbnail."""
    for session in range(2):
        database = KeyframeDatabase(path, model, WORDS)
        for number in range(3):
            stamp = (first + 100 * session + number) * SECOND + 5
            seed = first + 3 * session + number
            keyframe = database.next_keyframe(stamp, descriptor(seed))
            keyframe = dataclasses.replace(keyframe, motion=motion(seed) if number else None)
            if number == 2:
                keyframe = dataclasses.replace(keyframe, features=FEATURES, closes=keyframe.id - 2, thumbnail=THUMBNAIL)
            database.add(keyframe)
        database.close()
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["map", *map(str, arguments)])
    return main()
