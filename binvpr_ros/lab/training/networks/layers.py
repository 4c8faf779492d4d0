# SPDX-License-Identifier: Apache-2.0
"""What the networks are made of: quantized convolutions, levels of int8 tensors, batch norms, inputs and outputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops
from keras.quantizers import fake_quant_with_min_max_vars

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
    straight_through,
)

Tensor = Any

IMAGE_RANGE = (-1.0, 127 / 128)
"""Range of the 256 levels that are an image's values: zero, with which SAME pads, is grey 128."""


class LatentConv2D(layers.Layer):
    """Convolution, padded as SAME pads, with weights quantized from a latent real-valued kernel [size,size,C,F]."""

    constraint: keras.constraints.Constraint | None = None

    def __init__(self, filters: int, stride: int = 1, for_export: bool = False, size: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        self.for_export = for_export
        self.size = size

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the latent real-valued kernel."""
        self.kernel = self.add_weight(
            shape=(self.size, self.size, input_shape[-1], self.filters),
            initializer="glorot_normal", constraint=self.constraint, name="kernel",
        )  # fmt: skip

    def quantized(self, x: Tensor) -> Tensor:
        """Return the input as it is convolved; real where nothing else is said."""
        return x

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        config = {"filters": self.filters, "stride": self.stride, "for_export": self.for_export, "size": self.size}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("binvpr_ros")
class BinaryConv2D(LatentConv2D):
    """3x3 convolution of a binarized input with binarized weights, padded with ones as SAME pads.

    Input [N,H,W,C] float, output [N,ceil(H/stride),ceil(W/stride),filters] float. With `for_export` the quantizers are
    plain signs, as the Larq Compute Engine converter needs them.
    """

    def call(self, x: Tensor) -> Tensor:
        """Return the convolution of the signs of `x`."""
        kernel = hard_sign(self.kernel) if self.for_export else dorefa_sign(self.kernel)
        padding = [(0, 0), self._same_padding(x.shape[1]), self._same_padding(x.shape[2]), (0, 0)]
        x = ops.pad(self.quantized(x), padding, constant_values=1.0)
        return ops.conv(x, kernel, strides=self.stride, padding="valid")

    def quantized(self, x: Tensor) -> Tensor:
        """Return the signs of `x`."""
        return hard_sign(x) if self.for_export else leaky_tanh_sign(x)

    def _same_padding(self, length: int) -> tuple[int, int]:
        total = max((-(-length // self.stride) - 1) * self.stride + self.size - length, 0)
        return total // 2, total - total // 2


@keras.saving.register_keras_serializable("binvpr_ros")
class QuantizedConv2D(LatentConv2D):
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
class PairConv2D(LatentConv2D):
    """Convolution with a pair of the paper's quantizers, by their names (tables 4 and 5); latent weights are clipped.

    Input [N,H,W,C] float, output [N,ceil(H/stride),ceil(W/stride),filters] float. Without `activations` the input stays
    real. Padding is with zeros: Larq's default, and so the authors' code. With ones, a network whose every sign is +1,
    as behind the ReLUs of the recipe `paper`, would be constant, and its batch norms would stop every gradient.
    """

    constraint = WeightClip()

    def __init__(self, filters: int, stride: int = 1, *, activations: str | None, weights: str, **kwargs: Any) -> None:
        super().__init__(filters, stride, **kwargs)
        self.activation_quantizer = activations
        self.weight_quantizer = weights

    def call(self, x: Tensor) -> Tensor:
        """Return the convolution of the quantized `x`."""
        # The converter makes bits of plain signs alone, not of what carries a gradient; a scale it takes from behind.
        plain = self.for_export and self.weight_quantizer in BINARY_WEIGHTS
        kernel = hard_sign(self.kernel) if plain else WEIGHT_QUANTIZERS[self.weight_quantizer](self.kernel)
        y = ops.conv(self.quantized(x), kernel, strides=self.stride, padding="same")
        if plain and self.weight_quantizer == "magnitude_aware_sign":
            y = y * ops.mean(ops.abs(self.kernel), axis=(0, 1, 2))
        return y

    def quantized(self, x: Tensor) -> Tensor:
        """Return what the quantizer of activations makes of `x`."""
        if self.for_export and self.activation_quantizer in BINARY_ACTIVATIONS:
            return hard_sign(x)
        return x if self.activation_quantizer is None else ACTIVATION_QUANTIZERS[self.activation_quantizer](x)

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        pair = {"activations": self.activation_quantizer, "weights": self.weight_quantizer}
        return {**super().get_config(), **pair}


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


def batch_norm(name: str, gamma: float = 1.0, affine: bool = True, epsilon: float = 1e-3) -> layers.BatchNormalization:
    """Return a batch norm with `gamma` to start with, and momentum and `epsilon` of the authors' code."""
    return layers.BatchNormalization(
        momentum=0.9, epsilon=epsilon, center=affine, scale=affine,
        gamma_initializer=keras.initializers.Constant(gamma), name=name,
    )  # fmt: skip


def pool_to(x: Tensor, size: int) -> Tensor:
    """Return `x` [N,S,S,C], averaged down to [N,size,size,C]."""
    return layers.AveragePooling2D(x.shape[1] // size)(x) if x.shape[1] > size else x


def images(input_size: int, for_export: bool) -> tuple[Tensor, Tensor]:
    """Return a network's input, RGB images [N,S,S,3] from 0 to 255, and it in IMAGE_RANGE.

    With `for_export` the input is in IMAGE_RANGE already: as the converter's uint8 input will be.
    """
    image = keras.Input((input_size, input_size, 3), name="image")
    x = image if for_export else layers.Rescaling(1 / 128, offset=-1.0, name="rescale")(image)
    return image, EightBits(*IMAGE_RANGE, name="image_levels")(x)


def unit_images(input_size: int, for_export: bool) -> tuple[Tensor, Tensor]:
    """Return a network's input as `images` does, and it from 0 to 1, as the paper's networks take it."""
    image, x = images(input_size, for_export)
    return image, layers.Rescaling(128 / 255, offset=128 / 255, name="unit_range")(x)


def global_descriptor(features: Tensor) -> Tensor:
    """Return the descriptor [N,C] of features [N,H,W,C]: their means, each less its own mean over the training images.

    The paper classifies and has no descriptor; this one is ours, the same for each of its networks.
    """
    return batch_norm("descriptor", affine=False)(layers.GlobalAveragePooling2D()(features))


def classifier(x: Tensor, classes: int) -> Tensor:
    """Return logits [N,classes] of features [N,C]: the dense layer of the paper's networks, L2 as in the code."""
    return layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(), name="logits")(x)


def model(name: str, image: Tensor, descriptor: Tensor, logits: Tensor | None) -> keras.Model:
    """Return the network from `image` to `descriptor`, or to both where there are `logits`."""
    outputs = descriptor if logits is None else {"descriptor": descriptor, "logits": logits}
    return keras.Model(image, outputs, name=name)
