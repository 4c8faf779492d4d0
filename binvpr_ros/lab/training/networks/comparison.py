# SPDX-License-Identifier: Apache-2.0
"""The networks that the paper compares BinVPR with (table 6), in the recipe `paper`.

Two families: those after AlexNet, whose binary convolutions come before wide dense layers, and those after ResNet.
Where publications leave a choice, it is the one that gives the paper's number of parameters. Sources: BinaryNet (Hubara
et al., NIPS 2016), XNOR-Net (Rastegari et al., ECCV 2016), FloppyNet and ShallowNet (Ferrarini et al., RA-L 2022, and
the layers of the files that they published), DoReFa-Net (Zhou et al., arXiv 1606.06160), real-to-binary (Martinez et
al., ICLR 2020), Bi-Real Net (Liu et al., ECCV 2018), AlexNet (Krizhevsky et al., NIPS 2012), ResNet (He et al., CVPR
2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
from keras import layers

from binvpr_ros.lab.training.networks.binvpr import STE
from binvpr_ros.lab.training.networks.layers import (
    PairConv2D,
    Tensor,
    batch_norm,
    classifier,
    global_descriptor,
    model,
    unit_images,
)

RESNET_WIDTHS = (64, 128, 256, 512)
RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
REAL_TO_BINARY_REDUCTION = 8


@dataclass(frozen=True)
class AlexNetLike:
    """A network after AlexNet: convolutions, all but the first quantized by `pair`, then wide layers, then classes.

    `convolutions` are (filters, kernel size, whether pooling by two follows); the first has stride 4 and real inputs
    and weights, and pads as `first_padding` says. Pools are 2x2, or with `wide_pools` 3x3 and padded. The `wide` layers
    are (units, kernel size), on the flattened map or, with `flat` False, on the map itself.
    """

    convolutions: tuple[tuple[int, int, bool], ...]
    wide: tuple[tuple[int, int], ...] = ((4096, 1), (4096, 1))
    pair: tuple[str, str] | None = STE
    first_padding: str = "valid"
    wide_pools: bool = False
    flat: bool = True


ALEXNET_CONVOLUTIONS = ((96, 11, True), (256, 5, True), (384, 3, False), (384, 3, False), (256, 3, True))
SHALLOW_CONVOLUTIONS = ((96, 11, True), (256, 5, True), (256, 3, True))

ALEXNETS = {
    # That its first convolution is padded, only the paper's number of parameters says: without, it were AlexNet's.
    "binarynet": AlexNetLike(ALEXNET_CONVOLUTIONS, first_padding="same"),
    # The authors' code has one convolution of 384 less than the publication, and flattens 7x7x4096 before the classes.
    "xnornet": AlexNetLike(
        ((96, 11, True), (256, 5, True), (384, 3, False), (256, 3, True)),
        wide=((4096, 6), (4096, 1)), pair=("ste_sign", "magnitude_aware_sign"),
        first_padding="same", wide_pools=True, flat=False,
    ),
    "floppynet": AlexNetLike(SHALLOW_CONVOLUTIONS, wide=((256, 1), (256, 1))),
    "shallownet": AlexNetLike(SHALLOW_CONVOLUTIONS),
    # Inputs have 2 bits as published, and so have weights in Larq's default; the paper counts both as 1.
    "dorefanet": AlexNetLike(
        ((96, 12, False), (256, 5, True), (384, 3, True), (384, 3, False), (256, 3, True)),
        pair=("dorefa", "dorefa"), wide_pools=True,
    ),
    "alexnet": AlexNetLike(ALEXNET_CONVOLUTIONS, pair=None),
}  # fmt: skip


def alexnet_like(
    name: str, layout: AlexNetLike, input_size: int, classes: int | None = None, for_export: bool = False
) -> keras.Model:
    """Build a network after AlexNet, for images as `build` says; its descriptor [N,256] is of the last convolution.

    In quantized networks pooling comes before the batch norm, so that no ReLU stands before a sign; in the real one
    the order is convolution, batch norm, ReLU, pooling.
    """
    image, x = unit_images(input_size, for_export)
    pool = partial(layers.MaxPooling2D, 3, 2, "same") if layout.wide_pools else partial(layers.MaxPooling2D, 2)
    for index, (filters, size, pooled) in enumerate(layout.convolutions, 1):
        label = f"conv{index}"
        if index == 1:
            x = layers.Conv2D(filters, size, 4, layout.first_padding, use_bias=False, name=label)(x)
        else:
            x = _convolution(layout.pair, filters, 1, label, for_export, size)(x)
        if pooled and layout.pair:
            x = pool()(x)
        x = batch_norm(f"norm{index}")(x)
        if not layout.pair:
            x = layers.ReLU(name=f"relu{index}")(x)
        if pooled and not layout.pair:
            x = pool()(x)
    descriptor = global_descriptor(x)
    if classes is None:
        return model(name, image, descriptor, None)
    if layout.flat:
        x = layers.Reshape((1, 1, math.prod(x.shape[1:])))(x)
    for index, (units, size) in enumerate(layout.wide, 1):
        x = batch_norm(f"wide{index}_norm")(_convolution(layout.pair, units, 1, f"wide{index}", for_export, size)(x))
        if not layout.pair or index == len(layout.wide):
            x = layers.ReLU(name=f"wide{index}_relu")(x)
    return model(name, image, descriptor, classifier(layers.Flatten()(x), classes))


def resnet_like(
    name: str,
    depth: int,
    pair: tuple[str, str] | None,
    residual: Callable[..., Tensor],
    input_size: int,
    classes: int | None = None,
    for_export: bool = False,
) -> keras.Model:
    """Build a network after ResNet, for images as `build` says; its descriptor is [N,512].

    `residual` makes one residual block of two convolutions quantized by `pair`.
    """
    image, x = unit_images(input_size, for_export)
    x = layers.Conv2D(RESNET_WIDTHS[0], 7, 2, "same", use_bias=False, name="conv")(x)
    x = batch_norm("norm")(x)
    if residual is not bireal_block:  # whose first sign it would turn into +1
        x = layers.ReLU(name="relu")(x)
    x = layers.MaxPooling2D(3, 2, "same")(x)
    for stage, (width, count) in enumerate(zip(RESNET_WIDTHS, RESNET_BLOCKS[depth], strict=True), 1):
        for block in range(1, count + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = residual(
                x, width, stride, f"stage{stage}_block{block}", partial(_convolution, pair, for_export=for_export)
            )
    logits = None if classes is None else classifier(layers.GlobalAveragePooling2D()(x), classes)
    return model(name, image, global_descriptor(x), logits)


def residual_block(x: Tensor, width: int, stride: int, label: str, convolution: Callable[..., layers.Layer]) -> Tensor:
    """Return ResNet's block of `x`: a shortcut over two convolutions, a ReLU behind each sum (He et al., figure 2).

    In BiResNet the signs see what ReLUs leave: as in BinVPR's own recipe `paper`, every one of them is +1.
    """
    y = batch_norm(f"{label}_norm1")(convolution(width, stride, f"{label}_conv1")(x))
    y = layers.ReLU(name=f"{label}_relu1")(y)
    y = batch_norm(f"{label}_norm2")(convolution(width, 1, f"{label}_conv2")(y))
    if stride > 1:
        x = layers.Conv2D(width, 1, stride, use_bias=False, name=f"{label}_shortcut_conv")(x)
        x = batch_norm(f"{label}_shortcut_norm")(x)
    return layers.ReLU(name=f"{label}_relu2")(layers.Add()([x, y]))


def bireal_block(x: Tensor, width: int, stride: int, label: str, convolution: Callable[..., layers.Layer]) -> Tensor:
    """Return Bi-Real Net's block of `x`: a shortcut over each convolution, and no ReLU (Liu et al., figure 3)."""
    for index, step in ((1, stride), (2, 1)):
        y = batch_norm(f"{label}_norm{index}")(convolution(width, step, f"{label}_conv{index}")(x))
        x = layers.Add()([_averaged_shortcut(x, width, step, f"{label}_shortcut{index}"), y])
    return x


def real_to_binary_block(
    x: Tensor, width: int, stride: int, label: str, convolution: Callable[..., layers.Layer]
) -> Tensor:
    """Return the real-to-binary block of `x` (Martinez et al., figure 1).

    A shortcut goes over each convolution, whose input is normed and whose output is scaled by channel, as two dense
    layers see in the input's means, and goes through a PReLU.
    """
    for index, step in ((1, stride), (2, 1)):
        normed = batch_norm(f"{label}_norm{index}")(x)
        y = convolution(width, step, f"{label}_conv{index}")(normed)
        scale = layers.GlobalAveragePooling2D(keepdims=True)(normed)
        for units, activation in ((x.shape[-1] // REAL_TO_BINARY_REDUCTION, "relu"), (width, "sigmoid")):
            dense = layers.Dense(units, activation, use_bias=False, name=f"{label}_{activation}{index}")
            scale = dense(scale)
        y = layers.PReLU(shared_axes=(1, 2), name=f"{label}_prelu{index}")(layers.Multiply()([y, scale]))
        x = layers.Add()([_averaged_shortcut(x, width, step, f"{label}_shortcut{index}"), y])
    return x


def _averaged_shortcut(x: Tensor, width: int, stride: int, label: str) -> Tensor:
    """Return `x`, or where the size changes, averages through a real-valued 1x1 convolution and a batch norm."""
    if stride == 1:
        return x
    x = layers.AveragePooling2D(stride, padding="same")(x)
    x = layers.Conv2D(width, 1, use_bias=False, name=f"{label}_conv")(x)
    return batch_norm(f"{label}_norm")(x)


def _convolution(
    pair: tuple[str, str] | None, filters: int, stride: int, name: str, for_export: bool, size: int = 3
) -> layers.Layer:
    """Return a convolution padded as SAME pads, quantized by `pair`, or real."""
    if pair is None:
        return layers.Conv2D(filters, size, stride, "same", use_bias=False, name=name)
    activations, weights = pair
    return PairConv2D(
        filters, stride, activations=activations, weights=weights, for_export=for_export, size=size, name=name
    )


RESNETS: dict[str, tuple[int, tuple[str, str] | None, Callable[..., Tensor]]] = {
    "realtobinnet34": (34, STE, real_to_binary_block),
    "birealnet34": (34, ("approx_sign", "magnitude_aware_sign"), bireal_block),
    "biresnet18": (18, STE, residual_block),
    "biresnet34": (34, STE, residual_block),
    "resnet18": (18, None, residual_block),
    "resnet34": (34, None, residual_block),
}

NETWORKS: dict[str, dict[str, Callable[..., keras.Model]]] = {
    **{name: {"paper": partial(alexnet_like, name, layout)} for name, layout in ALEXNETS.items()},
    **{name: {"paper": partial(resnet_like, name, *layout)} for name, layout in RESNETS.items()},
}
"""Every network here by its name, and in it by its recipe: a function of (input_size, classes, for_export)."""
