# SPDX-License-Identifier: Apache-2.0
"""The network for local features: one definition for training and for export.

All layers but the stem and the heads are binary convolutions with a shortcut over each. Every size in it is half or a
quarter of another, and nothing in the exported file states one: its input can be resized to any multiple of SIZE_STEP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import keras
from keras import layers, ops

from binvpr_ros.lab.training.networks.layers import (
    BinaryConv2D,
    EightBits,
    QuantizedConv2D,
    Tensor,
    batch_norm,
)
from binvpr_ros.lab.training.quantizers import WeightClip, leaky_tanh_sign

NETWORK = "local"
CELL = 8
"""Pixels a side of a cell: the outputs have one row and column for each."""
POSITIONS = CELL**2
SIZE_STEP = 16
"""Height and width are multiples of this: the context is computed at a sixteenth of the size."""
STEM = 32
"""Filters of the first layer with a real input; the second has those of the first binary layers."""
FOLD = 4
"""Pixels a side of the blocks that are the channels of the first one's input."""
NARROW, EIGHTH = 2, 1
"""Binary layers at an eighth of the size, of half the width and of the whole one."""
CORNERS, CORNERS_WIDTH = 3, 64
"""Layers that find keypoints, each in its cell alone, and their filters."""
LEVELS = 32
"""Of the input, to one standard deviation of the image."""
IMAGE_RANGE = (-128 / LEVELS, 127 / LEVELS)
FEATURES_RANGE = (-4.0, 4 * 127 / 128)
SUMS_RANGE = (-12.0, 12 * 127 / 128)
"""Of the sums of all layers of the trunk."""
LOGITS_RANGE = (-8.0, 8 * 127 / 128)
RECTIFIED_TOP = 6.0

NORM = partial(batch_norm, epsilon=1e-5)


@dataclass(frozen=True)
class Shape:
    """How large the network is; the ablations have others than the packaged one."""

    bits: int = 256  # of a descriptor
    width: int = 128  # filters of the binary layers, but for the first ones, which have half as many
    sixteenth: int = 5  # binary layers at a sixteenth of the size
    trunk_bits: int = 1  # of the weights and inputs of the trunk's layers: 1 or 8
    projected: int = 0  # numbers of which the bits are fixed random projections; 0: the bits are trained


SHAPE = Shape()


class TrunkConv2D(BinaryConv2D):
    """A binary convolution with clipped latent weights: an optimiser with momentum would carry them away."""

    constraint = WeightClip(1.3)


def build(height: int, width: int, for_export: bool = False, taught: int = 0, shape: Shape = SHAPE) -> keras.Model:
    """Build the network for images [N, height, width, 1] of levels float32 from 0 to 255, multiples of SIZE_STEP.

    Levels are what `local_features.learned.levels` makes of an image: in shades of grey, normalized.

    Outputs for each of the height/8 x width/8 cells, float32, in an exported file int8: `descriptors` [N,h,w,bits],
    multiples of 1/32, whose signs are the bits once they are interpolated; `keypoints` [N,h,w,65], the logits of the 64
    positions in the cell, row by row, and of none; `reliability` [N,h,w,1], a logit; logits are multiples of 1/16. With
    `taught` also what the bits, or the numbers that they are projections of, say of the teacher's descriptors,
    [N,h,w,taught].
    With `for_export` the input is scaled to IMAGE_RANGE already, as the converter's uint8 input will be.
    Raises ValueError where a size does not fit.
    """
    if height % SIZE_STEP or width % SIZE_STEP or min(height, width) < SIZE_STEP:
        raise ValueError(f"images of {width}x{height} pixels do not fit; give multiples of {SIZE_STEP}")
    image = keras.Input((height, width, 1), name="image")
    x = image if for_export else layers.Rescaling(1 / LEVELS, offset=-128 / LEVELS, name="rescale")(image)
    image_levels = EightBits(*IMAGE_RANGE, name="image_levels")(x)

    blocks = EightBits(*IMAGE_RANGE, name="blocks")(ops.space_to_depth(image_levels, FOLD))
    x = _stem(blocks, STEM, 1, "stem1", for_export=for_export)
    x = NORM("stem2_norm")(QuantizedConv2D(shape.width // 2, 2, for_export=for_export, name="stem2_conv")(x))
    x = EightBits(*FEATURES_RANGE, name="stem2_levels")(x)

    convolve = partial(_binary if shape.trunk_bits == 1 else _eight_bits, for_export=for_export)
    for number in range(NARROW):
        x = layers.Add()([x, convolve(x, shape.width // 2, 1, f"narrow{number + 1}")])
    x = layers.Add()([_widen(x), convolve(x, shape.width, 1, "eighth0")])
    for number in range(EIGHTH):
        x = layers.Add()([x, convolve(x, shape.width, 1, f"eighth{number + 1}")])
    context = layers.Add()([layers.AveragePooling2D(2)(x), convolve(x, shape.width, 2, "sixteenth0")])
    for number in range(shape.sixteenth):
        context = layers.Add()([context, convolve(context, shape.width, 1, f"sixteenth{number + 1}")])
    x = layers.Add()([x, _enlarged(context)])
    x = layers.Add()([x, convolve(x, shape.width, 1, "fused")])

    mixed = EightBits(*SUMS_RANGE, name="fused_levels")(x)
    mixed = _stem(mixed, shape.width, 1, "mixed", for_export=for_export, size=1)
    head = partial(_logits, for_export=for_export)
    numbers = head(mixed, shape.projected, "numbers") if shape.projected else mixed
    descriptors = QuantizedConv2D(
        shape.bits, for_export=for_export, size=1, trainable=not shape.projected, name="descriptors_conv"
    )(numbers)
    # Without scale and shift every bit's threshold is its mean, so the bits stay balanced.
    descriptors = EightBits(*FEATURES_RANGE, name="descriptors")(NORM("descriptors_norm", affine=False)(descriptors))
    corners = ops.space_to_depth(blocks, CELL // FOLD)
    for number in range(CORNERS):
        corners = _stem(corners, CORNERS_WIDTH, 1, f"corners{number + 1}", for_export=for_export, size=1)
    outputs = {
        "descriptors": descriptors,
        "keypoints": head(corners, POSITIONS + 1, "keypoints"),
        "reliability": head(mixed, 1, "reliability"),
    }
    if taught:
        read = layers.Conv2D(taught, 1, use_bias=False, name="taught")
        outputs["taught"] = numbers if shape.projected else read(leaky_tanh_sign(descriptors))
    return keras.Model(image, outputs, name=NETWORK)


def _stem(x: Tensor, filters: int, stride: int, name: str, *, for_export: bool, size: int = 3) -> Tensor:
    """Return the rectified convolution of levels, as levels."""
    x = QuantizedConv2D(filters, stride, for_export=for_export, size=size, name=f"{name}_conv")(x)
    x = layers.ReLU(RECTIFIED_TOP, name=f"{name}_relu")(NORM(f"{name}_norm")(x))
    return EightBits(0.0, RECTIFIED_TOP, name=f"{name}_levels")(x)


def _logits(x: Tensor, filters: int, name: str, *, for_export: bool) -> Tensor:
    """Return what each cell says of itself, as levels of LOGITS_RANGE."""
    x = QuantizedConv2D(filters, for_export=for_export, size=1, name=f"{name}_conv")(x)
    return EightBits(*LOGITS_RANGE, name=name)(NORM(f"{name}_norm")(x))


def _binary(x: Tensor, filters: int, stride: int, name: str, *, for_export: bool) -> Tensor:
    return NORM(f"{name}_norm")(TrunkConv2D(filters, stride, for_export, name=f"{name}_conv")(x))


def _eight_bits(x: Tensor, filters: int, stride: int, name: str, *, for_export: bool) -> Tensor:
    """Return what `_binary` does, of rectified levels instead of signs."""
    x = EightBits(0.0, SUMS_RANGE[1], name=f"{name}_input")(layers.ReLU()(x))
    x = NORM(f"{name}_norm")(QuantizedConv2D(filters, stride, for_export=for_export, name=f"{name}_conv")(x))
    return EightBits(*FEATURES_RANGE, name=f"{name}_output")(x)


def _widen(x: Tensor) -> Tensor:
    """Return `x` [N,h,w,C] twice, as [N,h,w,2C]."""
    return layers.Concatenate()([x, x])


def _enlarged(x: Tensor) -> Tensor:
    """Return `x` [N,h,w,C] at twice the size, each value four times; no size is stated in the file."""
    return ops.depth_to_space(layers.Concatenate()([x, x, x, x]), 2)
