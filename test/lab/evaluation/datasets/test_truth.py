# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets import truth as truth_module
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth, Truth, Views, ViewTruth, blocks


def turns(vectors: Any) -> NDArray[np.float64]:
    return np.array([cv2.Rodrigues(vector)[0] for vector in np.asarray(vectors, float)])


def angle_of(rotation: NDArray[np.float64]) -> float:
    return float(np.rad2deg(np.linalg.norm(cv2.Rodrigues(rotation)[0])))


def within(positions: Any, rotations: NDArray[np.float64], radius: float, angle: float) -> list[list[bool]]:
    """Return which views are the same place, by whole rotations."""
    views = Views(np.array(positions, float), None, rotations)
    return ViewTruth(views, views, radius, angle, 3 * radius).dense().tolist()


seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.floats(0.1, 3), st.floats(1, 400), st.sampled_from([0.0, 5e6]), st.booleans())
@settings(max_examples=50, deadline=None)
def test_rows_are_what_comparing_each_with_each_gives(
    seed: int, radius: float, angle: float, origin: float, optical: bool
) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 3, (12, 3))
    rotations = turns(rng.normal(0, 1, (12, 3)))
    views = Views(positions + origin, *((rotations[:, :, 2], None) if optical else (None, rotations)))
    candidates = rng.integers(0, 13, 12)
    found = ViewTruth(views, views, radius, angle, 3 * radius, candidates=candidates)
    same, rows = replace(found, candidates=None).rows(2, 9), found.rows(2, 9)
    assert rows.shape == (7, 12)
    for a in range(2, 9):
        for b in range(12):
            distance = float(np.linalg.norm(positions[a] - positions[b]))
            turn = angle_of(rotations[a].T @ rotations[b])
            if optical:
                turn = float(np.rad2deg(np.arccos(np.clip(rotations[a, :, 2] @ rotations[b, :, 2], -1, 1))))
            if abs(distance - radius) > 1e-4 and abs(turn - angle) > 1e-4:
                assert same[a - 2, b] == (distance < radius and turn < angle)
            assert rows[a - 2, b] == (same[a - 2, b] and b < candidates[a])
    distances, cosines = views.between(np.arange(6), np.arange(6, 12))
    np.testing.assert_allclose(distances, np.linalg.norm(positions[:6] - positions[6:], axis=1), atol=1e-6)
    if not optical:
        np.testing.assert_allclose(
            np.rad2deg(np.arccos(cosines)), [angle_of(rotations[a].T @ rotations[a + 6]) for a in range(6)], atol=1e-4
        )


def test_truth_holds_on_its_bounds() -> None:
    rotations = turns([(0, 0, 0), (0, 0, np.deg2rad(40)), (0, 0, np.deg2rad(40.1))])
    assert within(np.zeros((3, 3)), rotations, 0.6, 40) == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    positions = [(0, 0, 0), (0.6, 0, 0), (1.201, 0, 0)]
    assert within(positions, turns(np.zeros((3, 3))), 0.6, 40) == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_positions_alone_are_compared_in_any_number_of_dimensions() -> None:
    queries, references = Views(np.array([[5e5, 4e6]])), Views(np.array([[5e5 + 24.9, 4e6], [5e5, 4e6 - 25.1]]))
    assert ViewTruth(queries, references, 25, 180, 60).dense().tolist() == [[True, False]]


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_some_of_a_truth_are_the_same_rows_and_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.random((9, 9)) < 0.3
    views = Views(rng.uniform(0, 3, (9, 3)), turns(rng.normal(0, 1, (9, 3)))[:, :, 2])
    kept = np.flatnonzero(rng.random(9) < 0.6).tolist() or [0]
    truths: tuple[Truth, ...] = (
        PairTruth.of_matrix(matrix),
        PairTruth.of_pairs(rng.permutation(np.argwhere(matrix)), (9, 9)),
        ViewTruth(views, views, 1.5, 90, 4, candidates=np.arange(9)),
    )
    for truth in truths:
        dense = truth.dense()
        assert truth.take(kept, kept).dense().tolist() == dense[np.ix_(kept, kept)].tolist()
        assert truth.answerable.tolist() == dense.any(axis=1).tolist()
        assert [truth.of(query).tolist() for query in range(9)] == [np.flatnonzero(row).tolist() for row in dense]
    for truth in truths[:2]:
        assert truth.dense().tolist() == matrix.tolist()


@given(st.integers(0, 40), st.integers(0, 9), st.integers(1, 100))
def test_blocks_are_all_queries_in_a_row(queries: int, references: int, cells: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth_module, "BLOCK_CELLS", cells)
        spans = list(blocks(queries, references))
    assert [query for start, stop in spans for query in range(start, stop)] == list(range(queries))
    assert all((stop - start) * references <= cells or stop - start == 1 for start, stop in spans)


def test_thirty_thousand_images_are_asked_for_block_by_block() -> None:
    count = 30_000
    along = np.arange(count) % 10_000 * 1.0
    views = Views(np.stack([along, along * 0, along * 0], axis=1), np.tile([0.0, 0.0, 1.0], (count, 1)))
    truth = ViewTruth(views, views, 0.6, 40, 1.5, candidates=np.maximum(np.arange(count) - 10, 0))
    assert np.argwhere(truth.rows(20_000, 20_003)).tolist() == [
        [0, 0], [0, 10_000], [1, 1], [1, 10_001], [2, 2], [2, 10_002],
    ]  # fmt: skip
    start, stop = next(blocks(*truth.shape))
    assert (stop - start) * count <= truth_module.BLOCK_CELLS
