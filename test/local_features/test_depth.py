# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.local_features.depth import with_depths, with_depths_of
from binvpr_ros.local_features.features import POSITION_STEPS, Features


def features_at(*pixels: tuple[float, float], size: tuple[int, int] = (640, 480)) -> Features:
    positions = (np.array(pixels) / size * POSITION_STEPS).astype(np.uint16)
    return Features(size, positions, np.zeros(len(pixels), np.uint8), np.zeros((len(pixels), 32), np.uint8))


def test_depths_are_millimetres_of_either_encoding() -> None:
    ramp = np.tile(np.arange(640, dtype=np.uint16) + 1000, (480, 1))
    found = features_at((100.5, 50.5), (600.5, 400.5))
    for depth in (ramp, (ramp / 1000).astype(np.float32)):
        read = with_depths(found, depth).depths
        assert read is not None
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, [1100, 1600])


@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (640, 480)])
def test_a_depth_image_of_another_size_shows_the_same_view(size: tuple[int, int]) -> None:
    width, height = size
    depth = np.full((height, width), 2000, np.uint16)
    depth[:, width // 2 :] = 3000
    read = with_depths(features_at((100, 240), (500, 240)), depth).depths
    np.testing.assert_array_equal(read, [2000, 3000])


def test_holes_are_filled_and_what_is_nowhere_known_is_not() -> None:
    depth = np.full((480, 640), 2.0, np.float32)
    depth[239:242, 99:102] = np.nan
    depth[239:242, 199:202] = 0
    depth[230:251, 290:311] = np.inf
    depth[230:251, 390:411] = -1
    depth[230:251, 490:511] = 70.0  # more than 16 bits of millimetres hold
    read = with_depths(features_at(*((x + 0.5, 240.5) for x in (100, 200, 300, 400, 500))), depth).depths
    np.testing.assert_array_equal(read, [2000, 2000, 0, 0, 0])


def test_at_the_edge_of_a_thing_no_depth_is_known() -> None:
    depth = np.full((480, 640), 1500, np.uint16)
    depth[:, 320:] = 3000
    read = with_depths(features_at((319.5, 240), (320.5, 240), (314, 240), (326, 240)), depth).depths
    np.testing.assert_array_equal(read, [0, 0, 1500, 3000])


def test_features_at_the_border_and_none_at_all() -> None:
    depth = np.full((480, 640), 1500, np.uint16)
    np.testing.assert_array_equal(with_depths(features_at((0, 0), (639.9, 479.9)), depth).depths, [1500, 1500])
    none = features_at((0, 0)).only(np.zeros(0, np.intp))
    read = with_depths(none, depth).depths
    assert read is not None
    assert len(read) == 0
    np.testing.assert_array_equal(with_depths(features_at((5, 5)), np.zeros((1, 1), np.uint16)).depths, [0])


def test_new_features_of_an_image_have_the_depths_of_the_nearest_earlier_ones() -> None:
    earlier = features_at((100, 100), (110, 100), (300, 300))._replace(depths=np.array([1000, 2000, 0], np.uint16))
    found = features_at((51, 50), (54, 50), (150, 150), (60, 50), size=(320, 240))
    np.testing.assert_array_equal(with_depths_of(found, earlier).depths, [1000, 2000, 0, 0])
    assert with_depths_of(found, earlier._replace(depths=None)).depths is None
    np.testing.assert_array_equal(with_depths_of(found, earlier.only(np.array([2]))).depths, [0] * 4)
