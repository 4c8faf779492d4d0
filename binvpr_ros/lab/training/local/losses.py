# SPDX-License-Identifier: Apache-2.0
"""What the network for local features is trained for; each loss takes targets whose last channel is their weight.

Batches hold first views and then second ones, in the same order.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from binvpr_ros.lab.training.quantizers import leaky_tanh_sign

Tensor = Any

SHARPNESS = 20.0
"""Of similarities to the teacher's descriptors, before the softmax."""
SIGNS_SHARPNESS = 12.0
"""Of the similarities of signs, from -1 to 1, likewise."""
CONTRAST_WEIGHT = 0.3
"""Of telling cells apart as the teacher does, beside the distance to the teacher."""
TOGETHER = 4
"""Images of one folder whose cells must be told apart from each other."""
_NEVER = -1e9


def taught_loss(target: Tensor, said: Tensor) -> Tensor:
    """Return how far what the bits say [N,h,w,C] is from the teacher's descriptors [N,h,w,C+1], of length one.

    One less the cosine; and InfoNCE: nearest to what is said of a cell must be the teacher's descriptor of that cell,
    not of another one of the image.
    """
    said, target = _unit(_cells(said)), _cells(target)
    target, weight = target[..., :-1], target[..., -1]
    distance = 1 - ops.sum(said * target, axis=-1)
    contrast = _info_nce(SHARPNESS * ops.matmul(said, ops.transpose(target, (0, 2, 1))), weight)
    return _mean(distance, weight) + CONTRAST_WEIGHT * contrast


def cosine(target: Tensor, said: Tensor) -> Tensor:
    """Return the mean cosine between what the bits say and the teacher's descriptors; arguments as of taught_loss."""
    said, target = _unit(_cells(said)), _cells(target)
    return _mean(ops.sum(said * target[..., :-1], axis=-1), target[..., -1])


def signs_loss(target: Tensor, descriptors: Tensor) -> Tensor:
    """Return how well the signs of cells are told apart: InfoNCE between the two views of each image.

    `target` [N,h,w,3] has where a cell lies in the other view: row and column in its cells, and a weight. The other
    view's `descriptors` [N,h,w,C] are interpolated there before their signs are taken, as the node does at keypoints.
    """
    similarity, weight = _between_views(target, descriptors)
    return _info_nce(SIGNS_SHARPNESS / descriptors.shape[-1] * similarity, weight)


def found(target: Tensor, descriptors: Tensor) -> Tensor:
    """Return the share of cells that are nearest to themselves in the other view; arguments as of signs_loss."""
    similarity, weight = _between_views(target, descriptors)
    similarity = similarity + (1 - weight[:, None, :]) * _NEVER
    own = ops.arange(similarity.shape[-1])[None]
    return _mean(ops.cast(ops.argmax(similarity, axis=-1) == own, "float32"), weight)


def keypoints_loss(target: Tensor, logits: Tensor) -> Tensor:
    """Return the cross-entropy of keypoint logits [N,h,w,65] to the teacher's probabilities [N,h,w,65+1]."""
    entropy = -ops.sum(target[..., :-1] * ops.log_softmax(logits, axis=-1), axis=-1)
    return _mean(entropy, target[..., -1])


def reliability_loss(target: Tensor, logits: Tensor) -> Tensor:
    """Return the squared error of reliability logits [N,h,w,1] to the teacher's reliability [N,h,w,1+1]."""
    return _mean(ops.square(ops.sigmoid(logits[..., 0]) - target[..., 0]), target[..., 1])


def interpolate(maps: Tensor, places: Tensor) -> Tensor:
    """Return `maps` [N,h,w,C] at `places` [N,P,2], rows and columns in cells: [N,P,C]; outside, as at the border."""
    height, width = maps.shape[1:3]
    count = ops.shape(maps)[0]
    flat = ops.reshape(maps, (-1, maps.shape[3]))
    row = ops.clip(places[..., 0], 0.0, height - 1.0)
    column = ops.clip(places[..., 1], 0.0, width - 1.0)
    top = ops.minimum(ops.floor(row), height - 2.0)
    left = ops.minimum(ops.floor(column), width - 2.0)
    down, right = (row - top)[..., None], (column - left)[..., None]
    first = ops.cast(top * width + left, "int32") + ops.arange(count, dtype="int32")[:, None] * (height * width)
    corners = [ops.take(flat, first + step, axis=0) for step in (0, 1, width, width + 1)]
    upper = corners[0] * (1 - right) + corners[1] * right
    lower = corners[2] * (1 - right) + corners[3] * right
    return upper * (1 - down) + lower * down


def _between_views(target: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor]:
    """Return dot products [G,P,P] of the signs of a group's cells and of the same in the other views, and weights."""
    target = _cells(target)
    half = ops.shape(descriptors)[0] // 2
    others = ops.concatenate([descriptors[half:], descriptors[:half]])
    weight = ops.reshape(target[..., 2], (-1, TOGETHER * target.shape[1]))
    own = _groups(leaky_tanh_sign(_cells(descriptors)))
    there = _groups(leaky_tanh_sign(interpolate(others, target[..., :2])))
    return ops.matmul(own, ops.transpose(there, (0, 2, 1))), weight


def _unit(vectors: Tensor) -> Tensor:
    return vectors * ops.rsqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + 1e-12)


def _cells(maps: Tensor) -> Tensor:
    return ops.reshape(maps, (-1, maps.shape[1] * maps.shape[2], maps.shape[3]))


def _groups(cells: Tensor) -> Tensor:
    return ops.reshape(cells, (-1, TOGETHER * cells.shape[1], cells.shape[2]))


def _info_nce(similarity: Tensor, weight: Tensor) -> Tensor:
    """Return the cross-entropy of `similarity` [N,P,P] to its diagonal, without what has no `weight` [N,P]."""
    similarity = similarity + (1 - weight[:, None, :]) * _NEVER
    diagonal = ops.diagonal(similarity, axis1=1, axis2=2)
    return _mean(ops.logsumexp(similarity, axis=-1) - diagonal, weight)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    # Where the weight is 0 the value may be as large as _NEVER.
    values = ops.where(weight > 0, values, 0.0)
    return ops.sum(values * weight) / (ops.sum(weight) + 1e-6)
