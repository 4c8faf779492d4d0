# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from binvpr_ros import lce_delegate
from binvpr_ros.lce_delegate import CELL
from binvpr_ros.local_features.decoding import (
    LOGIT_LEVELS,
    Maps,
    decode,
    interpolated,
    probabilities,
)

RNG = np.random.default_rng(0)
NONE = 64
MOST = 500


def empty(rows: int, columns: int, bits: int = 16) -> Maps:
    """Return maps without a keypoint."""
    keypoints = np.full((rows, columns, NONE + 1), -8 * LOGIT_LEVELS, np.int8)
    keypoints[..., NONE] = 4 * LOGIT_LEVELS
    descriptors = RNG.integers(-128, 128, (rows, columns, bits)).astype(np.int8)
    return Maps(descriptors, keypoints, np.zeros((rows, columns), np.int8))


def put(maps: Maps, x: int, y: int, logit: float = 7) -> None:
    """Put a keypoint at a pixel."""
    maps.keypoints[y // CELL, x // CELL, y % CELL * CELL + x % CELL] = round(logit * LOGIT_LEVELS)


@pytest.fixture(params=["library", "numpy"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode by the library, and as if it had not been compiled."""

    def refuse(*_: Any) -> None:
        raise lce_delegate.DelegateError("the Larq delegate was not compiled; install a C++ compiler")

    if request.param == "numpy":
        monkeypatch.setattr(lce_delegate, "decode_features", refuse)


both_ways = pytest.mark.usefixtures("_both_ways")


def test_probabilities_stand_where_their_positions_are() -> None:
    maps = empty(2, 3)
    put(maps, 21, 11, 4)  # as probable as none
    heat = probabilities(maps.keypoints)
    assert heat.shape == (16, 24)
    assert int(heat.argmax()) == 11 * 24 + 21
    assert heat[11, 21] == pytest.approx(0.5, abs=1e-3)


@both_ways
def test_keypoints_are_where_they_are_most_probable() -> None:
    maps = empty(6, 8)
    put(maps, 20, 9, 7.5)
    put(maps, 22, 11, 3)  # less probable, and too near
    put(maps, 23, 17, 6)
    put(maps, 40, 40, -1)  # hardly probable
    put(maps, 63, 47)
    features = decode(maps, (64, 48), MOST)
    assert features.points.tolist() == [[20, 9], [63, 47], [23, 17]]
    assert (np.diff(features.scores) <= 0).all()
    assert features.descriptors.shape == (3, 2)
    assert decode(maps, (64, 48), most=2).points.tolist() == [[20, 9], [63, 47]]
    assert decode(maps, (63, 40), MOST).points.tolist() == [[20, 9], [23, 17]]  # what was padded has no features


@both_ways
def test_reliable_keypoints_come_first() -> None:
    maps = empty(4, 4)
    put(maps, 4, 4)
    put(maps, 20, 20, 6)
    maps.reliability[2, 2] = 5 * LOGIT_LEVELS
    features = decode(maps, (32, 32), MOST)
    assert features.points.tolist() == [[20, 20], [4, 4]]
    np.testing.assert_allclose(features.scores, [0.8808 * 0.99331, 0.9526 * 0.5], rtol=1e-3)


@both_ways
def test_features_are_spread() -> None:
    maps = empty(12, 12)
    for x in range(4, 96, 8):
        for y in range(4, 96, 8):
            put(maps, x, y, 7 if x < 16 and y < 16 else 5)  # the best four are in one part of the grid
    best = [[4, 4], [12, 4], [4, 12], [12, 12]]
    assert decode(maps, (96, 96), most=144).points[:4].tolist() == best
    points = decode(maps, (96, 96), most=18).points.tolist()
    assert points[:2] == [best[0], [20, 4]]  # a part's share is one
    assert len(points) == 18
    assert len({(x // 16, y // 16) for x, y in points}) == 18


@both_ways
def test_an_image_without_keypoints_has_no_features() -> None:
    features = decode(empty(3, 3), (24, 24), MOST)
    assert features.points.shape == (0, 2)
    assert features.descriptors.shape == (0, 2)


def test_descriptors_are_interpolated_between_the_centres_of_cells() -> None:
    maps = empty(5, 6).descriptors
    # The centres of cells lie between pixels: at 3.5, 11.5 and so on.
    found = interpolated(maps, np.array([0, 13, 47]), np.array([0, 22, 39]))
    values = maps.astype(np.int64)
    np.testing.assert_array_equal(found[0], 256 * values[0, 0])
    upper, lower = (13 * values[row, 1] + 3 * values[row, 2] for row in (2, 3))
    np.testing.assert_array_equal(found[1], 11 * upper + 5 * lower)
    np.testing.assert_array_equal(found[2], 256 * values[4, 5])


@both_ways
def test_bits_are_signs() -> None:
    maps = empty(2, 2, bits=16)
    maps.descriptors[:] = np.where(np.arange(16) % 3 == 0, 0, -1)
    put(maps, 9, 9)
    (bits,) = decode(maps, (16, 16), MOST).descriptors
    np.testing.assert_array_equal(np.unpackbits(bits), np.arange(16) % 3 == 0)


@both_ways
def test_a_single_cell_is_enough() -> None:
    maps = empty(1, 1)
    put(maps, 3, 4)
    assert decode(maps, (8, 8), MOST).points.tolist() == [[3, 4]]
