# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.local_features.learned import (
    CELL,
    Maps,
    decode,
    fitted,
    interpolated,
    levels,
    padded,
    probabilities,
)

RNG = np.random.default_rng(0)
NONE = 64


def empty(rows: int, columns: int, bits: int = 16) -> Maps:
    """Return maps without a keypoint."""
    keypoints = np.full((rows, columns, NONE + 1), -9, np.float32)
    keypoints[..., NONE] = 9
    descriptors = RNG.integers(-128, 128, (rows, columns, bits)).astype(np.float32) / np.float32(32)
    return Maps(descriptors, keypoints, np.zeros((rows, columns), np.float32))


def put(maps: Maps, x: int, y: int, logit: float = 12) -> None:
    """Put a keypoint at a pixel."""
    maps.keypoints[y // CELL, x // CELL, y % CELL * CELL + x % CELL] = logit


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
    [((480, 640, 3), (360, 480)), ((640, 480, 3), (480, 360)), ((100, 200), (100, 200)), ((1, 2000), (1, 480))],
)
def test_images_are_fitted(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert fitted(np.zeros(shape, np.uint8)).shape == expected


def test_images_are_padded_below_and_to_the_right() -> None:
    image = RNG.integers(0, 256, (33, 47), np.uint8)
    whole = padded(image)
    assert whole.shape == (48, 48)
    np.testing.assert_array_equal(whole[:33, :47], image)
    np.testing.assert_array_equal(whole[33:, :47], np.tile(image[-1], (15, 1)))
    assert padded(whole).shape == (48, 48)


def test_probabilities_stand_where_their_positions_are() -> None:
    maps = empty(2, 3)
    maps.keypoints[1, 2, 3 * CELL + 5] = 9  # as probable as none
    heat = probabilities(maps.keypoints)
    assert heat.shape == (16, 24)
    assert int(heat.argmax()) == 11 * 24 + 21
    assert heat[11, 21] == pytest.approx(0.5, abs=1e-5)


def test_keypoints_are_where_they_are_most_probable() -> None:
    maps = empty(6, 8)
    put(maps, 20, 9, 15)
    put(maps, 22, 11, 10)  # less probable, and too near
    put(maps, 23, 17, 11)
    put(maps, 40, 40, -5)  # hardly probable
    put(maps, 63, 47)
    features = decode(maps, (64, 48))
    assert features.size == (64, 48)
    assert features.points.tolist() == [[20, 9], [63, 47], [23, 17]]
    assert (np.diff(features.scores) <= 0).all()
    assert features.descriptors.shape == (3, 2)
    assert decode(maps, (64, 48), most=2).points.tolist() == [[20, 9], [63, 47]]
    assert decode(maps, (63, 40)).points.tolist() == [[20, 9], [23, 17]]  # what was padded has no features


def test_reliable_keypoints_come_first() -> None:
    maps = empty(4, 4)
    put(maps, 4, 4)
    put(maps, 20, 20, 11)
    maps.reliability[2, 2] = 5
    features = decode(maps, (32, 32))
    assert features.points.tolist() == [[20, 20], [4, 4]]
    np.testing.assert_allclose(features.scores, [0.99331 * 0.8808, 0.5 * 0.9526], rtol=1e-3)


def test_an_image_without_keypoints_has_no_features() -> None:
    features = decode(empty(3, 3), (24, 24))
    assert features.points.shape == (0, 2)
    assert features.descriptors.shape == (0, 2)


def test_descriptors_are_interpolated_between_the_centres_of_cells() -> None:
    maps = empty(5, 6).descriptors
    # The centres of cells lie between pixels: at 3.5, 11.5 and so on.
    points = np.array([[0, 0], [11.5, 19.5], [15.5, 3.5], [13, 22], [47, 39]], np.float32)
    found = interpolated(maps, points)
    np.testing.assert_array_equal(found[0], maps[0, 0])
    np.testing.assert_array_equal(found[1], maps[2, 1])
    np.testing.assert_array_equal(found[2], (maps[0, 1] + maps[0, 2]) / 2)
    x, y = 1 + 3 / 16, 2 + 5 / 16
    across = [(1 - (x - 1)) * maps[row, 1] + (x - 1) * maps[row, 2] for row in (2, 3)]
    np.testing.assert_array_equal(found[3], (1 - (y - 2)) * across[0] + (y - 2) * across[1])
    np.testing.assert_array_equal(found[4], maps[4, 5])


def test_interpolation_is_exact() -> None:
    maps = empty(7, 9).descriptors
    points = RNG.integers(0, (72, 56), (200, 2)).astype(np.float32)
    whole = interpolated((maps * 32).astype(np.float64), points.astype(np.float64))
    np.testing.assert_array_equal(interpolated(maps, points) * 32, whole)


def test_bits_are_signs() -> None:
    maps = empty(2, 2, bits=16)
    maps.descriptors[:] = np.where(np.arange(16) % 3 == 0, 0, -1 / 32)
    put(maps, 9, 9)
    (bits,) = decode(maps, (16, 16)).descriptors
    np.testing.assert_array_equal(np.unpackbits(bits), np.arange(16) % 3 == 0)


def test_a_single_cell_is_enough() -> None:
    maps = empty(1, 1)
    put(maps, 3, 4)
    assert decode(maps, (8, 8)).points.tolist() == [[3, 4]]
