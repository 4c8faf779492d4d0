# SPDX-License-Identifier: Apache-2.0
"""Every network in each of its recipes, with few channels: it trains and converts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from binvpr_ros.lab.training.networks import NETWORKS, RECIPES, binvpr, build, comparison

BINARY_CONVOLUTIONS = {
    ("binvpr20", "deploy"): 16,
    ("binvpr20r", "deploy"): 16,
    ("baseline20", "deploy"): 16,
    ("binvpr36", "deploy"): 32,
    ("binvpr36r", "deploy"): 32,
    ("baseline36", "deploy"): 32,
    # Leaky tanh is real-valued, and DoReFa has 2 bits: what the paper's best networks are has nothing binary.
    ("binvpr20", "paper"): 0,
    ("baseline20", "paper"): 0,
    ("binvpr36", "paper"): 0,
    ("baseline36", "paper"): 0,
    ("binvpr20ste", "paper"): 16,
    ("binvpr36ste", "paper"): 32,
    ("binarynet", "paper"): 4,
    ("xnornet", "paper"): 3,
    ("floppynet", "paper"): 2,
    ("shallownet", "paper"): 2,
    ("dorefanet", "paper"): 0,
    ("realtobinnet34", "paper"): 32,
    ("birealnet34", "paper"): 32,
    ("biresnet18", "paper"): 16,
    ("biresnet34", "paper"): 32,
    ("alexnet", "paper"): 0,
    ("resnet18", "paper"): 0,
    ("resnet34", "paper"): 0,
}
"""LceBconv2d in the converted file; wide layers behind the descriptor are not in it."""


@pytest.fixture(autouse=True, scope="module")
def _few_channels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binvpr, "WIDTHS", (32, 64, 96, 128))
        patch.setattr(binvpr, "BASIC_WIDTH", 32)
        patch.setattr(comparison, "RESNET_WIDTHS", (32, 64, 96, 128))
        yield


def test_every_network_is_here() -> None:
    assert set(BINARY_CONVOLUTIONS) == {(name, recipe) for name, recipes in NETWORKS.items() for recipe in recipes}
    assert {recipe for _, recipe in BINARY_CONVOLUTIONS} == set(RECIPES)


@pytest.mark.usefixtures("shapes_alone")
@pytest.mark.parametrize(("network", "recipe"), BINARY_CONVOLUTIONS)
def test_variables_have_the_same_names_at_every_size(network: str, recipe: str) -> None:
    small, large = (
        {variable.path: tuple(variable.shape) for variable in build(network, recipe, size, classes=3).variables}
        for size in (64, 128)
    )
    assert small.keys() == large.keys()
    if recipe == "deploy":  # it is trained in stages of several sizes; the wide layers of others depend on theirs
        assert small == large


@pytest.mark.parametrize(("network", "recipe"), BINARY_CONVOLUTIONS)
def test_a_step_of_training(network: str, recipe: str) -> None:
    keras.utils.set_random_seed(0)
    model = build(network, recipe, 64, classes=3)
    assert model.name == network
    assert model.output["descriptor"].shape[-1] <= 2048
    images = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    before = [weight.numpy() for weight in model.trainable_variables]
    with tf.GradientTape() as tape:
        output = model(images, training=True)
        loss = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(np.array([0, 1, 2, 0]), output["logits"], from_logits=True)
        )
    assert np.isfinite(loss)
    assert np.isfinite(output["descriptor"]).all()
    trained = [
        (gradient, weight)
        for gradient, weight in zip(
            tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True
        )
        if gradient is not None
    ]
    keras.optimizers.SGD(0.1).apply(*map(list, zip(*trained, strict=True)))
    changed = [
        weight.path
        for weight, old in zip(model.trainable_variables, before, strict=True)
        if not np.array_equal(weight, old)
    ]
    assert all(np.isfinite(weight).all() for weight in model.trainable_variables)
    assert "logits/kernel" in changed
    assert len(changed) > len(before) / 2


@pytest.mark.parametrize(("network", "recipe"), BINARY_CONVOLUTIONS)
def test_the_converted_number_of_binary_convolutions(network: str, recipe: str, tmp_path: Path) -> None:
    lce = pytest.importorskip("larq_compute_engine", reason="the converter is not installed")
    model = build(network, recipe, 64, for_export=True)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec([1, 64, 64, 3]))
    # Much faster than `export`, which test_binvpr holds against what was trained.
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures=convert_variables_to_constants_v2(function))
    content = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(lce.convert_saved_model(str(tmp_path)), 0))
    codes = [content.operatorCodes[operator.opcodeIndex].customCode for operator in content.subgraphs[0].operators]
    assert codes.count(b"LceBconv2d") == BINARY_CONVOLUTIONS[network, recipe]


@pytest.mark.usefixtures("shapes_alone")
@pytest.mark.parametrize(("network", "recipe"), BINARY_CONVOLUTIONS)
def test_constants_of_batch_norms_are_the_authors_where_the_network_is(network: str, recipe: str) -> None:
    layers = build(network, recipe, 64, 5).layers
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    constants = {(norm.momentum, norm.epsilon) for norm in norms}
    assert constants == {(0.9, 1e-3 if recipe == "paper" else 1e-5)}


def test_names_that_are_not_known() -> None:
    with pytest.raises(ValueError, match=r"no network is called 'vgg'; known are alexnet, baseline20, .*xnornet$"):
        build("vgg", "paper", 64)
    with pytest.raises(ValueError, match="resnet18 has no recipe 'deploy'; known are paper"):
        build("resnet18", "deploy", 64)
