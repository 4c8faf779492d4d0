# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")
pytest.importorskip("larq_compute_engine", reason="the converter is not installed")

import keras

from binvpr_ros.lab.training.export import convert, shrink_kernels
from binvpr_ros.lab.training.networks import binvpr, build
from binvpr_ros.network.backends import load_backend


def test_kernels_in_8_bits_compute_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binvpr, "WIDTHS", (32, 64, 96, 128))
    monkeypatch.setattr(binvpr, "BASIC_WIDTH", 32)
    keras.utils.set_random_seed(0)
    model = build("binvpr20r", "deploy", 64, for_export=True)
    whole = convert(model)
    small = shrink_kernels(whole)
    kernels = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D]
    saved = len(whole) - len(small)
    assert saved == pytest.approx(3 * sum(layer.count_params() for layer in kernels), rel=0.1)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 64, 64, 3), np.uint8)
    before, after = (
        np.stack([backend.run(image) for image in images])
        for backend in (load_backend("auto", content, 1) for content in (whole, small))
    )
    assert 0 < np.abs(after - before).max() < 0.1 * before.std()
    assert np.mean((after >= 0) == (before >= 0)) > 0.98
