# SPDX-License-Identifier: Apache-2.0
"""Local features that are none, for maps under test."""

from __future__ import annotations

import numpy as np

from binvpr_ros.local_features.features import Features


def random_features(seed: int, count: int, descriptor_bytes: int = 32) -> Features:
    """Return so many features of an image of 480x360 pixels; one seed makes the same ones."""
    rng = np.random.default_rng(seed)
    return Features(
        (480, 360), rng.integers(0, 1 << 16, (count, 2), np.uint16), rng.integers(0, 256, count, np.uint8),
        rng.integers(0, 256, (count, descriptor_bytes), np.uint8),
    )  # fmt: skip
