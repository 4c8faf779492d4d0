# SPDX-License-Identifier: Apache-2.0
"""HOG: histograms of oriented gradients of the whole image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.baselines.grey import grey_square
from binvpr_ros.lab.evaluation.methods import FLOAT_BITS, Method


class Hog(Method):
    """Histogram of oriented gradients (Dalal and Triggs, CVPR 2005, section 6) of the image at 128x128, as one window.

    9 unsigned orientations, cells of 16x16 pixels, blocks of 2x2 cells that overlap by half, a Gaussian over each
    block, votes shared linearly between orientations and cells, L2-Hys, no gamma: what OpenCV's HOGDescriptor gives for
    these sizes, but for its Gaussian, which lies half a pixel off the block's centre.
    """

    name = "hog"
    SIDE = 128  # pixels
    CELL = 16  # pixels
    ORIENTATIONS = 9
    CLIP = 0.2
    BLOCKS = SIDE // CELL - 1  # along each side
    descriptor_bits = BLOCKS**2 * 4 * ORIENTATIONS * FLOAT_BITS

    def __init__(self) -> None:
        # How much a block's pixels along one side weigh in its two cells; Gaussian and sharing both are separable.
        block = 2 * self.CELL
        offsets = np.arange(block) + 0.5
        gauss = np.exp(-((offsets - self.CELL) ** 2) / (2 * (block / 4) ** 2))
        centres = self.CELL * np.array([[0.5], [1.5]])
        in_block = gauss * np.maximum(0, 1 - np.abs(offsets - centres) / self.CELL)  # [2,block]
        weights = np.zeros((self.BLOCKS, 2, self.SIDE), np.float32)
        for start, rows in enumerate(weights):
            rows[:, start * self.CELL : start * self.CELL + block] = in_block
        self._weights = weights.reshape(-1, self.SIDE)

    def describe(self, image: Image) -> NDArray[np.float32]:
        """Return the histograms [1764] float32 of a uint8 image, [H,W,3] RGB or [H,W] grey.

        In the order blocks by row and column, cells by row and column, orientations of the gradient from 0 to 180
        degrees.
        """
        votes = self._votes(grey_square(image, self.SIDE).astype(np.float32))
        cells = self._weights @ votes @ self._weights.T  # [orientations, blocks x 2, blocks x 2]
        cells = cells.reshape(self.ORIENTATIONS, self.BLOCKS, 2, self.BLOCKS, 2)
        blocks = cells.transpose(1, 3, 2, 4, 0).reshape(self.BLOCKS**2, -1)
        # The constant keeps the noise of blocks without structure small.
        blocks = blocks / (np.linalg.norm(blocks, axis=1, keepdims=True) + 0.1 * blocks.shape[1])
        blocks = np.minimum(blocks, np.float32(self.CLIP))
        blocks = blocks / np.maximum(np.linalg.norm(blocks, axis=1, keepdims=True), np.float32(1e-3))
        return blocks.reshape(-1)

    def _votes(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how much each pixel of `values` [S,S] votes for each orientation [9,S,S]: its gradient's magnitude."""
        padded = np.pad(values, 1, mode="reflect")
        across = padded[1:-1, 2:] - padded[1:-1, :-2]
        down = padded[2:, 1:-1] - padded[:-2, 1:-1]
        bins = np.arctan2(down, across) * (self.ORIENTATIONS / np.pi) - 0.5
        lower = np.floor(bins)
        magnitudes = np.hypot(across, down)
        to_upper = magnitudes * (bins - lower)
        index = lower.astype(np.intp)[np.newaxis] % self.ORIENTATIONS
        votes = np.zeros((self.ORIENTATIONS, *values.shape), np.float32)
        np.put_along_axis(votes, index, (magnitudes - to_upper)[np.newaxis], 0)
        np.put_along_axis(votes, (index + 1) % self.ORIENTATIONS, to_upper[np.newaxis], 0)
        return votes
