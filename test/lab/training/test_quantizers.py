# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

keras = pytest.importorskip("keras", reason="the extra `training` is not installed")

import tensorflow as tf

from binvpr_ros.lab.training.quantizers import (
    ACTIVATION_QUANTIZERS,
    BINARY_ACTIVATIONS,
    BINARY_WEIGHTS,
    WEIGHT_QUANTIZERS,
    WeightClip,
    dorefa_sign,
    hard_sign,
    int8_weights,
    leaky_tanh_sign,
)

Quantizer = Callable[[Any], Any]
Arrays = dict[str, NDArray[np.float32]]

VALUES = np.array([-3.0, -1.0, -0.5, -1e-9, 0.0, 1e-9, 0.4, 1.0, 2.0], np.float32)
MAGNITUDES = [0, 1e-9, 0.04, 0.05, 0.06, 1 / 6, 0.5, 5 / 6, np.nextafter(np.float32(1), 0), 1, 1.000001, 1.3, 3, 20]
EDGES = np.array([[-m, m] for m in MAGNITUDES], np.float32).ravel()
OURS = [("activation", "leaky_tanh_sign"), ("weight", "dorefa_sign")]
ALL = [("activation", name) for name in ACTIVATION_QUANTIZERS] + [("weight", name) for name in WEIGHT_QUANTIZERS]
PAPER = [one for one in ALL if one not in OURS]

LARQ = """
import sys
import larq
import numpy as np
import tensorflow as tf

quantizers = {
    "approx_sign": larq.quantizers.ApproxSign, "ste_sign": larq.quantizers.SteSign,
    "ste_tern": larq.quantizers.SteTern, "swish_sign": larq.quantizers.SwishSign, "dorefa": larq.quantizers.DoReFa,
    "magnitude_aware_sign": larq.quantizers.MagnitudeAwareSign,
    "hard_tanh": lambda: larq.activations.hard_tanh, "leaky_tanh": lambda: larq.activations.leaky_tanh,
}
data, results = np.load(sys.argv[1]), {}
for kind, names in (("activation", list(quantizers)), ("weight", list(quantizers)[:6])):
    for name in names:
        quantizer = quantizers[name](**({"mode": "weights"} if (kind, name) == ("weight", "dorefa") else {}))
        for grid in data["grids"]:
            x = tf.constant(data[f"x_{grid}"])
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = quantizer(x)
                loss = tf.reduce_sum(y * data[f"w_{grid}"])
            results[f"{kind} {name} {grid} values"] = y
            results[f"{kind} {name} {grid} gradient"] = tape.gradient(loss, x)
np.savez(sys.argv[2], **results)
"""

OTHER_BACKEND = """
import sys
import keras
import numpy as np
from binvpr_ros.lab.training.quantizers import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS

def values_and_gradient(quantizer, x, w):
    def loss(x):
        y = quantizer(x)
        return keras.ops.sum(y * w), y
    if keras.backend.backend() == "jax":
        import jax
        gradient, y = jax.jit(jax.grad(loss, has_aux=True))(x)
        return y, gradient
    x = keras.ops.convert_to_tensor(x).requires_grad_()
    w = keras.ops.convert_to_tensor(w)
    total, y = loss(x)
    total.backward()
    return y.detach(), x.grad

data, results = np.load(sys.argv[1]), {}
for kind, quantizers in (("activation", ACTIVATION_QUANTIZERS), ("weight", WEIGHT_QUANTIZERS)):
    for name, quantizer in quantizers.items():
        for grid in data["grids"]:
            y, gradient = values_and_gradient(quantizer, data[f"x_{grid}"], data[f"w_{grid}"])
            results[f"{kind} {name} {grid} values"] = keras.ops.convert_to_numpy(y)
            results[f"{kind} {name} {grid} gradient"] = keras.ops.convert_to_numpy(gradient)
np.savez(sys.argv[2], **results)
"""


def gradient(quantizer: Quantizer, values: Any = VALUES, weights: Any = 1.0) -> Any:
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(quantizer(x) * weights)
    return tape.gradient(y, x).numpy()


def quantizer_of(kind: str, name: str) -> Quantizer:
    return {"activation": ACTIVATION_QUANTIZERS, "weight": WEIGHT_QUANTIZERS}[kind][name]


def grids() -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return pairs x, w; the gradients are those of sum(q(x) * w)."""
    random = np.random.default_rng(0)
    result = {}
    for shape in [(40,), (7, 5), (3, 3, 4, 5), (2, 7, 6, 3)]:
        x = random.normal(size=shape).astype(np.float32)
        x.ravel()[: EDGES.size] = EDGES
        result["x".join(map(str, shape))] = x
    result["clipped"] = np.clip(random.normal(size=(3, 3, 8, 16)), -1, 1).astype(np.float32)
    result["small"] = random.normal(scale=0.03, size=(3, 3, 8, 16)).astype(np.float32)
    result["zeros"] = np.zeros((3, 3, 4, 5), np.float32)
    return {name: (x, random.normal(size=x.shape).astype(np.float32)) for name, x in result.items()}


def computed_by(script: str, folder: Path, environment: dict[str, str]) -> Arrays:
    """Run `script` on `grids()` in a process of its own: a process has one Keras, and that one backend."""
    pairs = grids()
    arrays = {f"{what}_{name}": array for name, pair in pairs.items() for what, array in zip("xw", pair, strict=True)}
    np.savez(folder / "grids.npz", allow_pickle=False, grids=np.array(list(pairs)), **arrays)
    arguments = [str(folder / "grids.npz"), str(folder / "results.npz")]
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments], env={**os.environ, **environment}, capture_output=True, text=True,
        check=False, timeout=200,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    with np.load(folder / "results.npz") as results:
        return dict(results)


def assert_same(kind: str, name: str, results: Arrays) -> None:
    quantizer = quantizer_of(kind, name)
    for grid, (x, w) in grids().items():
        where = f"{kind} {name} {grid}"
        np.testing.assert_allclose(quantizer(tf.constant(x)), results[f"{where} values"], 1e-6, 1e-6, err_msg=where)
        np.testing.assert_allclose(gradient(quantizer, x, w), results[f"{where} gradient"], 1e-6, 1e-6, err_msg=where)


@pytest.fixture(scope="module")
def larq(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    # Importing larq here would fail, with whatever Keras 3 has no more.
    if not (find_spec("larq") and find_spec("tf_keras")):
        pytest.skip("Larq is not installed; run: pip install --no-deps larq==0.14.0 tf-keras==2.21.0 terminaltables")
    return computed_by(LARQ, tmp_path_factory.mktemp("larq"), {"TF_USE_LEGACY_KERAS": "1"})


@pytest.mark.parametrize(("kind", "name"), PAPER)
def test_values_and_gradients_are_those_of_larq(kind: str, name: str, larq: Arrays) -> None:
    assert_same(kind, name, larq)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_of_keras_compute_the_same(backend: str, tmp_path: Path) -> None:
    if not find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    results = computed_by(OTHER_BACKEND, tmp_path, {"KERAS_BACKEND": backend})
    for kind, name in ALL:
        assert_same(kind, name, results)


@pytest.mark.parametrize("quantizer", [hard_sign, leaky_tanh_sign, dorefa_sign])
def test_values_are_one_bit_with_zero_positive(quantizer: Quantizer) -> None:
    np.testing.assert_array_equal(quantizer(tf.constant(VALUES)), np.where(VALUES >= 0, 1, -1))


def test_gradient_of_leaky_tanh_is_equation_4() -> None:
    np.testing.assert_allclose(gradient(leaky_tanh_sign), [0.2, 1, 1, 1, 1, 1, 1, 1, 0.2], atol=1e-6)


@pytest.mark.parametrize("quantizer", [dorefa_sign, WEIGHT_QUANTIZERS["dorefa"]])
def test_gradient_of_dorefa_weights_is_that_of_tanh_over_its_maximum(quantizer: Quantizer) -> None:
    expected = (1 - np.tanh(VALUES) ** 2) / np.tanh(3.0)
    np.testing.assert_allclose(gradient(quantizer), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "values", "slopes"),
    [
        ("approx_sign", [-1, -1, -1, 1, 1, 1, 1], [0, 0, 1, 2, 1.5, 0, 0]),
        ("ste_sign", [-1, -1, -1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 0]),
        ("ste_tern", [-1, -1, -1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 0]),
        ("dorefa", [0, 0, 0, 0, 1 / 3, 1, 1], [0, 0, 0, 1, 1, 1, 0]),
        ("magnitude_aware_sign", [-0.75, -0.75, -0.75, 0.75, 0.75, 0.75, 0.75], [0, *[0.75] * 5, 0]),
        ("hard_tanh", [-1, -1, -0.5, 0, 0.25, 1, 1], [0, 1, 1, 1, 1, 1, 0]),
        ("leaky_tanh", [-1.05, -1, -0.5, 0, 0.25, 1, 1.05], [0.2, 1.2, 1, 1, 1, 1.2, 0.2]),
    ],
)
def test_activations_worked_by_hand(name: str, values: list[float], slopes: list[float]) -> None:
    x = np.array([-1.25, -1, -0.5, 0, 0.25, 1, 1.25], np.float32)
    quantizer = ACTIVATION_QUANTIZERS[name]
    np.testing.assert_allclose(quantizer(tf.constant(x[:, None]))[:, 0], values, atol=1e-5)
    np.testing.assert_allclose(gradient(quantizer, x[:, None])[:, 0], slopes, atol=1e-5)


def test_gradient_of_swish_sign_is_that_of_its_curve() -> None:
    def curve(x: Any) -> Any:  # BNN+, section 3.1, with beta = 5
        swish = 1 / (1 + np.exp(-5 * x))
        return 2 * swish * (1 + 5 * x * (1 - swish)) - 1

    x = VALUES.astype(float)
    expected = (curve(x + 1e-6) - curve(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(gradient(ACTIVATION_QUANTIZERS["swish_sign"]), expected, atol=1e-6)


def test_dorefa_weights_worked_by_hand() -> None:
    w = np.arctanh(np.array([-0.9, -0.5, -0.1, 0.0, 0.1, 0.5, 0.7], np.float32))
    levels = WEIGHT_QUANTIZERS["dorefa"](tf.constant(w))
    np.testing.assert_allclose(levels, [-1, -1 / 3, -1 / 3, 1 / 3, 1 / 3, 1 / 3, 1], atol=1e-6)


def test_magnitude_aware_weights_have_a_scale_for_each_output_channel() -> None:
    w = np.array([[0.1, -4.0], [-0.3, 2.0]], np.float32).reshape(1, 1, 2, 2)
    quantizer = WEIGHT_QUANTIZERS["magnitude_aware_sign"]
    np.testing.assert_allclose(quantizer(tf.constant(w)).numpy().reshape(2, 2), [[0.2, -3], [-0.2, 3]], atol=1e-6)
    np.testing.assert_allclose(gradient(quantizer, w).reshape(2, 2), [[0.2, 0], [0.2, 0]], atol=1e-6)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_the_binary_ones_and_no_others_have_one_bit(kind: str, name: str) -> None:
    binary = {"activation": BINARY_ACTIVATIONS, "weight": BINARY_WEIGHTS}[kind]
    for grid, (x, _) in grids().items():
        if grid == "zeros" or x.ndim < 4:  # neither has a scale for each channel
            continue
        y = quantizer_of(kind, name)(tf.constant(x)).numpy()
        scale = np.abs(y[0, 0, 0]) if kind == "weight" else np.float32(1)
        assert np.array_equal(y, np.where(x >= 0, scale, -scale)) == (name in binary)


def test_weight_clip_limits_weights_and_can_be_saved() -> None:
    constraint = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(WeightClip(0.5)))
    np.testing.assert_array_equal(constraint(tf.constant([-2.0, -0.5, 0.25, 7.0])), [-0.5, -0.5, 0.25, 0.5])
    np.testing.assert_array_equal(WeightClip()(tf.constant([-2.0, 1.0])), [-1, 1])


def test_int8_weights_have_a_scale_for_each_output_channel() -> None:
    magnitudes = np.array([1, 10, 0.1, 1e-3, 1e3], np.float32)
    w = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32) * magnitudes
    scale = np.abs(w).max(axis=(0, 1, 2)) / 127
    levels = int8_weights(tf.constant(w)).numpy() / scale
    np.testing.assert_allclose(levels, np.round(w / scale), atol=1e-2)
    assert np.abs(np.round(levels)).max(axis=(0, 1, 2)).tolist() == [127] * 5
