# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras

from binvpr_ros.lab.training.export import export
from binvpr_ros.lab.training.networks import PairConv2D, build
from binvpr_ros.lab.training.paper import experiments
from binvpr_ros.network.descriptor import DescriptorNetwork

PARAMETERS = {
    # with the 48 classes of "Natural", and without the descriptor, which is ours
    "binarynet": 72_138_192,  # unexplained
    "xnornet": 66_615_248,  # the paper's is exact with 45 classes
    "floppynet": 3_680_720,
    "shallownet": 55_996_880,  # batch norms have a scale here
    "dorefanet": 72_144_816,  # likewise
    "realtobinnet34": 21_907_056,  # PReLUs, and three scales that the authors' code lacks
    "birealnet34": 21_326_320,  # as ResNet-34: the paper's own column says they differ, by 0.1%
    "biresnet18": 11_210_736,  # a misprint for 11.21: ResNet-18's column of MiB is 42.76
    "biresnet34": 21_326_320,
    "alexnet": 58_506_704,
    "resnet18": 11_210_736,  # as BiResNet-18
    "resnet34": 21_326_320,
    "binvpr20": 16_780_208,  # one basic convolution more than the authors' code: see test_binvpr
    "binvpr36": 34_842_032,  # likewise
    "binvpr20ste": 16_780_208,  # likewise
}


@pytest.mark.usefixtures("shapes_alone")
@pytest.mark.parametrize("network", PARAMETERS)
def test_the_papers_number_of_parameters(network: str) -> None:
    model = build(network, "paper", 224, classes=experiments.COUNTED_CLASSES)
    ours = PARAMETERS[network]
    assert model.count_params() - model.get_layer("descriptor").count_params() == ours
    (row,) = (row for row, name in experiments.SYSTEMS.items() if name == network)
    assert ours == pytest.approx(experiments.PARAMETERS[row] * 1e6, rel=0.01)


@pytest.mark.usefixtures("shapes_alone")
@pytest.mark.parametrize(
    ("network", "kernels"),
    [
        ("binarynet", [(5, 5, 96, 256), (3, 3, 256, 384), (3, 3, 384, 384), (3, 3, 384, 256)]),
        ("floppynet", [(5, 5, 96, 256), (3, 3, 256, 256)]),
        ("shallownet", [(5, 5, 96, 256), (3, 3, 256, 256)]),
    ],
)
def test_the_layers_of_the_files_that_floppynets_authors_published(
    network: str, kernels: list[tuple[int, ...]]
) -> None:
    model = build(network, "paper", 227)
    assert [layer.kernel.shape for layer in model.layers if isinstance(layer, PairConv2D)] == kernels
    assert model.get_layer("conv1").kernel.shape == (11, 11, 3, 96)


@pytest.mark.parametrize("network", ["floppynet", "xnornet"])
def test_the_exported_file_computes_what_was_trained(network: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = build(network, "paper", 64)
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    model(images, training=True)  # sets the means, without which every bit is the same
    output = tmp_path / "model.tflite"
    card = export(model, network, "paper", 64, output, {"training_data": "none"})
    assert card.descriptor_bits == model.output_shape[-1]
    exported = DescriptorNetwork(output)
    ours = np.stack([exported.backend.run(image[None])[0] for image in images])
    # Sums in another order turn a sign that is nearly zero, here and there; descriptors have a spread of about 1.
    assert np.abs(ours - model(images.astype(np.float32)).numpy()).mean() < 0.02
