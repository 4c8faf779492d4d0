# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras

from binvpr_ros.lab.training.local.network import SHAPE, Shape, TrunkConv2D, build
from binvpr_ros.lab.training.local.train import for_export


def trained(size: int = 64, shape: Shape = SHAPE) -> keras.Model:
    """Return a network whose batch norms have seen images, as if it had been trained."""
    keras.utils.set_random_seed(0)
    model = build(size, size, taught=64, shape=shape)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            spread = 8.0 if layer.scale else 1.0
            shapes = [weight.shape for weight in layer.weights]
            values = [rng.normal(0.5, 0.5, shape) for shape in shapes]
            values[-1] = spread * rng.uniform(0.5, 2, shapes[-1])
            layer.set_weights(values)
    return model


def levels(height: int, width: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 1), np.uint8)


def test_outputs_are_of_cells() -> None:
    model = build(64, 96, taught=64)
    shapes = {name: output.shape for name, output in model.output.items()}
    assert shapes == {
        "descriptors": (None, 8, 12, 256), "keypoints": (None, 8, 12, 65), "reliability": (None, 8, 12, 1),
        "taught": (None, 8, 12, 64),
    }  # fmt: skip


def test_a_shape_is_built() -> None:
    model = build(64, 64, shape=Shape(bits=512, width=96, sixteenth=2))
    assert model.output["descriptors"].shape[-1] == 512
    assert [layer.filters for layer in model.layers if isinstance(layer, TrunkConv2D)] == [48, 48] + [96] * 6


def test_a_random_projection_is_not_trained() -> None:
    model = build(64, 64, taught=64, shape=Shape(projected=64))
    assert not [weight.path for weight in model.trainable_weights if "descriptors" in weight.path]
    assert model.output["taught"].shape[-1] == 64


@pytest.mark.parametrize("size", [(64, 100), (0, 64), (8, 8)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="give multiples of 16"):
        build(*size)


@pytest.mark.parametrize("shape", [SHAPE, Shape(bits=512, width=96, sixteenth=2), Shape(trunk_bits=8, projected=64)])
def test_what_is_exported_is_what_was_trained(shape: Shape) -> None:
    model = trained(shape=shape)
    exported = for_export(model, (64, 64), shape)
    images = levels(64, 64, 2).astype(np.float32)
    said, again = model.predict(images, verbose=0), exported.predict((images - 128) / 32, verbose=0)
    assert set(again) == {"descriptors", "keypoints", "reliability"}
    for name, values in again.items():
        assert np.std(values) > 0.01
        np.testing.assert_allclose(values, said[name], atol=1e-4)


def test_the_file_holds_binary_layers_and_takes_images_of_any_size() -> None:
    pytest.importorskip("larq_compute_engine", reason="the converter is not installed")
    from ai_edge_litert import schema_py_generated as schema

    from binvpr_ros.lab.training.export import convert, shrink_kernels
    from binvpr_ros.local_features.learned import LocalNetwork

    model = trained()
    content = shrink_kernels(convert(for_export(model, (64, 64)), int8_outputs=True))
    assert len(content) <= 500_000
    packed = schema.ModelT.InitFromPackedBuf(content, 0)
    codes = [(code.customCode or b"").decode() for code in packed.operatorCodes]
    binary = [codes[one.opcodeIndex] for one in packed.subgraphs[0].operators].count("LceBconv2d")
    assert binary == sum(isinstance(layer, TrunkConv2D) for layer in model.layers)
    network = LocalNetwork(content)
    for height, width in ((64, 64), (96, 48), (64, 64)):
        images = levels(height, width)
        other = build(height, width, taught=64)
        other.set_weights(model.get_weights())
        said = other.predict(images.astype(np.float32), verbose=0)
        maps = network.maps(images[0, ..., 0])
        # A level of an int8 tensor that is rounded the other way flips a sign here and there.
        alike = (maps.descriptors >= 0) == (said["descriptors"][0] >= 0)
        assert maps.descriptors.shape == said["descriptors"].shape[1:]
        assert alike.mean() > 0.95
        for name, values in (("keypoints", maps.keypoints), ("reliability", maps.reliability[..., np.newaxis])):
            correlation = np.corrcoef(values.ravel(), said[name][0].ravel())[0, 1]
            assert correlation > 0.95
