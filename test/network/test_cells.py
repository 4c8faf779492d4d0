# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.network.cells import Grids, shifted
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import hamming

GRIDS: Grids = ((8, 5), (4, 8), (2, 13), (1, 12))
WORDS = 8


def bits_of(cells: list[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """Return a descriptor of bits [side,side,bits], grid after grid."""
    return np.packbits(np.concatenate([grid.reshape(-1) for grid in cells])).view(np.uint64)


@pytest.fixture
def cells() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 2, (side, side, bits), np.uint8) for side, bits in GRIDS]


def test_a_descriptor_itself_comes_first_and_every_shift_once(cells: list[NDArray[np.uint8]]) -> None:
    descriptor = bits_of(cells)
    for reach, count in ((0, 1), (1, 9), (2, 25)):
        views = shifted(descriptor, GRIDS, reach)
        assert views.shape == (count, WORDS)
        assert views.dtype == np.uint64
        np.testing.assert_array_equal(views[0], descriptor)
        assert len(np.unique(views, axis=0)) == count


def test_the_finest_cells_move_by_one_and_coarser_ones_by_what_is_whole_of_it(cells: list[NDArray[np.uint8]]) -> None:
    descriptor = bits_of(cells)
    fine, half, quarter, whole = cells
    moved = fine[[1, 2, 3, 4, 5, 6, 7, 7]]  # the image a cell higher: its last row stands for what comes in
    assert bits_of([moved, half, quarter, whole]).tolist() in shifted(descriptor, GRIDS, 1).tolist()
    aside = fine[:, [0, 0, 0, 1, 2, 3, 4, 5]]
    views = shifted(descriptor, GRIDS, 2).tolist()
    assert bits_of([aside, half[:, [0, 0, 1, 2]], quarter, whole]).tolist() in views


def test_shifts_that_are_no_others_are_left_out(cells: list[NDArray[np.uint8]]) -> None:
    descriptor = bits_of(cells)
    for grids, count in ((((1, 512),), 1), (((2, 128),), 9)):
        views = shifted(descriptor, grids, 2)
        assert views.shape == (count, WORDS)
        np.testing.assert_array_equal(views[0], descriptor)


def test_a_descriptor_of_unknown_cells_is_itself_alone(cells: list[NDArray[np.uint8]]) -> None:
    descriptor = bits_of(cells)
    np.testing.assert_array_equal(shifted(descriptor, (), 2), descriptor[np.newaxis])


def test_a_camera_that_points_a_cell_higher_sees_the_same_place(model: Path) -> None:
    """The packaged network's cells lie where its card says: the nearest view is the one that is moved by a cell."""
    network = DescriptorNetwork(model)
    tiles = np.random.default_rng(1).integers(0, 256, (9, 8, 3), np.uint8)
    image = tiles.repeat(32, axis=0).repeat(32, axis=1)
    here, above = (network.describe(image[top : top + 256]).descriptor for top in (32, 0))
    views = shifted(here, network.card.grids, 1)
    distances = hamming(views, above)
    assert distances.min() < 0.7 * distances[0]
    bits = np.unpackbits(here.view(np.uint8))
    side, bits_of_cell = network.card.grids[0]
    finest = bits[: side**2 * bits_of_cell].reshape(side, side, bits_of_cell)
    lower = finest[[0, *range(side - 1)]]  # each cell of the higher camera's image shows what was one above
    moved = np.packbits(np.concatenate([lower.reshape(-1), bits[lower.size :]])).view(np.uint64)
    np.testing.assert_array_equal(views[distances.argmin()], moved)
