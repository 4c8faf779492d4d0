# SPDX-License-Identifier: Apache-2.0
"""Quantization functions: the forward pass is 1, 4 or 8 bits, the gradient is a surrogate's.

Each binarization has a form for training, differentiable through a straight-through surrogate, and all share one form
for export, `hard_sign`, which is the pattern that the Larq Compute Engine converter recognises. More than one bit is
fake quantization, from which the converter takes the scales of the int8 tensors.

Source: the equations of BinVPR (Sensors 2024, 24, 4130): eq. 1 (sign), 4 (leaky tanh), 5 to 7 (DoReFa weights).
"""

from __future__ import annotations

from typing import Any

from keras import ops
from keras.quantizers import fake_quant_with_min_max_vars

Tensor = Any


def hard_sign(x: Tensor) -> Tensor:
    """Return 1 where x >= 0, else -1 (eq. 1), without a useful gradient.

    The inner sign is 0 at x = 0; the added 0.1 sends that case to +1. This very form is what the converter matches.
    """
    return ops.sign(ops.sign(x) + 0.1)


def straight_through(binary: Tensor, surrogate: Tensor) -> Tensor:
    """Return `binary`, with the gradient of `surrogate`."""
    return surrogate + ops.stop_gradient(binary - surrogate)


def leaky_tanh_sign(x: Tensor, alpha: float = 0.2) -> Tensor:
    """Binarize activations to -1 and 1 with the gradient of leaky tanh (eq. 4): 1 within |x| <= 1, `alpha` outside.

    The paper's leaky tanh alone is real-valued, and a network built with it has no binary convolution.
    """
    clipped = ops.clip(x, -1.0, 1.0)
    return straight_through(hard_sign(x), clipped + alpha * (x - clipped))


def dorefa_sign(w: Tensor) -> Tensor:
    """Binarize weights to -1 and 1: DoReFa (eq. 5 to 7) with k = 1 bit, gradient of tanh(w) / max|tanh w|."""
    squashed = ops.tanh(w)
    return straight_through(hard_sign(w), squashed / ops.stop_gradient(ops.max(ops.abs(squashed)) + 1e-12))


def int8_weights(w: Tensor) -> Tensor:
    """Round a kernel [H,W,I,O] to 255 levels, symmetric, each output channel with the scale of its largest weight."""
    limit = ops.max(ops.abs(w), axis=(0, 1, 2))
    return fake_quant_with_min_max_vars(w, -limit, limit, narrow_range=True, axis=3)
