# SPDX-License-Identifier: Apache-2.0
"""BinVPR-20 in Keras 3: one definition for training (any backend) and for export (TensorFlow).

Layout after the paper (Sensors 2024, 24, 4130, section 3): a basic block of three convolutions of real inputs, four
blocks of four binary convolutions (widths 128, 256, 384, 512), and "basic features" restored into the last convolution
and the last ReLU. The deploy recipe differs where the printed one cannot be binary: no ReLU stands before a sign,
padding is with ones, and the basic block brings the resolution down by four. Its weights are binary as printed, but for
those on the image's three channels, and its real inputs have 4 bits: in the file these are ordinary int8 convolutions.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops
from keras.quantizers import fake_quant_with_min_max_vars

from binvpr_ros.training.quantizers import dorefa_sign, hard_sign, int8_weights, leaky_tanh_sign, straight_through

Tensor = Any

WIDTHS = (128, 256, 384, 512)
CONVOLUTIONS_PER_BLOCK = 4
BASIC_WIDTH = 128
BASIC_STRIDES = (2, 2, 1)
BASIC_BINARY = (False, True, True)
IMAGE_RANGE = (-1.0, 127 / 128)
"""Range of the 256 levels that are an image's values: zero, with which SAME pads, is grey 128."""
RECTIFIED_TOP = 6.0
RECTIFIED_RANGE = (0.0, RECTIFIED_TOP / 15 * 255)
"""Range of the 256 levels of which a ReLU that ends at RECTIFIED_TOP leaves 16: 4 bits, within an int8 tensor."""
BASIC_RANGE = (-4.0, 4 * 127 / 128)
"""Range of the 256 levels of the basic features."""
LAYOUT_GRID = 4
LAYOUT_CHANNELS = 96
DESCRIPTOR_BITS = LAYOUT_GRID**2 * LAYOUT_CHANNELS + WIDTHS[-1]


class _LatentConv2D(layers.Layer):
    """3x3 convolution whose weights are quantized from a latent real-valued kernel."""

    KERNEL = 3

    def __init__(self, filters: int, stride: int = 1, for_export: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        self.for_export = for_export

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the latent real-valued kernel."""
        self.kernel = self.add_weight(
            shape=(self.KERNEL, self.KERNEL, input_shape[-1], self.filters), initializer="glorot_normal", name="kernel"
        )

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        config = {"filters": self.filters, "stride": self.stride, "for_export": self.for_export}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("binvpr_ros")
class BinaryConv2D(_LatentConv2D):
    """3x3 convolution of a binarized input with binarized weights, padded with ones as SAME pads.

    Input [N,H,W,C] float, output [N,ceil(H/stride),ceil(W/stride),filters] float. With `for_export` the quantizers are
    plain signs, as the Larq Compute Engine converter needs them.
    """

    def call(self, x: Tensor) -> Tensor:
        """Return the convolution of the signs of `x`."""
        if self.for_export:
            x, kernel = hard_sign(x), hard_sign(self.kernel)
        else:
            x, kernel = leaky_tanh_sign(x), dorefa_sign(self.kernel)
        padding = [(0, 0), self._same_padding(x.shape[1]), self._same_padding(x.shape[2]), (0, 0)]
        x = ops.pad(x, padding, constant_values=1.0)
        return ops.conv(x, kernel, strides=self.stride, padding="valid")

    def _same_padding(self, size: int) -> tuple[int, int]:
        total = max((-(-size // self.stride) - 1) * self.stride + self.KERNEL - size, 0)
        return total // 2, total - total // 2


@keras.saving.register_keras_serializable("binvpr_ros")
class QuantizedConv2D(_LatentConv2D):
    """3x3 convolution of a real input, padded with zeros, with weights of 8 bits, or of 1 where `binary`.

    Input [N,H,W,C] float, output [N,ceil(H/stride),ceil(W/stride),filters] float. With `for_export` the kernel is fake
    quantized as the converter needs it; the batch norm behind gives each output channel its scale.
    """

    def __init__(
        self, filters: int, stride: int = 1, binary: bool = False, for_export: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(filters, stride, for_export, **kwargs)
        self.binary = binary

    def call(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`."""
        if self.for_export:
            kernel = int8_weights(hard_sign(self.kernel) if self.binary else self.kernel)
        elif self.binary:
            kernel = dorefa_sign(self.kernel)
        else:
            kernel = straight_through(int8_weights(self.kernel), self.kernel)
        return ops.conv(x, kernel, strides=self.stride, padding="same")

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return {**super().get_config(), "binary": self.binary}


@keras.saving.register_keras_serializable("binvpr_ros")
class EightBits(layers.Layer):
    """Round to the 256 levels of an int8 tensor from `low` to `high`; zero is to be one of them."""

    def __init__(self, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low = low
        self.high = high

    def call(self, x: Tensor) -> Tensor:
        """Return the level nearest to `x`; the gradient is 1 within the range."""
        return fake_quant_with_min_max_vars(x, self.low, self.high)

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return {**super().get_config(), "low": self.low, "high": self.high}


def _batch_norm(name: str, gamma: float = 1.0, affine: bool = True) -> layers.BatchNormalization:
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=affine, scale=affine,
        gamma_initializer=keras.initializers.Constant(gamma), name=name,
    )  # fmt: skip


def _pool_to(x: Tensor, size: int) -> Tensor:
    return layers.AveragePooling2D(x.shape[1] // size)(x) if x.shape[1] > size else x


def binvpr20(input_size: int, classes: int | None = None, for_export: bool = False) -> keras.Model:
    """Build BinVPR-20 (deploy recipe) for RGB images [N, input_size, input_size, 3] float32 from 0 to 255.

    `input_size` is a multiple of 64. Outputs: `descriptor` float32 [N, 2048], whose signs are the bits (the first 1,536
    keep a 4x4 layout of the image, the last 512 are global); with `classes` also `logits` [N, classes], for training.
    With `for_export` the input is scaled to IMAGE_RANGE already: as the converter's uint8 input will be.
    """
    if input_size % 64:
        raise ValueError(f"input_size is {input_size}; give a multiple of 64")
    image = keras.Input((input_size, input_size, 3), name="image")
    x = image if for_export else layers.Rescaling(1 / 128, offset=-1.0, name="rescale")(image)
    x = EightBits(*IMAGE_RANGE, name="image_levels")(x)

    for index, (stride, binary) in enumerate(zip(BASIC_STRIDES, BASIC_BINARY, strict=True), 1):
        x = QuantizedConv2D(BASIC_WIDTH, stride, binary, for_export, name=f"basic{index}_conv")(x)
        x = _batch_norm(f"basic{index}_norm")(x)
        if index < len(BASIC_STRIDES):
            x = layers.ReLU(RECTIFIED_TOP, name=f"basic{index}_relu")(x)
            x = EightBits(*RECTIFIED_RANGE, name=f"basic{index}_levels")(x)
    x = EightBits(*BASIC_RANGE, name="basic_levels")(x)
    # This ReLU is kept away from the binary trunk: before a sign it would turn every input into +1.
    basic_features = layers.ReLU(name="basic_relu")(x)

    maps = []
    for block, width in enumerate(WIDTHS, 1):
        for conv in range(1, CONVOLUTIONS_PER_BLOCK + 1):
            if block == len(WIDTHS) and conv == CONVOLUTIONS_PER_BLOCK:
                restored = layers.Conv2D(width, 1, use_bias=False, name="restore_conv")(
                    _pool_to(basic_features, x.shape[1])
                )
                # Starts small, so that the optimiser cannot lean on the short path and leave the trunk untrained.
                restored = _batch_norm("restore_norm", gamma=0.3)(restored)
                x = layers.Add(name="restore_last_conv")([x, restored])
            name = f"block{block}_conv{conv}"
            x = BinaryConv2D(width, 2 if conv == 1 else 1, for_export=for_export, name=name)(x)
            x = _batch_norm(f"block{block}_norm{conv}")(x)
        maps.append(x)
    x = layers.Add(name="restore_last_relu")([x, restored])

    layout = layers.Add(name="layout")([
        layers.Conv2D(LAYOUT_CHANNELS, 1, use_bias=False, name="layout_trunk")(_pool_to(maps[1], LAYOUT_GRID)),
        layers.Conv2D(LAYOUT_CHANNELS, 1, use_bias=False, name="layout_basic")(_pool_to(basic_features, LAYOUT_GRID)),
    ])  # fmt: skip
    # Without scale and shift each bit's threshold is its mean, so the bits stay balanced.
    layout = layers.Flatten()(_batch_norm("layout_norm", affine=False)(layout))
    overall = _batch_norm("global_norm", affine=False)(layers.GlobalAveragePooling2D()(x))
    descriptor = layers.Concatenate(name="descriptor")([layout, overall])
    if classes is None:
        return keras.Model(image, descriptor, name="binvpr20")
    pooled = layers.GlobalAveragePooling2D()(layers.ReLU(name="last_relu")(x))
    logits = layers.Dense(classes, name="logits")(pooled)
    return keras.Model(image, {"descriptor": descriptor, "logits": logits}, name="binvpr20")


NETWORKS = {"binvpr20": binvpr20}
"""Every network by its name: a function of (input_size, classes, for_export)."""
