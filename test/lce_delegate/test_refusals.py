# SPDX-License-Identifier: Apache-2.0
"""What the delegate cannot run it refuses at load with a sentence that names the fault, and the process lives on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flatbuffers import flexbuffers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import kernels, library
from lce_delegate.models import ABSENT, Graph, Options, convolution_options, pool_options
from lce_delegate.oracle import Arrays, Interpreter, InterpreterError, Litert
from lce_delegate.reference import Convolution, MaxPool, Quantization

OUT = 8
IMAGE = (1, 4, 4, 2)
WORDS = np.zeros(IMAGE, np.int32)
ONES = np.ones(OUT, np.float32)
CONVOLUTION = Convolution(np.zeros((OUT, 3, 3, 64), bool), multiplier=ONES, bias=ONES)
TO_BITS = replace(CONVOLUTION, dtype=np.int32, multiplier=None, bias=None, thresholds=np.zeros(OUT, np.int32))
TO_INT8 = replace(CONVOLUTION, dtype=np.int8)
POOL = MaxPool((2, 2), (2, 2), "VALID")
WORD_FOR = {
    "channels_in": "channels_in|out of range",
    "dilation_height_factor": "dilation",
    "dilation_width_factor": "dilation",
    "filter_height": "filter",
    "filter_width": "filter",
    "fused_activation_function": "activation",
    "pad_values": "pad_values",
    "padding": "padding",
    "stride_height": "stride",
    "stride_width": "stride",
}
"""What a message about an option must contain."""


def run(litert: Interpreter, model: bytes, inputs: Arrays = (WORDS,)) -> None:
    """Run `model`; whoever calls this with a damaged one at least does not let InterpreterDiedError pass."""
    litert.run(model, inputs, Litert(library()))


def refuse(litert: Interpreter, model: bytes, reason: str, inputs: Arrays = (WORDS,)) -> None:
    """See that `model` is refused in one sentence: what is wrong, with `reason` in it; then what to do."""
    with pytest.raises(InterpreterError) as caught:
        run(litert, model, inputs)
    # What the interpreter itself says follows without a gap.
    sentence, *_ = re.split(r"Node number|Encountered unresolved|\n", str(caught.value))
    assert re.fullmatch(rf"[^;]*({reason})[^;]*; [^;]+", sentence), sentence


def run_or_refuse(litert: Interpreter, model: bytes) -> None:
    """Run `model` or see it refused; both are well where damage may or may not matter."""
    with contextlib.suppress(InterpreterError):
        run(litert, model)


def convolving(
    convolution: Convolution = CONVOLUTION, options: Options = None, changes: Mapping[str, int] | None = None
) -> bytes:
    """Build a model of one LceBconv2d, with some of its options changed or all replaced."""
    graph = Graph()
    if options is None:
        options = convolution_options(convolution) | dict(changes or {})
    return graph.serialize(graph.bconv2d(graph.input(IMAGE, np.int32), convolution, options))


def test_undamaged_models_run(litert: Interpreter) -> None:
    for convolution in (CONVOLUTION, TO_BITS, replace(TO_INT8, quantization=Quantization(1, 0))):
        run(litert, convolving(convolution))
    run(litert, pooling())
    packed = custom("LceQuantize", np.float32, np.int32, IMAGE, (1, 4, 4, 1))
    run(litert, packed, [WORDS.astype(np.float32)])
    run(litert, custom("LceDequantize", np.int32, np.float32, IMAGE, (1, 4, 4, 64)))


@pytest.mark.parametrize("name", sorted(convolution_options(CONVOLUTION)))
def test_a_convolution_without_one_of_its_options(litert: Interpreter, name: str) -> None:
    options = convolution_options(CONVOLUTION)
    del options[name]
    refuse(litert, convolving(options=options), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pad_values", 2),
        ("pad_values", -1),
        ("padding", 7),
        ("padding", -1),
        ("fused_activation_function", 9),
        *((name, value) for name in ("stride_height", "stride_width") for value in (0, -1)),
        *((name, value) for name in ("dilation_height_factor", "dilation_width_factor") for value in (0, -1)),
        *(("channels_in", value) for value in (0, -64, 32, 65, 2**31 - 1)),
        *((name, 2**40) for name in ("stride_width", "channels_in", "padding")),
    ],
)
def test_an_option_of_a_convolution_that_means_nothing(litert: Interpreter, name: str, value: int) -> None:
    refuse(litert, convolving(changes={name: value}), WORD_FOR[name])


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("factor", [2**30, 2**31 - 1])
def test_a_dilation_that_overflows(litert: Interpreter, padding: Any, factor: int) -> None:
    convolution = replace(CONVOLUTION, padding=padding)
    changes = {"dilation_height_factor": factor, "dilation_width_factor": factor}
    refuse(litert, convolving(convolution, changes=changes), "dilation|image")


def test_a_filter_larger_than_the_image(litert: Interpreter) -> None:
    graph = Graph()
    image = graph.input((1, 2, 2, 2), np.int32)
    refuse(litert, graph.serialize(graph.bconv2d(image, CONVOLUTION)), "smaller than a filter", [WORDS[:, :2, :2]])


@pytest.mark.parametrize("length", range(0, len(flexbuffers.Dumps(convolution_options(CONVOLUTION))), 5))
def test_truncated_options(litert: Interpreter, length: int) -> None:
    octets = bytes(flexbuffers.Dumps(convolution_options(CONVOLUTION)))
    for part in (octets[:length], octets[length + 1 :]):
        refuse(litert, convolving(options=part), "options?|" + "|".join(convolution_options(CONVOLUTION)))


@pytest.mark.parametrize("options", [[1, 2], 7, "text", {"stride_height": "two"}, {"stride_height": {"a": 1}}, {}])
def test_options_of_another_type(litert: Interpreter, options: Any) -> None:
    refuse(litert, convolving(options=bytes(flexbuffers.Dumps(options))), "options?|stride_height")


def ints(options: Mapping[str, int]) -> st.SearchStrategy[dict[str, int]]:
    """Draw other values for some of `options`."""
    return st.dictionaries(st.sampled_from(sorted(options)), st.integers(-(2**31), 2**31 - 1))


@settings(deadline=None)
@given(data=st.data())
def test_damaged_options_harm_nobody(litert: Interpreter, data: st.DataObject) -> None:
    octets = bytearray(flexbuffers.Dumps(convolution_options(CONVOLUTION)))
    for place in data.draw(st.lists(st.integers(0, len(octets) - 1), max_size=4)):
        octets[place] = data.draw(st.integers(0, 255))
    run_or_refuse(litert, convolving(options=bytes(octets)))


@settings(deadline=None)
@given(changes=ints(convolution_options(CONVOLUTION)))
def test_options_of_any_value_harm_nobody(litert: Interpreter, changes: dict[str, int]) -> None:
    run_or_refuse(litert, convolving(changes=changes))


@settings(deadline=None)
@given(octets=st.binary(max_size=64))
def test_options_of_any_bytes_harm_nobody(litert: Interpreter, octets: bytes) -> None:
    refuse(litert, convolving(options=octets), "options?|" + "|".join(convolution_options(CONVOLUTION)))


def with_input(index: int, values: NDArray[Any] | None, convolution: Convolution = CONVOLUTION) -> bytes:
    """Build a model of an LceBconv2d with one of its five inputs changed, or left out."""
    graph = Graph()
    inputs = [graph.input(IMAGE, np.int32), *graph.constants(convolution)]
    if values is None:
        inputs[index] = ABSENT
    else:
        inputs[index] = graph.constant(values) if index else graph.input(values.shape, values.dtype.type)
    packed = convolution.dtype is np.int32
    output = graph.tensor((1, 2, 2, 1 if packed else OUT), convolution.dtype, convolution.quantization)
    return graph.serialize(graph.custom("LceBconv2d", inputs, output, convolution_options(convolution)))


FILTER = np.zeros((OUT, 3, 3, 2), np.int32)


@pytest.mark.parametrize(
    ("index", "values", "convolution", "reason"),
    [
        (0, None, CONVOLUTION, "input"),
        (0, WORDS.astype(np.float32), CONVOLUTION, "input|int32"),
        (0, WORDS[0], CONVOLUTION, "input|dimensions"),
        (0, np.zeros((1, 4, 4, 3), np.int32), CONVOLUTION, "filter"),
        (1, None, CONVOLUTION, "filter"),
        (1, FILTER.astype(np.float32), CONVOLUTION, "filter"),
        (1, FILTER[0], CONVOLUTION, "filter"),
        (1, np.zeros((OUT, 3, 3, 3), np.int32), CONVOLUTION, "filter|channels_in"),
        (1, np.zeros((OUT, 3, 3, 0), np.int32), CONVOLUTION, "empty"),
        (1, np.zeros((OUT, 0, 3, 2), np.int32), CONVOLUTION, "empty"),
        (1, np.zeros((0, 3, 3, 2), np.int32), CONVOLUTION, "empty"),
        (2, None, CONVOLUTION, "multiplier"),
        (2, ONES[1:], CONVOLUTION, "multiplier"),
        (2, ONES.astype(np.int32), CONVOLUTION, "multiplier"),
        (2, ONES[np.newaxis], CONVOLUTION, "multiplier"),
        (3, None, CONVOLUTION, "bias"),
        (3, ONES[1:], CONVOLUTION, "bias"),
        (3, ONES.astype(np.int32), CONVOLUTION, "bias"),
        (4, None, TO_BITS, "threshold"),
        (4, np.zeros(OUT - 1, np.int32), TO_BITS, "threshold"),
        (4, np.zeros(OUT + 32, np.int32), TO_BITS, "threshold"),
        (4, ONES, TO_BITS, "threshold"),
    ],
)
def test_an_input_that_does_not_fit(
    litert: Interpreter, index: int, values: NDArray[Any] | None, convolution: Convolution, reason: str
) -> None:
    refuse(litert, with_input(index, values, convolution), reason)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_constant_that_is_none(litert: Interpreter, index: int) -> None:
    graph = Graph()
    inputs = [graph.input(IMAGE, np.int32), *graph.constants(CONVOLUTION)]
    dtype: type[np.generic] = np.int32 if index == 1 else np.float32
    inputs[index] = graph.input(graph.shape(inputs[index]), dtype)
    output = graph.tensor((1, 2, 2, OUT))
    model = graph.serialize(graph.custom("LceBconv2d", inputs, output, convolution_options(CONVOLUTION)))
    refuse(litert, model, "constant", [WORDS, FILTER if index == 1 else ONES])


@pytest.mark.parametrize("count", [0, 1, 2, 4, 6])
def test_too_few_or_too_many_inputs(litert: Interpreter, count: int) -> None:
    graph = Graph()
    inputs = [graph.input(IMAGE, np.int32), *graph.constants(CONVOLUTION), ABSENT][:count]
    output = graph.tensor((1, 2, 2, OUT))
    model = graph.serialize(graph.custom("LceBconv2d", inputs, output, convolution_options(CONVOLUTION)))
    refuse(litert, model, "inputs")


def test_groups_that_do_not_divide_the_outputs(litert: Interpreter) -> None:
    convolution = replace(CONVOLUTION, filters=np.zeros((7, 3, 3, 32), bool), multiplier=ONES[:7], bias=ONES[:7])
    refuse(litert, convolving(convolution, changes={"channels_in": 64}), "group")


def test_groups_of_broken_words(litert: Interpreter) -> None:
    convolution = replace(CONVOLUTION, filters=np.zeros((OUT, 3, 3, 32), bool))
    refuse(litert, convolving(convolution, changes={"channels_in": 50}), "group|channels_in")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_an_output_of_a_type_that_there_is_not(litert: Interpreter, dtype: type[np.generic]) -> None:
    refuse(litert, convolving(replace(CONVOLUTION, dtype=dtype)), "output")


def test_int8_without_a_scale(litert: Interpreter) -> None:
    refuse(litert, convolving(TO_INT8), "scale|quanti")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_int8_with_a_scale_that_is_none(litert: Interpreter, scale: float) -> None:
    refuse(litert, convolving(replace(TO_INT8, quantization=Quantization(scale, 0))), "scale")


def pooling(options: Options = None, changes: Mapping[str, int] | None = None) -> bytes:
    """Build a model of one LceBMaxPool2d, with some of its options changed or all replaced."""
    graph = Graph()
    x = graph.input(IMAGE, np.int32)
    if options is None:
        options = pool_options(POOL) | dict(changes or {})
    return graph.serialize(graph.custom("LceBMaxPool2d", [x], graph.tensor((1, 2, 2, 2), np.int32), options))


@pytest.mark.parametrize("name", sorted(pool_options(POOL)))
def test_a_pool_without_one_of_its_options(litert: Interpreter, name: str) -> None:
    options = pool_options(POOL)
    del options[name]
    refuse(litert, pooling(options=options), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("padding", 7),
        *((name, value) for name in ("filter_height", "filter_width") for value in (0, -1)),
        *((name, value) for name in ("stride_height", "stride_width") for value in (0, -1)),
    ],
)
def test_an_option_of_a_pool_that_means_nothing(litert: Interpreter, name: str, value: int) -> None:
    refuse(litert, pooling(changes={name: value}), WORD_FOR[name])


@settings(deadline=None)
@given(changes=ints(pool_options(POOL)))
def test_pool_options_of_any_value_harm_nobody(litert: Interpreter, changes: dict[str, int]) -> None:
    run_or_refuse(litert, pooling(changes=changes))


def custom(
    name: str,
    dtype_in: type[np.generic],
    dtype_out: type[np.generic],
    shape_in: tuple[int, ...],
    shape_out: tuple[int, ...],
    options: Options = None,
) -> bytes:
    """Build a model of one operator with one input and one output."""
    graph = Graph()
    output = graph.tensor(shape_out, dtype_out)
    return graph.serialize(graph.custom(name, [graph.input(shape_in, dtype_in)], output, options))


@pytest.mark.parametrize(
    ("name", "dtype_in", "dtype_out", "shape_out", "reason"),
    [
        ("LceQuantize", np.int32, np.int32, (1, 4, 4, 1), "input"),
        ("LceQuantize", np.uint8, np.int32, (1, 4, 4, 1), "input"),
        ("LceQuantize", np.float32, np.float32, (1, 4, 4, 1), "output"),
        ("LceQuantize", np.float32, np.int8, (1, 4, 4, 1), "output"),
        ("LceDequantize", np.float32, np.float32, (1, 4, 4, 64), "input"),
        ("LceDequantize", np.int32, np.int32, (1, 4, 4, 64), "output"),
        ("LceDequantize", np.int32, np.int8, (1, 4, 4, 64), "scale|quanti"),
        ("LceDequantize", np.int32, np.float32, (1, 4, 4, 65), "channels"),
        ("LceDequantize", np.int32, np.float32, (1, 4, 4, 32), "channels"),
        ("LceDequantize", np.int32, np.float32, (1, 4, 64), "rank"),
        ("LceBMaxPool2d", np.float32, np.int32, (1, 2, 2, 2), "input"),
        ("LceBMaxPool2d", np.int32, np.float32, (1, 2, 2, 2), "output"),
    ],
)
def test_tensors_that_do_not_fit_an_operator(
    litert: Interpreter,
    name: str,
    dtype_in: type[np.generic],
    dtype_out: type[np.generic],
    shape_out: tuple[int, ...],
    reason: str,
) -> None:
    options = pool_options(POOL) if name == "LceBMaxPool2d" else None
    refuse(litert, custom(name, dtype_in, dtype_out, IMAGE, shape_out, options), reason, [np.zeros(IMAGE, dtype_in)])


def test_a_tensor_of_no_elements(litert: Interpreter) -> None:
    shape = (0, 3, 32)
    refuse(
        litert, custom("LceQuantize", np.float32, np.int32, shape, (0, 3, 1)), "empty", [np.zeros(shape, np.float32)]
    )


def test_a_single_number_has_no_channels(litert: Interpreter) -> None:
    model = custom("LceQuantize", np.float32, np.int32, (), ())
    refuse(litert, model, "dimension|input", [np.zeros((), np.float32)])


@pytest.mark.parametrize("name", ["LceQuantize", "LceDequantize", "LceBMaxPool2d", "LceBconv2d"])
def test_an_operator_without_inputs(litert: Interpreter, name: str) -> None:
    options = {"LceBMaxPool2d": pool_options(POOL), "LceBconv2d": convolution_options(CONVOLUTION)}.get(name)
    graph = Graph()
    refuse(litert, graph.serialize(graph.custom(name, [], graph.tensor((1, 2, 2, 8)), options)), "input", [])


def test_an_operator_that_there_is_not(litert: Interpreter) -> None:
    model = custom("LceFullyConnected", np.int32, np.float32, IMAGE, (1, 4, 4, 64))
    refuse(litert, model, "LceFullyConnected")


@pytest.mark.parametrize("side", [2**15, 2**31 - 1])
def test_an_image_larger_than_memory(litert: Interpreter, side: int) -> None:
    graph = Graph()
    image = graph.input((side, side, side, 2), np.int32)
    with pytest.raises(InterpreterError):
        run(litert, graph.serialize(graph.bconv2d(image, CONVOLUTION)))


def test_an_input_resized_to_other_channels(litert: Interpreter) -> None:
    refuse(litert, convolving(), "channels_in|input", [np.zeros((1, 4, 4, 3), np.int32)])


def test_an_input_resized_to_less_than_a_filter(litert: Interpreter) -> None:
    refuse(litert, convolving(), "smaller than a filter", [np.zeros((1, 2, 4, 2), np.int32)])


KERNELS = {"fastest", "", "avx2", "avx512", "avx-vnni", "neon", "neon-dot"}


@pytest.mark.parametrize("kernel", sorted(KERNELS - {*kernels()}))
def test_a_kernel_that_is_not_here(litert: Interpreter, kernel: str) -> None:
    with pytest.raises(InterpreterError, match=rf"no kernel {kernel}; choose one of auto, {', '.join(kernels())}\n"):
        litert.run(convolving(), [WORDS], Litert(library(), kernel))


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(litert: Interpreter, threads: int) -> None:
    with pytest.raises(InterpreterError, match=r"threads( \S+){3,}"):
        litert.run(convolving(), [WORDS], Litert(library(), threads=threads))
