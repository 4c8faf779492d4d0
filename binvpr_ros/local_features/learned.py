# SPDX-License-Identifier: Apache-2.0
"""Local features of a 1-bit network (docs/local_features.md), in NumPy: the reference for faster decoders.

An image becomes `levels`, `padded` to a multiple of SIZE_STEP; the network makes `Maps` of them, one row and column for
each cell of 8x8 pixels; and `decode` finds keypoints in these, and the bits that describe each.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image, resize
from binvpr_ros.local_features.camera import Points
from binvpr_ros.network.backends import DelegateBackend, DescriptorError

Floats = NDArray[np.float32]

CELL = 8
"""Pixels a side of a cell."""
POSITIONS = CELL**2
SIZE_STEP = 16
"""Height and width of the network's input are multiples of this."""
LONGER_SIDE = 480
"""Pixels to which the longer side of a larger image is brought."""
LEVELS = 32
"""Levels to one standard deviation of the image."""
GREY_LEVEL = 128
"""The level of the image's mean."""
LEAST_DEVIATION = 5.0
"""Added to the deviation, so that an image without contrast is not all noise."""
MOST_FEATURES = 500
NEIGHBOURHOOD = 5
"""Pixels a side of the window in which a keypoint is the most probable position."""
LEAST_PROBABLE = 0.01


class Maps(NamedTuple):
    """What the network says of the H x W cells of an image."""

    descriptors: Floats  # [H,W,B], multiples of 1/32, whose signs are the bits once they are interpolated
    keypoints: Floats  # [H,W,65], the logits of the 64 positions in a cell, row by row, and of none
    reliability: Floats  # [H,W], logits


class LearnedFeatures(NamedTuple):
    """The N local features of an image of `size` pixels (width, height), the best one first."""

    size: tuple[int, int]
    points: Points  # [N,2], x and y of the pixels' centres
    scores: NDArray[np.float64]  # [N], probability times reliability, falling
    descriptors: NDArray[np.uint8]  # [N,B/8], the first bit in the highest place


class LearnedNetwork:
    """A network for local features, for images of any size; raises DescriptorError where it cannot be loaded."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        self._backend = DelegateBackend(model, threads)
        interpreter = self._backend.interpreter
        self._input = interpreter.get_input_details()[0]["index"]
        channels = {int(output["shape"][-1]): output["index"] for output in interpreter.get_output_details()}
        described = [count for count in channels if count not in (POSITIONS + 1, 1)]
        if len(channels) != 3 or len(described) != 1 or self._backend.input_shape[-1] != 1:
            raise DescriptorError("the model has no local features; use one that `train_offline local` wrote")
        self._outputs = [channels[count] for count in (described[0], POSITIONS + 1, 1)]
        self._shape = self._backend.input_shape

    def extract(self, image: Image, most: int = MOST_FEATURES) -> LearnedFeatures:
        """Return the local features of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size: `most` at the most."""
        grey = fitted(image)
        height, width = grey.shape
        return decode(self.maps(padded(levels(grey))), (width, height), most)

    def maps(self, image: Image) -> Maps:
        """Return what the network says of levels [H,W] uint8, whose sides are multiples of SIZE_STEP."""
        interpreter, shape = self._backend.interpreter, (1, *image.shape, 1)
        if shape != self._shape:
            interpreter.resize_tensor_input(self._input, shape)
            interpreter.allocate_tensors()
            self._shape = shape
        interpreter.set_tensor(self._input, image[np.newaxis, ..., np.newaxis])
        interpreter.invoke()
        descriptors, keypoints, reliability = (interpreter.get_tensor(output)[0] for output in self._outputs)
        return Maps(descriptors, keypoints, reliability[..., 0])


def fitted(image: Image) -> Image:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, in shades of grey, its longer side LONGER_SIDE or less."""
    height, width = image.shape[:2]
    scale = LONGER_SIDE / max(height, width)
    if scale < 1:  # The colours go last: there are fewer pixels then.
        image = resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    grey: Image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey


def levels(grey: Image) -> Image:
    """Return a grey image [H,W] uint8 as the network takes it, uint8: less its mean, over its deviation.

    One deviation is LEVELS, the mean is GREY_LEVEL. Sums are integers, so that every machine has the same levels.
    """
    counts = np.bincount(grey.reshape(-1), minlength=256)
    shades = np.arange(256, dtype=np.int64)
    total, first, second = int(counts.sum()), int(counts @ shades), int(counts @ shades**2)
    mean = first / total
    deviation = np.sqrt((second * total - first**2) / total**2)
    table = np.rint((shades - mean) / (deviation + LEAST_DEVIATION) * LEVELS) + GREY_LEVEL
    result: Image = np.clip(table, 0, 255).astype(np.uint8)[grey]
    return result


def padded(image: Image) -> Image:
    """Return levels [H,W] with the last row and column repeated, until both sides are multiples of SIZE_STEP."""
    height, width = image.shape
    result: Image = np.pad(image, ((0, -height % SIZE_STEP), (0, -width % SIZE_STEP)), mode="edge")
    return result


def decode(maps: Maps, size: tuple[int, int], most: int = MOST_FEATURES) -> LearnedFeatures:
    """Return the features of an image of `size` (width, height) that is the top left part of what the maps are of.

    Those are the positions that are the most probable ones of their NEIGHBOURHOOD, in the order of their probability
    times the reliability of their cell. Of several as good, the higher comes first, then the one further left.
    """
    width, height = size
    heat = probabilities(maps.keypoints)[:height, :width]
    highest = cv2.dilate(heat, np.ones((NEIGHBOURHOOD, NEIGHBOURHOOD), np.uint8))
    y, x = np.nonzero((heat == highest) & (heat >= LEAST_PROBABLE))
    scores = heat[y, x] / (1 + np.exp(-maps.reliability.astype(np.float64)[y // CELL, x // CELL]))
    best = np.argsort(-scores, kind="stable")[:most]
    points: Points = np.stack([x[best], y[best]], axis=1).astype(np.float32)
    bits = np.packbits(interpolated(maps.descriptors, points) >= 0, axis=1)
    return LearnedFeatures(size, points, scores[best], bits)


def probabilities(keypoints: Floats) -> NDArray[np.float64]:
    """Return how probable a keypoint is at each pixel [8H,8W], from the logits [H,W,65] of cells: their softmax."""
    powers = np.exp(keypoints - keypoints.max(axis=2, keepdims=True), dtype=np.float64)
    likely = (powers / powers.sum(axis=2, keepdims=True))[..., :POSITIONS]
    rows, columns = keypoints.shape[:2]
    pixels: NDArray[np.float64] = likely.reshape(rows, columns, CELL, CELL).transpose(0, 2, 1, 3)
    return pixels.reshape(rows * CELL, columns * CELL)


def interpolated(descriptors: Floats, points: Points) -> Floats:
    """Return descriptors [H,W,B] at pixels [N,2], x and y: [N,B], linearly between cells' centres, at the border flat.

    Exact, and so the same on every machine: cells' values are multiples of 1/32, and weights of 1/256.
    """
    rows, columns = descriptors.shape[:2]
    along = np.clip((points + np.float32(0.5)) / CELL - np.float32(0.5), 0, (columns - 1, rows - 1))
    first = np.maximum(np.minimum(np.floor(along), (columns - 2, rows - 2)), 0).astype(np.intp)
    right, down = ((along - first).astype(np.float32).T)[..., np.newaxis]
    x, y = first.T
    beside, below = np.minimum(x + 1, columns - 1), np.minimum(y + 1, rows - 1)
    upper = descriptors[y, x] * (1 - right) + descriptors[y, beside] * right
    lower = descriptors[below, x] * (1 - right) + descriptors[below, beside] * right
    result: Floats = upper * (1 - down) + lower * down
    return result
