# SPDX-License-Identifier: Apache-2.0
"""ORB features (Rublee et al., ICCV 2011): found in an image, and matched with those of another."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image, resize
from binvpr_ros.local_features.features import ANGLE_STEPS, NO_PAIRS, ORB, POSITION_STEPS, Features, Pairs
from binvpr_ros.local_features.matching import mutual_matches

tag = ORB
MOST_FEATURES = 1000
MOST_WIDTH = 480
"""Pixels to which a wider image is brought: beyond, it is time that grows, and not what is recognised."""
LEAST_SIDE = 32
"""Pixels, below which no image has features: ORB's own patch is 31 wide."""
DESCRIPTOR_BYTES = 32
MOST_BITS = 64  # of 256 that may differ in a match
RATIO = 0.85  # at most, of the best distance to the second best: what repeats in an image matches nothing
ROTATION_BINS = 30
# OpenCV 4.5 knows the function alone, and OpenCV's stubs the class alone.
_ORB: Any = cv2.ORB_create(MOST_FEATURES)  # type: ignore[attr-defined]


def extract(image: Image, visible: NDArray[np.uint8] | None = None) -> Features:
    """Return the local features of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size.

    With `visible`, uint8 of any size that stands for the whole image, only where that is not 0.
    """
    height, width = image.shape[:2]
    if width > MOST_WIDTH:
        # The colours go last: there are fewer pixels then.
        image = resize(image, (MOST_WIDTH, max(1, round(height * MOST_WIDTH / width))))
        height, width = image.shape[:2]
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if visible is not None:
        visible = np.asarray(cv2.resize(visible, (width, height), interpolation=cv2.INTER_NEAREST))
    found: Any = ()
    descriptors: Any = None
    if min(width, height) >= LEAST_SIDE:
        found, descriptors = _ORB.detectAndCompute(grey, visible)
    if descriptors is None:
        descriptors = np.empty((0, DESCRIPTOR_BYTES), np.uint8)
    points = np.array([feature.pt for feature in found], np.float64).reshape(-1, 2)
    positions = np.clip(points / (width, height) * POSITION_STEPS, 0, POSITION_STEPS - 1)
    angles = np.array([feature.angle for feature in found], np.float64) / 360 * ANGLE_STEPS
    return Features((width, height), positions.astype(np.uint16), angles.astype(int).astype(np.uint8), descriptors, tag)


def matches(query: Features, match: Features) -> Pairs:
    """Return which features [M] of the one image are which [M] of the other.

    They are each other's nearest, clearly nearer than the second, and turned by about the same angle.
    """
    ours, theirs = mutual_matches(query.descriptors, match.descriptors, MOST_BITS, RATIO)
    if not ours.size:
        return NO_PAIRS
    turns = (query.angles[ours] - match.angles[theirs]).astype(int) * ROTATION_BINS // ANGLE_STEPS  # uint8 wraps around
    counts = np.bincount(turns, minlength=ROTATION_BINS)
    usual = int((counts + np.roll(counts, 1) + np.roll(counts, -1)).argmax())
    alike = np.isin(turns, [(usual + near) % ROTATION_BINS for near in (-1, 0, 1)])
    return ours[alike], theirs[alike]
