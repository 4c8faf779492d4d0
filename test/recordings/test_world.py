# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.recordings.world import (
    CAMERA_HEIGHT,
    CELL,
    DEPTH_NOISE,
    FARTHEST_MEASURED,
    FLOOR_PLAN,
    WALL_HEIGHT,
    Pose,
    World,
    drive,
    wall_segments,
)


def test_an_image_is_as_large_as_asked_and_always_the_same() -> None:
    world = World(width=160, height=120)
    image = world.render(Pose(8.0, 4.8, 0.3))
    assert image.shape == (120, 160, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, World(width=160, height=120).render(Pose(8.0, 4.8, 0.3)))


def test_depth_is_that_of_walls_floor_and_ceiling() -> None:
    world = World(width=160, height=120)
    pose = Pose(2.4, 2.4, np.pi / 2)  # in the middle of a square, looking along a column of the plan
    depth = world.depth(pose)
    assert depth.shape == (120, 160)
    assert depth.dtype == np.float32
    focal = 80 / np.tan(world.field_of_view / 2)
    assert depth[-1, 80] == pytest.approx(CAMERA_HEIGHT * focal / 59.5, rel=1e-5)
    assert depth[0, 80] == pytest.approx((WALL_HEIGHT - CAMERA_HEIGHT) * focal / 59.5, rel=1e-5)
    # What is ahead stays there when the camera comes nearer.
    nearer = world.depth(Pose(2.4, 2.9, np.pi / 2))
    assert depth[60, 80] - nearer[60, 80] == pytest.approx(0.5, abs=1e-5)


def test_measured_depth_has_noise_and_holes() -> None:
    world, pose = World(width=160, height=120), Pose(8.0, 4.8, 0.3)
    true, measured = world.depth(pose), world.depth(pose, np.random.default_rng(1))
    known = measured > 0
    assert 0.5 < known.mean() < 1
    assert (true[known] <= FARTHEST_MEASURED).all()
    assert ((measured - true)[known] / true[known] ** 2).std() == pytest.approx(DEPTH_NOISE, rel=0.1)


def test_another_seed_is_another_building() -> None:
    pose = Pose(8.0, 4.8, 0.3)
    assert (World(seed=1).render(pose) != World(seed=2).render(pose)).mean() > 0.3


def test_light_makes_the_image_darker_and_warmth_redder() -> None:
    world, pose = World(), Pose(8.0, 4.8, 0.3)
    bright, dim, warm = world.render(pose), world.render(pose, light=0.5), world.render(pose, light=0.5, warmth=0.2)
    assert dim.mean() == pytest.approx(bright.mean() / 2, rel=0.05)
    assert warm[..., 0].mean() > dim[..., 0].mean()
    assert warm[..., 2].mean() < dim[..., 2].mean()


def test_the_robot_never_drives_through_a_wall_and_never_jumps() -> None:
    poses = [pose for pose, _, _ in drive()]
    for pose in poses:
        assert FLOOR_PLAN[int(pose.y / CELL)][int(pose.x / CELL)] != "#"
    places = np.array([(pose.x, pose.y) for pose in poses])
    assert np.hypot(*np.diff(places, axis=0).T).max() < 0.3


def test_the_last_third_comes_back_to_the_first() -> None:
    poses = [pose for pose, _, _ in drive()]
    again = [any(pose.same_place(earlier) for earlier in poses[:400]) for pose in poses[-280:]]
    assert np.mean(again) > 0.95


def test_same_place_is_near_and_looks_the_same_way() -> None:
    pose = Pose(1.0, 1.0, 3.1)
    assert pose.same_place(Pose(2.0, 1.0, -3.1))
    assert not pose.same_place(Pose(4.0, 1.0, 3.1))
    assert not pose.same_place(Pose(1.0, 1.0, 0.0))


def test_walls_surround_the_free_squares() -> None:
    free = sum(square != "#" for row in FLOOR_PLAN for square in row)
    assert len(wall_segments()) > free
