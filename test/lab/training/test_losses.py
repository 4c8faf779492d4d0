# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import tensorflow as tf

from binvpr_ros.lab.training.losses import cosine_distance, multi_similarity, no_loss, similarities


def test_similarity_is_the_cosine_of_the_signs() -> None:
    descriptor = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    signs = np.where(descriptor >= 0, 1, -1)
    np.testing.assert_allclose(similarities(tf.constant(descriptor)), signs @ signs.T / 64, atol=1e-6)


def test_loss_by_hand() -> None:
    """Of each row those pairs alone count that are mined; |u| is 1, so there is no spread term."""
    descriptor = tf.constant([[1.0, 1, 1, 1], [1.0, 1, 1, -1], [1.0, 1, -1, -1], [-1.0, -1, -1, -1]])
    loss = multi_similarity(tf.constant([0, 0, 1, 1]), descriptor, alpha=1.0, beta=2.0, base=0.0, margin=0.1)
    expected = [
        0.0,  # the other view is at 0.5, both other places are farther by more than the margin
        np.log1p(np.exp(-0.5)) + np.log1p(np.exp(2 * 0.5)) / 2,  # one other place is as near as the other view
        np.log1p(1.0) + np.log1p(1.0 + np.exp(2 * 0.5)) / 2,  # both are as near, or nearer
        0.0,
    ]
    np.testing.assert_allclose(loss, expected, atol=1e-6)


def test_without_mining_every_pair_counts() -> None:
    descriptor = tf.constant([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    loss = multi_similarity(tf.constant([0, 1, 0]), descriptor, alpha=1.0, beta=2.0, base=0.0, margin=9.0)
    pulled = np.log1p(np.exp(-1.0))
    np.testing.assert_allclose(loss, [pulled + np.log1p(1.0) / 2, np.log1p(2.0) / 2, pulled + np.log1p(1.0) / 2])


def test_descriptors_that_agree_on_their_places_lose_less() -> None:
    rng = np.random.default_rng(0)
    views = np.sign(rng.normal(size=(4, 256))).astype(np.float32)
    places = tf.constant([0, 1, 2, 3, 0, 1, 2, 3])
    good = tf.reduce_mean(multi_similarity(places, tf.constant(np.tile(views, (2, 1)))))
    bad = tf.reduce_mean(multi_similarity(places, tf.constant(np.vstack([views, views[::-1]]))))
    assert good < bad


def test_the_cosine_distance_is_0_for_what_points_the_same_way_and_2_for_the_opposite() -> None:
    said = np.array([[[2.0, 0]], [[0, 3]], [[1, 1]]], np.float32)
    taught = np.array([[1.0, 0], [0, -1], [1, -1]], np.float32)
    np.testing.assert_allclose(cosine_distance(taught, said), [0, 2, 1], atol=1e-5)


def test_the_cosine_distance_is_the_mean_of_all_that_is_said_of_a_map() -> None:
    said = np.array([[[[1.0, 0]], [[0, 2]]]], np.float32)  # of one map of one cell, twice
    np.testing.assert_allclose(cosine_distance(np.array([[[1.0, 0]]], np.float32), said), [0.5], atol=1e-5)


def test_no_loss_is_0_whatever_the_descriptor() -> None:
    np.testing.assert_array_equal(no_loss(np.arange(3), np.full((3, 4), 7, np.float32)), [0, 0, 0])
