# SPDX-License-Identifier: Apache-2.0
"""BinVPR and its baselines, with 20 and 36 layers, in Keras 3: one definition for training and for export.

Layout after the paper (Sensors 2024, 24, 4130, section 3): a basic block of three convolutions of real inputs, four
blocks of quantized convolutions (widths 128, 256, 384, 512), and features restored as `restoration` says.

The recipe `paper` is that as printed. With "leaky" quantizers no convolution of it is binary, and with "ste" ones
every first sign behind a ReLU is +1. The recipe `deploy` differs where the printed one cannot be binary: no ReLU stands
before a sign, padding is with ones, and the basic block brings the resolution down by four. Its weights are binary as
printed, but for those on the image's three channels, and its real inputs have 4 bits: in the file these are ordinary
int8 convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
from keras import layers, ops

from binvpr_ros.lab.training.networks.layers import (
    BinaryConv2D,
    EightBits,
    PairConv2D,
    QuantizedConv2D,
    Tensor,
    batch_norm,
    classifier,
    global_descriptor,
    images,
    model,
    pool_to,
    unit_images,
)
from binvpr_ros.lab.training.networks.restoration import BASIC, Place, Restoration, basic_multiple, best, places

WIDTHS = (128, 256, 384, 512)
BASIC_WIDTH = 128
BASIC_STRIDES = (2, 2, 1)
BASIC_BINARY = (False, True, True)
RECTIFIED_TOP = 6.0
RECTIFIED_RANGE = (0.0, RECTIFIED_TOP / 15 * 255)
"""Range of the 256 levels of which a ReLU that ends at RECTIFIED_TOP leaves 16: 4 bits, within an int8 tensor."""
BASIC_RANGE = (-4.0, 4 * 127 / 128)
"""Range of the 256 levels of the basic features."""
PYRAMID = ((8, 24, (1, 2, 3, 4)), (4, 28, (2, 3, 4)), (1, 64, (4,)))
"""Cells a side, bits of each cell, and the blocks whose features they are made of: what is where, fine to coarse."""
DESCRIPTOR_BITS = sum(grid**2 * bits for grid, bits, _ in PYRAMID)

LEAKY = ("leaky_tanh", "dorefa")
"""Quantizers of inputs and of weights of BinVPR-Leaky (table 6)."""
STE = ("ste_sign", "ste_sign")
"""Quantizers of inputs and of weights of BinVPR-STE (table 6)."""


DEPLOY_NORM = partial(batch_norm, epsilon=1e-5)


def deploy(
    name: str,
    depth: int,
    way: Restoration,
    input_size: int,
    classes: int | None = None,
    for_export: bool = False,
    *,
    shortcuts: bool = False,
) -> keras.Model:
    """Build a truly binary network for RGB images [N, input_size, input_size, 3] float32 from 0 to 255.

    `input_size` is a multiple of 64. Outputs: `descriptor` float32 [N, 2048], whose signs are the bits; with `classes`
    also `logits` [N, classes], for training. With `for_export` the input is scaled to IMAGE_RANGE already: as the
    converter's uint8 input will be. With `shortcuts` an identity goes over every binary convolution.
    """
    if input_size % 64:
        raise ValueError(f"input_size is {input_size}; give a multiple of 64")
    image, x = images(input_size, for_export)
    for index, (stride, binary) in enumerate(zip(BASIC_STRIDES, BASIC_BINARY, strict=True), 1):
        x = QuantizedConv2D(BASIC_WIDTH, stride, binary, for_export, name=f"basic{index}_conv")(x)
        x = DEPLOY_NORM(f"basic{index}_norm")(x)
        if index < len(BASIC_STRIDES):
            x = layers.ReLU(RECTIFIED_TOP, name=f"basic{index}_relu")(x)
            x = EightBits(*RECTIFIED_RANGE, name=f"basic{index}_levels")(x)
    x = EightBits(*BASIC_RANGE, name="basic_levels")(x)
    # This ReLU is kept away from the binary trunk: before a sign it would turn every input into +1.
    basic_features = layers.ReLU(name="basic_relu")(x)

    def restore(features: Tensor, like: Tensor, label: str) -> Tensor:
        width = like.shape[-1]
        features = layers.Conv2D(width, 1, use_bias=False, name=f"{label}_conv")(pool_to(features, like.shape[1]))
        # Starts small, so that the optimiser cannot lean on the short path and leave the trunk untrained.
        return DEPLOY_NORM(f"{label}_norm", gamma=0.3)(features)

    x, maps = _main_part(
        x, basic_features, depth, way, partial(BinaryConv2D, for_export=for_export), restore, norm=DEPLOY_NORM,
        shortcuts=shortcuts,
    )  # fmt: skip
    descriptor = _pyramid(maps | {len(WIDTHS): x}, basic_features if BASIC in way.all_sources else None)
    logits = None
    if classes is not None:
        pooled = layers.GlobalAveragePooling2D()(layers.ReLU(name="last_relu")(x))
        logits = layers.Dense(classes, name="logits")(pooled)
    return model(name, image, descriptor, logits)


def _pyramid(maps: dict[int, Tensor], basic_features: Tensor | None) -> Tensor:
    """Return the descriptor [N, 2048] of the blocks' features [N,S,S,C], and of the basic ones where there are some.

    A spatial pyramid (Lazebnik et al., CVPR 2006): fine cells tell places apart where the viewpoint is the same, coarse
    ones still fit where it is another.
    """
    scales = []
    for grid, bits, blocks in PYRAMID:
        sources = {f"block{block}": maps[block] for block in blocks}
        if basic_features is not None:
            sources["basic"] = basic_features
        parts = []
        for source, features in sources.items():
            part = layers.Conv2D(bits, 1, use_bias=False, name=f"pyramid{grid}_{source}")(pool_to(features, grid))
            parts.append(layers.UpSampling2D(grid // part.shape[1])(part) if part.shape[1] < grid else part)
        cells = layers.Add(name=f"pyramid{grid}")(parts) if len(parts) > 1 else parts[0]
        if grid > 1:
            # Light and season change a feature everywhere: what counts is where there is more of it than in the rest.
            mean = layers.GlobalAveragePooling2D(keepdims=True)(cells)
            cells = layers.Subtract(name=f"pyramid{grid}_centred")([cells, mean])
        # Without scale and shift each bit's threshold is its mean in its cell, so the bits stay balanced: else those of
        # the sky say no more than that it is up there.
        scales.append(DEPLOY_NORM(f"pyramid{grid}_norm", affine=False)(layers.Flatten()(cells)))
    return layers.Concatenate(name="descriptor")(scales)


def scales(descriptor: Tensor) -> list[Tensor]:
    """Return the scales of a descriptor [N,D], each [N,cells,cells,bits]; what is no pyramid has one cell."""
    parts, start = [], 0
    for side, bits in cells_of(descriptor.shape[-1]) or [[1, descriptor.shape[-1]]]:
        end = start + side**2 * bits
        parts.append(layers.Reshape((side, side, bits))(descriptor[:, start:end]))
        start = end
    return parts


def cells_of(descriptor_bits: int) -> list[list[int]]:
    """Return cells a side and bits of each cell, scale by scale, as on a model's card; none where it is no pyramid."""
    return [[side, bits] for side, bits, _ in PYRAMID] if descriptor_bits == DESCRIPTOR_BITS else []


def paper(
    name: str,
    depth: int,
    way: Restoration,
    pair: tuple[str, str],
    input_size: int,
    classes: int | None = None,
    for_export: bool = False,
) -> keras.Model:
    """Build a network as printed, for RGB images [N, input_size, input_size, 3] float32 from 0 to 255.

    `pair` names the quantizers of inputs and of weights. Outputs: `descriptor` float32 [N, 512]; with `classes` also
    `logits` [N, classes]. With `for_export` the input is as for `deploy`.
    """
    activations, weights = pair
    image, x = unit_images(input_size, for_export)
    for index in (1, 2, 3):
        basic_features = PairConv2D(BASIC_WIDTH, activations=None, weights=weights, name=f"basic{index}_conv")(x)
        x = layers.ReLU(name=f"basic{index}_relu")(batch_norm(f"basic{index}_norm")(basic_features))

    def restore(features: Tensor, like: Tensor, label: str) -> Tensor:
        if features.shape == like.shape:
            return features
        stride = features.shape[1] // like.shape[1]
        convolution = layers.Conv2D(like.shape[-1], 1, stride, "same", use_bias=False, name=f"{label}_conv")
        return batch_norm(f"{label}_norm")(convolution(features))

    convolve = partial(PairConv2D, activations=activations, weights=weights, for_export=for_export)
    x, _ = _main_part(x, basic_features, depth, way, convolve, restore, rectify=True)
    logits = None if classes is None else classifier(layers.GlobalAveragePooling2D()(x), classes)
    return model(name, image, global_descriptor(x), logits)


def _main_part(
    x: Tensor,
    basic_features: Tensor,
    depth: int,
    way: Restoration,
    convolve: Callable[..., layers.Layer],
    restore: Callable[[Tensor, Tensor, str], Tensor],
    *,
    norm: Callable[[str], layers.Layer] = batch_norm,
    rectify: bool = False,
    shortcuts: bool = False,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return what the four blocks make of `x`, and the last features of each by its number.

    `convolve` makes a layer of (filters, stride, name), `norm` one of a name; `restore` fits features to others, with
    layers labelled so.
    """
    features = {BASIC: basic_features}
    restored: dict[tuple[Place, int], Tensor] = {}
    maps = {}

    def accept(x: Tensor, target: Place) -> Tensor:
        for source in way.sources(target):
            # One 1x1 convolution a width is shared by all places of that width, as in the authors' code.
            key = source, x.shape[-1]
            if key not in restored:
                restored[key] = restore(features[source], x, _label(*key))
            x = layers.Add()([x, restored[key]])
        return x

    for place in places(depth):
        block, number, _ = place
        x = accept(x, place)
        name = f"block{block}_conv{number}"
        features[place] = convolve(WIDTHS[block - 1], 2 if number == 1 else 1, name=name)(x)
        y = norm(f"block{block}_norm{number}")(features[place])
        x = layers.Add()([y, _identity(x, y)]) if shortcuts else y
        maps[block] = x
        x = accept(x, place._replace(relu=True))
        if rectify:
            x = layers.ReLU(name=f"block{block}_relu{number}")(x)
    return x, maps


def _label(source: Place, width: int) -> str:
    """Return the name of what restores a source at a width; the shipped network's, which has but one, is short."""
    if source == BASIC:
        return "restore" if width == WIDTHS[-1] else f"restore{width}"
    return f"restore_block{source.block}_at{width}"


def _identity(x: Tensor, like: Tensor) -> Tensor:
    """Return `x` [N,S,S,C] in the shape of `like`: averaged to its size, zeros as the channels that it lacks."""
    return ops.pad(pool_to(x, like.shape[1]), [(0, 0)] * 3 + [(0, like.shape[-1] - x.shape[-1])])


def _registry() -> dict[str, dict[str, Callable[..., keras.Model]]]:
    networks: dict[str, dict[str, Callable[..., keras.Model]]] = {}
    for depth in (20, 36):
        for name, way in ((f"binvpr{depth}", best(depth)), (f"baseline{depth}", basic_multiple(depth)[0])):
            networks[name] = {
                "deploy": partial(deploy, name, depth, way),
                "paper": partial(paper, name, depth, way, LEAKY),
            }
        ste, shortcuts = f"binvpr{depth}ste", f"binvpr{depth}r"
        networks[ste] = {"paper": partial(paper, ste, depth, best(depth), STE)}
        networks[shortcuts] = {"deploy": partial(deploy, shortcuts, depth, best(depth), shortcuts=True)}
    return networks


NETWORKS = _registry()
"""Every network here by its name, and in it by its recipe: a function of (input_size, classes, for_export)."""
