# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import product

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras
import tensorflow as tf

from binvpr_ros.lab.training.networks.layers import BinaryConv2D, PairConv2D
from binvpr_ros.lab.training.quantizers import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS


def inputs(size: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32))


@pytest.mark.parametrize(("size", "stride"), [(8, 1), (8, 2), (7, 1), (7, 2)])
def test_padding_is_with_ones_as_same_pads(size: int, stride: int) -> None:
    layer = BinaryConv2D(4, stride, for_export=True)
    x = inputs(size)
    y = layer(x)
    # SAME pads with zeros; shift so that zero stands for one
    shifted = np.where(x >= 0, 1.0, -1.0).astype(np.float32) - 1
    kernel = np.where(layer.kernel.numpy() >= 0, 1.0, -1.0).astype(np.float32)
    expected = tf.nn.conv2d(shifted, kernel, stride, "SAME") + kernel.sum(axis=(0, 1, 2))
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(("activations", "weights"), [*product([*ACTIVATION_QUANTIZERS, None], WEIGHT_QUANTIZERS)])
def test_every_pair_of_quantizers_trains_and_is_exported_as_trained(activations: str | None, weights: str) -> None:
    layer = PairConv2D(4, 2, activations=activations, weights=weights, size=5)
    x = inputs(6)
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_mean(y**2)
    assert y.shape == (2, 3, 3, 4)
    assert np.isfinite(tape.gradient(loss, layer.kernel)).all()
    exported = PairConv2D.from_config({**layer.get_config(), "for_export": True})
    exported.build(x.shape)
    exported.set_weights(layer.get_weights())
    np.testing.assert_allclose(exported(x), y, atol=1e-4)


def test_latent_weights_are_clipped() -> None:
    layer = PairConv2D(4, activations="ste_sign", weights="ste_sign")
    layer(inputs(6))
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([tf.fill(layer.kernel.shape, 100.0)], [layer.kernel])
    assert layer.kernel.numpy().min() == -1.0
