# SPDX-License-Identifier: Apache-2.0
"""ORB features (Rublee et al., ICCV 2011): found in an image, and matched with those of another."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image, resize
from binvpr_ros.local_features.features import ANGLE_STEPS, DESCRIPTOR_BYTES, POSITION_STEPS, Features

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Indices [M] of features of the one image, and [M] of the other's."""
NO_PAIRS: Pairs = (np.empty(0, np.intp), np.empty(0, np.intp))
MOST_FEATURES = 500
MOST_WIDTH = 480
"""Pixels to which a wider image is brought: beyond, it is time that grows, and not what is recognised."""
LEAST_SIDE = 32
"""Pixels, below which no image has features: ORB's own patch is 31 wide."""
MOST_BITS = 64  # of 256 that may differ in a match
RATIO = 0.85  # at most, of the best distance to the second best: what repeats in an image matches nothing
ROTATION_BINS = 30
FEWEST_MATCHES = 8  # one more than a fundamental matrix is computed from
# OpenCV 4.5 knows the function alone, and OpenCV's stubs the class alone.
_ORB: Any = cv2.ORB_create(MOST_FEATURES)  # type: ignore[attr-defined]


def extract(image: Image) -> Features:
    """Return the local features of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size."""
    height, width = image.shape[:2]
    if width > MOST_WIDTH:
        # The colours go last: there are fewer pixels then.
        image = resize(image, (MOST_WIDTH, max(1, round(height * MOST_WIDTH / width))))
        height, width = image.shape[:2]
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found: Any = ()
    descriptors: Any = None
    if min(width, height) >= LEAST_SIDE:
        found, descriptors = _ORB.detectAndCompute(grey, None)
    if descriptors is None:
        descriptors = np.empty((0, DESCRIPTOR_BYTES), np.uint8)
    points = np.array([feature.pt for feature in found], np.float64).reshape(-1, 2)
    positions = np.clip(points / (width, height) * POSITION_STEPS, 0, POSITION_STEPS - 1)
    angles = np.array([feature.angle for feature in found], np.float64) / 360 * ANGLE_STEPS
    return Features((width, height), positions.astype(np.uint16), angles.astype(int).astype(np.uint8), descriptors)


def matches(query: Features, match: Features) -> Pairs:
    """Return which features [M] of the one image are which [M] of the other.

    They are each other's nearest, clearly nearer than the second, and turned by about the same angle.
    """
    if min(len(query.descriptors), len(match.descriptors)) < FEWEST_MATCHES:
        return NO_PAIRS
    distances, nearest = _nearest(query.descriptors, match.descriptors, 2)
    clear = (distances[:, 0] <= MOST_BITS) & (distances[:, 0] <= RATIO * distances[:, 1])
    ours = np.flatnonzero(clear)
    if not ours.size:
        return NO_PAIRS
    theirs = nearest[ours, 0].astype(np.intp)
    mutual = _nearest(match.descriptors[theirs], query.descriptors, 1)[1][:, 0] == ours
    ours, theirs = ours[mutual], theirs[mutual]
    turns = (query.angles[ours] - match.angles[theirs]).astype(int) * ROTATION_BINS // ANGLE_STEPS  # uint8 wraps around
    counts = np.bincount(turns, minlength=ROTATION_BINS)
    usual = int((counts + np.roll(counts, 1) + np.roll(counts, -1)).argmax())
    alike = np.isin(turns, [(usual + near) % ROTATION_BINS for near in (-1, 0, 1)])
    return ours[alike], theirs[alike]


def _nearest(these: NDArray[np.uint8], those: NDArray[np.uint8], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distances in bits, and the indices, [N,count] of the nearest of `those` to each of `these` [N,32]."""
    distances, indices = cv2.batchDistance(these, those, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=count)
    return distances, indices
