# SPDX-License-Identifier: Apache-2.0
"""Builds .tflite files in memory out of the operators of the Larq Compute Engine and some builtin ones around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from numpy.typing import NDArray

from lce_delegate.reference import (
    WORD_BITS,
    Activation,
    Convolution,
    Int8Convolution,
    MaxPool,
    Padding,
    Pair,
    Quantization,
    pack,
    window,
)

Options = Mapping[str, int] | bytes | None
"""A custom operator's options, or its bytes as they are to stand in the file."""

ABSENT = -1
"""The index of an optional input that is not there."""

TYPES = {
    np.float32: schema.TensorType.FLOAT32,
    np.int8: schema.TensorType.INT8,
    np.uint8: schema.TensorType.UINT8,
    np.int32: schema.TensorType.INT32,
    np.int64: schema.TensorType.INT64,
    np.bool_: schema.TensorType.BOOL,
}
PADDINGS: dict[Padding, int] = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}
ACTIVATIONS: dict[Activation, int] = {
    "NONE": schema.ActivationFunctionType.NONE,
    "RELU": schema.ActivationFunctionType.RELU,
    "RELU_N1_TO_1": schema.ActivationFunctionType.RELU_N1_TO_1,
    "RELU6": schema.ActivationFunctionType.RELU6,
}


def words(channels: int) -> int:
    """Return how many words hold the bits of `channels`."""
    return -(-channels // WORD_BITS)


def convolution_options(convolution: Convolution) -> dict[str, int]:
    """Return the custom options of an LceBconv2d."""
    return {
        "channels_in": convolution.channels_in,
        "dilation_height_factor": convolution.dilation[0],
        "dilation_width_factor": convolution.dilation[1],
        "fused_activation_function": ACTIVATIONS[convolution.activation],
        "pad_values": convolution.pad_value,
        "padding": PADDINGS[convolution.padding],
        "stride_height": convolution.stride[0],
        "stride_width": convolution.stride[1],
    }


def pool_options(pool: MaxPool) -> dict[str, int]:
    """Return the custom options of an LceBMaxPool2d."""
    return {
        "filter_height": pool.size[0],
        "filter_width": pool.size[1],
        "padding": PADDINGS[pool.padding],
        "stride_height": pool.stride[0],
        "stride_width": pool.stride[1],
    }


class Graph:
    """A model in the making. Tensors are the integers that the methods return; operators run in the order of calls.

    The methods named after operators work out the shape of their output; `custom` and `builtin` write what they are
    given, fitting or not.
    """

    def __init__(self) -> None:
        self._model = schema.ModelT(version=3, operatorCodes=[], buffers=[schema.BufferT()], description="test")
        self._graph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[])
        self._model.subgraphs = [self._graph]

    def serialize(self, *outputs: int) -> bytes:
        """Return the file."""
        self._graph.outputs = list(outputs)
        builder = flatbuffers.Builder()
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def tensor(
        self,
        shape: Sequence[int],
        dtype: type[np.generic] = np.float32,
        quantization: Quantization | None = None,
        buffer: int = 0,
    ) -> int:
        """Return a new tensor; without a `buffer` it is for an operator to fill."""
        index = len(self._graph.tensors)
        self._graph.tensors.append(
            schema.TensorT(
                shape=list(shape),
                type=TYPES[dtype],
                buffer=buffer,
                name=f"tensor{index}",
                quantization=_pack(quantization),
            )
        )
        return index

    def input(
        self, shape: Sequence[int], dtype: type[np.generic] = np.float32, quantization: Quantization | None = None
    ) -> int:
        """Return a new input of the model."""
        index = self.tensor(shape, dtype, quantization)
        self._graph.inputs.append(index)
        return index

    def constant(self, values: NDArray[Any], scales: NDArray[np.float32] | None = None) -> int:
        """Return a new tensor that holds `values`, with a scale for each index of its first axis where it has some."""
        octets = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(schema.BufferT(data=octets))
        index = self.tensor(values.shape, values.dtype.type, buffer=len(self._model.buffers) - 1)
        if scales is not None:
            self._graph.tensors[index].quantization = schema.QuantizationParametersT(
                scale=scales, zeroPoint=np.zeros(scales.size, np.int64), quantizedDimension=0
            )
        return index

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._graph.tensors[tensor].shape)

    def custom(self, name: str, inputs: Sequence[int], output: int, options: Options = None) -> int:
        """Add a custom operator and return its output."""
        octets = (
            options if isinstance(options, bytes) else b"" if options is None else bytes(flexbuffers.Dumps(options))
        )
        self._graph.operators.append(
            schema.OperatorT(
                opcodeIndex=self._code(schema.BuiltinOperator.CUSTOM, name),
                inputs=list(inputs),
                outputs=[output],
                customOptions=np.frombuffer(octets, np.uint8),
            )
        )
        return output

    def builtin(self, name: str, inputs: Sequence[int], output: int, options: Any) -> int:
        """Add a builtin operator and return its output; `options` is of one of the schema's option classes."""
        kind = type(options).__name__.removesuffix("T")
        self._graph.operators.append(
            schema.OperatorT(
                opcodeIndex=self._code(getattr(schema.BuiltinOperator, name)),
                inputs=list(inputs),
                outputs=[output],
                builtinOptionsType=getattr(schema.BuiltinOptions, kind),
                builtinOptions=options,
            )
        )
        return output

    def quantize(self, x: int) -> int:
        """Add an LceQuantize."""
        *shape, channels = self.shape(x)
        return self.custom("LceQuantize", [x], self.tensor([*shape, words(channels)], np.int32))

    def dequantize(
        self, x: int, channels: int, dtype: type[np.generic] = np.float32, quantization: Quantization | None = None
    ) -> int:
        """Add an LceDequantize."""
        output = self.tensor([*self.shape(x)[:-1], channels], dtype, quantization)
        return self.custom("LceDequantize", [x], output)

    def bconv2d(self, x: int, convolution: Convolution, options: Options = None) -> int:
        """Add an LceBconv2d, with other `options` than its own where they are given."""
        batch, *image, _ = self.shape(x)
        sides = zip(image, convolution.size, convolution.stride, convolution.dilation, strict=True)
        outputs = [window(*side, convolution.padding).outputs for side in sides]
        packed = convolution.dtype is np.int32
        channels = words(convolution.channels_out) if packed else convolution.channels_out
        return self.custom(
            "LceBconv2d",
            [x, *self.constants(convolution)],
            self.tensor([batch, *outputs, channels], convolution.dtype, convolution.quantization),
            convolution_options(convolution) if options is None else options,
        )

    def constants(self, convolution: Convolution) -> list[int]:
        """Return the second to fifth input of an LceBconv2d: filter, multiplier, bias, thresholds."""
        arrays = (pack(convolution.filters), convolution.multiplier, convolution.bias, convolution.thresholds)
        return [ABSENT if array is None else self.constant(array) for array in arrays]

    def bmaxpool2d(self, x: int, pool: MaxPool) -> int:
        """Add an LceBMaxPool2d."""
        batch, *image, channels = self.shape(x)
        sides = zip(image, pool.size, pool.stride, strict=True)
        outputs = [window(length, size, stride, 1, pool.padding).outputs for length, size, stride in sides]
        return self.custom("LceBMaxPool2d", [x], self.tensor([batch, *outputs, channels], np.int32), pool_options(pool))

    def conv2d(self, x: int, layer: Int8Convolution) -> int:
        """Add an int8 CONV_2D."""
        batch, *image, _ = self.shape(x)
        sides = zip(image, layer.weights.shape[1:3], layer.stride, layer.dilation, strict=True)
        outputs = [window(*side, layer.padding).outputs for side in sides]
        channels = layer.weights.shape[0]
        scales = np.float32(layer.input_scale) * layer.scales
        inputs = [x, self.constant(layer.weights, layer.scales), self.constant(layer.bias, scales)]
        options = schema.Conv2DOptionsT(
            padding=PADDINGS[layer.padding],
            strideH=layer.stride[0],
            strideW=layer.stride[1],
            dilationHFactor=layer.dilation[0],
            dilationWFactor=layer.dilation[1],
            fusedActivationFunction=ACTIVATIONS[layer.activation],
        )
        return self.builtin("CONV_2D", inputs, self.tensor([batch, *outputs, channels], np.int8, layer.output), options)

    def add(self, x: int, y: int) -> int:
        """Add an ADD of two float tensors."""
        return self.builtin("ADD", [x, y], self.tensor(self.shape(x)), schema.AddOptionsT())

    def negate(self, x: int) -> int:
        """Add a NEG of a float tensor, which the delegate leaves to the runtime."""
        return self.builtin("NEG", [x], self.tensor(self.shape(x)), schema.NegOptionsT())

    def average_pool(self, x: int, size: Pair, stride: Pair | None = None, padding: Padding = "VALID") -> int:
        """Add an AVERAGE_POOL_2D of float or int8; without a `stride` windows do not overlap."""
        stride = stride or size
        batch, *image, channels = self.shape(x)
        sides = zip(image, size, stride, strict=True)
        outputs = [window(length, reach, step, 1, padding).outputs for length, reach, step in sides]
        options = schema.Pool2DOptionsT(
            padding=PADDINGS[padding], strideH=stride[0], strideW=stride[1], filterHeight=size[0], filterWidth=size[1]
        )
        return self.builtin("AVERAGE_POOL_2D", [x], self._like(x, [batch, *outputs, channels]), options)

    def concatenate(self, *parts: int) -> int:
        """Add a CONCATENATION of the channels of float tensors."""
        *shape, _ = self.shape(parts[0])
        output = self.tensor([*shape, sum(self.shape(part)[-1] for part in parts)])
        return self.builtin("CONCATENATION", parts, output, schema.ConcatenationOptionsT(axis=-1))

    def space_to_depth(self, x: int, side: int) -> int:
        """Add a SPACE_TO_DEPTH."""
        batch, height, width, channels = self.shape(x)
        output = self._like(x, [batch, height // side, width // side, channels * side * side])
        return self.builtin("SPACE_TO_DEPTH", [x], output, schema.SpaceToDepthOptionsT(blockSize=side))

    def depth_to_space(self, x: int, side: int) -> int:
        """Add a DEPTH_TO_SPACE."""
        batch, height, width, channels = self.shape(x)
        output = self._like(x, [batch, height * side, width * side, channels // (side * side)])
        return self.builtin("DEPTH_TO_SPACE", [x], output, schema.DepthToSpaceOptionsT(blockSize=side))

    def to_int8(self, x: int, quantization: Quantization) -> int:
        """Add a QUANTIZE, of uint8 to int8."""
        return self.builtin(
            "QUANTIZE", [x], self.tensor(self.shape(x), np.int8, quantization), schema.QuantizeOptionsT()
        )

    def to_float(self, x: int) -> int:
        """Add a DEQUANTIZE."""
        return self.builtin("DEQUANTIZE", [x], self.tensor(self.shape(x)), schema.DequantizeOptionsT())

    def pad_channels(self, x: int, channels: int) -> int:
        """Add a float PAD that fills up with zeros to `channels`."""
        *shape, given = self.shape(x)
        amounts = np.array([(0, 0)] * len(shape) + [(0, channels - given)], np.int32)
        return self.builtin("PAD", [x, self.constant(amounts)], self.tensor([*shape, channels]), schema.PadOptionsT())

    def _like(self, x: int, shape: Sequence[int]) -> int:
        """Return a new tensor of another shape whose values stand for the same as those of `x`."""
        output = self.tensor(shape)
        self._graph.tensors[output].type = self._graph.tensors[x].type
        self._graph.tensors[output].quantization = self._graph.tensors[x].quantization
        return output

    def _code(self, builtin: int, custom: str | None = None) -> int:
        """Return the index of an operator's code, added on first use."""
        codes = self._model.operatorCodes
        for index, code in enumerate(codes):
            if (code.builtinCode, code.customCode) == (builtin, custom):
                return index
        # Older readers look at the deprecated field, which ends at 127.
        codes.append(
            schema.OperatorCodeT(deprecatedBuiltinCode=min(builtin, 127), customCode=custom, builtinCode=builtin)
        )
        return len(codes) - 1


def _pack(quantization: Quantization | None) -> schema.QuantizationParametersT | None:
    if quantization is None:
        return None
    return schema.QuantizationParametersT(scale=[quantization.scale], zeroPoint=[quantization.zero_point])
