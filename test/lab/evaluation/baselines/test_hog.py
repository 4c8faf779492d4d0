# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.baselines.hog import Hog
from binvpr_ros.lab.evaluation.datasets.dataset import ImageFiles


def stripes(degrees: float) -> NDArray[np.uint8]:
    """Return a wave whose gradient points at `degrees` from right towards down."""
    down, across = np.mgrid[:128, :128]
    along = across * np.cos(np.deg2rad(degrees)) + down * np.sin(np.deg2rad(degrees))
    return (128 + 100 * np.sin(along / 3)).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(9))
def test_stripes_lie_in_the_bin_of_their_gradient(orientation: int) -> None:
    histograms = Hog().describe(stripes(20 * orientation + 10)).reshape(-1, 9)
    assert (histograms.argmax(axis=1) == orientation).all()


def test_the_gradients_sign_does_not_count() -> None:
    image = stripes(30)
    np.testing.assert_allclose(Hog().describe(image), Hog().describe(255 - image), atol=1e-6)


def test_a_structure_counts_in_its_place() -> None:
    image = np.full((128, 128), 128, np.uint8)
    image[:16, 112:] = stripes(10)[:16, 112:]
    blocks = Hog().describe(image).reshape(7, 7, 2, 2, 9)
    np.testing.assert_array_equal(np.argwhere(blocks.any(axis=(2, 3, 4))), [[0, 5], [0, 6], [1, 6]])
    assert blocks[0, 6].sum(axis=2).argmax() == 1


def test_the_blocks_are_those_of_the_definition(world_images: list[NDArray[np.uint8]]) -> None:
    image = cv2.resize(cv2.cvtColor(world_images[0], cv2.COLOR_RGB2GRAY), (128, 128)).astype(float)
    expected = np.zeros((2, 2, 9))
    for y in range(32):
        for x in range(32):
            row, column = y + 16, x + 48
            across = image[row, column + 1] - image[row, column - 1]
            down = image[row + 1, column] - image[row - 1, column]
            position = np.rad2deg(np.arctan2(down, across)) % 180 / 20 - 0.5
            gauss = np.exp(-((y - 15.5) ** 2 + (x - 15.5) ** 2) / (2 * 8**2))
            for cell_y in range(2):
                for cell_x in range(2):
                    share = max(0, 1 - abs(y - 7.5 - 16 * cell_y) / 16) * max(0, 1 - abs(x - 7.5 - 16 * cell_x) / 16)
                    for orientation in range(9):
                        apart = abs((position - orientation + 4.5) % 9 - 4.5)
                        expected[cell_y, cell_x, orientation] += (
                            np.hypot(across, down) * gauss * share * max(0, 1 - apart)
                        )
    expected = np.minimum(expected / (np.linalg.norm(expected) + 3.6), 0.2)
    expected /= np.linalg.norm(expected)
    actual = Hog().describe(image.astype(np.uint8)).reshape(7, 7, 2, 2, 9)[1, 3]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_brightness_hardly_matters(world_images: list[NDArray[np.uint8]]) -> None:
    hog = Hog()
    image = world_images[0]
    bright, dim, other = (hog.comparable(hog.describe(one)) for one in (image, image // 2, world_images[20]))
    same, different = hog.similarities(bright[np.newaxis], np.stack([dim, other]))[0]
    assert same > 0.99 > different + 0.1


def test_an_image_without_structure_is_similar_to_none() -> None:
    flat = Hog().describe(np.full((60, 80, 3), 77, np.uint8))
    assert flat.dtype == np.float32
    assert not flat.any()
    assert flat.size * 32 == Hog.descriptor_bits


@pytest.mark.parametrize(
    ("folder", "recall", "area"),
    [
        ("corridor", 0.459, 0.286),
        ("grief_michigan", 0.873, 0.860),
        ("nordland_winter_summer_64x32", 0.507, 0.356),
        ("sped607_thumb", 0.389, 0.257),
    ],
)
def test_it_recognises_as_opencvs_hog_does(shared_data: Path, folder: str, recall: float, area: float) -> None:
    at, hog = shared_data / "eval" / folder, Hog()
    queries, references = (
        np.stack([hog.comparable(hog.describe(image)) for image in ImageFiles.of_folder(at / kind)])
        for kind in ("queries", "references")
    )
    similarities = hog.similarities(queries, references)
    best = similarities.argmax(axis=1)
    with (at / "ground_truth.csv").open() as file:
        true = [{int(index) for index in row["references"].split()} for row in csv.DictReader(file)]
    correct = np.array([match in right for match, right in zip(best, true, strict=True)])
    ranked = correct[np.argsort(-similarities.max(axis=1), kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    assert correct.mean() == pytest.approx(recall, abs=0.02)
    assert precision[ranked].sum() / len(ranked) == pytest.approx(area, abs=0.02)
