# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import tensorflow as tf

from binvpr_ros.training.quantizers import dorefa_sign, hard_sign, int8_weights, leaky_tanh_sign

VALUES = np.array([-3.0, -1.0, -0.5, -1e-9, 0.0, 1e-9, 0.4, 1.0, 2.0], np.float32)


def gradient(quantizer: Callable[[Any], Any]) -> Any:
    x = tf.constant(VALUES)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(quantizer(x))
    return tape.gradient(y, x).numpy()


@pytest.mark.parametrize("quantizer", [hard_sign, leaky_tanh_sign, dorefa_sign])
def test_values_are_one_bit_with_zero_positive(quantizer: Callable[[Any], Any]) -> None:
    np.testing.assert_allclose(quantizer(tf.constant(VALUES)), np.where(VALUES >= 0, 1, -1), atol=1e-6)


def test_gradient_of_leaky_tanh_is_equation_4() -> None:
    np.testing.assert_allclose(gradient(leaky_tanh_sign), [0.2, 1, 1, 1, 1, 1, 1, 1, 0.2], atol=1e-6)


def test_gradient_of_dorefa_weights_is_that_of_tanh_over_its_maximum() -> None:
    expected = (1 - np.tanh(VALUES) ** 2) / np.tanh(3.0)
    np.testing.assert_allclose(gradient(dorefa_sign), expected, atol=1e-6)


def test_int8_weights_have_a_scale_for_each_output_channel() -> None:
    magnitudes = np.array([1, 10, 0.1, 1e-3, 1e3], np.float32)
    w = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32) * magnitudes
    scale = np.abs(w).max(axis=(0, 1, 2)) / 127
    levels = int8_weights(tf.constant(w)).numpy() / scale
    np.testing.assert_allclose(levels, np.round(w / scale), atol=1e-2)
    assert np.abs(np.round(levels)).max(axis=(0, 1, 2)).tolist() == [127] * 5
