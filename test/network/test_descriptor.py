# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lce_delegate.models import Graph
from numpy.typing import NDArray

from binvpr_ros import lce_delegate
from binvpr_ros.images import resize
from binvpr_ros.network.backends import DelegateBackend, DescriptorError
from binvpr_ros.network.descriptor import DescriptorNetwork, pack
from binvpr_ros.network.hamming import hamming
from binvpr_ros.network.model_card import ModelCard, checksum
from network.cards import edit


def test_equal_images_have_equal_descriptors(network: DescriptorNetwork, world_images: list[NDArray[np.uint8]]) -> None:
    first, again = (network.describe(world_images[0]).descriptor for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_place_seen_again_is_nearer_than_other_places(
    network: DescriptorNetwork, world_images: list[NDArray[np.uint8]]
) -> None:
    descriptors = np.stack([network.describe(image).descriptor for image in world_images[::6]])
    image = world_images[0]
    darker = (
        cv2.warpAffine(image, np.array([[1, 0, 6], [0, 1, 3]], np.float32), (320, 240), borderMode=1) * 0.7
    ).astype(np.uint8)
    distances = hamming(descriptors, network.describe(darker).descriptor)
    assert distances.argmin() == 0
    assert distances[0] < 0.8 * np.partition(distances, 1)[1]


def test_bits_are_balanced_over_places(network: DescriptorNetwork, world_images: list[NDArray[np.uint8]]) -> None:
    descriptors = np.stack([network.describe(image).descriptor for image in world_images[::3]])
    share_of_ones = np.unpackbits(descriptors.view(np.uint8), axis=1).mean()
    assert 0.3 < share_of_ones < 0.7


@pytest.mark.parametrize("shape", [(240, 320, 3), (480, 640), (16, 16, 3), (1, 1), (100, 2000, 3), (31, 200)])
def test_images_of_any_size_colour_or_grey(network: DescriptorNetwork, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert network.describe(image).descriptor.shape == (network.words,)


def test_images_need_not_be_contiguous(network: DescriptorNetwork, world_images: list[NDArray[np.uint8]]) -> None:
    image = world_images[0]
    padded = np.zeros((image.shape[0], image.shape[1] + 7, 3), np.uint8)
    padded[:, :-7] = image
    np.testing.assert_array_equal(network.describe(padded[:, :-7]).descriptor, network.describe(image).descriptor)


@pytest.mark.parametrize("shape", [(720, 1280, 3), (1080, 1920), (100, 3000, 3), (480, 640, 3), (2000, 100)])
def test_shrinking_takes_the_mean_of_the_area(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    expected = cv2.resize(image.astype(np.float64), (64, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(resize(image, (64, 48)) - expected).max() <= 1.01


def test_grey_is_the_colour_image_with_equal_channels(network: DescriptorNetwork) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (128, 160), np.uint8)
    np.testing.assert_array_equal(network.describe(grey).descriptor, network.describe(np.dstack([grey] * 3)).descriptor)


def test_contrast_is_the_standard_deviation_of_the_grey_values(network: DescriptorNetwork) -> None:
    assert network.describe(np.full((64, 64), 130, np.uint8)).contrast == 0
    halves = np.repeat(np.array([[0], [200]], np.uint8), 64, axis=0)
    assert network.describe(np.tile(halves, (1, 128))).contrast == pytest.approx(100, abs=1)


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=300))
def test_pack_sets_a_bit_for_each_value_from_zero_on(values: list[float]) -> None:
    words = pack(np.array(values, np.float32))
    bits = np.unpackbits(words.view(np.uint8))
    np.testing.assert_array_equal(bits[: len(values)], [value >= 0 for value in values])
    assert not bits[len(values) :].any()
    assert words.dtype == np.uint64


def test_pack_takes_packed_bits_as_they_are() -> None:
    np.testing.assert_array_equal(pack(np.array([[1, 2, 3]], np.uint8)).view(np.uint8), [1, 2, 3, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_])
def test_a_model_that_takes_no_images(tmp_path: Path, model: Path, dtype: type[np.generic]) -> None:
    graph, copy = Graph(), tmp_path / "model.tflite"
    copy.write_bytes(graph.serialize(graph.input((1, 128, 128, 3), dtype)))
    content = json.loads(ModelCard.path_for(model).read_text())
    ModelCard.path_for(copy).write_text(json.dumps({**content, "input_size": [128, 128], "sha256": checksum(copy)}))
    with pytest.raises(DescriptorError, match=r"cannot be run \(.*\); use one that train_offline wrote") as refusal:
        DescriptorNetwork(copy)
    assert "\n" not in str(refusal.value)


class Echo:
    """A backend that keeps what it was given."""

    name = "echo"

    def __init__(self, dtype: type[np.generic]) -> None:
        self.input_shape = (1, 128, 128, 3)
        self.input_dtype = np.dtype(dtype)
        self.given: NDArray[Any] = np.empty(0)

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        self.given = batch
        return np.zeros((1, 2048), np.float32)


@pytest.mark.parametrize(
    ("dtype", "stated", "taken"),
    [
        (np.uint8, {}, [0, 51, 255]),
        (np.uint8, {"colour": "RGB", "range": [0, 255]}, [0, 51, 255]),
        (np.float32, {}, [0, 0.2, 1]),
        (np.float32, {"colour": "RGB", "range": [0, 1]}, [0, 0.2, 1]),
        (np.float32, {"colour": "RGB", "range": [-1, 1]}, [-1, -0.6, 1]),
        (np.float32, {"colour": "RGB", "range": [0, 255]}, [0, 51, 255]),
    ],
)
def test_the_card_states_what_becomes_of_the_pixels(
    copy: Path, monkeypatch: pytest.MonkeyPatch, dtype: type[np.generic], stated: dict[str, Any], taken: list[float]
) -> None:
    edit(copy, preprocessing=stated)
    echo = Echo(dtype)
    monkeypatch.setattr("binvpr_ros.network.descriptor.load_backend", lambda *_: echo)
    DescriptorNetwork(copy).describe(np.full((240, 320, 3), (0, 51, 255), np.uint8))
    assert echo.given.dtype == dtype
    np.testing.assert_allclose(echo.given[0, 64, 64], taken, atol=1e-6)


def test_a_range_that_a_model_of_bytes_cannot_take_is_refused(copy: Path) -> None:
    edit(copy, preprocessing={"colour": "RGB", "range": [0, 1]})
    with pytest.raises(DescriptorError, match=r"type uint8, its card says that they range from 0 to 1; use the pair"):
        DescriptorNetwork(copy)


def test_every_kernel_gives_the_same_bits(
    network: DescriptorNetwork, model: Path, world_images: list[NDArray[np.uint8]]
) -> None:
    expected = [network.describe(image).descriptor for image in world_images[:3]]
    for kernel in lce_delegate.kernels():
        network_of_kernel = DescriptorNetwork(model)
        network_of_kernel.backend = DelegateBackend(model.read_bytes(), 1, kernel=kernel)
        found = [network_of_kernel.describe(image).descriptor for image in world_images[:3]]
        np.testing.assert_array_equal(found, expected, err_msg=kernel)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"input_size": [32, 32]}, "its card says 32x32 RGB"),
        ({"descriptor_bits": 512, "cells": []}, "its card says 512"),
    ],
)
def test_a_card_that_does_not_fit_the_network(
    model: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    copy = tmp_path / "copy.tflite"
    shutil.copy(model, copy)
    content = json.loads(ModelCard.path_for(model).read_text())
    ModelCard.path_for(copy).write_text(json.dumps({**content, **changes, "sha256": checksum(copy)}))
    with pytest.raises(DescriptorError, match=sentence):
        DescriptorNetwork(copy)


def test_revisits_are_found_on_real_images(network: DescriptorNetwork, shared_data: Path) -> None:
    folder = shared_data / "eval" / "grief_michigan"
    references, queries = (
        np.stack([
            network.describe(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)).descriptor
            for file in sorted((folder / part).iterdir())
        ])
        for part in ("references", "queries")
    )  # fmt: skip
    with (folder / "ground_truth.csv").open(encoding="utf-8") as file:
        truth = {int(row["query"]): set(map(int, row["references"].split())) for row in csv.DictReader(file)}
    best = [int(hamming(references, query).argmin()) for query in queries]
    assert np.mean([best[query] in matches for query, matches in truth.items()]) >= 0.9
