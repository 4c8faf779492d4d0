# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.local_features.camera import Camera, CameraError

K = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]


def test_a_calibrated_camera_is_that_of_the_part_it_shows() -> None:
    camera = Camera.calibrated((640, 480), K, [-0.3, 0.1, 0, 0], "", (100, 40, 320, 240))
    assert (camera.size, camera.fisheye) == ((320, 240), False)
    assert camera.matrix.tolist() == [[500, 0, 220], [0, 510, 200], [0, 0, 1]]
    assert camera.coefficients.tolist() == [-0.3, 0.1, 0, 0]
    assert Camera.calibrated((640, 480), K, [0] * 4, "fisheye").fisheye


def test_rectified_images_have_the_projection_and_no_lens() -> None:
    p = [7.0, 0, 6, 1, 0, 7, 5, 2, 0, 0, 1, 3]
    assert Camera.of_rectified(p, K) == ([7, 0, 6, 0, 7, 5, 0, 0, 1], [], "plumb_bob")
    assert Camera.of_rectified([0.0] * 12, K) == (K, [], "plumb_bob")


@pytest.mark.parametrize(
    ("model", "d", "taken"),
    [
        ("plumb_bob", [0.1, 0.2, 0, 0, 0.3, 0, 0, 0], [0.1, 0.2, 0, 0, 0.3]),
        ("plumb_bob", [0.1, 0.2, 0, 0, 0, 0, 0, 0], [0.1, 0.2, 0, 0, 0]),
        ("plumb_bob", [0.1, 0.2, 0, 0], [0.1, 0.2, 0, 0]),
        ("equidistant", [0.1, 0.2, 0, 0.3, 0], [0.1, 0.2, 0, 0.3]),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 6, [0.1] * 8 + [0.0] * 6),
        ("none", [], []),
        ("none", [0.0] * 5, []),
        ("plumb_bob", [0.0, 0.0], []),
        ("", [], []),
    ],
)
def test_zeros_may_follow_the_coefficients(model: str, d: list[float], taken: list[float]) -> None:
    camera = Camera.calibrated((640, 480), K, d, model)
    assert camera.coefficients.tolist() == taken
    assert camera.fisheye == (model == "equidistant")


@pytest.mark.parametrize(
    ("size", "k", "d", "model", "sentence"),
    [
        ((640, 480), [0.0] * 9, [], "plumb_bob", "it holds no calibration"),
        ((0, 480), K, [], "plumb_bob", "it holds no calibration"),
        ((-640, 480), K, [], "plumb_bob", "it holds no calibration"),
        ((320, 240), K, [], "plumb_bob", r"does not fit images of 320x240 pixels \(focal length 500, centre 320"),
        ((6400, 4800), K, [], "plumb_bob", "does not fit images of 6400x4800 pixels"),
        ((640, 480), K, [0.1, 0.2], "plumb_bob", "its 2 coefficients of the distortion model 'plumb_bob' are not"),
        ((640, 480), K, [np.nan] * 4, "plumb_bob", "its 4 coefficients"),
        ((640, 480), K, [0.1] * 8, "plumb_bob", "its 8 coefficients of the distortion model 'plumb_bob' are not known"),
        ((640, 480), K, [0.1] * 5, "equidistant", "its 5 coefficients of the distortion model 'equidistant' are not"),
        ((640, 480), K, [0.1], "none", "its 1 coefficients of the distortion model 'none' are not known here"),
        ((640, 480), K, [0.1], "mirror", "its 1 coefficients of the distortion model 'mirror' are not known here"),
    ],
)
def test_a_calibration_of_no_camera_is_refused(
    size: tuple[int, int], k: list[float], d: list[float], model: str, sentence: str
) -> None:
    with pytest.raises(CameraError, match=sentence):
        Camera.calibrated(size, k, d, model)


RAYS = np.array([[0.0, 0, 1], [0.3, 0.2, 1], [-0.4, 0.3, 1], [0.5, -0.35, 1]])
MATRIX = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
STRAIGHT = RAYS[:, :2] * (500, 510) + (320, 240)
"""Where the rays meet an image without distortion."""


def distorted(camera: Camera) -> NDArray[np.float32]:
    """Return the pixels [N,2] of RAYS, as OpenCV projects them."""
    project = cv2.fisheye.projectPoints if camera.fisheye else cv2.projectPoints
    pixels, _ = project(RAYS.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), camera.matrix, camera.coefficients)
    return np.asarray(pixels.reshape(-1, 2), np.float32)


LENSES_THAT_DISTORT = [
    Camera((640, 480), MATRIX, np.array([-0.3, 0.1, 0.001, 0.002, 0])),
    Camera((640, 480), MATRIX, np.array([0.2, -0.1, 0.001, 0, 0.01, 0.3, -0.05, 0.002])),
    Camera((640, 480), MATRIX, np.array([0.05, -0.02, 0.003, 0]), fisheye=True),
    Camera((640, 480), MATRIX, np.zeros(4), fisheye=True),  # which bends straight lines even so
]


@pytest.mark.parametrize("camera", LENSES_THAT_DISTORT)
def test_a_lens_that_distorts_is_undone(camera: Camera) -> None:
    pixels = distorted(camera)
    assert np.abs(pixels - STRAIGHT).max() > 5
    rays, straight = camera.rays(pixels), camera.undistorted(pixels)
    assert rays.dtype == straight.dtype == np.float32
    np.testing.assert_allclose(rays, RAYS[:, :2], atol=1e-3)
    np.testing.assert_allclose(straight, STRAIGHT, atol=0.5)
    assert camera.focal_length == 505


@pytest.mark.parametrize("coefficients", [np.zeros(0), np.zeros(5)])
def test_without_distortion_pixels_stay_where_they_are(coefficients: NDArray[np.float64]) -> None:
    camera = Camera((640, 480), MATRIX, coefficients)
    pixels = distorted(camera)
    np.testing.assert_allclose(pixels, STRAIGHT, atol=1e-3)
    assert camera.undistorted(pixels) is pixels


@pytest.mark.parametrize("camera", LENSES_THAT_DISTORT)
def test_no_points_are_undone_as_none(camera: Camera) -> None:
    assert camera.undistorted(np.empty((0, 2), np.float32)).shape == (0, 2)


def test_the_part_of_the_sensor_that_is_shown_is_undone_as_the_whole_is() -> None:
    coefficients = [-0.3, 0.1, 0.001, 0.002]
    k = MATRIX.ravel().tolist()
    whole = Camera.calibrated((640, 480), k, coefficients, "plumb_bob")
    part = Camera.calibrated((640, 480), k, coefficients, "plumb_bob", (100, 40, 320, 240))
    pixels = np.array([[150, 60], [300, 200], [400, 250]], np.float32)
    moved = np.array((100, 40), np.float32)
    np.testing.assert_allclose(part.undistorted(pixels - moved), whole.undistorted(pixels) - moved, atol=1e-3)
