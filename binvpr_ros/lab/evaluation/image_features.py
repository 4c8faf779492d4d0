# SPDX-License-Identifier: Apache-2.0
"""Local features of the images of a data set, found once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.dataset import Images
from binvpr_ros.local_features.features import Features
from binvpr_ros.local_features.kinds import LocalFeatures


class ImageFeatures:
    """Finds the local features of an image when they are first wanted, and keeps them."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._kept: dict[tuple[int, LocalFeatures, bytes], Features] = {}

    def __call__(self, index: int, kind: LocalFeatures, visible: NDArray[np.uint8] | None = None) -> Features:
        """Return what `kind` extracts of an image."""
        key = index, kind, b"" if visible is None else visible.tobytes()
        if key not in self._kept:
            self._kept[key] = kind.extract(self._images[index], visible)
        return self._kept[key]
