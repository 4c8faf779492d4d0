# SPDX-License-Identifier: Apache-2.0
"""Local features of a 1-bit network (docs/local_features.md): found in an image, and matched with those of another.

An image becomes `levels`, `padded` to a multiple of SIZE_STEP; a network says something of each cell of 8x8 pixels, and
that is decoded (decoding.py).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image, resize
from binvpr_ros.lce_delegate import CELL
from binvpr_ros.local_features.colours import colours
from binvpr_ros.local_features.decoding import POSITIONS, Maps, decode
from binvpr_ros.local_features.features import POSITION_STEPS, Features, Pairs, Tag, learned_tag
from binvpr_ros.local_features.matching import mutual_matches
from binvpr_ros.network.backends import DelegateBackend, DescriptorError
from binvpr_ros.network.model_card import ModelCard

SIZE_STEP = 16
"""Height and width of a network's input are multiples of this."""
LONGER_SIDE = 480
"""Pixels to which the longer side of an image is brought."""
MOST_ENLARGED = 4.0
"""Times that a smaller image is enlarged, at the most."""
LEVELS = 32
"""Levels to one standard deviation of the image."""
GREY_LEVEL = 128
"""The level of the image's mean."""
LEAST_DEVIATION = 5.0
"""Added to the deviation, so that an image without contrast is not all noise."""
MOST_FEATURES = 500
DESCRIPTOR_SIZES = range(64, 512 + 1, 64)  # bits
MOST_BITS = 80  # of 256 that may differ in a match
NO_KEYPOINT = np.array([-128] * POSITIONS + [127], np.int8)
"""What the network would say of a cell without one."""
RATIO = 0.95  # at most, of the best distance to the second best: what repeats in an image matches nothing


class LearnedFeatures:
    """Finds local features, `most` in an image, by the network in the file `model`, which has a card beside it.

    Raises ModelCardError and DescriptorError where it cannot be used.
    """

    def __init__(self, model: Path, threads: int = 1, most: int = MOST_FEATURES, untried_runtime: bool = False) -> None:
        self.card = ModelCard.read(model)
        self._network = LocalNetwork(model.read_bytes(), threads, untried_runtime)
        self._most = most

    @property
    def tag(self) -> Tag:
        """The tag of what it finds."""
        return learned_tag(self.card.sha256)

    def extract(self, image: Image, visible: NDArray[np.uint8] | None = None) -> Features:
        """Return the local features of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size, the best one first.

        With `visible`, uint8 of any size that stands for the whole image, only where that is not 0.
        """
        image = fitted(image)
        height, width = image.shape[:2]
        grey: Image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        maps = self._network.maps(padded(levels(grey)))
        if visible is not None:
            shown = padded(cv2.resize(visible, (width, height), interpolation=cv2.INTER_NEAREST))
            rows, columns = maps.reliability.shape
            # A keypoint may lie at any pixel of its cell, so all of them must be visible.
            shown = shown.reshape(rows, CELL, columns, CELL).min(axis=(1, 3))
            maps.keypoints[shown == 0] = NO_KEYPOINT
        found = decode(maps, (width, height), self._most)
        positions = (found.points / (width, height) * POSITION_STEPS).astype(np.uint16)
        angles = np.zeros(len(positions), np.uint8)
        return Features((width, height), positions, angles, found.descriptors, self.tag, colours(image))


def matches(query: Features, match: Features) -> Pairs:
    """Return which features [M] of the one image are which [M] of the other: each other's nearest, and near."""
    return mutual_matches(query.descriptors, match.descriptors, MOST_BITS, RATIO)


class LocalNetwork:
    """A model for images of any size; raises DescriptorError where it cannot be loaded."""

    def __init__(self, model: bytes, threads: int = 1, untried_runtime: bool = False) -> None:
        self._backend = DelegateBackend(model, threads, untried_runtime)
        interpreter = self._backend.interpreter
        self._input = interpreter.get_input_details()[0]["index"]
        outputs = interpreter.get_output_details()
        channels = {int(output["shape"][-1]): output["index"] for output in outputs if len(output["shape"])}
        described = [count for count in channels if count not in (POSITIONS + 1, 1)]
        shape = self._backend.input_shape
        cells = [side // CELL for side in shape[1:3]]
        if (
            len(shape) != 4
            or (shape[0], shape[-1]) != (1, 1)
            or any(side % SIZE_STEP for side in shape[1:3])
            or self._backend.input_dtype != np.uint8
            or len(channels) != 3
            or len(described) != 1
            or described[0] not in DESCRIPTOR_SIZES
            or any(output["dtype"] != np.int8 or [*output["shape"][:-1]] != [1, *cells] for output in outputs)
        ):
            raise DescriptorError("the model has no local features; use one that `train_offline local` wrote")
        self._outputs = [channels[count] for count in (described[0], POSITIONS + 1, 1)]
        self._shape = shape

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


def fitted_size(height: int, width: int, most_enlarged: float = MOST_ENLARGED) -> tuple[int, int]:
    """Return the height and width in which an image is described: its longer side is LONGER_SIDE, or less."""
    scale = min(LONGER_SIDE / max(height, width), most_enlarged)
    return max(1, round(height * scale)), max(1, round(width * scale))


def fitted(image: Image) -> Image:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, in the size in which it is described."""
    size = fitted_size(*image.shape[:2])
    return image if size == image.shape[:2] else resize(image, size[::-1])


def levels(grey: Image) -> Image:
    """Return a grey image [H,W] uint8 as the network takes it, uint8: less its mean, over its deviation.

    One deviation is LEVELS, the mean is GREY_LEVEL. Sums are integers, so that every machine has the same levels.
    """
    counts = np.rint(cv2.calcHist([grey], [0], None, [256], [0, 256])).astype(np.int64).ravel()
    shades = np.arange(256, dtype=np.int64)
    total, first, second = int(counts.sum()), int(counts @ shades), int(counts @ shades**2)
    mean = first / total
    deviation = np.sqrt((second * total - first**2) / total**2)
    table = np.rint((shades - mean) / (deviation + LEAST_DEVIATION) * LEVELS) + GREY_LEVEL
    result: Image = cv2.LUT(grey, np.clip(table, 0, 255).astype(np.uint8))
    return result


def padded(image: Image) -> Image:
    """Return levels [H,W] with the last row and column repeated, until both sides are multiples of SIZE_STEP."""
    height, width = image.shape
    result: Image = np.pad(image, ((0, -height % SIZE_STEP), (0, -width % SIZE_STEP)), mode="edge")
    return result
