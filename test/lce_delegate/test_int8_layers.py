# SPDX-License-Identifier: Apache-2.0
"""int8 layers that the delegate takes over give what the reference gives, and so TensorFlow Lite's own kernels."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import kernels, library
from lce_delegate import reference
from lce_delegate.models import Graph
from lce_delegate.oracle import Interpreter, Job, Litert
from lce_delegate.reference import Int8Convolution, Padding, Pair, Quantization

IMAGE = Quantization(1 / 128, -3)
LEVELS = Quantization(0.4, -128)
"""RELU6 leaves 16 values of this: 0, 0.4, ... 6."""
MOST_VALUES = 1 << 14
"""In a window; layers of more are the runtime's."""


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


def layer(
    rng: np.random.Generator, channels_in: int, channels_out: int, size: Pair = (3, 3), zero: int = 7, **options: Any
) -> Int8Convolution:
    """Return a layer of any weights whose output is spread over the int8 values."""
    values = size[0] * size[1] * channels_in
    spread = 74 * 74 * values**0.5  # of sums
    return Int8Convolution(
        rng.integers(-128, 128, (channels_out, *size, channels_in)).astype(np.int8),
        rng.integers(-spread, spread + 1, channels_out).astype(np.int32),
        (rng.uniform(10, 60, channels_out) / spread).astype(np.float32),
        IMAGE.scale,
        Quantization(IMAGE.scale, zero),
        **options,
    )


def model(chain: Sequence[Int8Convolution], shape: Sequence[int], image: Quantization, bits: bool) -> bytes:
    """Return layers that follow each other, all of them read, and maybe a quantization to bits.

    Without that the delegate leaves a graph alone.
    """
    graph = Graph()
    outputs = [graph.input(shape, np.int8, image)]
    for convolution in chain:
        outputs.append(graph.conv2d(outputs[-1], convolution))
    if bits:
        outputs.append(graph.quantize(outputs[-1]))
    return graph.serialize(*outputs[1:])


def check(
    litert: Interpreter, chain: Sequence[Int8Convolution], values: NDArray[np.int8], image: Quantization = IMAGE
) -> list[NDArray[Any]]:
    """Hold the delegate, with all its kernels, and the runtime against the reference; return what that gives."""
    expected = [values]
    for convolution, (_, zero) in zip(chain, [image, *(before.output for before in chain)], strict=False):
        expected.append(reference.conv2d(expected[-1], zero, convolution))
    del expected[0]
    if platform.machine() == "x86_64":  # elsewhere the runtime rounds in another way
        own = litert.run(model(chain, values.shape, image, bits=False), [values], Litert(None))
        for theirs, referred in zip(own, expected, strict=True):
            np.testing.assert_array_equal(theirs, referred)
    content = model(chain, values.shape, image, bits=True)
    for kernel in kernels():
        for threads in (1, 3):
            *actual, _ = litert.run(content, [values], Litert(library(), kernel, threads))
            for ours, referred in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(ours, referred, err_msg=kernel)
    return expected


def any_values(rng: np.random.Generator, shape: Sequence[int]) -> NDArray[np.int8]:
    return rng.integers(-128, 128, shape).astype(np.int8)


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
def test_layer_of_four_bits(litert: Interpreter, name: str) -> None:
    rng = np.random.default_rng(20)
    options = {"middle": 128, "last": 64, **CASES[name]}
    levels, last = check(litert, layers(rng, **options), any_values(rng, (2, 21, 26, 3)))
    assert len(np.unique(levels)) <= 16
    assert len(np.unique(last)) > 4


def test_layer_of_four_bits_in_several_bands(litert: Interpreter) -> None:
    rng = np.random.default_rng(20)
    check(litert, layers(rng, 128, 40, size=(3, 2), stride=(2, 1)), any_values(rng, (2, 75, 82, 3)))


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    words=st.integers(1, 5),
    last=st.integers(1, 80),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
)
def test_layers_of_four_bits_of_any_shape(
    litert: Interpreter, seed: int, words: int, last: int, size: Any, stride: Any, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    check(litert, layers(rng, 32 * words, last, size=size, stride=stride), any_values(rng, (1, height, width, 3)))


@pytest.mark.parametrize("channels_out", [1, 5, 64, 65])
@pytest.mark.parametrize("channels_in", [1, 3, 5, 65])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (7, 5)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_layer(litert: Interpreter, size: Pair, channels_in: int, channels_out: int) -> None:
    rng = np.random.default_rng(21)
    (output,) = check(litert, [layer(rng, channels_in, channels_out, size)], any_values(rng, (2, 9, 11, channels_in)))
    assert len(np.unique(output)) > 15


@pytest.mark.parametrize("input_zero", [-128, -1, 0, 127])
@pytest.mark.parametrize("output_zero", [-128, 0, 127])
def test_layer_with_any_zero_points(litert: Interpreter, input_zero: int, output_zero: int) -> None:
    # At the border the padding, which is the zero point, is a part of most windows.
    rng = np.random.default_rng(22)
    values = any_values(rng, (1, 6, 5, 19))
    check(litert, [layer(rng, 19, 33, (5, 4), output_zero)], values, Quantization(IMAGE.scale, input_zero))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 70, 90, 65), {}),
        ((1, 67, 90, 65), {"padding": "VALID"}),
        ((1, 131, 90, 65), {"stride": (3, 2)}),
        ((1, 90, 80, 65), {"dilation": (4, 3)}),
        ((1, 60, 50, 130), {"stride": (2, 2), "dilation": (3, 2), "padding": "VALID"}),  # rows are left unread
        ((1, 5, 700, 200), {}),  # a band a row
        ((2, 3, 2500, 130), {}),  # whose windows are larger than a band
    ],
    ids=str,
)
def test_layer_in_several_bands(litert: Interpreter, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(23)
    check(litert, [layer(rng, shape[3], 5, **options)], any_values(rng, shape))


def test_layer_of_the_most_values(litert: Interpreter) -> None:
    rng = np.random.default_rng(24)
    channels = MOST_VALUES // 64
    check(litert, [layer(rng, channels, 66, (8, 8))], any_values(rng, (1, 9, 8, channels)))


def test_layer_of_more_values_is_left_to_the_runtime(litert: Interpreter) -> None:
    rng = np.random.default_rng(24)
    channels = MOST_VALUES // 64 + 1
    chain = [layer(rng, channels, 66, (8, 8))]
    values = any_values(rng, (1, 9, 8, channels))
    content = model(chain, values.shape, IMAGE, bits=True)
    (with_delegate, _), (without,) = (
        litert.run(content, [values], Litert(library())),
        litert.run(model(chain, values.shape, IMAGE, bits=False), [values], Litert(None)),
    )
    np.testing.assert_array_equal(with_delegate, without)
    (part,) = litert.parts(content, Litert(library()))
    assert len(part.outputs) == 1  # the bits alone


@pytest.mark.parametrize("values", [-128, 127])
@pytest.mark.parametrize("weights", [-128, 127])
def test_sums_as_large_as_they_can_be(litert: Interpreter, values: int, weights: int) -> None:
    channels = MOST_VALUES // 9
    largest = 9 * channels * 255 * 128 + (1 << 29)
    convolution = Int8Convolution(
        np.full((3, 3, 3, channels), weights, np.int8),
        np.array([-(1 << 29), 0, 1 << 29], np.int32),
        np.array([127 / largest, 100 / largest, 120 / largest], np.float32),
        1.0,
        Quantization(1.0, 0),
    )
    image = np.full((1, 4, 3, channels), values, np.int8)
    (output,) = check(litert, [convolution], image, Quantization(1.0, 127 if values < 0 else -128))
    assert np.abs(output.astype(int)).max() > 100


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 2),
    image=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    channels=st.tuples(st.integers(1, 140), st.integers(1, 140)),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["SAME", "VALID"]),
    activation=st.sampled_from(["NONE", "RELU", "RELU6"]),
    zeros=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
)
def test_layers_of_any_shape(
    litert: Interpreter,
    seed: int,
    batch: int,
    image: Pair,
    channels: Pair,
    size: Pair,
    stride: Pair,
    dilation: Pair,
    padding: Padding,
    activation: Any,
    zeros: Pair,
) -> None:
    reach = [(length - 1) * spread + 1 for length, spread in zip(size, dilation, strict=True)]
    if padding == "VALID":
        image = (image[0] + reach[0] - 1, image[1] + reach[1] - 1)
    rng = np.random.default_rng(seed)
    options = {"stride": stride, "dilation": dilation, "padding": padding, "activation": activation}
    chain = [layer(rng, *channels, size, zeros[1], **options)]
    check(litert, chain, any_values(rng, (batch, *image, channels[0])), Quantization(IMAGE.scale, zeros[0]))


def test_layers_follow_each_other_and_are_resized(litert: Interpreter) -> None:
    rng = np.random.default_rng(25)
    chain = [layer(rng, 3, 40, (5, 5), stride=(2, 2)), layer(rng, 40, 65), layer(rng, 65, 7, (1, 1))]
    feeds = [
        any_values(rng, (batch, *image, 3)) for batch, *image in ((1, 20, 24), (2, 90, 160), (1, 1, 1), (1, 20, 24))
    ]
    job = Job(model(chain, feeds[0].shape, IMAGE, bits=True), [[values] for values in feeds])
    for kernel in kernels():
        (invocations,) = litert.run_jobs([job], Litert(library(), kernel, threads=2))
        for values, (*actual, _) in zip(feeds, invocations, strict=True):
            expected, zero = values, IMAGE.zero_point
            for ours, convolution in zip(actual, chain, strict=True):
                expected, zero = reference.conv2d(expected, zero, convolution), convolution.output.zero_point
                np.testing.assert_array_equal(ours, expected, err_msg=kernel)


def test_without_larq_operators_a_graph_is_left_alone(litert: Interpreter) -> None:
    rng = np.random.default_rng(20)
    content = model(layers(rng, 32, 8), (1, 8, 8, 3), IMAGE, bits=False)
    assert litert.parts(content, Litert(library())) == []


def test_layers_are_the_delegates(litert: Interpreter) -> None:
    # Or these tests would compare the runtime with itself.
    rng = np.random.default_rng(20)
    for chain in (layers(rng, 32, 8), [layer(rng, 3, 5)], [layer(rng, MOST_VALUES // 9, 1)]):
        channels = chain[0].weights.shape[3]
        (part,) = litert.parts(model(chain, (1, 8, 8, channels), IMAGE, bits=True), Litert(library()))
        assert len(part.outputs) == len(chain) + 1
