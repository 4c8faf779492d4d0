# SPDX-License-Identifier: Apache-2.0
"""A trained network -> the .tflite file that the node loads, and its card."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import keras

from binvpr_ros.model_card import ModelCard, checksum
from binvpr_ros.training.networks import NETWORKS


class ExportError(RuntimeError):
    """The model cannot be converted here; the message says what to do."""


def export(trained: keras.Model, network: str, input_size: int, output: Path, facts: dict[str, Any]) -> ModelCard:
    """Convert `trained` to `output` (.tflite) with its card beside it, and return the card.

    `facts` fills the card: recipe, training_data, command, evaluation. Raises ExportError.
    """
    if keras.backend.backend() != "tensorflow":
        raise ExportError("export needs TensorFlow underneath Keras; run it with KERAS_BACKEND=tensorflow")
    try:
        import larq_compute_engine as lce
    except ImportError:
        raise ExportError("the converter is missing; run: pip install larq-compute-engine (x86-64)") from None
    model = NETWORKS[network](input_size, for_export=True)
    by_name = {layer.name: layer for layer in trained.layers}
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(by_name[layer.name].get_weights())
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        content = lce.convert_saved_model(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(content)
    card = ModelCard(
        name=output.stem,
        network=network,
        git_revision=_git_revision(),
        input_size=[input_size, input_size],
        descriptor_bits=model.output_shape[-1],
        sha256=checksum(output),
        **facts,
    )
    card.write(output)
    return card


def _git_revision() -> str:
    """Return the revision of the checkout that this code stands in, or 'unknown'."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
