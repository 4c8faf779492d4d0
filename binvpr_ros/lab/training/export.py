# SPDX-License-Identifier: Apache-2.0
"""A trained network -> the .tflite file that the node loads, and its card."""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from binvpr_ros.lab.training.networks import BinaryConv2D, build
from binvpr_ros.lab.training.networks.binvpr import cells_of
from binvpr_ros.lab.training.noise import measure_noise
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.model_card import AS_PIXELS, ModelCard, checksum


class ExportError(RuntimeError):
    """The model cannot be converted here; the message says what to do."""


def export(
    trained: keras.Model, network: str, recipe: str, input_size: int, output: Path, facts: dict[str, Any]
) -> ModelCard:
    """Convert `trained` to `output` (.tflite) with its card beside it, and return the card.

    `facts` fills the rest of the card: training_data, command, evaluation. Raises ExportError.
    """
    revision = _git_revision()
    # Weights are float32 in mixed precision too, and the converter takes nothing else.
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        model = build(network, recipe, input_size, for_export=True)
    finally:
        keras.config.set_dtype_policy(policy)
    by_name = {layer.name: layer for layer in trained.layers}
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(by_name[layer.name].get_weights())
    _centre_thresholds(model)
    content = convert(model)
    if recipe == "deploy":
        content = shrink_kernels(content)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(content)
    card = ModelCard(
        name=output.stem,
        network=network,
        recipe=recipe,
        git_revision=revision,
        input_size=[input_size, input_size],
        descriptor_bits=model.output_shape[-1],
        sha256=checksum(output),
        cells=cells_of(model.output_shape[-1]),
        preprocessing=AS_PIXELS,
        **facts,
    )
    card.write(output)
    card = dataclasses.replace(card, noise=measure_noise(DescriptorNetwork(output)))
    card.write(output)
    return card


def convert(model: keras.Model, int8_outputs: bool = False) -> bytes:
    """Return a model that was built for export as a .tflite file, which takes uint8 images; raises ExportError.

    With `int8_outputs` it gives the levels of its outputs, all of them EightBits, instead of their values.
    """
    if keras.backend.backend() != "tensorflow":
        raise ExportError("export needs TensorFlow underneath Keras; run it with KERAS_BACKEND=tensorflow")
    import tensorflow as tf
    from tensorflow.lite.python.util import modify_model_io_type

    try:
        import larq_compute_engine as lce
    except ImportError:
        raise ExportError("the converter is missing; run: pip install larq-compute-engine (x86-64)") from None
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        content = lce.convert_saved_model(folder)
    # The converter makes float inputs only; behind them stands the step to int8, which takes uint8 as well, exactly.
    outputs = tf.int8 if int8_outputs else tf.float32
    return bytes(modify_model_io_type(content, inference_input_type=tf.uint8, inference_output_type=outputs))


def shrink_kernels(content: bytes) -> bytes:
    """Return a .tflite file with its real-valued kernels in 8 bits, of which floats are made when it is loaded.

    Each output channel has the scale of its largest weight. The converter itself does so only where inputs have 8 bits
    too, which would cost the descriptor more.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    codes = [code.builtinCode for code in model.operatorCodes]
    dequantize = schema.OperatorCodeT()
    dequantize.builtinCode = dequantize.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    dequantize.version = 5  # the first that knows scales by channel
    model.operatorCodes.append(dequantize)
    operators = []
    for operator in graph.operators:
        convolves = codes[operator.opcodeIndex] == schema.BuiltinOperator.CONV_2D
        kernel = graph.tensors[operator.inputs[1]] if convolves else None
        data = model.buffers[kernel.buffer].data if kernel and kernel.type == schema.TensorType.FLOAT32 else None
        if kernel and data is not None:
            weights = np.frombuffer(data.tobytes(), np.float32).reshape(kernel.shape)  # [F,size,size,C]
            scales = np.abs(weights).max(axis=(1, 2, 3)) / 127
            scales[scales == 0] = 1
            levels = np.rint(weights / scales[:, None, None, None]).astype(np.int8)
            stored = schema.TensorT()
            stored.name, stored.shape, stored.type = kernel.name + b"_8_bits", kernel.shape, schema.TensorType.INT8
            stored.buffer = len(model.buffers)
            stored.quantization = schema.QuantizationParametersT()
            stored.quantization.scale = scales.astype(np.float32)
            stored.quantization.zeroPoint = np.zeros(len(scales), np.int64)
            model.buffers[kernel.buffer].data = None
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = levels.reshape(-1).view(np.uint8)
            unpack = schema.OperatorT()
            unpack.opcodeIndex = len(model.operatorCodes) - 1
            unpack.inputs, unpack.outputs = [len(graph.tensors)], [operator.inputs[1]]
            graph.tensors.append(stored)
            operators.append(unpack)
        operators.append(operator)
    graph.operators = operators
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _centre_thresholds(model: keras.Model) -> None:
    """Move the threshold of each batch norm that only a sign follows to the middle between two values of its input.

    The output of a binary convolution is an integer of known parity, so every threshold between two such integers
    decides alike. In the middle, no runtime's rounding can tip it; at an integer it did, and one flipped channel
    changed a twentieth of the descriptor.
    """
    for norm in model.layers:
        if not isinstance(norm, keras.layers.BatchNormalization) or not norm.center:
            continue
        convolution = norm.input._keras_history.operation
        followers = [node.operation for node in norm._outbound_nodes]
        if not isinstance(convolution, BinaryConv2D) or not all(isinstance(layer, BinaryConv2D) for layer in followers):
            continue
        gamma, beta, mean, variance = norm.get_weights()
        slope = gamma / np.sqrt(variance + norm.epsilon)
        parity = convolution.kernel.shape[0] * convolution.kernel.shape[1] * convolution.kernel.shape[2] % 2
        threshold = mean - beta / np.where(slope == 0, np.inf, slope)
        centred = 2 * np.floor((threshold - parity) / 2) + 1 + parity
        norm.set_weights([gamma, np.where(slope == 0, beta, (mean - centred) * slope), mean, variance])


def _git_revision() -> str:
    """Return the revision of the checkout that this code stands in, or 'unknown'."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
