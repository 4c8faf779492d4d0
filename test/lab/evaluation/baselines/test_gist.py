# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.baselines.gist import Gist


def wave(degrees: float, frequency: float) -> NDArray[np.uint8]:
    """Return a wave of so many cycles a pixel that runs at `degrees` from right towards down."""
    down, across = np.mgrid[:128, :128]
    along = across * np.cos(np.deg2rad(degrees)) + down * np.sin(np.deg2rad(degrees))
    return (128 + 100 * np.sin(2 * np.pi * frequency * along)).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(8))
@pytest.mark.parametrize("scale", range(3))
def test_a_wave_answers_in_its_scale_and_orientation(scale: int, orientation: int) -> None:
    description = Gist().describe(wave(22.5 * orientation, 0.25 / 2**scale)).reshape(4, 8, 16)
    assert np.unravel_index(description.mean(axis=2).argmax(), (4, 8)) == (scale, orientation)


def test_a_wave_answers_in_its_part_of_the_grid() -> None:
    image = np.full((128, 128), 128, np.uint8)
    image[32:64, 96:] = wave(0, 0.25)[32:64, 96:]
    grid = Gist().describe(image).reshape(4, 8, 4, 4)[0, 0]
    assert np.unravel_index(grid.argmax(), grid.shape) == (1, 3)


def test_brightness_hardly_matters(world_images: list[NDArray[np.uint8]]) -> None:
    gist = Gist()
    image = world_images[0]
    bright, dim, other = (gist.comparable(gist.describe(one)) for one in (image, image // 2, world_images[20]))
    same, different = gist.similarities(bright[np.newaxis], np.stack([dim, other]))[0]
    assert same > 0.97
    assert same > different + 0.1


def test_the_mean_is_taken_off(world_images: list[NDArray[np.uint8]]) -> None:
    description = Gist().describe(world_images[0])
    assert description.dtype == np.float32
    assert description.size * 32 == Gist.descriptor_bits
    assert description.mean() == pytest.approx(0, abs=1e-6)


def test_grey_and_colour_images_of_any_size_are_described(world_images: list[NDArray[np.uint8]]) -> None:
    gist, image = Gist(), world_images[0]
    coloured, thumbnail, grey = (gist.comparable(gist.describe(one)) for one in (image, image[::4, ::4], image[..., 1]))
    assert (gist.similarities(coloured[np.newaxis], np.stack([thumbnail, grey])) > 0.5).all()
