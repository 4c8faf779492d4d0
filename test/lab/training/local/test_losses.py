# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from keras import ops

from binvpr_ros.lab.training.local import losses

RNG = np.random.default_rng(0)
SIDE, COUNT = 4, 2 * losses.TOGETHER


def value(loss: Any) -> float:
    return float(ops.convert_to_numpy(loss))


def own_places(count: int = COUNT) -> np.ndarray:
    rows, columns = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    places = np.stack([rows, columns, np.ones((SIDE, SIDE))], axis=-1)
    return np.tile(places, (count, 1, 1, 1)).astype(np.float32)


def unit(shape: tuple[int, ...]) -> np.ndarray:
    vectors = RNG.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def with_weight(values: np.ndarray, weight: float = 1.0) -> np.ndarray:
    return np.concatenate([values, np.full((*values.shape[:-1], 1), weight, np.float32)], axis=-1)


def test_interpolation_is_bilinear_and_flat_outside() -> None:
    maps = RNG.random((2, 3, 5, 2), np.float32)
    places = np.array([[[0, 0], [1.5, 2.25], [2, 4], [-3, 9]]] * 2, np.float32)
    found = ops.convert_to_numpy(losses.interpolate(maps, places))
    between = 0.5 * (0.75 * maps[:, 1, 2] + 0.25 * maps[:, 1, 3]) + 0.5 * (0.75 * maps[:, 2, 2] + 0.25 * maps[:, 2, 3])
    expected = np.stack([maps[:, 0, 0], between, maps[:, 2, 4], maps[:, 0, 4]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_the_teacher_says_is_best() -> None:
    teacher = unit((COUNT, SIDE, SIDE, 16))
    right, wrong = (
        value(losses.taught_loss(with_weight(teacher), said)) for said in (3 * teacher, unit(teacher.shape))
    )
    assert right < 0.1 < wrong
    assert value(losses.cosine(with_weight(teacher), 3 * teacher)) == pytest.approx(1, abs=1e-4)


def test_signs_that_are_the_same_in_both_views_are_found() -> None:
    descriptors = RNG.standard_normal((COUNT // 2, SIDE, SIDE, 256)).astype(np.float32)
    alike = np.concatenate([descriptors, 0.5 * descriptors])
    other = RNG.standard_normal(alike.shape).astype(np.float32)
    assert value(losses.found(own_places(), alike)) == 1
    assert value(losses.found(own_places(), other)) < 0.3
    assert value(losses.signs_loss(own_places(), alike)) < 0.1 < value(losses.signs_loss(own_places(), other))


def test_cells_are_looked_for_where_they_are_in_the_other_view() -> None:
    first = RNG.standard_normal((COUNT // 2, SIDE, SIDE, 256)).astype(np.float32)
    moved = np.concatenate([first, np.roll(first, 1, axis=2)])  # one cell to the right
    there = own_places()
    there[: COUNT // 2, ..., 1] += 1
    there[COUNT // 2 :, ..., 1] -= 1
    there[: COUNT // 2, :, -1, 2] = 0
    there[COUNT // 2 :, :, 0, 2] = 0
    assert value(losses.found(there, moved)) == 1
    assert value(losses.found(own_places(), moved)) < 0.2


def test_what_has_no_weight_counts_for_nothing() -> None:
    teacher = unit((COUNT, SIDE, SIDE, 16))
    said = teacher.copy()
    target = with_weight(teacher)
    target[:, 0, :, -1] = 0
    before = value(losses.taught_loss(target, said))
    said[:, 0], target[:, 0, :, :-1] = unit((COUNT, SIDE, 16)), unit((COUNT, SIDE, 16))
    assert value(losses.taught_loss(target, said)) == pytest.approx(before, abs=1e-5)
    assert value(losses.taught_loss(with_weight(teacher, 0), said)) == 0


def test_probabilities_and_reliability_are_learnt() -> None:
    likely = RNG.dirichlet(np.ones(65), (COUNT, SIDE, SIDE)).astype(np.float32)
    right = value(losses.keypoints_loss(with_weight(likely), np.log(likely)))
    assert right < value(losses.keypoints_loss(with_weight(likely), np.zeros_like(likely)))
    half = np.full((COUNT, SIDE, SIDE, 1), 0.5, np.float32)
    assert value(losses.reliability_loss(with_weight(half), np.zeros_like(half))) == 0
    assert value(losses.reliability_loss(with_weight(half), np.full_like(half, 9))) == pytest.approx(0.25, abs=0.01)
