# SPDX-License-Identifier: Apache-2.0
"""Verification by geometry that two images show one place: their matches obey one motion of the camera.

That is an essential matrix where the camera is known, else a fundamental matrix, or else a homography, which is what a
wall, or a camera that only turns, obeys. Models come from USAC with MAGSAC++ (Barath et al., CVPR 2020).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.local_features.camera import Camera, Points
from binvpr_ros.local_features.features import POSITION_STEPS, Features
from binvpr_ros.local_features.orb import FEWEST_MATCHES, NO_PAIRS, Pairs, matches

EPIPOLAR_PIXELS = 2.0
HOMOGRAPHY_PIXELS = 6.0  # a wall is never quite alone
CONFIDENCE = 0.99
MOST_ITERATIONS = 500
GRID = 4
FEWEST_CELLS = 3
"""Of GRID x GRID, in both images, that inliers must cover: one poster that hangs in two rooms is no place."""


def verify(query: Features, match: Features, camera: Camera | None = None) -> int:
    """Return how many matches of two images obey one motion of the camera; 0 where they are chance or of one spot.

    Both images are taken as those of `camera`. The result is the same for the same images.
    """
    return len(inliers(query, match, camera)[0])


def inliers(query: Features, match: Features, camera: Camera | None = None) -> Pairs:
    """Return the matches of two images that obey one motion of the camera, those that `verify` counts."""
    ours, theirs = matches(query, match)
    if len(ours) < FEWEST_MATCHES:
        return NO_PAIRS
    if camera is None:
        points = query.points(ours, query.size), match.points(theirs, match.size)
        pixel = 1.0
    else:
        points = camera.rays(query.points(ours, camera.size)), camera.rays(match.points(theirs, camera.size))
        # The rays of a fisheye may lie beyond the plane, or nowhere.
        usable = np.isfinite(np.hstack(points)).all(axis=1)
        if usable.sum() < FEWEST_MATCHES:
            return NO_PAIRS
        ours, theirs, points = ours[usable], theirs[usable], (points[0][usable], points[1][usable])
        pixel = camera.size[0] / (query.size[0] * camera.focal_length)
    obeying = max(_epipolar_inliers(*points, camera, pixel), _homography_inliers(*points, pixel), key=np.count_nonzero)
    ours, theirs = ours[obeying], theirs[obeying]
    for features, chosen in ((query, ours), (match, theirs)):
        cells = features.positions[chosen].astype(int) * GRID // POSITION_STEPS
        _, counts = np.unique(cells @ (1, GRID), return_counts=True)
        if np.count_nonzero(counts > 1) < FEWEST_CELLS:  # one alone may be chance
            return NO_PAIRS
    return ours, theirs


def _epipolar_inliers(query: Points, match: Points, camera: Camera | None, pixel: float) -> NDArray[np.bool_]:
    """Return which matches [M] fit one essential matrix, without a camera one fundamental matrix."""
    threshold = EPIPOLAR_PIXELS * pixel
    try:
        if camera is None:
            _, inliers = cv2.findFundamentalMat(query, match, cv2.USAC_MAGSAC, threshold, CONFIDENCE, MOST_ITERATIONS)
        else:
            _, inliers = cv2.findEssentialMat(
                query, match, np.eye(3), cv2.USAC_MAGSAC, CONFIDENCE, threshold, MOST_ITERATIONS
            )
    except cv2.error:  # how USAC reports points that lie on a plane, or else admit no such matrix
        inliers = None
    return _as_mask(inliers, len(query))


def _homography_inliers(query: Points, match: Points, pixel: float) -> NDArray[np.bool_]:
    """Return which matches [M] fit one homography."""
    try:
        _, inliers = cv2.findHomography(
            query, match, cv2.USAC_MAGSAC, HOMOGRAPHY_PIXELS * pixel, maxIters=MOST_ITERATIONS, confidence=CONFIDENCE
        )
    except cv2.error:
        inliers = None
    return _as_mask(inliers, len(query))


def _as_mask(inliers: Any, count: int) -> NDArray[np.bool_]:
    return np.zeros(count, bool) if inliers is None else np.asarray(inliers).reshape(-1) > 0
