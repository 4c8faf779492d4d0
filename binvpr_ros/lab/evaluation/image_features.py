# SPDX-License-Identifier: Apache-2.0
"""Local features of the images of a data set, found once."""

from __future__ import annotations

from binvpr_ros.lab.evaluation.datasets.dataset import Images
from binvpr_ros.local_features.features import Features
from binvpr_ros.local_features.orb import extract


class ImageFeatures:
    """Finds the local features of an image when they are first wanted, and keeps them."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._kept: dict[int, Features] = {}

    def __call__(self, index: int) -> Features:
        """Return the local features of an image."""
        if index not in self._kept:
            self._kept[index] = extract(self._images[index])
        return self._kept[index]
