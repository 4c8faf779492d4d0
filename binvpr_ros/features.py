# SPDX-License-Identifier: Apache-2.0
"""Local features of an image, and the verification by geometry that two images show one place.

ORB features (Rublee et al., ICCV 2011) are matched, and the matches must obey one motion of the camera: an essential
matrix where the camera is known, else a fundamental matrix, or else a homography, which is what a wall, or a camera
that only turns, obeys. Models come from USAC with MAGSAC++ (Barath et al., CVPR 2020).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from binvpr_ros.images import Image, resize

Points = NDArray[np.float32]
"""float32, [N,2]: x and y."""
Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Indices [M] of features of the one image, and [M] of the other's."""
NO_PAIRS: Pairs = (np.empty(0, np.intp), np.empty(0, np.intp))

MOST_FEATURES = 500
MOST_WIDTH = 480
"""Pixels to which a wider image is brought: beyond, it is time that grows, and not what is recognised."""
LEAST_SIDE = 32
"""Pixels, below which no image has features: ORB's own patch is 31 wide."""
DESCRIPTOR_BYTES = 32
_HEADER = struct.Struct("<HH")  # width and height in pixels
_POSITION_STEPS = 1 << 16  # over the width, and over the height
_ANGLE_STEPS = 256
_FEATURE_BYTES = 2 + 2 + 1 + DESCRIPTOR_BYTES

MOST_BITS = 64  # of 256 that may differ in a match
RATIO = 0.85  # at most, of the best distance to the second best: what repeats in an image matches nothing
ROTATION_BINS = 30
FEWEST_MATCHES = 8  # one more than a fundamental matrix is computed from
EPIPOLAR_PIXELS = 2.0
HOMOGRAPHY_PIXELS = 6.0  # a wall is never quite alone
CONFIDENCE = 0.99
MOST_ITERATIONS = 500
GRID = 4
FEWEST_CELLS = 3
"""Of GRID x GRID, in both images, that inliers must cover: one poster that hangs in two rooms is no place."""


class FeaturesError(ValueError):
    """Bytes are no features."""


class Features(NamedTuple):
    """The N local features of one image."""

    size: tuple[int, int]  # width and height in pixels of the image in which they were found
    positions: NDArray[np.uint16]  # [N,2], x and y in 1/65536 of the width and of the height
    angles: NDArray[np.uint8]  # [N], 1/256 of a turn
    descriptors: NDArray[np.uint8]  # [N,32]

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` reads: 4 + 37 N bytes, little-endian."""
        arrays = (self.positions.astype("<u2"), self.angles, self.descriptors)
        return _HEADER.pack(*self.size) + b"".join(array.tobytes() for array in arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Features:
        """Return the features that `to_bytes` wrote; raises FeaturesError where they are none."""
        count, rest = divmod(len(data) - _HEADER.size, _FEATURE_BYTES)
        if count < 0 or rest:
            raise FeaturesError(f"{len(data)} bytes are no features; restore a copy of the file that holds them")
        width, height = _HEADER.unpack_from(data)
        after_positions = _HEADER.size + 4 * count
        positions = np.frombuffer(data, "<u2", 2 * count, _HEADER.size).astype(np.uint16).reshape(-1, 2)
        angles = np.frombuffer(data, np.uint8, count, after_positions)
        descriptors = np.frombuffer(data, np.uint8, offset=after_positions + count).reshape(-1, DESCRIPTOR_BYTES)
        return cls((width, height), positions, angles, descriptors)

    def points(self, chosen: NDArray[np.intp], size: tuple[int, int]) -> Points:
        """Return the positions [N,2] of the `chosen` features in an image of `size` (width, height), in pixels."""
        scale = np.array(size, np.float32) / np.float32(_POSITION_STEPS)
        points: Points = self.positions[chosen] * scale
        return points


LENSES = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8, 12, 14), "equidistant": (4,), "fisheye": (4,)}
"""Distortion model -> how many coefficients it may have."""


class CameraError(ValueError):
    """A calibration cannot be used; the message, whose subject is the calibration, says why."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera: `matrix` [3,3] for images of `size` (width, height), and how its lens distorts.

    Without coefficients the image is taken as rectified. A `fisheye` has four (Kannala and Brandt), another lens 4, 5,
    8, 12 or 14, in OpenCV's order.
    """

    size: tuple[int, int]
    matrix: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    fisheye: bool = False

    @classmethod
    def calibrated(
        cls,
        size: tuple[int, int],
        k: ArrayLike,
        d: ArrayLike,
        model: str,
        region: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> Camera:
        """Return the camera that a calibration describes; raises CameraError if it is none, or its lens is not known.

        `size` is (width, height), `k` [3,3] or its 9 numbers; `d` holds the coefficients of the distortion `model`, a
        key of LENSES ("" for plumb_bob). `region` (x, y, width, height) is the part of the sensor that images show,
        zeros for the whole. All lengths are in pixels.
        """
        width, height = region[2:] if all(region[2:]) else size
        matrix = np.array(k, np.float64).reshape(3, 3)
        coefficients = np.array(d, np.float64).reshape(-1)
        if not (width > 0 and height > 0 and np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise CameraError("it holds no calibration; calibrate the camera, or go on without")
        # A lens sees from some six degrees to nearly half a circle, and its axis goes through the sensor.
        focal, centre = matrix[[0, 1], [0, 1]], matrix[:2, 2]
        inside = (centre > 0).all() and (centre < (size[0] or width, size[1] or height)).all()
        if not (inside and 0.1 * width < focal.min() <= focal.max() < 10 * width):
            raise CameraError(
                f"it does not fit images of {width}x{height} pixels (focal length {focal[0]:.0f}, "
                f"centre {centre[0]:.0f}, {centre[1]:.0f}); calibrate the camera at this size, or go on without"
            )
        model = model or "plumb_bob"
        if len(coefficients) not in LENSES.get(model, ()) or not np.isfinite(coefficients).all():
            raise CameraError(
                f"its {len(coefficients)} coefficients of the distortion model {model[:40]!r} are not known here; "
                f"use one of {', '.join(LENSES)}, or rectified images"
            )
        matrix[:2, 2] -= region[:2]
        return cls((width, height), matrix, coefficients, fisheye=LENSES[model] == (4,))

    @staticmethod
    def of_rectified(p: ArrayLike) -> tuple[list[float], list[float], str]:
        """Return `k`, `d` and `model` of images that are rectified by the projection matrix `p`, [3,4] or 12 numbers.

        These are the images of image_proc's image_rect, which no lens distorts.
        """
        return np.reshape(p, (3, 4))[:, :3].ravel().tolist(), [], "plumb_bob"

    @property
    def focal_length(self) -> float:
        """Focal length, in pixels of `size`."""
        return float(self.matrix[0, 0] + self.matrix[1, 1]) / 2

    def rays(self, points: Points) -> Points:
        """Return where the rays of pixels [N,2] of an image of `size` meet the plane one ahead of the camera, [N,2]."""
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        rays = undistort(points.reshape(-1, 1, 2).astype(np.float64), self.matrix, self.coefficients)
        return rays.reshape(-1, 2).astype(np.float32)


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
    positions = np.clip(points / (width, height) * _POSITION_STEPS, 0, _POSITION_STEPS - 1)
    angles = np.array([feature.angle for feature in found], np.float64) / 360 * _ANGLE_STEPS
    return Features((width, height), positions.astype(np.uint16), angles.astype(int).astype(np.uint8), descriptors)


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
        cells = features.positions[chosen].astype(int) * GRID // _POSITION_STEPS
        _, counts = np.unique(cells @ (1, GRID), return_counts=True)
        if np.count_nonzero(counts > 1) < FEWEST_CELLS:  # one alone may be chance
            return NO_PAIRS
    return ours, theirs


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
    turns = (
        (query.angles[ours] - match.angles[theirs]).astype(int) * ROTATION_BINS // _ANGLE_STEPS
    )  # uint8 wraps around
    counts = np.bincount(turns, minlength=ROTATION_BINS)
    usual = int((counts + np.roll(counts, 1) + np.roll(counts, -1)).argmax())
    alike = np.isin(turns, [(usual + near) % ROTATION_BINS for near in (-1, 0, 1)])
    return ours[alike], theirs[alike]


def _nearest(these: NDArray[np.uint8], those: NDArray[np.uint8], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distances in bits, and the indices, [N,count] of the nearest of `those` to each of `these` [N,32]."""
    distances, indices = cv2.batchDistance(these, those, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=count)
    return distances, indices


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
