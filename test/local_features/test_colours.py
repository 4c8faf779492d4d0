# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.images import Image
from binvpr_ros.local_features.colours import COLUMNS, ROWS, agreement, centres, colours
from binvpr_ros.local_features.features import LEARNED, Features
from binvpr_ros.local_features.geometry import WIDTH, colours_agree

SIZE = (WIDTH, WIDTH * 3 // 4)
PIXELS = (centres() * SIZE).astype(np.float32)
RNG = np.random.default_rng(0)


def painted(seed: int = 0) -> Image:
    """Return an image of 6 by 8 fields, each of another colour."""
    fields = np.random.default_rng(seed).integers(40, 160, (6, 8, 3), np.uint8)
    return fields.repeat(60, axis=0).repeat(60, axis=1)


def features(image: Image) -> Features:
    """Return an image's features, of which there are only colours."""
    nothing = np.zeros((0, 2), np.uint16), np.zeros(0, np.uint8), np.zeros((0, 32), np.uint8)
    return Features(SIZE, *nothing, (LEARNED, 0), colours(image))


def same(one: Image, other: Image, homography: NDArray[np.float64] | None = None) -> float:
    return colours_agree(features(one), features(other), np.eye(3) if homography is None else homography)


def test_colours_are_one_byte_for_each_cell() -> None:
    found = colours(painted())
    assert found is not None
    assert found.shape == (ROWS, COLUMNS)
    assert found.dtype == np.uint8
    grey = np.full((30, 40, 3), 90, np.uint8)
    np.testing.assert_array_equal(colours(grey), 0x88)
    red, blue = (np.full((30, 40, 3), shade, np.uint8) for shade in ((200, 20, 20), (20, 20, 200)))
    np.testing.assert_array_equal(colours(red), 0xFF)
    np.testing.assert_array_equal(colours(blue), 0x80)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 500, 3), (720, 1280, 3)])
def test_images_of_any_size_have_colours(shape: tuple[int, ...]) -> None:
    found = colours(RNG.integers(0, 256, shape, np.uint8))
    assert found is not None
    assert found.shape == (ROWS, COLUMNS)


def test_one_view_has_the_same_colours_in_other_light() -> None:
    image = painted()
    brighter = np.clip(image * 1.4, 0, 255).astype(np.uint8)
    warmer = np.clip(image * np.array([1.1, 1.0, 0.92]), 0, 255).astype(np.uint8)
    noisy = np.clip(image + RNG.normal(0, 10, image.shape), 0, 255).astype(np.uint8)
    for other in (image, brighter, warmer, noisy):
        assert same(image, other) == 1


def test_a_view_of_one_layout_in_other_colours_is_another() -> None:
    image = painted()
    assert not same(image, painted(1))
    assert not same(image, image[..., ::-1])
    assert not same(image, np.full_like(image, 90))
    half = image.copy()
    half[:, :200] = painted(1)[:, :200]  # a poster, a van
    assert 0 < same(image, half) < 1


def test_light_does_not_explain_all_colours() -> None:
    image = np.full((360, 480, 3), (150, 120, 90), np.uint8)
    assert not same(image, np.full_like(image, (90, 130, 120)))


def test_colours_are_compared_where_the_views_overlap() -> None:
    image = painted()
    to_the_right = np.eye(3)
    to_the_right[0, 2] = -120.0
    other = np.concatenate([image[:, 120:], painted(1)[:, :120]], axis=1)
    assert same(image, other, to_the_right)
    assert not same(image, other)


def test_what_says_nothing_is_no_difference() -> None:
    image, grey = painted(), painted()[..., 0]
    far = np.eye(3)
    far[0, 2] = 10 * WIDTH
    assert colours(grey) is None
    assert same(image, grey)
    assert same(grey, grey)
    assert same(image, painted(1), far)
    first, second = colours(image), colours(painted(1))
    assert first is not None
    assert second is not None
    nowhere = np.full_like(PIXELS, np.nan)
    assert agreement(first, second, nowhere, PIXELS) == 1
    assert agreement(first, second, PIXELS, nowhere) == 1
    assert agreement(first, second, PIXELS, PIXELS) == 0
