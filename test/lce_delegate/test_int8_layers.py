# SPDX-License-Identifier: Apache-2.0
"""int8 layers that the delegate takes over give what TensorFlow Lite's own kernels give, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binvpr_ros.lce_delegate import kernels, library
from lce_delegate.models import Graph, Int8Convolution
from lce_delegate.oracle import Interpreter, Lce, Litert
from lce_delegate.reference import Quantization

IMAGE = Quantization(1 / 128, -3)
LEVELS = Quantization(0.4, -128)
"""RELU6 leaves 16 values of this: 0, 0.4, ... 6."""


def layers(rng: np.random.Generator, middle: int, last: int, **options: Any) -> tuple[Int8Convolution, Int8Convolution]:
    """Return a first layer of any weights with 16 levels of output, and a second with weights of one magnitude."""
    first = Int8Convolution(
        rng.integers(-127, 128, (middle, 3, 3, 3)).astype(np.int8),
        rng.integers(-4000, 4000, middle, np.int32),
        rng.uniform(0.001, 0.02, middle).astype(np.float32),
        IMAGE.scale,
        LEVELS,
        stride=(2, 2),
        activation="RELU6",
    )
    magnitude = rng.integers(1, 128, (last, 1, 1, 1))
    size = options.pop("size", (3, 3))
    second = Int8Convolution(
        (magnitude * rng.choice([-1, 1], (last, *size, middle))).astype(np.int8),
        rng.integers(-2000, 2000, last, np.int32),
        (rng.uniform(0.0001, 0.01, last) / magnitude.reshape(-1)).astype(np.float32),
        LEVELS.scale,
        options.pop("output", Quantization(0.0625, 7)),
        **options,
    )
    return first, second


def model(first: Int8Convolution, second: Int8Convolution, shape: tuple[int, ...]) -> bytes:
    """Return both layers, with a quantization to bits behind them, without which the delegate leaves a graph alone."""
    graph = Graph()
    x = graph.input(shape, np.int8, IMAGE)
    levels = graph.conv2d(x, first)
    y = graph.conv2d(levels, second)
    return graph.serialize(levels, y, graph.quantize(y))


def check(expected: Any, litert: Interpreter, content: bytes, values: Any) -> None:
    for kernel in kernels():
        for threads in (1, 3):
            actual = litert.run(content, [values], Litert(library(), kernel, threads))
            for ours, theirs in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs, err_msg=kernel)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": (2, 2)},
    "uneven": {"stride": (1, 3), "size": (2, 5)},
    "valid": {"padding": "VALID"},
    "dilation": {"dilation": (2, 3)},
    "1x1": {"size": (1, 1)},
    "relu": {"activation": "RELU", "output": Quantization(0.1, -128)},
    "relu6": {"activation": "RELU6", "output": LEVELS},
    "relu6 in the middle": {"activation": "RELU6", "output": Quantization(0.05, -20)},
    "wide": {"middle": 512, "size": (3, 3)},  # sums of several chunks
    "odd": {"last": 70},
    "narrow": {"middle": 32, "last": 5},
}


@pytest.mark.parametrize("name", CASES)
def test_layer(lce: Interpreter, litert: Interpreter, name: str) -> None:
    rng = np.random.default_rng(20)
    options = {"middle": 128, "last": 64, **CASES[name]}
    content = model(*layers(rng, **options), (2, 21, 26, 3))
    values = rng.integers(-128, 128, (2, 21, 26, 3)).astype(np.int8)
    expected = lce.run(content, [values], Lce())
    assert len(np.unique(expected[0])) <= 16
    assert len(np.unique(expected[1])) > 4
    check(expected, litert, content, values)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    words=st.integers(1, 5),
    last=st.integers(1, 80),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
)
def test_layers_of_any_shape(
    lce: Interpreter,
    litert: Interpreter,
    seed: int,
    words: int,
    last: int,
    size: Any,
    stride: Any,
    height: int,
    width: int,
) -> None:
    rng = np.random.default_rng(seed)
    shape = (1, height, width, 3)
    content = model(*layers(rng, 32 * words, last, size=size, stride=stride), shape)
    values = rng.integers(-128, 128, shape).astype(np.int8)
    check(lce.run(content, [values], Lce()), litert, content, values)


def test_without_larq_operators_a_graph_is_left_alone(litert: Interpreter) -> None:
    rng = np.random.default_rng(20)
    first, second = layers(rng, 32, 8)
    graph = Graph()
    x = graph.input((1, 8, 8, 3), np.int8, IMAGE)
    content = graph.serialize(graph.conv2d(graph.conv2d(x, first), second))
    values = rng.integers(-128, 128, (1, 8, 8, 3)).astype(np.int8)
    (with_delegate,) = litert.run(content, [values], Litert(library()))
    (without,) = litert.run(content, [values], Litert(None))
    np.testing.assert_array_equal(with_delegate, without)
