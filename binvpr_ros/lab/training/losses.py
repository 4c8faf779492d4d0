# SPDX-License-Identifier: Apache-2.0
"""Metric-learning losses on the signs of a descriptor."""

from __future__ import annotations

from typing import Any

from keras import ops

from binvpr_ros.lab.training.quantizers import hard_sign

Tensor = Any


def similarities(descriptor: Tensor) -> Tensor:
    """Return the cosine of all pairs of binarized descriptors: [N,D] float -> [N,N] in -1..1."""
    bits = signs(descriptor)
    return ops.matmul(bits, ops.transpose(bits)) / bits.shape[-1]


def signs(descriptor: Tensor) -> Tensor:
    """Return the signs of `descriptor`; the gradient passes unchanged (GreedyHash)."""
    return descriptor + ops.stop_gradient(hard_sign(descriptor) - descriptor)


def multi_similarity(
    places: Tensor, descriptor: Tensor, alpha: float = 1.0, beta: float = 50.0, base: float = 0.0, margin: float = 0.1
) -> Tensor:
    """Multi-Similarity loss (Wang et al., CVPR 2019, eq. 10) over binarized descriptors, one value a row.

    `places` [N] int: rows of one number are views of one place. Pairs are mined in the batch (eq. 7 and 8): of other
    places those count that are nearer than the farthest view of the same one, give or take `margin`; of the same place
    those that are farther than the nearest other one. A small |(|u| - 1)|^3 keeps the real values near their signs.
    """
    places = ops.reshape(places, (-1, 1))
    same = ops.cast(ops.equal(places, ops.transpose(places)), descriptor.dtype)
    other = 1.0 - same
    same = same - ops.eye(ops.shape(places)[0], dtype=descriptor.dtype)
    s = similarities(descriptor)
    farthest_view = ops.min(ops.where(same > 0, s, 1.0), axis=1, keepdims=True)
    nearest_other = ops.max(ops.where(other > 0, s, -1.0), axis=1, keepdims=True)
    same = same * ops.cast(s - margin < nearest_other, s.dtype)
    other = other * ops.cast(s + margin > farthest_view, s.dtype)
    pull = ops.log1p(ops.sum(same * ops.exp(-alpha * (s - base)), axis=1)) / alpha
    push = ops.log1p(ops.sum(other * ops.exp(beta * (s - base)), axis=1)) / beta
    spread = ops.mean(ops.abs(ops.abs(descriptor) - 1.0) ** 3, axis=1)
    return pull + push + 0.05 * spread


def cosine_distance(taught: Tensor, said: Tensor) -> Tensor:
    """Return 1 - the cosine of a map `taught` [N,...] and of what is `said` of it [N,M,...], mean over M, [N]."""
    taught = ops.reshape(taught, (ops.shape(taught)[0], 1, -1))
    said = ops.reshape(said, (*ops.shape(said)[:2], -1))
    said = said / (ops.norm(said, axis=-1, keepdims=True) + 1e-6)
    taught = taught / (ops.norm(taught, axis=-1, keepdims=True) + 1e-6)
    return ops.mean(1.0 - ops.sum(said * taught, axis=-1), axis=-1)


def no_loss(_places: Tensor, descriptor: Tensor) -> Tensor:
    """Return 0 for each row [N], for an output that is not trained."""
    return ops.zeros_like(descriptor[:, 0])
