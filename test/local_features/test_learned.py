# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.local_features.learned import fitted, levels, padded

RNG = np.random.default_rng(0)


def test_levels_do_not_depend_on_light() -> None:
    grey = RNG.integers(60, 120, (40, 60), np.uint8)
    assert levels(grey).mean() == pytest.approx(128, abs=0.6)
    brighter = levels((2 * grey).astype(np.uint8)).astype(int)
    # LEAST_DEVIATION counts for less where there is more contrast.
    assert 24 < levels(grey).std() < brighter.std() < 32
    assert np.corrcoef(levels(grey).ravel(), brighter.ravel())[0, 1] > 0.999
    np.testing.assert_array_equal(levels(np.full((20, 30), 77, np.uint8)), 128)


def test_levels_are_what_their_formula_says() -> None:
    grey = RNG.integers(0, 256, (33, 47), np.uint8)
    expected = np.clip(np.rint((grey - grey.mean()) / (grey.std() + 5) * 32) + 128, 0, 255)
    np.testing.assert_array_equal(levels(grey), expected)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((480, 640, 3), (360, 480)),
        ((640, 480, 3), (480, 360)),
        ((100, 200), (240, 480)),
        ((12, 16), (48, 64)),
        ((1, 2000), (1, 480)),
    ],
)
def test_images_are_fitted(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert fitted(np.zeros(shape, np.uint8)).shape[:2] == expected


def test_images_are_padded_below_and_to_the_right() -> None:
    image = RNG.integers(0, 256, (33, 47), np.uint8)
    whole = padded(image)
    assert whole.shape == (48, 48)
    np.testing.assert_array_equal(whole[:33, :47], image)
    np.testing.assert_array_equal(whole[33:, :47], np.tile(image[-1], (15, 1)))
    assert padded(whole).shape == (48, 48)
