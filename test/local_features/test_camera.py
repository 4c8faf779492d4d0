# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.local_features.camera import Camera, CameraError

K = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]


def test_a_calibrated_camera_is_that_of_the_part_it_shows() -> None:
    camera = Camera.calibrated((640, 480), K, [-0.3, 0.1, 0, 0], "", (100, 40, 320, 240))
    assert (camera.size, camera.fisheye) == ((320, 240), False)
    assert camera.matrix.tolist() == [[500, 0, 220], [0, 510, 200], [0, 0, 1]]
    assert camera.coefficients.tolist() == [-0.3, 0.1, 0, 0]
    assert Camera.calibrated((640, 480), K, [0] * 4, "fisheye").fisheye


def test_rectified_images_have_the_projection_and_no_lens() -> None:
    assert Camera.of_rectified([7.0, 0, 6, 1, 0, 7, 5, 2, 0, 0, 1, 3]) == ([7, 0, 6, 0, 7, 5, 0, 0, 1], [], "plumb_bob")


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
        ((640, 480), K, [0.1], "mirror", "its 1 coefficients of the distortion model 'mirror' are not known here"),
    ],
)
def test_a_calibration_of_no_camera_is_refused(
    size: tuple[int, int], k: list[float], d: list[float], model: str, sentence: str
) -> None:
    with pytest.raises(CameraError, match=sentence):
        Camera.calibrated(size, k, d, model)
