# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from aliasing import RATE, SCENES, there_and_back
from aliasing import WIDTH as SEEN
from numpy.typing import NDArray
from random_features import random_features

from binvpr_ros.config import Config
from binvpr_ros.images import Image
from binvpr_ros.keyframes import KEPT_FEATURES, NANOSECONDS
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import POSITION_STEPS, Features
from binvpr_ros.local_features.geometry import AGREEMENT, WIDTH, Verification, agree, moved, verify
from binvpr_ros.local_features.kinds import NAMES, matches, open_local_features
from binvpr_ros.local_features.orb import extract
from binvpr_ros.recognizer import PlaceRecognizer
from binvpr_ros.recordings.world import World, drive

from .views import seen

ENOUGH = Config().min_inliers
LEAST = ((160, 120), (480, 120), (320, 240), (160, 360), (480, 360))
"""Pixels in a view, far from one another."""


@pytest.mark.parametrize(("x", "y", "scale", "turn"), [(700, 500, 1, 0), (560, 470, 1.2, 0), (600, 500, 0.9, 8)])
def test_the_same_scene_from_elsewhere_is_verified(scene: Image, x: float, y: float, scale: float, turn: float) -> None:
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, x, y, scale, turn))
    assert verify(match, query).evidence >= 5 * ENOUGH
    found = verify(query, match.fewer(KEPT_FEATURES))
    assert found.evidence >= 5 * ENOUGH
    ours, theirs = found.pairs
    assert len(ours) == len(theirs) == found.inliers
    assert set(zip(ours, theirs, strict=True)) <= set(zip(*matches(query, match.fewer(KEPT_FEATURES)), strict=True))


@pytest.mark.parametrize(("x", "y", "scale", "turn"), [(640, 480, 1, 0), (700, 500, 1, 0), (600, 500, 0.9, 8)])
def test_the_homography_leads_from_the_query_to_the_match(
    scene: Image, x: float, y: float, scale: float, turn: float
) -> None:
    motion = cv2.getRotationMatrix2D((x, y), turn, scale)
    motion[:, 2] += (320 - x, 240 - y)
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, x, y, scale, turn))
    found = verify(query, match)
    assert found.homography is not None
    for pixel in LEAST:
        there = motion @ (pixel[0] + 320, pixel[1] + 240, 1.0)  # the view at 640, 480 begins there in the scene
        (arrived,) = moved(np.array([pixel], np.float32) * np.float32(WIDTH / 640), found.homography)
        np.testing.assert_allclose(arrived * 640 / WIDTH, there, atol=3)


@pytest.mark.parametrize("name", NAMES)
def test_views_without_enough_evidence_need_not_be_looked_at(scene: Image, name: str) -> None:
    kind = open_local_features(name)
    query, match = kind.extract(seen(scene, 640, 480)), kind.extract(seen(scene, 700, 500, 0.9, 8))
    found = verify(query, match)
    enough = verify(query, match, least=found.evidence)
    assert enough.evidence == found.evidence > ENOUGH
    np.testing.assert_array_equal(enough.pairs, found.pairs)
    assert verify(query, match, least=2 * len(query.positions)).evidence <= found.evidence


@pytest.mark.parametrize("brighter", [1.0, 1.15])
def test_the_view_of_a_camera_at_rest_is_verified(brighter: float) -> None:
    """Any epipolar geometry fits it, so that sometimes none is found."""
    kind, world = open_local_features("learned"), World()
    for stop in list(drive(900))[:300:10]:
        image = world.render(*stop)
        query, match = kind.extract(np.clip(image * brighter, 0, 255).astype(np.uint8)), kind.extract(image)
        assert verify(query, match).inliers >= 0.7 * len(matches(query, match)[0])


def test_matches_are_where_the_motion_brings_them(scene: Image) -> None:
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, 660, 490))
    ours, theirs = matches(query, match)
    offsets = query.points(ours, (640, 480)) - match.points(theirs, (640, 480))
    np.testing.assert_allclose(np.median(offsets, axis=0), (20, 10), atol=1.0)


def test_other_scenes_are_not_verified(scene: Image) -> None:
    query = extract(seen(scene, 330, 250))
    assert verify(query, extract(seen(scene, 950, 700))).evidence < ENOUGH


def test_the_result_is_the_same_each_time(scene: Image) -> None:
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, 560, 470, 1.2, 5))
    first = verify(query, match)
    for _ in range(4):
        again = verify(query, match)
        assert again[2:] == first[2:]
        for one, other in zip((*first.pairs, first.homography), (*again.pairs, again.homography), strict=True):
            np.testing.assert_array_equal(one, other)


def test_inliers_are_within_ten_pixels_of_the_homography(scene: Image) -> None:
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, 560, 470, 1.2, 5))
    found = verify(query, match)
    assert found.homography is not None
    ours, theirs = found.pairs
    size = (WIDTH, WIDTH * 3 / 4)
    offsets = moved(query.points(ours, size), found.homography) - match.points(theirs, size)
    assert np.linalg.norm(offsets, axis=1).max() < 12  # MAGSAC++ has no border of its own that is sharp


def test_what_covers_the_common_view_counts_and_what_is_in_a_part_of_it_does_not(scene: Image) -> None:
    """Two views of one place; and two rooms in which the same picture hangs."""
    here, there = seen(scene, 330, 250), seen(scene, 350, 260)
    place = verify(extract(here), extract(there))
    assert place.coverage > 0.9
    assert not place.of_a_part
    other_room = seen(scene, 950, 700)
    other_room[20:180, 50:290] = here[:160, :240]
    poster = verify(extract(here), extract(other_room))
    assert poster.inliers >= 20
    assert poster.coverage < 0.4
    assert poster.evidence < ENOUGH


def test_two_views_that_share_a_half_of_the_image_are_not_asked_for_the_other_half(scene: Image) -> None:
    found = verify(extract(seen(scene, 640, 480)), extract(seen(scene, 960, 480)))
    assert found.inliers >= 30
    assert found.coverage > 0.8


def test_a_deck_that_stays_is_no_place(scene: Image) -> None:
    """The lowest quarter of both images is one and the same, at the same pixels: the robot itself."""
    here, elsewhere = seen(scene, 330, 250), seen(scene, 950, 700)
    elsewhere[360:] = here[360:]
    found = verify(extract(here), extract(elsewhere))
    assert found.inliers >= 20
    assert found.of_a_part
    assert found.at_rest
    # A robot on rails sees all of the image again.
    again = np.clip(here + np.random.default_rng(0).normal(0, 3, here.shape), 0, 255).astype(np.uint8)
    found = verify(extract(here), extract(again))
    assert found.evidence > 10 * ENOUGH
    assert found.at_rest
    assert not found.of_a_part


def test_a_horizon_is_no_place(scene: Image) -> None:
    """The upper halves show the same, moved; the lower ones do not, and there are as many features in them."""
    here, there, elsewhere = seen(scene, 330, 250), seen(scene, 350, 250), seen(scene, 950, 700)
    there[240:] = elsewhere[240:]
    found = verify(extract(here), extract(there))
    assert found.inliers >= 50
    assert found.evidence > ENOUGH
    assert found.of_a_part
    assert not found.at_rest


def test_one_object_in_two_rooms_is_no_place(scene: Image) -> None:
    rng = np.random.default_rng(7)
    rooms = [np.full((480, 640), 120, np.uint8) for _ in range(2)]
    for room, (x, y) in zip(rooms, ((40, 40), (100, 60)), strict=True):
        for _ in range(60):
            corner = rng.integers((240, 0), (640, 480))
            cv2.rectangle(room, corner, corner + 30, int(rng.integers(0, 256)), -1)
        room[y : y + 100, x : x + 100] = scene[400:500, 600:700]
    assert verify(extract(rooms[0]), extract(rooms[1])).evidence < ENOUGH


def drawn(points: NDArray[np.float64], descriptors: NDArray[np.uint8]) -> Features:
    """Return features at `points` [N,2], shares of width and height."""
    positions = np.clip(points * POSITION_STEPS, 0, POSITION_STEPS - 1).astype(np.uint16)
    return Features((480, 360), positions, np.zeros(len(points), np.uint8), descriptors)


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_few_matches_verify_nothing(count: int) -> None:
    features = random_features(1, count)
    assert verify(features, features) == Verification()
    assert Verification().evidence == Verification().inliers == 0


@pytest.mark.parametrize("points", [np.full((50, 2), 0.5), np.linspace((0.1, 0.1), (0.9, 0.9), 50)])
def test_points_that_admit_no_homography_verify_nothing(points: NDArray[np.float64]) -> None:
    features = drawn(points, random_features(1, 50).descriptors)
    assert verify(features, features).evidence < ENOUGH


def test_homographies_agree_where_the_middle_of_an_image_comes_to_the_same() -> None:
    def shift(x: float, y: float = 0.0) -> NDArray[np.float64]:
        return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])

    assert agree(np.eye(3), np.eye(3))
    assert agree(np.eye(3), 2 * np.eye(3))  # the scale of a homography says nothing
    assert agree(shift(1000), shift(1000 + 0.99 * AGREEMENT))
    assert not agree(shift(1000), shift(1000, 1.01 * AGREEMENT))
    assert not agree(np.eye(3), np.diag([4.0, 4.0, 1.0]))
    behind = np.array([[1, 0, 0], [0, 1, 0], [-1 / 240, 0, 1.0]])  # the right half comes to lie behind the camera
    assert not agree(behind, behind)


def test_what_comes_to_lie_behind_the_camera_is_nowhere() -> None:
    homography = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])
    there = moved(np.array([[50, 10], [100, 10], [200, 10]], np.float32), homography)
    np.testing.assert_allclose(there[0], (100, 20))
    assert np.isnan(there[1:]).all()


@pytest.mark.parametrize("fisheye", [False, True])
def test_with_a_calibrated_camera_places_are_verified_too(fisheye: bool) -> None:
    world = World(width=640, height=480)
    focal = 320 / np.tan(np.deg2rad(37.5))
    matrix = np.array([[focal, 0, 320], [0, focal, 240], [0, 0, 1]])
    camera = Camera((640, 480), matrix, np.zeros(4 if fisheye else 0), fisheye)
    stops = list(drive())
    here, near, elsewhere = (extract(world.render(*stops[number])) for number in (60, 660, 300))
    assert verify(here, near, camera).evidence >= ENOUGH
    assert verify(here, elsewhere, camera).evidence < ENOUGH


@pytest.mark.parametrize("fisheye", [False, True])
def test_a_lens_that_distorts_is_undone_before_the_homography(fisheye: bool) -> None:
    """A wall, seen by a camera that turns: straight lines are bent, and no homography fits all of the image."""
    matrix = np.array([[240.0, 0, 240], [0, 240, 180], [0, 0, 1]])
    coefficients = np.array([0.05, 0.02, 0.0, 0.0] if fisheye else [-0.32, 0.08, 0.0, 0.0])
    camera = Camera((480, 360), matrix, coefficients, fisheye)
    rng = np.random.default_rng(0)
    rays = np.column_stack([rng.uniform(-1, 1, 400), rng.uniform(-0.75, 0.75, 400), np.ones(400)])
    turn, _ = cv2.Rodrigues(np.array([0.0, 0.7, 0.1]))
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    descriptors = rng.integers(0, 256, (400, 32), np.uint8)
    views, inside = [], np.ones(400, bool)
    for seen_from in (rays, rays @ turn.T):
        pixels, _ = project(seen_from.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), matrix, coefficients)
        views.append(pixels.reshape(-1, 2) / (480, 360))
        inside &= ((views[-1] > 0) & (views[-1] < 1)).all(axis=1)
    query, match = (drawn(view[inside], descriptors[inside]) for view in views)
    assert inside.sum() > 100
    undone, bent = verify(query, match, camera), verify(query, match)
    assert undone.inliers == inside.sum()
    assert bent.inliers < 0.9 * inside.sum()
    assert undone.homography is not None
    expected = matrix @ turn @ np.linalg.inv(matrix)
    middle = np.array([[200, 150], [280, 150], [240, 220]], np.float32)
    np.testing.assert_allclose(moved(middle, undone.homography), moved(middle, expected), atol=1.0)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("name", SCENES)
def test_where_all_looks_alike_no_loop_is_closed(name: str, kind: str) -> None:
    recognizer = PlaceRecognizer(Config(verification_time=60.0, local_features=kind))
    closures = [
        closure
        for number, image in enumerate(SCENES[name]())
        for closure in recognizer.process(image, number * NANOSECONDS // RATE).verdict.closures
    ]
    assert not closures


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("seconds", [3, 5])
@pytest.mark.parametrize("seed", range(2))
def test_a_robot_that_backs_up_past_equal_doors_closes_loops_where_it_was_alone(
    kind: str, seconds: int, seed: int
) -> None:
    recognizer = PlaceRecognizer(Config(verification_time=60.0, local_features=kind))
    positions, apart = [], []
    for number, (position, image) in enumerate(there_and_back(seconds, seed)):
        positions.append(position)
        for closure in recognizer.process(image, number * NANOSECONDS // RATE).verdict.closures:
            there = positions[closure.match.stamp * RATE // NANOSECONDS]
            if abs(position - there) > SEEN / 2:
                apart.append((position, there))
    assert not apart
