# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from aliasing import RATE, SCENES

from binvpr_ros.config import Config
from binvpr_ros.images import Image
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.geometry import inliers, verify
from binvpr_ros.local_features.orb import extract, matches
from binvpr_ros.recognizer import PlaceRecognizer
from binvpr_ros.recordings.world import World, drive

from .views import seen

ENOUGH = Config().min_inliers


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
