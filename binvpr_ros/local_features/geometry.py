# SPDX-License-Identifier: Apache-2.0
"""Verification by geometry that two images show one place, from nearby.

Their matches then obey one homography within a few pixels: there is little parallax between two views from nearby, and
what there is stays within the tolerance. An epipolar geometry would be obeyed by views of one building from far apart
too, which are no loop closure (measured: docs/evaluate.md). And what obeys it covers what both views have in common:
what is on the robot itself, on a poster or on the horizon covers a part.

Learned features must obey both. They match what is built alike, so that corridors of one layout obey a homography,
loosely (measured: docs/local_features.md).

The homography comes from USAC with MAGSAC++ (Barath et al., CVPR 2020), the epipolar geometry from our own library.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import epipolar_inliers
from binvpr_ros.local_features.camera import Camera, Points
from binvpr_ros.local_features.colours import agreement, centres
from binvpr_ros.local_features.features import LEARNED, NO_PAIRS, POSITION_STEPS, Features, Pairs
from binvpr_ros.local_features.kinds import matches

Homography = NDArray[np.float64]
"""[3,3], from the pixels of one image to those of another, both WIDTH pixels wide."""

WIDTH = 480
TOLERANCE = 10.0
"""Pixels of an image of WIDTH within which a match obeys a homography."""
EPIPOLAR_TOLERANCE = 1.0
"""Pixels of an image of WIDTH from the epipolar line, within which a match of learned features obeys it."""
CONFIDENCE = 0.99
MOST_ITERATIONS = 500
FEWEST_MATCHES = 8  # four are enough for a homography
GRID = 6
"""Cells of the image each way, in which coverage is counted."""
FEWEST_IN_CELL = 2
"""Features in both images, without which a cell says nothing."""
LEAST_SPREAD = 0.55
"""Of inliers of one place (measured: .57 and more); the horizon, on half of the picture, has .5 at most."""
STILL = 2.0
"""Pixels of an image of WIDTH by which what has not moved in the image may move."""
LEAST_AT_REST = 0.6
"""Coverage of two views from the very same spot: if what has not moved covers less, it is on the robot itself."""
AGREEMENT = 0.5 * WIDTH
"""Pixels of an image of WIDTH by which two motions may differ that are taken for one: errors of links add up."""
FEWEST_FOLLOWED = 15
"""Inliers of two keyframes in a row, of which fewer tell no motion."""
COLOUR_CENTRES = (centres() * POSITION_STEPS).astype(np.uint16)
FEWEST_CELLS = 18
"""Cells, half of the image, that both views must have in common so that all of their common view can be covered."""


class Verification(NamedTuple):
    """What the geometry of two images says."""

    pairs: Pairs = NO_PAIRS  # the matches that obey the homography: inliers
    homography: Homography | None = None  # from the query to the match
    coverage: float = 0.0  # share of the cells that both views have in common in which there are inliers
    spread: float = 0.0  # of the coverage that so many inliers would have if they lay where features do, by chance
    at_rest: bool = False  # whether the inliers are at the same pixels of both images
    colours: float = 1.0  # the share for which the evidence counts, by the colours of both views

    @property
    def inliers(self) -> int:
        """Return how many matches obey one homography."""
        return len(self.pairs[0])

    @property
    def evidence(self) -> float:
        """Return for how many the inliers count: for all of them only where they cover all that the views share.

        And where the colours agree, too.
        """
        return self.inliers * self.coverage * self.colours

    @property
    def motion(self) -> NDArray[np.float32] | None:
        """Return the homography [3,3] as the camera's motion between two keyframes; None where too few obey it."""
        if self.homography is None or self.inliers < FEWEST_FOLLOWED:
            return None
        return self.homography.astype(np.float32)

    @property
    def of_a_part(self) -> bool:
        """Return whether the inliers keep to a part of the view that may look the same elsewhere.

        There are features elsewhere in it, as beside a poster or below the horizon; or they are on the robot itself.
        """
        return self.spread < LEAST_SPREAD or (self.at_rest and self.coverage < LEAST_AT_REST)


def verify(
    query: Features,
    match: Features,
    camera: Camera | None = None,
    match_camera: Camera | None = None,
    pairs: Pairs | None = None,
    least: float = 0.0,
) -> Verification:
    """Return what the geometry of two images says; the same for the same images.

    `pairs` are their matches, where these are known. What the lens of `camera`, and of the match's own, does is undone;
    without `match_camera` both are of `camera`, and without that too, of a lens that does not distort. Of views that
    have less than `least` evidence nothing need be said.
    """
    ours, theirs = matches(query, match) if pairs is None else pairs
    if len(ours) < FEWEST_MATCHES:
        return Verification()
    # Those without a match too: coverage asks where each feature should be.
    here, there = _points(query, camera), _points(match, match_camera or camera)
    usable = np.isfinite(here[ours]).all(axis=1) & np.isfinite(there[theirs]).all(axis=1)
    ours, theirs = ours[usable], theirs[usable]
    if len(ours) < FEWEST_MATCHES:
        return Verification()
    try:
        found, obeying = cv2.findHomography(
            here[ours], there[theirs], cv2.USAC_MAGSAC, TOLERANCE, maxIters=MOST_ITERATIONS, confidence=CONFIDENCE
        )
    except cv2.error:  # how USAC reports points that admit none
        return Verification()
    if found is None or abs(np.linalg.det(found)) < 1e-9:
        return Verification()
    inliers = np.asarray(obeying).reshape(-1) > 0
    ours, theirs = ours[inliers], theirs[inliers]
    size = query.size if camera is None else camera.size
    there_seen = moved(there, np.linalg.inv(found))
    common = _common_view(here, there_seen, size)
    coverage, spread = common.covered_by(here[ours])
    if query.tag[0] == LEARNED:
        # It only takes inliers away.
        rigid = np.zeros(len(ours), bool)
        if len(ours) * coverage >= least:
            # Nothing moved obeys any epipolar geometry, so that none may be found; what obeys the homography does too.
            off = np.linalg.norm(moved(here[ours], found) - there[theirs], axis=1)
            rigid = epipolar_inliers(here[ours], there[theirs], EPIPOLAR_TOLERANCE) | (off <= EPIPOLAR_TOLERANCE)
        ours, theirs = ours[rigid], theirs[rigid]
        if len(ours) < FEWEST_MATCHES:
            return Verification()
        coverage, spread = common.covered_by(here[ours])
    at_rest = bool(np.median(np.linalg.norm(here[ours] - there[theirs], axis=1)) < STILL)
    return Verification((ours, theirs), found, coverage, spread, at_rest)


def colours_agree(
    query: Features,
    match: Features,
    homography: Homography,
    camera: Camera | None = None,
    match_camera: Camera | None = None,
) -> float:
    """Return for what share evidence counts, by the colours of two images of one drive; cameras as of `verify`.

    `homography` leads from the query to the match. What is not known is no difference.
    """
    if query.colours is None or match.colours is None:
        return 1.0
    here = moved(_points(query._replace(positions=COLOUR_CENTRES), camera), homography)
    there = _points(match._replace(positions=COLOUR_CENTRES), match_camera or camera)
    return agreement(query.colours, match.colours, here, there)


def moved(points: Points, homography: Homography) -> Points:
    """Return points [N,2] where a homography brings them; NaN where that is behind the camera."""
    there = points @ homography[:, :2].T + homography[:, 2]
    depth = there[:, 2:]
    with np.errstate(invalid="ignore"):
        result: Points = (there[:, :2] / np.where(depth > 0, depth, np.nan)).astype(np.float32)
    return result


def agree(one: Homography, other: Homography) -> bool:
    """Tell whether two homographies bring the middle of an image to about the same place, and back."""
    middle = np.array([[0.3, 0.25], [0.7, 0.25], [0.5, 0.375], [0.3, 0.5], [0.7, 0.5]], np.float32) * WIDTH
    back = [np.asarray(np.linalg.pinv(motion), np.float64) for motion in (one, other)]
    offsets = np.concatenate(
        [moved(middle, one) - moved(middle, other), moved(middle, back[0]) - moved(middle, back[1])]
    )
    return bool((np.linalg.norm(offsets, axis=1) <= AGREEMENT).all())  # NaN is no agreement


def _points(features: Features, camera: Camera | None) -> Points:
    """Return the pixels of all features in an image of WIDTH, without what the lens does; NaN where there are none."""
    width, height = features.size
    if camera is None:
        return features.points(np.arange(len(features.positions)), (WIDTH, WIDTH * height / width))
    pixels = camera.undistorted(features.points(np.arange(len(features.positions)), camera.size))
    return pixels * np.float32(WIDTH / camera.size[0])


class _CommonView(NamedTuple):
    """The cells of the query's image in which both images have features."""

    cells_per_pixel: NDArray[np.float32]  # [2], in x and in y
    features: NDArray[np.intp]  # [GRID*GRID], of the image that has fewer there
    common: NDArray[np.bool_]  # [GRID*GRID]

    def covered_by(self, inliers: Points) -> tuple[float, float]:
        """Return the share of the cells in which there are `inliers` [M,2], pixels of the query's image; the spread."""
        if not self.common.any():
            return 0.0, 0.0
        found = _counted(inliers * self.cells_per_pixel)[self.common]
        covered = int(np.count_nonzero(found))
        features = self.features[self.common]
        by_chance = np.sum(1 - (1 - features / features.sum()) ** found.sum())
        return covered / max(len(found), FEWEST_CELLS), covered / max(float(by_chance), 1.0)


def _common_view(query: Points, match: Points, size: tuple[int, int]) -> _CommonView:
    """Return what two images have in common: `match` are its features where they should be in the query's image."""
    cells_per_pixel = np.array([GRID / WIDTH, GRID / (WIDTH * size[1] / size[0])], np.float32)
    features = np.minimum(_counted(query * cells_per_pixel), _counted(match * cells_per_pixel))
    return _CommonView(cells_per_pixel, features, features >= FEWEST_IN_CELL)


def _counted(cells: Points) -> NDArray[np.intp]:
    """Return how many of the positions [N,2], in cells, are in each of them: [GRID*GRID]."""
    inside = ((cells >= 0) & (cells < GRID)).all(axis=1)  # also leaves out NaN
    column, row = cells[inside].astype(int).T
    return np.bincount(row * GRID + column, minlength=GRID * GRID)
