# SPDX-License-Identifier: Apache-2.0
"""BinVPR-20 in Keras 3: one definition for training (any backend) and for export (TensorFlow).

Layout after the paper (Sensors 2024, 24, 4130, section 3): a basic block of three real-valued convolutions, four blocks
of four binary convolutions (widths 128, 256, 384, 512), and "basic features" restored into the last convolution and
the last ReLU. The deploy recipe differs where the printed one cannot be binary: no ReLU stands before a sign, padding
is with ones, and the basic block brings the resolution down by four.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from binvpr_ros.training.quantizers import dorefa_sign, hard_sign, leaky_tanh_sign

Tensor = Any

WIDTHS = (128, 256, 384, 512)
CONVOLUTIONS_PER_BLOCK = 4
BASIC_WIDTH = 128
BASIC_STRIDES = (2, 2, 1)
LAYOUT_GRID = 4
LAYOUT_CHANNELS = 96
DESCRIPTOR_BITS = LAYOUT_GRID**2 * LAYOUT_CHANNELS + WIDTHS[-1]


@keras.saving.register_keras_serializable("binvpr_ros")
class BinaryConv2D(layers.Layer):
    """3x3 convolution of a binarized input with binarized weights, padded with ones as SAME pads.

    Input [N,H,W,C] float, output [N,ceil(H/stride),ceil(W/stride),filters] float. With `for_export` the quantizers are
    plain signs, as the Larq Compute Engine converter needs them.
    """

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

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        config = {"filters": self.filters, "stride": self.stride, "for_export": self.for_export}
        return {**super().get_config(), **config}


def _batch_norm(name: str, gamma: float = 1.0, affine: bool = True) -> layers.BatchNormalization:
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=affine, scale=affine,
        gamma_initializer=keras.initializers.Constant(gamma), name=name,
    )  # fmt: skip


def _pool_to(x: Tensor, size: int) -> Tensor:
    return layers.AveragePooling2D(x.shape[1] // size)(x) if x.shape[1] > size else x


def binvpr20(input_size: int, classes: int | None = None, for_export: bool = False) -> keras.Model:
    """Build BinVPR-20 (deploy recipe) for uint8 RGB images [N, input_size, input_size, 3].

    `input_size` is a multiple of 64. Outputs: `descriptor` float32 [N, 2048], whose signs are the bits (the first 1,536
    keep a 4x4 layout of the image, the last 512 are global); with `classes` also `logits` [N, classes], for training.
    """
    if input_size % 64:
        raise ValueError(f"input_size is {input_size}; give a multiple of 64")
    image = keras.Input((input_size, input_size, 3), dtype="float32" if not for_export else "uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(image)

    for index, stride in enumerate(BASIC_STRIDES, 1):
        x = layers.Conv2D(BASIC_WIDTH, 3, stride, "same", use_bias=False, name=f"basic{index}_conv")(x)
        x = _batch_norm(f"basic{index}_norm")(x)
        rectified = layers.ReLU(name=f"basic{index}_relu")(x)
        # The last block's ReLU is kept away from the binary trunk: before a sign it would turn every input into +1.
        x = x if index == len(BASIC_STRIDES) else rectified
    basic_features = rectified

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
