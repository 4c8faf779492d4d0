# SPDX-License-Identifier: Apache-2.0
"""Quantization functions: the forward pass is 1, 2, 4 or 8 bits, the gradient is a surrogate's.

`ACTIVATION_QUANTIZERS` and `WEIGHT_QUANTIZERS` have those that the paper compares (tables 4 and 5), as in
Larq 0.14 in values and gradients; not all are binary. The deployed networks have signs with the gradients of leaky tanh
and of DoReFa. All signs have one form for export, `hard_sign`, which is the pattern that the Larq Compute Engine
converter recognises. More than one bit is fake quantization there, from which the converter takes the scales of the
int8 tensors.

Source: the equations of BinVPR (Sensors 2024, 24, 4130): eq. 1 (sign), 4 (leaky tanh), 5 to 7 (DoReFa weights). Slopes
are written out instead of left to the backends, which differ where a function has a corner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.quantizers import fake_quant_with_min_max_vars

Tensor = Any


def hard_sign(x: Tensor) -> Tensor:
    """Return 1 where x >= 0, else -1 (eq. 1), without a useful gradient.

    The inner sign is 0 at x = 0; the added 0.1 sends that case to +1. This very form is what the converter matches.
    """
    return ops.sign(ops.sign(x) + 0.1)


def straight_through(quantized: Tensor, surrogate: Tensor) -> Tensor:
    """Return `quantized`, exactly, with the gradient of `surrogate`."""
    return ops.stop_gradient(quantized) + (surrogate - ops.stop_gradient(surrogate))


def leaky_tanh_sign(x: Tensor, alpha: float = 0.2) -> Tensor:
    """Binarize activations to -1 and 1 with the gradient of leaky tanh (eq. 4): 1 within |x| <= 1, `alpha` outside.

    The paper's leaky tanh alone is real-valued, and a network built with it has no binary convolution.
    """
    inside = _within_one(x)
    return _with_slope(x, hard_sign(x), inside + alpha * (1 - inside))


def dorefa_sign(w: Tensor) -> Tensor:
    """Binarize weights to -1 and 1: DoReFa (eq. 5 to 7) with k = 1 bit, gradient of tanh(w) / max|tanh w|."""
    return straight_through(hard_sign(w), _normalized_tanh(w))


def int8_weights(w: Tensor) -> Tensor:
    """Round a kernel [H,W,I,O] to 255 levels, symmetric, each output channel with the scale of its largest weight."""
    limit = ops.max(ops.abs(w), axis=(0, 1, 2))
    return fake_quant_with_min_max_vars(w, -limit, limit, narrow_range=True, axis=3)


def ste_sign(x: Tensor) -> Tensor:
    """Binarize to -1 and 1 (eq. 1), any shape, with the straight-through gradient: 1 where |x| <= 1, else 0."""
    return _with_slope(x, hard_sign(x), _within_one(x))


def approx_sign(x: Tensor) -> Tensor:
    """Binarize to -1 and 1, any shape, with the gradient 2 - 2|x| where |x| <= 1, else 0 (Bi-Real Net, ECCV 2018)."""
    return _with_slope(x, hard_sign(x), 2 * ops.relu(1 - ops.abs(x)))


def swish_sign(x: Tensor, beta: float = 5.0) -> Tensor:
    """Binarize to -1 and 1, any shape, with the gradient of SignSwish (BNN+, arXiv 1812.11800).

    It is b (2 - bx tanh(bx / 2)) / (1 + cosh(bx)), with b = `beta`: b at 0, negative where |bx| > 2.4, 0 far away.
    """
    bx = beta * x
    return _with_slope(x, hard_sign(x), beta * (2 - bx * ops.tanh(bx / 2)) / (1 + ops.cosh(bx)))


def magnitude_aware_sign(x: Tensor) -> Tensor:
    """Binarize [...,C] to the signs times the mean |x| of their channel (Bi-Real Net, section 3.3).

    The gradient is that mean where |x| <= 1, else 0. A channel is one of the last axis: a kernel's output. The mean of
    activations is over the batch too, so that what an image gives depends on the others.
    """
    scale = ops.mean(ops.abs(x), axis=tuple(range(len(x.shape) - 1)))
    return _with_slope(x, scale * hard_sign(x), scale * _within_one(x))


def ste_tern(x: Tensor, threshold: float = 0.05) -> Tensor:
    """Round to -1, 0 (where |x| < `threshold`) and 1, any shape, with the gradient of `ste_sign`."""
    kept = ops.cast(ops.abs(x) >= threshold, x.dtype)
    return _with_slope(x, kept * ops.sign(x), _within_one(x))


def dorefa(x: Tensor, bits: int = 2) -> Tensor:
    """Round activations of any shape to 2**`bits` levels in 0 to 1: DoReFa (eq. 7), gradient 1 there, 0 outside."""
    inside = ops.cast(ops.logical_and(x >= 0, x <= 1), x.dtype)
    return _with_slope(x, _round(ops.clip(x, 0.0, 1.0), bits), inside)


def dorefa_weights(w: Tensor, bits: int = 2) -> Tensor:
    """Round weights of any shape to 2**`bits` levels in -1 to 1: DoReFa (eq. 5 to 7).

    The gradient is that of tanh(w) / max|tanh w|. Zero is no level: it becomes the next one above.
    """
    unit = _normalized_tanh(w)
    return straight_through(2 * _round(unit / 2 + 0.5, bits) - 1, unit)


def hard_tanh(x: Tensor) -> Tensor:
    """Clip to -1 to 1, any shape: real-valued, with the gradient of `ste_sign`."""
    return _with_slope(x, ops.clip(x, -1.0, 1.0), _within_one(x))


def leaky_tanh(x: Tensor, alpha: float = 0.2) -> Tensor:
    """Return leaky tanh of any shape (eq. 4): real-valued, x where |x| <= 1, beyond that with the slope `alpha`.

    At -1 and 1 themselves the slope is 1 + `alpha`, the sum of both sides', as in Larq; eq. 4 says 1.
    """
    clipped = ops.clip(x, -1.0, 1.0)
    outside = ops.cast(ops.abs(x) >= 1, x.dtype)
    return _with_slope(x, clipped + alpha * (x - clipped), _within_one(x) + alpha * outside)


WEIGHT_QUANTIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "approx_sign": approx_sign,
    "ste_sign": ste_sign,
    "ste_tern": ste_tern,
    "swish_sign": swish_sign,
    "dorefa": dorefa_weights,
    "magnitude_aware_sign": magnitude_aware_sign,
    "dorefa_sign": dorefa_sign,
}
"""The paper's six functions for weights, by their Larq names, and the deployed networks'."""

ACTIVATION_QUANTIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "approx_sign": approx_sign,
    "ste_sign": ste_sign,
    "ste_tern": ste_tern,
    "swish_sign": swish_sign,
    "dorefa": dorefa,
    "magnitude_aware_sign": magnitude_aware_sign,
    "hard_tanh": hard_tanh,
    "leaky_tanh": leaky_tanh,
    "leaky_tanh_sign": leaky_tanh_sign,
}
"""The paper's eight functions for activations, by their Larq names, and the deployed networks'."""

BINARY_ACTIVATIONS = frozenset({"approx_sign", "ste_sign", "swish_sign", "leaky_tanh_sign"})
"""Those whose values are -1 and 1. With one of `BINARY_WEIGHTS`, and only so, a convolution becomes an LceBconv2d."""

# A scale for each output channel goes behind the sum of a convolution; one for each input channel has no such place.
BINARY_WEIGHTS = frozenset({"approx_sign", "ste_sign", "swish_sign", "dorefa_sign", "magnitude_aware_sign"})
"""Those whose values are -1 and 1, or that times a scale for each output channel."""


@keras.saving.register_keras_serializable("binvpr_ros")
class WeightClip(keras.constraints.Constraint):
    """Keeps latent weights of any shape within -`clip_value` to `clip_value`, where quantizers have a gradient.

    The authors' code has it on every binary convolution, with 1.
    """

    def __init__(self, clip_value: float = 1.0) -> None:
        self.clip_value = clip_value

    def __call__(self, w: Tensor) -> Tensor:
        """Return `w`, clipped."""
        return ops.clip(w, -self.clip_value, self.clip_value)

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return {"clip_value": self.clip_value}


def _with_slope(x: Tensor, quantized: Tensor, slope: Tensor) -> Tensor:
    """Return `quantized` with `slope` as its gradient by `x`."""
    return straight_through(quantized, ops.stop_gradient(slope) * x)


def _within_one(x: Tensor) -> Tensor:
    return ops.cast(ops.abs(x) <= 1, x.dtype)


def _normalized_tanh(w: Tensor) -> Tensor:
    """Return tanh(w) / max|tanh w|, whose divisor counts as a constant; zeros if all weights are."""
    squashed = ops.tanh(w)
    return ops.divide_no_nan(squashed, ops.stop_gradient(ops.max(ops.abs(squashed))))


def _round(x: Tensor, bits: int) -> Tensor:
    """Round 0 to 1 to the 2**`bits` levels of DoReFa (eq. 7), a tie to the even one."""
    steps = 2**bits - 1
    return ops.round(x * steps) / steps
