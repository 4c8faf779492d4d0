# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from binvpr_ros.images import Image


@pytest.fixture(scope="module")
def scene() -> Image:
    """A picture [960,1280] without any order, so that each spot of it is unlike all others."""
    rng = np.random.default_rng(5)
    picture = np.full((960, 1280), 128, np.uint8)
    for _ in range(400):
        x, y, width, height = (int(value) for value in rng.integers((0, 0, 20, 20), (1280, 960, 120, 120)))
        cv2.rectangle(picture, (x, y), (x + width, y + height), int(rng.integers(0, 256)), -1)
    return picture
