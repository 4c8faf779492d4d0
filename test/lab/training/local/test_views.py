# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.local.losses import TOGETHER
from binvpr_ros.lab.training.local.targets import CELLS, SIDE, Taught, stand_in
from binvpr_ros.lab.training.local.views import Motion, ViewBatches, sample, see, targets

STILL = Motion(share=0.0, roll=0.0, scale=1.0, shift=0.0, bend=0.0)
MOVED = Motion(share=1.0, roll=30.0, scale=1.4, shift=0.1, bend=0.08)


@pytest.fixture(scope="module")
def taught() -> Taught:
    rng = np.random.default_rng(0)
    images = [cv2.GaussianBlur(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (0, 0), 6) for _ in range(8)]
    return stand_in(np.stack([cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX) for image in images]))


def test_a_batch_depends_on_its_number_alone(taught: Taught) -> None:
    among = np.arange(8)
    batches = ViewBatches(taught, among, 4, MOVED, seed=1, first=0, last=3)
    later = ViewBatches(taught, among, 4, MOVED, seed=1, first=2, last=3)
    assert (len(batches), len(later)) == (3, 1)
    (images, made), (again, remade) = batches[2], later[0]
    assert images.shape == (8, SIDE, SIDE, 1)
    np.testing.assert_array_equal(images, again)
    for name, target in made.items():
        assert target.shape[:3] == (8, CELLS, CELLS)
        np.testing.assert_array_equal(target, remade[name])
    assert not np.array_equal(images, ViewBatches(taught, among, 4, MOVED, seed=2, first=2, last=3)[0][0])


def test_views_that_are_not_moved_have_what_the_teacher_said(taught: Taught) -> None:
    chosen = np.array([3, 5])
    made = targets(taught, chosen, np.tile(np.eye(3), (4, 1, 1)))
    lengths = np.linalg.norm(taught.descriptors[[3, 5, 3, 5]].astype(float), axis=3, keepdims=True)
    np.testing.assert_allclose(made["taught"][..., :-1] * lengths, taught.descriptors[[3, 5, 3, 5]], atol=0.1)
    rows, columns = np.meshgrid(np.arange(CELLS), np.arange(CELLS), indexing="ij")
    np.testing.assert_allclose(made["descriptors"][0, ..., 0], rows, atol=1e-4)
    np.testing.assert_allclose(made["descriptors"][0, ..., 1], columns, atol=1e-4)
    np.testing.assert_allclose(made["keypoints"][..., :-1].sum(axis=3), 1, atol=1e-3)
    for target in made.values():
        assert target[:, 1:-1, 1:-1, -1].all()
        assert not target[:, [0, -1], :, -1].any()


def test_a_view_and_its_targets_are_moved_alike(taught: Taught) -> None:
    """By whole cells, to the right and down: what was at the top left goes, what comes was beyond the border."""
    move = np.array([[1.0, 0, 16], [0, 1.0, 8], [0, 0, 1]])  # from the view's pixels to the photograph's
    image = taught.images[0]
    np.testing.assert_array_equal(see(image, move)[:-8, :-16], image[8:, 16:])
    made = targets(taught, np.array([0]), np.stack([move, np.eye(3)]))
    still = targets(taught, np.array([0]), np.tile(np.eye(3), (2, 1, 1)))
    for name in ("taught", "reliability"):
        np.testing.assert_allclose(made[name][0, 1:-2, 1:-3], still[name][0, 2:-1, 3:-1], atol=0.02)
    np.testing.assert_allclose(made["descriptors"][0, 4, 4], [5, 6, 1], atol=1e-5)
    np.testing.assert_allclose(made["descriptors"][1, 4, 4], [3, 2, 1], atol=1e-5)
    assert not made["taught"][0, -2:, :, -1].any()
    assert not made["keypoints"][0, ..., -1].any()
    np.testing.assert_array_equal(made["keypoints"][1], still["keypoints"][1])


def test_cells_of_both_views_are_of_one_point(taught: Taught) -> None:
    """What the teacher says of a cell is what it says, in the other view, at the place where the cell is."""
    rng = np.random.default_rng(0)
    chosen = np.arange(8)
    moves = np.stack([MOVED.homography(rng) for _ in range(8)] + [np.eye(3)] * 8)
    made = targets(taught, chosen, moves)
    shared = made["descriptors"][:8, ..., 2] > 0
    assert 0.2 < shared.mean() < 0.9
    places = made["descriptors"][:8, ..., :2].reshape(8, -1, 2).astype(float)
    there = sample(taught.descriptors.astype(np.float32), np.tile(places, (2, 1, 1)), 8)[:8]
    there /= np.linalg.norm(there, axis=2, keepdims=True)
    alike = (there.reshape(8, CELLS, CELLS, -1) * made["taught"][:8, ..., :-1]).sum(axis=3)
    np.testing.assert_allclose(alike[shared], 1, atol=1e-4)


def test_motion_keeps_to_its_limits() -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(STILL.homography(rng), np.eye(3))
    for _ in range(50):
        move = Motion(share=1.0, roll=30.0, scale=1.4, shift=0.0, bend=0.0).homography(rng)
        move /= move[2, 2]
        size = np.sqrt(np.linalg.det(move[:2, :2]))
        assert 1 / 1.4 - 1e-3 <= size <= 1.4 + 1e-3
        assert abs(np.rad2deg(np.arctan2(move[1, 0], move[0, 0]))) <= 30.1
        middle = move @ [SIDE / 2 - 0.5, SIDE / 2 - 0.5, 1]
        np.testing.assert_allclose(middle[:2], SIDE / 2 - 0.5, atol=1e-2)


def test_a_batch_has_squares_of_one_folder_together(taught: Taught) -> None:
    """They are alike, and so hard to tell apart; a folder with too few is made up by others."""
    folders = np.repeat(np.arange(9, dtype=np.int32), [60, 60, 60, 60, 60, 60, 60, 60, 2])
    many = dataclasses.replace(taught, images=np.zeros((len(folders), 1, 1, 3), np.uint8), folders=folders)
    batches = ViewBatches(many, np.arange(len(folders)), 16, STILL, seed=0, first=0, last=1)
    groups = batches._chosen(np.random.default_rng(0)).reshape(4, TOGETHER)
    for group in groups:
        assert len(set(group.tolist())) == TOGETHER
        assert len(set(folders[group].tolist())) == 1
    few = dataclasses.replace(many, folders=np.arange(len(folders), dtype=np.int32))
    batches = ViewBatches(few, np.arange(len(folders)), 4, STILL, seed=0, first=0, last=1)
    assert len(set(batches._chosen(np.random.default_rng(0)))) == TOGETHER


def test_a_batch_has_no_squares_but_those_it_is_given(taught: Taught) -> None:
    folders = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int32)
    batches = ViewBatches(dataclasses.replace(taught, folders=folders), np.array([1, 2, 4, 5, 7]), 4, STILL, 0, 0, 1)
    drawn = np.concatenate([batches._chosen(np.random.default_rng(seed)) for seed in range(20)])
    assert set(drawn.tolist()) == {1, 2, 4, 5, 7}
