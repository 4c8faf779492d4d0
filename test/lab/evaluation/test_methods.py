# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.lab.evaluation.baselines.hog import Hog
from binvpr_ros.lab.evaluation.datasets import DatasetError
from binvpr_ros.lab.evaluation.methods import (
    BinaryNetwork,
    FloatNetwork,
    MethodError,
    load_model,
    read_similarities,
)
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.hamming import WORD_BITS


def test_a_model_with_a_card_compares_by_the_cosine_of_its_bits(
    model: Path, world_images: list[NDArray[np.uint8]]
) -> None:
    method = load_model(model, Config(shift_cells=0))
    assert isinstance(method, BinaryNetwork)
    assert method.descriptor_bits == 2048
    rows = np.stack([method.describe(image) for image in world_images[:4]])
    assert rows.shape == (4, 2048 // WORD_BITS)
    signs = np.unpackbits(rows.view(np.uint8), axis=1) * 2.0 - 1
    cosines = signs[:3] @ signs.T / 2048
    np.testing.assert_allclose(method.similarities(rows[:3], rows), cosines, atol=1e-6)

    nearest = load_model(model).similarities(rows[:3], rows)  # images may be shifted, as in the node
    assert (nearest >= cosines - 1e-6).all()
    assert (nearest > cosines + 1e-6).any()
    database = KeyframeDatabase(None, "", rows.shape[1], grids=method.network.card.grids)
    for number, row in enumerate(rows):
        database.add(database.next_keyframe(number, row))
    for row, similarities in zip(rows, nearest, strict=False):
        distances = database.distances(database.views(row, Config.shift_cells))
        np.testing.assert_allclose(similarities, 1 - distances / 1024, atol=1e-6)


def test_a_model_without_a_card_compares_the_cosine_of_its_output(
    model: Path, world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    plain = tmp_path / "plain.tflite"
    shutil.copy(model, plain)
    method = load_model(plain)
    assert isinstance(method, FloatNetwork)
    assert method.name == "plain"
    rows = np.stack([method.describe(image) for image in world_images[:3]])
    assert method.descriptor_bits == rows.shape[1] * 32
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in rows] for a in rows]
    comparable = np.stack([method.comparable(row) for row in rows])
    np.testing.assert_allclose(method.similarities(comparable, comparable), expected, atol=1e-5)


def test_a_grey_image_is_the_rgb_image_of_equal_channels(
    model: Path, world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    shutil.copy(model, tmp_path / "plain.tflite")
    grey = world_images[0][..., 1]
    for method in (load_model(model), load_model(tmp_path / "plain.tflite")):
        np.testing.assert_array_equal(method.describe(grey), method.describe(np.stack([grey] * 3, axis=-1)))


def test_a_peer_from_the_larq_compute_engine_runs(shared_data: Path, world_images: list[NDArray[np.uint8]]) -> None:
    method = load_model(shared_data / "peers" / "floppyNet_places365.tflite")
    assert method.describe(world_images[0]).shape == (6 * 6 * 256,)


def test_a_row_of_zeros_is_similar_to_nothing() -> None:
    method = Hog()
    rows = np.stack([method.comparable(np.array(row)) for row in ([0, 0], [3, 4])])
    np.testing.assert_allclose(method.similarities(rows, rows), [[0, 0], [0, 1]], atol=1e-6)


def test_a_model_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"there is no model file .*none\.tflite; name another"):
        load_model(tmp_path / "none.tflite")


def test_similarities_of_another_program_are_read(tmp_path: Path) -> None:
    expected = np.random.default_rng(0).random((3, 4))
    np.save(tmp_path / "numbers.npy", expected)
    np.testing.assert_allclose(read_similarities(tmp_path / "numbers.npy").rows(0, 3), expected, rtol=1e-6)
    matches = np.empty(6, object)
    matches[:] = [np.arange(3), expected.argmax(axis=1), expected.max(axis=1), expected, 0.1, 0.2]
    np.save(tmp_path / "vpr_bench.npy", matches, allow_pickle=True)
    np.testing.assert_allclose(read_similarities(tmp_path / "vpr_bench.npy").rows(1, 3), expected[1:], rtol=1e-6)


def test_similarities_have_to_be_finite(tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.array([[0.5, np.nan], [0.5, -np.inf]]))
    with pytest.raises(DatasetError, match="holds values that are not finite numbers"):
        read_similarities(tmp_path / "other.npy")


@pytest.mark.parametrize("content", [np.arange(3), np.ones((2, 2), complex), np.array([["a", "b"]])])
def test_a_file_that_holds_no_similarities_is_refused(content: NDArray[np.generic], tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", content)
    with pytest.raises(DatasetError, match="holds no matrix of similarities"):
        read_similarities(tmp_path / "other.npy")


def test_similarities_are_never_code(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_bytes(b"not an array")
    with pytest.raises(DatasetError):
        read_similarities(tmp_path / "text.npy")
