# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.images import Image
from binvpr_ros.local_features.features import Features, FeaturesError
from binvpr_ros.local_features.orb import MOST_FEATURES, MOST_WIDTH, extract


def test_features_come_back_from_their_bytes(scene: Image) -> None:
    features = extract(scene)
    assert features.size == (MOST_WIDTH, MOST_WIDTH * 3 // 4)
    assert 100 < len(features.descriptors) <= MOST_FEATURES
    data = features.to_bytes()
    assert len(data) == 4 + 37 * len(features.descriptors)
    for array, back in zip(features, Features.from_bytes(data), strict=True):
        np.testing.assert_array_equal(array, back)


@pytest.mark.parametrize("length", [0, 3, 5, 4 + 36])
def test_other_bytes_are_no_features(length: int) -> None:
    with pytest.raises(FeaturesError, match=f"{length} bytes are no features"):
        Features.from_bytes(bytes(length))
