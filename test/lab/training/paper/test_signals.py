# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras

from binvpr_ros.lab.training.networks import find
from binvpr_ros.lab.training.networks.layers import PairConv2D, global_descriptor, model
from binvpr_ros.lab.training.paper.experiments import EXPERIMENTS
from binvpr_ros.lab.training.paper.signals import Signal, Signals, draw_signals, read_signals

SIZE, CLASSES = 64, 5
Images = tuple[NDArray[np.float32], NDArray[np.int32]]


@pytest.fixture(scope="module")
def deployed() -> keras.Model:
    keras.utils.set_random_seed(3)
    return find("binvpr20", "deploy")(SIZE, classes=CLASSES)


@pytest.fixture(scope="module")
def images() -> Images:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    scenes = np.stack([cv2.resize(one, (SIZE, SIZE)) for one in noise])
    return scenes.astype(np.float32), np.arange(4, dtype=np.int32)


def taken(network: keras.Model, images: Images, folder: Path) -> dict[str, Signal]:
    signals = Signals(folder, *images)
    signals.take(network, 0)
    return {signal.layer: signal for _, signal in read_signals(signals.path)}


def test_the_figures_of_a_network_worked_by_hand(images: Images, tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-1.0)(image)
    x = PairConv2D(7, activations="ste_sign", weights="ste_sign", name="conv")(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(CLASSES, name="logits")(pooled)
    network = model("small", image, global_descriptor(x), logits)
    found = taken(network, images, tmp_path)

    signs = np.where(images[0] >= 128, 1.0, -1.0)
    assert list(found) == ["conv", "logits"]
    assert found["conv"].positive == pytest.approx((signs > 0).mean(), abs=1e-5)
    assert found["conv"].change == pytest.approx(np.abs(signs[:2] - signs[2:]).mean(), abs=1e-5)
    features = keras.Model(image, pooled).predict_on_batch(images[0])
    assert found["logits"].change == pytest.approx(
        np.abs(features[:2] - features[2:]).mean() / np.abs(features).mean(), rel=1e-4
    )
    scores = np.exp(network.predict_on_batch(images[0])["logits"])
    errors = scores / scores.sum(axis=1, keepdims=True) - np.eye(CLASSES)[images[1]]
    gradient = features.T @ errors / len(features)  # of the cross-entropy
    assert found["logits"].gradient == pytest.approx(np.linalg.norm(gradient), rel=1e-4)


def test_behind_a_relu_every_sign_is_one_and_no_image_changes_it(images: Images, tmp_path: Path) -> None:
    """What the paper calls gradient vanishing: with signs, its trunk is the same for all images."""
    keras.utils.set_random_seed(3)
    small = images[0][:, ::2, ::2], images[1]
    printed = taken(find("binvpr20ste", "paper")(SIZE // 2, classes=CLASSES), small, tmp_path)
    trunk = [signal for name, signal in printed.items() if name.startswith("block")]
    assert len(trunk) == 16
    accepting = trunk.pop()  # the restored basic features are added to its input
    assert accepting.layer == "block4_conv4"
    assert accepting.change > 0
    assert [(signal.positive, signal.change) for signal in trunk] == [(1.0, 0.0)] * 15


@pytest.mark.parametrize(
    ("experiment", "row", "column", "blind"),
    [
        ("single", "conv15", "Baseline-20", True),
        ("single", "conv16", "Baseline-20", False),
        ("figure6", "LR.", "Baseline-20", False),
        ("table2", "B1-Block4-Layer4", "Baseline-20", True),
        ("table3", "Block1+2+3+4-Layer2+3+4", "Baseline-20", True),
    ],
)
def test_with_signs_restored_features_reach_the_classifier_from_the_last_places_alone(
    experiment: str, row: str, column: str, blind: bool, images: Images, tmp_path: Path
) -> None:
    """What is added earlier comes to a ReLU and a sign again, and what the trunk has to give is the same for all."""
    cells = EXPERIMENTS[experiment].cells("paper-ste")
    cell = next(cell for cell in cells if (cell.row, cell.column) == (row, column))
    small = images[0][:, ::2, ::2], images[1]
    found = taken(cell.network(SIZE // 2, classes=CLASSES), small, tmp_path)
    assert (found["logits"].change == 0) == blind


def test_where_no_relu_precedes_the_sign_images_differ(deployed: keras.Model, images: Images, tmp_path: Path) -> None:
    before = deployed.get_weights()
    found = taken(deployed, images, tmp_path)
    trunk = [signal for name, signal in found.items() if name.startswith("block")]
    assert len(trunk) == 16
    assert all(0.1 < signal.positive < 0.9 and signal.change > 0.1 for signal in trunk)
    assert all(signal.gradient > 0 for signal in trunk)
    for one, other in zip(before, deployed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)  # the network is left as it is


def test_a_run_that_goes_on_replaces_what_comes_after(deployed: keras.Model, images: Images, tmp_path: Path) -> None:
    signals = Signals(tmp_path, *images)
    for step in (0, 5, 10, 5):
        signals.take(deployed, step)
    steps = [step for step, _ in read_signals(signals.path)]
    assert sorted(set(steps)) == [0, 5]
    assert steps.count(0) == steps.count(5) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["signals.csv"]

    draw_signals({"one": signals.path, "other": signals.path}, "two runs", tmp_path / "signals.png")
    picture = cv2.imread(str(tmp_path / "signals.png"))
    assert picture is not None
    assert (picture.min(axis=2) < 200).mean() > 0.005
