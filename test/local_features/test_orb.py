# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.images import Image
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.orb import extract


@pytest.mark.parametrize("shape", [(480, 640, 3), (480, 640), (1, 1), (2, 2000), (600, 3, 3), (24, 32), (32, 32)])
def test_an_image_of_any_size_has_features_or_none(shape: tuple[int, ...]) -> None:
    features = extract(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    count = len(features.descriptors)
    assert features.positions.shape == (count, 2)
    assert features.angles.shape == (count,)
    assert verify(features, features) >= 0


def test_colour_changes_little(scene: Image) -> None:
    grey, colour = extract(scene), extract(np.dstack([scene] * 3))
    assert verify(grey, colour) >= 0.9 * len(grey.descriptors)
