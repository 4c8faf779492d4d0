# SPDX-License-Identifier: Apache-2.0
"""Gist: how strongly the parts of an image answer to edges of each scale and orientation."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.baselines.grey import grey_square
from binvpr_ros.lab.evaluation.methods import FLOAT_BITS, Method


class Gist(Method):
    """Whole-image descriptor after Oliva and Torralba (IJCV 2001, section 3): the spatial envelope.

    The image at 128x128, its contrast made even, passes log-Gabor filters (Field, JOSA A 1987) of 4 scales, an octave
    apart, and 8 orientations; the magnitudes are averaged over a 4x4 grid.
    """

    name = "gist"
    SIDE = 128  # pixels
    SCALES = 4
    ORIENTATIONS = 8
    GRID = 4
    FINEST = 0.25  # cycles a pixel
    BANDWIDTH = 0.65  # ratio of a log-Gabor's deviation to its centre: about an octave
    CONTRAST_SIGMA = 5.0  # pixels
    LEAST_CONTRAST = 0.2  # in units of log grey; less is not amplified
    descriptor_bits = SCALES * ORIENTATIONS * GRID**2 * FLOAT_BITS

    def __init__(self) -> None:
        down, across = np.meshgrid(np.fft.fftfreq(self.SIDE), np.fft.fftfreq(self.SIDE), indexing="ij")
        radius = np.hypot(across, down)
        radius[0, 0] = 1.0  # its gain is set to zero below
        centres = self.FINEST / 2.0 ** np.arange(self.SCALES)
        radial = np.exp(-(np.log(radius / centres[:, None, None]) ** 2) / (2 * np.log(self.BANDWIDTH) ** 2))
        radial[:, 0, 0] = 0.0
        angles = np.arange(self.ORIENTATIONS) * np.pi / self.ORIENTATIONS
        # Half of the plane alone, so that the answer is complex and its magnitude knows no phase.
        apart = np.angle(np.exp(1j * (np.arctan2(down, across) - angles[:, None, None])))
        angular = np.exp(-(apart**2) / (2 * (np.pi / self.ORIENTATIONS / 1.5) ** 2))
        self._filters = (radial[:, None] * angular).astype(np.float32)  # [scales, orientations, S, S]

    def describe(self, image: Image) -> NDArray[np.float32]:
        """Return the mean magnitudes [512] float32 of a uint8 image, [H,W,3] RGB or [H,W] grey, less their mean.

        In the order scales, orientations, rows, columns of the grid. Without their mean the cosine is the correlation:
        magnitudes are all positive, so that their cosine is near 1 for any two images.
        """
        spectrum = np.fft.fft2(self._even_contrast(grey_square(image, self.SIDE)))
        magnitudes = np.abs(np.fft.ifft2(spectrum * self._filters))
        part = self.SIDE // self.GRID
        grid = magnitudes.reshape(self.SCALES, self.ORIENTATIONS, self.GRID, part, self.GRID, part).mean(axis=(3, 5))
        return (grid - grid.mean()).astype(np.float32).reshape(-1)

    def _even_contrast(self, values: Image) -> NDArray[np.float32]:
        """Return grey values [S,S] less their local mean, over their local deviation."""
        logs = np.log(values.astype(np.float32) + 1)
        logs -= cv2.GaussianBlur(logs, (0, 0), self.CONTRAST_SIGMA)
        deviation = np.sqrt(cv2.GaussianBlur(logs**2, (0, 0), self.CONTRAST_SIGMA))
        return logs / (deviation + np.float32(self.LEAST_CONTRAST))
