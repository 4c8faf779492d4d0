# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from aliasing import RATE, SCENES
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.local_features.camera import Camera, CameraError
from binvpr_ros.local_features.features import Features, FeaturesError
from binvpr_ros.local_features.geometry import inliers, verify
from binvpr_ros.local_features.orb import MOST_FEATURES, MOST_WIDTH, extract, matches
from binvpr_ros.recognizer import PlaceRecognizer
from binvpr_ros.recordings.world import World, drive

Image = NDArray[np.uint8]
ENOUGH = Config().min_inliers


@pytest.fixture(scope="module")
def scene() -> Image:
    """A picture [960,1280] without any order, so that each spot of it is unlike all others."""
    rng = np.random.default_rng(5)
    picture = np.full((960, 1280), 128, np.uint8)
    for _ in range(400):
        x, y, width, height = (int(value) for value in rng.integers((0, 0, 20, 20), (1280, 960, 120, 120)))
        cv2.rectangle(picture, (x, y), (x + width, y + height), int(rng.integers(0, 256)), -1)
    return picture


def seen(scene: Image, x: float, y: float, scale: float = 1.0, turn: float = 0.0) -> Image:
    """Return the view [480,640] of `scene` around x, y, enlarged and turned (degrees)."""
    motion = cv2.getRotationMatrix2D((x, y), turn, scale)
    motion[:, 2] += (320 - x, 240 - y)
    view: Image = cv2.warpAffine(scene, motion, (640, 480))
    return view


def test_features_come_back_from_their_bytes(scene: Image) -> None:
    features = extract(scene)
    assert features.size == (MOST_WIDTH, MOST_WIDTH * 3 // 4)
    assert 100 < len(features.descriptors) <= MOST_FEATURES
    data = features.to_bytes()
    assert len(data) == 4 + 37 * len(features.descriptors)
    for array, back in zip(features, Features.from_bytes(data), strict=True):
        np.testing.assert_array_equal(array, back)


@pytest.mark.parametrize("length", [0, 3, 5, 4 + 36])
def test_other_bytes_are_no_features(length: int) -> None:
    with pytest.raises(FeaturesError, match=f"{length} bytes are no features"):
        Features.from_bytes(bytes(length))


@pytest.mark.parametrize("shape", [(480, 640, 3), (480, 640), (1, 1), (2, 2000), (600, 3, 3), (24, 32), (32, 32)])
def test_an_image_of_any_size_has_features_or_none(shape: tuple[int, ...]) -> None:
    features = extract(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    count = len(features.descriptors)
    assert features.positions.shape == (count, 2)
    assert features.angles.shape == (count,)
    assert verify(features, features) >= 0


def test_colour_changes_little(scene: Image) -> None:
    grey, colour = extract(scene), extract(np.dstack([scene] * 3))
    assert verify(grey, colour) >= 0.9 * len(grey.descriptors)


@pytest.mark.parametrize(("x", "y", "scale", "turn"), [(700, 500, 1, 0), (560, 470, 1.2, 0), (600, 500, 0.9, 8)])
def test_the_same_scene_from_elsewhere_is_verified(scene: Image, x: float, y: float, scale: float, turn: float) -> None:
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, x, y, scale, turn))
    assert verify(query, match) >= ENOUGH
    assert verify(match, query) >= ENOUGH
    ours, theirs = inliers(query, match)
    assert len(ours) == len(theirs) == verify(query, match)
    assert set(zip(ours, theirs, strict=True)) <= set(zip(*matches(query, match), strict=True))


def test_matches_are_where_the_motion_brings_them(scene: Image) -> None:
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, 660, 490))
    ours, theirs = matches(query, match)
    moved = query.points(ours, (640, 480)) - match.points(theirs, (640, 480))
    np.testing.assert_allclose(np.median(moved, axis=0), (20, 10), atol=1.0)


def test_other_scenes_are_not_verified(scene: Image) -> None:
    query = extract(seen(scene, 330, 250))
    assert verify(query, extract(seen(scene, 950, 700))) < ENOUGH


def test_the_result_is_the_same_each_time(scene: Image) -> None:
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, 560, 470, 1.2, 5))
    assert len({verify(query, match) for _ in range(5)}) == 1


def test_one_object_in_two_rooms_is_no_place(scene: Image) -> None:
    rng = np.random.default_rng(7)
    rooms = [np.full((480, 640), 120, np.uint8) for _ in range(2)]
    for room, (x, y) in zip(rooms, ((40, 40), (100, 60)), strict=True):
        for _ in range(60):
            corner = rng.integers((240, 0), (640, 480))
            cv2.rectangle(room, corner, corner + 30, int(rng.integers(0, 256)), -1)
        room[y : y + 100, x : x + 100] = scene[400:500, 600:700]
    assert verify(extract(rooms[0]), extract(rooms[1])) < ENOUGH


@pytest.mark.parametrize("fisheye", [False, True])
def test_with_a_camera_the_essential_matrix_verifies(fisheye: bool) -> None:
    world = World(width=640, height=480)
    focal = 320 / np.tan(np.deg2rad(37.5))
    matrix = np.array([[focal, 0, 320], [0, focal, 240], [0, 0, 1]])
    camera = Camera((640, 480), matrix, np.zeros(4 if fisheye else 0), fisheye)
    stops = list(drive())
    here, near, elsewhere = (extract(world.render(*stops[number])) for number in (60, 660, 300))
    assert verify(here, near, camera) >= ENOUGH
    assert verify(here, elsewhere, camera) < ENOUGH


def test_a_lens_that_distorts_is_undone() -> None:
    matrix = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    coefficients = np.array([-0.3, 0.1, 0.001, 0, 0])
    rays = np.array([[0.0, 0, 1], [0.3, 0.2, 1], [-0.4, 0.3, 1]])
    pixels, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, coefficients)
    camera = Camera((640, 480), matrix, coefficients)
    np.testing.assert_allclose(camera.rays(pixels.reshape(-1, 2).astype(np.float32)), rays[:, :2], atol=1e-3)
    assert camera.focal_length == 500


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


@pytest.mark.parametrize("name", SCENES)
def test_where_all_looks_alike_no_loop_is_closed(name: str) -> None:
    # By a score that is lower than the default more would be closed.
    assert _closures(SCENES[name](), Config(min_score=0.1, verification_time=60.0)) == 0


def _closures(images: Iterator[Image], config: Config) -> int:
    recognizer = PlaceRecognizer(config)
    return sum(
        len(recognizer.process(image, number * NANOSECONDS // RATE).verdict.closures)
        for number, image in enumerate(images)
    )
