# SPDX-License-Identifier: Apache-2.0
"""The four operators of the Larq Compute Engine, and TensorFlow Lite's int8 convolution, in plain NumPy.

They are slow, and meant to be read.

A binary tensor holds +1 and -1 as bits 0 and 1, thirty-two channels a word (int32), the first one in the lowest bit;
the bits past the last channel are zero. Shapes are [batch, height, width, channels].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 32

Bits = NDArray[np.bool_]
Words = NDArray[np.int32]
Pair = tuple[int, int]
"""Along the height, along the width."""

Padding = Literal["SAME", "VALID"]
Activation = Literal["NONE", "RELU", "RELU_N1_TO_1", "RELU6"]
CLAMP: dict[Activation, tuple[float, float]] = {
    "NONE": (-np.inf, np.inf),
    "RELU": (0, np.inf),
    "RELU_N1_TO_1": (-1, 1),
    "RELU6": (0, 6),
}


class Quantization(NamedTuple):
    """An int8 tensor stands for scale * (value - zero_point)."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Convolution:
    """One LceBconv2d: its options and its constants, of which `dtype` says which are used."""

    filters: Bits
    """[channels out, height, width, channels in of one group], True for -1."""
    groups: int = 1
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = "VALID"
    pad_value: Literal[0, 1] = 1
    activation: Activation = "NONE"
    dtype: type[np.generic] = np.float32
    """np.float32, np.int8, or np.int32 for packed bits."""
    multiplier: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None
    thresholds: NDArray[np.int32] | None = None
    quantization: Quantization | None = None

    @property
    def channels_in(self) -> int:
        """All groups together."""
        return self.filters.shape[3] * self.groups

    @property
    def channels_out(self) -> int:
        """All groups together."""
        return self.filters.shape[0]

    @property
    def size(self) -> Pair:
        """Height and width of the filters."""
        return self.filters.shape[1], self.filters.shape[2]


@dataclass(frozen=True)
class MaxPool:
    """The options of one LceBMaxPool2d."""

    size: Pair
    stride: Pair
    padding: Padding


@dataclass(frozen=True)
class Int8Convolution:
    """One int8 CONV_2D."""

    weights: NDArray[np.int8]
    """[channels out, height, width, channels in]"""
    bias: NDArray[np.int32]
    scales: NDArray[np.float32]
    """Of the weights, [channels out]."""
    input_scale: float
    output: Quantization
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = "SAME"
    activation: Activation = "NONE"


class Window(NamedTuple):
    """How a filter moves along one axis."""

    outputs: int
    before: int
    after: int


def window(length: int, size: int, stride: int, dilation: int, padding: Padding) -> Window:
    """Return the number of outputs along an axis of `length`, and how far the filter reaches over its ends."""
    reach = (size - 1) * dilation + 1
    if padding == "VALID":
        return Window(max((length - reach) // stride + 1, 0), 0, 0)
    outputs = -(-length // stride)
    missing = max((outputs - 1) * stride + reach - length, 0)
    return Window(outputs, missing // 2, missing - missing // 2)


def pack(bits: Bits) -> Words:
    """Pack the last axis into words."""
    missing = -bits.shape[-1] % WORD_BITS
    filled = np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, missing)])
    return np.packbits(filled, axis=-1, bitorder="little").view("<i4").astype(np.int32)


def unpack(words: Words, channels: int) -> Bits:
    """Return the first `channels` bits along the last axis."""
    octets = np.ascontiguousarray(words.astype("<i4")).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=channels, bitorder="little").astype(bool)


def quantize(values: NDArray[Any], zero_point: int = 0) -> Words:
    """LceQuantize: float32, int8 or bool to bits.

    NaN is +1, and so are -0.0 and the negative subnormal numbers: TensorFlow Lite runs with those taken for zero.
    """
    if values.dtype == np.float32:
        return pack(values <= -np.finfo(np.float32).smallest_normal)
    return pack(~values if values.dtype == bool else values < zero_point)


def dequantize(
    words: Words, channels: int, dtype: type[np.generic], quantization: Quantization | None = None
) -> NDArray[Any]:
    """LceDequantize: bits to float32 or int8, +1 and -1 (as near as int8 comes to them), or to bool, True for +1."""
    bits = unpack(words, channels)
    if dtype is np.bool_:
        return ~bits
    if quantization is None:
        return np.where(bits, np.float32(-1), np.float32(1))
    one = round_half_away(np.float32(1) / np.float32(quantization.scale))
    signed = quantization.zero_point + np.where(bits, -one, one)
    return np.clip(signed, -128, 127).astype(np.int8)


def round_half_away(values: Any) -> NDArray[np.int64]:
    """Round to the nearest integer, halves away from zero; in float64, where adding a half to a float32 is exact."""
    wide = np.asarray(values, np.float64)
    return np.trunc(wide + np.copysign(0.5, wide)).astype(np.int64)


def bconv2d(words: Words, convolution: Convolution) -> NDArray[Any]:
    """LceBconv2d on packed bits."""
    doubled = _doubled_accumulators(words, convolution)
    if convolution.dtype is np.int32:
        assert convolution.thresholds is not None
        return pack(doubled > 2 * convolution.thresholds.astype(np.int64))
    height, width = convolution.size
    depth = height * width * convolution.filters.shape[3]
    values = _transform(doubled, depth, convolution)
    if convolution.dtype is np.float32:
        return values
    return np.clip(round_half_away(values), -128, 127).astype(np.int8)


def _doubled_accumulators(words: Words, convolution: Convolution) -> NDArray[np.int64]:
    """Return twice the number of bits in which each filter differs from what it covers, [batch, height, width, out].

    A place outside of the image is all bits 0 where `pad_value` is 1; where it is 0, half of its bits differ, which
    is a whole number only when doubled.
    """
    image = unpack(words, convolution.channels_in)
    rows, columns = (
        window(*axis, convolution.padding)
        for axis in zip(image.shape[1:3], convolution.size, convolution.stride, convolution.dilation, strict=True)
    )
    borders = ((0, 0), rows[1:], columns[1:], (0, 0))
    outside = np.pad(np.zeros_like(image), borders, constant_values=convolution.pad_value == 0)
    image = np.pad(image, borders)
    depth = convolution.filters.shape[3]
    out_of_group = convolution.channels_out // convolution.groups
    doubled = np.zeros((len(image), rows.outputs, columns.outputs, convolution.channels_out), np.int64)
    for (y, x), group in ((tap, group) for tap in np.ndindex(convolution.size) for group in range(convolution.groups)):
        covered = np.s_[
            :,
            y * convolution.dilation[0] :: convolution.stride[0],
            x * convolution.dilation[1] :: convolution.stride[1],
            group * depth : (group + 1) * depth,
        ]
        of_group = slice(group * out_of_group, (group + 1) * out_of_group)
        seen, blank = (plane[covered][:, : rows.outputs, : columns.outputs] for plane in (image, outside))
        differing = _differing_bits(seen, convolution.filters[of_group, y, x])
        doubled[..., of_group] += np.where(blank.all(axis=-1, keepdims=True), depth, 2 * differing)
    return doubled


def _differing_bits(pixels: Bits, filters: Bits) -> NDArray[np.int64]:
    """Return the population count of the exclusive or of each pixel [..., C] with each filter [O, C]: [..., O]."""
    # a xor b = a + b - 2ab; these products and sums are exact in float32.
    a, b = pixels.astype(np.float32), filters.astype(np.float32)
    return (a.sum(-1, keepdims=True) + b.sum(-1) - 2 * a @ b.T).astype(np.int64)


def _transform(doubled: NDArray[np.int64], depth: int, convolution: Convolution) -> NDArray[np.float32]:
    """Return activation(depth - doubled) * multiplier + bias in units of the output's scale, with LCE's roundings.

    The constants are folded in float64 and rounded once to float32; then one float32 product and one float32 sum.
    """
    assert convolution.multiplier is not None
    assert convolution.bias is not None
    lowest, highest = (np.clip(end, -depth, depth) for end in CLAMP[convolution.activation])
    clamped = np.clip(doubled, depth - highest, depth - lowest).astype(np.float32)
    scale, zero_point = convolution.quantization or (1, 0)
    scale64 = np.float64(np.float32(scale))
    multiplier, bias = (constant.astype(np.float64) for constant in (convolution.multiplier, convolution.bias))
    folded_multiplier = (-multiplier / scale64).astype(np.float32)
    folded_bias = ((bias + depth * multiplier) / scale64 + zero_point).astype(np.float32)
    transformed: NDArray[np.float32] = clamped * folded_multiplier + folded_bias
    return transformed


def bmaxpool2d(words: Words, pool: MaxPool) -> Words:
    """LceBMaxPool2d: -1 only where all that the window covers of the image is -1."""
    rows, columns = (
        window(length, size, stride, 1, pool.padding)
        for length, size, stride in zip(words.shape[1:3], pool.size, pool.stride, strict=True)
    )
    padded = np.pad(words, ((0, 0), rows[1:], columns[1:], (0, 0)), constant_values=-1)
    largest = np.full((len(words), rows.outputs, columns.outputs, words.shape[3]), -1, np.int32)
    for y, x in np.ndindex(pool.size):
        covered = padded[:, y :: pool.stride[0], x :: pool.stride[1]]
        largest &= covered[:, : rows.outputs, : columns.outputs]
    return largest


def conv2d(values: NDArray[np.int8], zero_point: int, convolution: Int8Convolution) -> NDArray[np.int8]:
    """CONV_2D on int8 of a zero point, with the roundings of TensorFlow Lite on x86-64.

    These are upwards where there are two as near. Its own kernels for ARM take another one now and then.
    """
    size = convolution.weights.shape[1:3]
    rows, columns = (
        window(*axis, convolution.padding)
        for axis in zip(values.shape[1:3], size, convolution.stride, convolution.dilation, strict=True)
    )
    # Whole numbers below 2^53 are exact in float64, and their products much faster.
    image = np.pad(values.astype(np.float64) - zero_point, ((0, 0), rows[1:], columns[1:], (0, 0)))
    sums = np.zeros((len(image), rows.outputs, columns.outputs, len(convolution.weights)))
    for y, x in np.ndindex(*size):
        covered = image[
            :,
            y * convolution.dilation[0] :: convolution.stride[0],
            x * convolution.dilation[1] :: convolution.stride[1],
        ]
        sums += covered[:, : rows.outputs, : columns.outputs] @ convolution.weights[:, y, x].T.astype(np.float64)
    scale, output_zero = convolution.output
    real = np.float64(np.float32(convolution.input_scale)) * convolution.scales.astype(np.float64) / np.float32(scale)
    fraction, exponent = np.frexp(real)
    multiplier = np.floor(fraction * 2**31 + 0.5).astype(np.int64)
    product = (sums.astype(np.int64) + convolution.bias) * multiplier
    shift = -exponent.astype(np.int64)
    rounded = ((product + (1 << 30) >> 31) + (1 << shift >> 1)) >> shift
    lowest, highest = (
        output_zero + round_half_away(np.float32(end) / np.float32(scale)) if np.isfinite(end) else end
        for end in CLAMP[convolution.activation]
    )
    return np.clip(rounded + output_zero, max(-128, lowest), min(127, highest)).astype(np.int8)
