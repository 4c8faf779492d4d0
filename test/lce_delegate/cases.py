# SPDX-License-Identifier: Apache-2.0
"""What to try: a grid of binary convolutions that meets their options in many combinations, and a strategy for more."""

from __future__ import annotations

import functools
import itertools
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from lce_delegate import reference
from lce_delegate.models import Graph
from lce_delegate.reference import WORD_BITS, Activation, Convolution, MaxPool, Padding, Pair, Quantization

Border = Literal["VALID", "ZERO", "ONE"]
"""No padding, or so much that the stride alone says how many outputs there are, with zeros or with ones."""

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Case:
    """A model of one LceQuantize and one LceBconv2d. What fills it follows from its options: the constants from all but
    the size of the image, so that a model resized is the model built so.
    """

    batch: int
    image: Pair
    channels_in: int
    channels_out: int
    size: Pair
    stride: Pair
    dilation: Pair
    border: Border
    activation: Activation
    dtype: type[np.generic]
    groups: int
    threads: int = 1

    def __str__(self) -> str:
        """Return what pytest is to call the case."""
        pairs = (self.image, self.size, self.stride, self.dilation)
        image, size, stride, dilation = (f"{height}x{width}" for height, width in pairs)
        return (
            f"{self.batch}x{image}x{self.channels_in}-{self.channels_out}of{size}-stride{stride}-dilation{dilation}"
            f"-{self.border}-{self.activation}-{self.dtype.__name__}-groups{self.groups}"
            f"-threads{self.threads}"
        )

    def convolution(self) -> Convolution:
        """Return the operator; int8 outputs spread over their range, bits are balanced."""
        rng = np.random.default_rng(zlib.crc32(str(replace(self, batch=1, image=(1, 1))).encode()))
        depth = self.channels_in // self.groups
        bits = self.size[0] * self.size[1] * depth
        multiplier = rng.normal(0, 1, self.channels_out).astype(np.float32)
        multiplier[::7] = 0
        bias = rng.normal(0, bits**0.5, self.channels_out).astype(np.float32)
        thresholds = rng.normal(bits / 2, bits**0.5 / 2, self.channels_out).astype(np.int32)
        thresholds[:4] = (INT32.min, INT32.max, -1, bits)[: self.channels_out]
        # Zero padding makes the Larq Compute Engine read the multiplier even where bits come out and need none.
        transforms = self.dtype is not np.int32 or self.border == "ZERO"
        return Convolution(
            filters=rng.random((self.channels_out, *self.size, depth)) < 0.5,
            groups=self.groups,
            stride=self.stride,
            dilation=self.dilation,
            padding="VALID" if self.border == "VALID" else "SAME",
            pad_value=0 if self.border == "ZERO" else 1,
            activation=self.activation,
            dtype=self.dtype,
            multiplier=multiplier if transforms else None,
            bias=bias if transforms else None,
            thresholds=thresholds if self.dtype is np.int32 else None,
            quantization=Quantization(float(bits**0.5 / 50), -7) if self.dtype is np.int8 else None,
        )

    def values(self) -> NDArray[np.float32]:
        """Return what to feed the model."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()) + 1)
        return rng.normal(size=(self.batch, *self.image, self.channels_in)).astype(np.float32)

    def model(self) -> bytes:
        """Return the model file."""
        graph = Graph()
        image = graph.input((self.batch, *self.image, self.channels_in))
        return graph.serialize(graph.bconv2d(graph.quantize(image), self.convolution()))

    @functools.cache  # noqa: B019
    def expected(self) -> NDArray[Any]:
        """Return what the reference makes of `values`."""
        return reference.bconv2d(reference.quantize(self.values()), self.convolution())

    @property
    def reach(self) -> Pair:
        """Height and width of what a filter covers."""
        return (self.size[0] - 1) * self.dilation[0] + 1, (self.size[1] - 1) * self.dilation[1] + 1

    @property
    def inside(self) -> bool:
        """Whether the image is at least as large as what a filter covers."""
        return all(length >= reach for length, reach in zip(self.image, self.reach, strict=True))

    @property
    def fits(self) -> bool:
        """Whether the Larq Compute Engine defines the operator: groups of whole words, zeros that are whole bits."""
        whole_groups = self.groups == 1 or (
            self.channels_in % (self.groups * WORD_BITS) == 0 and self.channels_out % self.groups == 0
        )
        unclamped = self.dtype is np.float32 and self.activation == "NONE"
        whole_zeros = self.border != "ZERO" or self.channels_in % 2 == 0 or unclamped
        return whole_groups and whole_zeros and (self.inside or self.border != "VALID")


OPTIONS: dict[str, list[Any]] = {
    "batch": [1, 3],
    "image": [(1, 1), (3, 3), (5, 7), (7, 5), (8, 8), (4, 9), (9, 2)],
    "channels_in": [1, 3, 31, 32, 33, 64, 96, 100, 128, 256, 512],
    "channels_out": [1, 8, 31, 32, 33, 64, 100, 128, 256],
    "size": [(1, 1), (3, 3), (5, 5), (2, 3)],
    "stride": [(1, 1), (2, 2), (1, 2)],
    "dilation": [(1, 1), (2, 2)],
    "border": ["VALID", "ZERO", "ONE"],
    "activation": ["NONE", "RELU", "RELU_N1_TO_1", "RELU6"],
    "dtype": [np.float32, np.int8, np.int32],
    "groups": [1, 2, 4],
    "threads": [1, 2],
}


def _grid(count: int) -> Iterator[Case]:
    """Draw cases that fit; every value of every option is drawn about as often as the others that fit with it."""
    drawing = random.Random(0)  # noqa: S311
    while count:
        case = Case(**{name: drawing.choice(values) for name, values in OPTIONS.items()})
        if case.fits:
            count -= 1
            yield case


GRID = tuple(_grid(240))


def _pairs(largest: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a small case with any numbers for options."""
    groups = draw(st.integers(1, 3))
    case = Case(
        batch=draw(st.integers(1, 3)),
        image=draw(_pairs(9)),
        channels_in=draw(st.integers(1, 160)) if groups == 1 else groups * WORD_BITS * draw(st.integers(1, 2)),
        channels_out=groups * draw(st.integers(1, 70 // groups)),
        size=draw(_pairs(4)),
        stride=draw(_pairs(3)),
        dilation=draw(_pairs(3)),
        border=draw(st.sampled_from(OPTIONS["border"])),
        activation=draw(st.sampled_from(OPTIONS["activation"])),
        dtype=draw(st.sampled_from(OPTIONS["dtype"])),
        groups=groups,
        threads=draw(st.integers(1, 3)),
    )
    if case.border == "VALID":
        (height, width), reach = case.image, case.reach
        case = replace(case, image=(height + reach[0] - 1, width + reach[1] - 1))
    assume(case.fits)
    return case


class Example(NamedTuple):
    """A model, its input and what the reference makes of it."""

    name: str
    model: bytes
    values: NDArray[Any]
    expected: list[NDArray[Any]]

    def __str__(self) -> str:
        """Return what pytest is to call the example."""
        return self.name


def _quantizations() -> Iterator[Example]:
    rng = np.random.default_rng(1)
    nothing = np.array([np.nan, -np.nan, 0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38], np.float32)
    something = np.array([np.inf, -np.inf, 1.2e-38, -1.2e-38, 1, -1], np.float32)
    special = np.resize(np.concatenate([nothing, something]), (3, 2, 2, 101))
    shapes = (1,), (33,), (4, 31), (2, 3, 64), (1, 9, 7, 160), (2, 1, 3, 1, 2, 40)
    floats = {"special": special} | {"x".join(map(str, shape)): rng.normal(size=shape) for shape in shapes}
    for name, values in floats.items():
        yield _quantization(f"float32-{name}", values.astype(np.float32))
    every = np.arange(-128, 128).astype(np.int8)
    for zero_point in (-128, -127, -1, 0, 3, 127):
        for shape in ((1, 256), (4, 4, 16), (2, 1, 1, 100)):
            yield _quantization(f"int8-{zero_point}-{shape[-1]}", np.resize(every, shape), zero_point)
    for shape in ((5, 32), (3, 3, 45)):
        yield _quantization(f"bool-{shape[-1]}", rng.random(shape) < 0.5)


def _quantization(name: str, values: NDArray[Any], zero_point: int | None = None) -> Example:
    graph = Graph()
    quantization = None if zero_point is None else Quantization(0.5, zero_point)
    output = graph.quantize(graph.input(values.shape, values.dtype.type, quantization))
    return Example(f"quantize-{name}", graph.serialize(output), values, [reference.quantize(values, zero_point or 0)])


def _dequantizations() -> Iterator[Example]:
    # The last ones round 1 / scale up, down, and halves away from zero; the zero points make that saturate.
    scales = (1, 0), (0.1, 120), (0.01, -3), (0.001, 5), (2 / 3, -128), (0.4, -5), (2, 127), (2.1, 9)
    kinds: list[tuple[type[np.generic], Quantization | None]] = [(np.float32, None), (np.bool_, None)]
    kinds += [(np.int8, Quantization(*pair)) for pair in scales]
    for (dtype, quantization), channels in itertools.product(kinds, (1, 32, 70, 128)):
        words = reference.pack(np.random.default_rng(2).random((2, 3, 3, channels)) < 0.5)
        graph = Graph()
        output = graph.dequantize(graph.input(words.shape, np.int32), channels, dtype, quantization)
        expected = reference.dequantize(words, channels, dtype, quantization)
        suffix = f"-{quantization.scale:.3f}-{quantization.zero_point}" if quantization else ""
        name = f"dequantize-{dtype.__name__}-{channels}{suffix}"
        yield Example(name, graph.serialize(output), words, [expected])


def _pools() -> Iterator[Example]:
    paddings: tuple[Padding, ...] = ("SAME", "VALID")
    sizes = ((1, 1), (2, 2), (3, 3), (2, 3), (5, 4))
    strides = ((1, 1), (2, 2), (3, 2), (1, 3))
    for size, stride, padding, image in itertools.product(sizes, strides, paddings, ((1, 1), (2, 3), (7, 8), (5, 5))):
        if padding == "VALID" and (image[0] < size[0] or image[1] < size[1]):
            continue
        words = reference.pack(np.random.default_rng(3).random((2, *image, 40)) < 0.8)
        pool = MaxPool(size, stride, padding)
        graph = Graph()
        output = graph.bmaxpool2d(graph.input(words.shape, np.int32), pool)
        height, width = (f"{a}x{b}" for a, b in (size, stride))
        name = f"maxpool-{image[0]}x{image[1]}-of{height}-stride{width}-{padding}"
        yield Example(name, graph.serialize(output), words, [reference.bmaxpool2d(words, pool)])


def _boundaries() -> Iterator[Example]:
    """Yield convolutions whose outputs lie where an output turns: at a threshold, or half way between two integers."""
    depth = 40
    # One filter, all +1; pixel n has n bits set, so that exactly n bits differ.
    words = reference.pack(np.tri(depth + 1, depth, -1, bool).reshape(1, 1, depth + 1, depth))
    thresholds = np.concatenate([np.arange(-2, depth + 2), [INT32.min, INT32.min + 1, INT32.max - 1, INT32.max]])
    shape = (len(thresholds), 1, 1, depth)
    yield _boundary(
        "thresholds", words, Convolution(np.zeros(shape, bool), dtype=np.int32, thresholds=thresholds.astype(np.int32))
    )
    multiplier = np.array([0.25, -0.25, 0.5, -0.5, 0.75, 1.25, 2, 4, -4, 0, 0.125], np.float32)
    bias = np.array([0, 0, 0.5, -0.5, 0.25, 0.75, 0.5, 0.5, -0.5, -2.5, 3], np.float32)
    for scale, zero_point in ((1.0, 0), (0.5, -128), (0.25, 127), (2.0, 3)):
        convolution = Convolution(
            np.zeros((len(bias), 1, 1, depth), bool),
            dtype=np.int8,
            multiplier=multiplier,
            bias=bias,
            quantization=Quantization(scale, zero_point),
        )
        yield _boundary(f"rounding-{scale}-{zero_point}", words, convolution)


def _boundary(name: str, words: NDArray[np.int32], convolution: Convolution) -> Example:
    graph = Graph()
    output = graph.bconv2d(graph.input(words.shape, np.int32), convolution)
    return Example(name, graph.serialize(output), words, [reference.bconv2d(words, convolution)])


def shortcut_network() -> Example:
    """Build convolutions with shortcuts around them, layer after layer, some halving the image while they widen.

    It ends in a chain of all four operators in which nothing but bits and int8 passes from one to the next.
    """
    rng = np.random.default_rng(20)

    def convolution(channels_in: int, channels_out: int, **options: Any) -> Convolution:
        scale = (9 * channels_in) ** -0.5
        constants: dict[str, Any] = {
            "multiplier": rng.normal(scale, scale / 3, channels_out).astype(np.float32),
            "bias": rng.normal(0, 0.1, channels_out).astype(np.float32),
        }
        if options.get("dtype") is np.int32:
            constants = {"thresholds": rng.integers(4 * channels_in, 5 * channels_in, channels_out, np.int32)}
        filters = rng.random((channels_out, 3, 3, channels_in)) < 0.5
        return Convolution(filters, padding="SAME", **constants, **options)

    graph = Graph()
    values = y = rng.normal(size=(2, 12, 16, 32)).astype(np.float32)
    x = graph.input(values.shape)
    for channels, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (100, 2), (100, 1)):
        layer = convolution(y.shape[3], channels, stride=(stride, stride))
        branch, y_branch = graph.bconv2d(graph.quantize(x), layer), reference.bconv2d(reference.quantize(y), layer)
        if stride == 2:
            x = graph.pad_channels(graph.average_pool(x, (2, 2)), channels)
            batch, height, width, given = y.shape
            y = y.reshape(batch, height // 2, 2, width // 2, 2, given).mean((2, 4))
            y = np.pad(y, [(0, 0)] * 3 + [(0, channels - given)])
        x, y = graph.add(branch, x), y_branch + y

    to_bits = convolution(100, 40, dtype=np.int32)
    pool = MaxPool((2, 2), (1, 1), "SAME")
    to_int8 = convolution(40, 48, dtype=np.int8, quantization=Quantization(0.02, 5), activation="RELU6")
    bits = graph.bmaxpool2d(graph.bconv2d(graph.quantize(x), to_bits), pool)
    int8 = graph.bconv2d(bits, to_int8)
    signs = graph.dequantize(graph.quantize(int8), 48)
    y_bits = reference.bmaxpool2d(reference.bconv2d(reference.quantize(y), to_bits), pool)
    y_int8 = reference.bconv2d(y_bits, to_int8)
    y_signs = reference.dequantize(reference.quantize(y_int8, 5), 48, np.float32)
    model = graph.serialize(x, bits, int8, signs)
    return Example("shortcuts", model, values, [y, y_bits, y_int8, y_signs])


EXAMPLES = (*_quantizations(), *_dequantizations(), *_pools(), *_boundaries(), shortcut_network())


def assert_same(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    """Bits and int8 are equal; floats are within 1e-5 of their own size or of a hundredth of the largest one's."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if expected.dtype == np.float32:
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(initial=0))
    else:
        np.testing.assert_array_equal(actual, expected)
