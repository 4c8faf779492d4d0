# SPDX-License-Identifier: Apache-2.0
"""The runtime's operators that the delegate runs beside its own give what the runtime's kernels give, bit by bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import kernels, library
from lce_delegate.models import Graph
from lce_delegate.oracle import Arrays, Interpreter, InterpreterError, Job, Litert
from lce_delegate.reference import Convolution, Int8Convolution, Padding, Pair, Quantization

UNSIGNED = Quantization(1 / 128, 125)
IMAGE = Quantization(UNSIGNED.scale, UNSIGNED.zero_point - 128)
WAYS = [Litert(library(), kernel, threads) for kernel in kernels() for threads in (1, 3)]

Build = Callable[..., list[int]]
"""Adds operators of the runtime alone to a graph, behind some tensors of it, and returns their outputs in order."""


def binary(graph: Graph, x: int, channels_out: int, seed: int = 0, stride: Pair = (1, 1)) -> int:
    """Add a quantization to bits and a binary convolution of float output."""
    rng = np.random.default_rng(seed)
    channels_in = graph.shape(x)[3]
    convolution = Convolution(
        rng.random((channels_out, 3, 3, channels_in)) < 0.5,
        stride=stride,
        padding="SAME",
        multiplier=rng.normal(0, (9 * channels_in) ** -0.5, channels_out).astype(np.float32),
        bias=rng.normal(0, 0.1, channels_out).astype(np.float32),
    )
    return graph.bconv2d(graph.quantize(x), convolution)


def int8_layer(graph: Graph, x: int, channels_out: int) -> int:
    """Add an int8 convolution of any weights."""
    rng = np.random.default_rng(1)
    channels_in = graph.shape(x)[3]
    weights = rng.integers(-128, 128, (channels_out, 3, 3, channels_in)).astype(np.int8)
    scales = rng.uniform(0.001, 0.004, channels_out).astype(np.float32)
    bias = rng.integers(-9999, 9999, channels_out, np.int32)
    return graph.conv2d(x, Int8Convolution(weights, bias, scales, IMAGE.scale, IMAGE))


class Setting(NamedTuple):
    """What the operators of a `Build` stand behind: an input, and what the delegate makes of it."""

    dtype: type[np.generic]
    quantization: Quantization | None
    source: Callable[[Graph, int], int]
    given: tuple[type[np.generic], Quantization | None]
    """Of what `source` returns."""


IN_FRONT = Setting(np.uint8, UNSIGNED, lambda _graph, x: x, (np.uint8, UNSIGNED))
BEHIND_INT8 = Setting(np.int8, IMAGE, lambda graph, x: int8_layer(graph, x, 70), (np.int8, IMAGE))
BEHIND_BINARY = Setting(np.float32, None, lambda graph, x: binary(graph, x, 36), (np.float32, None))


def any_values(dtype: type[np.generic], shape: Sequence[int]) -> NDArray[Any]:
    rng = np.random.default_rng(2)
    if dtype is np.float32:
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)  # type: ignore[type-var]


def equal(actual: Arrays, expected: Arrays, way: Litert) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, err_msg=str(way))


def check(
    litert: Interpreter,
    setting: Setting,
    build: Build,
    shape: Sequence[int] = (2, 12, 12, 5),
    tail: Callable[[Graph, int], int] = Graph.quantize,
) -> None:
    """Hold the delegate against the runtime: where all is read, the last output alone, or by others too.

    `tail` adds an operator of the delegate behind, whose result must not depend on that.
    """
    values = any_values(setting.dtype, shape)
    graph = Graph()
    source = setting.source(graph, graph.input(shape, setting.dtype, setting.quantization))
    steps = build(graph, source)
    end = tail(graph, steps[-1])
    everything = graph.serialize(source, *steps, end)
    alone = graph.serialize(steps[-1], end)
    inside = graph.serialize(end)
    (part,) = litert.parts(alone, Litert(library()))
    assert sorted(part.outputs) == [steps[-1], end]  # all that is here was taken over

    given, *_, behind = litert.run(everything, [values], WAYS[0])
    plain = Graph()
    expected = litert.run(
        plain.serialize(*build(plain, plain.input(given.shape, *setting.given))), [given], Litert(None)
    )
    for way in WAYS:
        equal(litert.run(everything, [values], way), [given, *expected, behind], way)
        equal(litert.run(alone, [values], way), [expected[-1], behind], way)
        equal(litert.run(inside, [values], way), [behind], way)

    if expected[-1].dtype == np.float32:
        foreign = graph.serialize(graph.negate(steps[-1]), end)
        for way in WAYS:
            equal(litert.run(foreign, [values], way), [-expected[-1], behind], way)


def int8_to_bits(graph: Graph, x: int) -> int:
    return graph.quantize(int8_layer(graph, x, 40))


@pytest.mark.parametrize("channels", [1, 3, 65])
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_an_image_is_brought_into_form(litert: Interpreter, side: int, channels: int) -> None:
    def build(graph: Graph, x: int) -> list[int]:
        signed = graph.to_int8(x, IMAGE)
        return [signed, graph.space_to_depth(signed, side)]

    check(litert, IN_FRONT, build, (2, 12, 24, channels), int8_to_bits)


def test_an_image_is_flipped_alone(litert: Interpreter) -> None:
    check(litert, IN_FRONT, lambda graph, x: [graph.to_int8(x, IMAGE)], (1, 7, 9, 3), int8_to_bits)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "stride"),
    [((2, 2), (2, 2)), ((3, 3), (1, 1)), ((12, 12), (1, 1)), ((2, 5), (3, 1)), ((1, 1), (2, 3)), ((4, 1), (1, 4))],
    ids=str,
)
def test_an_average_of_int8_and_its_floats(litert: Interpreter, size: Pair, stride: Pair, padding: Padding) -> None:
    def build(graph: Graph, x: int) -> list[int]:
        pooled = graph.average_pool(x, size, stride, padding)
        return [pooled, graph.to_float(pooled)]

    check(litert, BEHIND_INT8, build)


def test_floats_of_int8(litert: Interpreter) -> None:
    check(litert, BEHIND_INT8, lambda graph, x: [graph.to_float(x)], (3, 5, 7, 4))


def test_an_average_of_int8_in_front_of_a_layer(litert: Interpreter) -> None:
    check(litert, BEHIND_INT8, lambda graph, x: [graph.average_pool(x, (2, 2))], tail=int8_to_bits)


@pytest.mark.parametrize("parts", [1, 2, 4, 16])
def test_channels_of_a_tensor_with_itself(litert: Interpreter, parts: int) -> None:
    check(litert, BEHIND_BINARY, lambda graph, x: [graph.concatenate(*[x] * parts)])


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_channels_become_pixels(litert: Interpreter, side: int) -> None:
    check(litert, BEHIND_BINARY, lambda graph, x: [graph.depth_to_space(x, side)], (2, 4, 5, 33))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_shortcut_of_all_there_is(litert: Interpreter, padding: Padding) -> None:
    def pooled(graph: Graph, x: int) -> int:
        return graph.average_pool(binary(graph, x, 36), (3, 2), (1, 2), padding)

    def build(graph: Graph, x: int) -> list[int]:
        wide = graph.concatenate(x, x, x)
        padded = graph.pad_channels(wide, 112)
        doubled = graph.add(padded, padded)
        spread = graph.depth_to_space(doubled, 4)
        return [wide, padded, doubled, spread, graph.add(spread, spread)]

    check(litert, BEHIND_BINARY._replace(source=pooled), build)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_an_average_of_floats(litert: Interpreter, padding: Padding) -> None:
    graph = Graph()
    values = any_values(np.float32, (2, 12, 12, 5))
    x = binary(graph, graph.input(values.shape), 36)
    pooled = graph.average_pool(x, (3, 2), (2, 1), padding)
    model = graph.serialize(x, pooled, graph.quantize(pooled))
    for way in WAYS:
        given, averages, _ = litert.run(model, [values], way)
        plain = Graph()
        y = plain.average_pool(plain.input(given.shape), (3, 2), (2, 1), padding)
        (expected,) = litert.run(plain.serialize(y), [given], Litert(None))
        np.testing.assert_allclose(averages, expected, rtol=1e-6, atol=1e-6)  # some multiply by the inverse


@settings(deadline=None, max_examples=min(30, settings().max_examples))
@given(
    batch=st.integers(1, 3),
    image=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    channels=st.integers(1, 40),
    side=st.integers(1, 5),
)
def test_images_of_any_shape(litert: Interpreter, batch: int, image: Pair, channels: int, side: int) -> None:
    def build(graph: Graph, x: int) -> list[int]:
        signed = graph.to_int8(x, IMAGE)
        return [signed, graph.space_to_depth(signed, side)]

    check(litert, IN_FRONT, build, (batch, side * image[0], side * image[1], channels), int8_to_bits)


@settings(deadline=None, max_examples=min(30, settings().max_examples))
@given(
    batch=st.integers(1, 3),
    image=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_averages_of_any_shape(litert: Interpreter, batch: int, image: Pair, size: Pair, stride: Pair) -> None:
    def build(graph: Graph, x: int) -> list[int]:
        pooled = graph.average_pool(x, size, stride, "SAME")
        return [pooled, graph.to_float(pooled)]

    check(litert, BEHIND_INT8, build, (batch, *image, 3))


# Shortcuts that an addition's result may or may not take the place of.


def residual_network(channels: int) -> tuple[Graph, list[int]]:
    """Return a network of float shortcuts and its tensors: first those of convolutions, then sums, then bits."""
    graph = Graph()
    x = graph.input((2, 9, 11, channels))
    first = binary(graph, x, channels, 1)
    a = graph.add(first, x)
    second = binary(graph, a, channels, 2)
    b = graph.add(a, second)  # `a` is read again below
    third = binary(graph, b, channels, 3)
    c = graph.add(third, b)  # for the last time
    d = graph.add(c, a)  # not behind a convolution, and both for the last time
    e = graph.add(d, d)
    fourth = binary(graph, e, channels, 4)
    f = graph.add(fourth, e)
    g = graph.add(e, f)  # once more after it was a shortcut
    return graph, [first, second, third, fourth, a, b, c, d, e, f, g, graph.quantize(g)]


@pytest.mark.parametrize("channels", [5, 64, 70])
def test_a_shortcut_is_read_as_long_as_it_is_needed(litert: Interpreter, channels: int) -> None:
    graph, tensors = residual_network(channels)
    values = any_values(np.float32, (2, 9, 11, channels))
    everything = litert.run(graph.serialize(*tensors), [values], WAYS[0])
    # Where convolutions' results are read, nothing is added in them.
    first, second, third, fourth, a, b, c, d, e, f, g, _ = everything
    sums = [first + values, a + second, third + b, c + a, d + d, fourth + e, e + f]
    equal([a, b, c, d, e, f, g], sums, WAYS[0])

    inner = len(tensors) - 1
    subsets = itertools.product([False, True], repeat=inner - 4)
    for number, chosen in enumerate(subsets):
        outputs = [4 + i for i, read in enumerate(chosen) if read] + [inner]
        model = graph.serialize(*[tensors[i] for i in outputs])
        way = WAYS[number % len(WAYS)]
        equal(litert.run(model, [values], way), [everything[i] for i in outputs], way)
    for way in WAYS:
        equal(litert.run(graph.serialize(tensors[-1]), [values], way), [everything[-1]], way)


def test_a_shortcut_that_others_read(litert: Interpreter) -> None:
    graph, tensors = residual_network(70)
    values = any_values(np.float32, (2, 9, 11, 70))
    everything = litert.run(graph.serialize(*tensors), [values], WAYS[0])
    for i in range(4, len(tensors) - 1):
        graph, tensors = residual_network(70)
        model = graph.serialize(graph.negate(tensors[i]), tensors[-1])
        for way in WAYS:
            equal(litert.run(model, [values], way), [-everything[i], everything[-1]], way)


# What the delegate does in one pass where nothing else reads what is between: the same as operator by operator.


def passes(graph: Graph, tensors: Sequence[int], shape: Sequence[int], litert: Interpreter) -> None:
    """Hold each tensor that is read alone, or with one other, against all of them read at once."""
    values = any_values(np.float32, shape)
    everything = litert.run(graph.serialize(*tensors), [values], WAYS[0])
    chosen = [(i,) for i in range(len(tensors))] + list(itertools.combinations(range(len(tensors)), 2))
    for number, outputs in enumerate(chosen):
        model = graph.serialize(*[tensors[i] for i in outputs])
        ways = WAYS if outputs == (len(tensors) - 1,) else [WAYS[number % len(WAYS)]]
        for way in ways:
            equal(litert.run(model, [values], way), [everything[i] for i in outputs], way)


@pytest.mark.parametrize(("channels", "parts"), [(64, 2), (64, 3), (128, 2), (32, 2), (70, 2)])
def test_a_shortcut_repeats_its_channels(litert: Interpreter, channels: int, parts: int) -> None:
    graph = Graph()
    shape = (2, 5, 7, channels)
    x = binary(graph, graph.input(shape), channels)
    wide = graph.concatenate(*[x] * parts)
    y = binary(graph, x, parts * channels)
    both = graph.add(wide, y)
    passes(graph, [x, wide, y, both, graph.quantize(both)], shape, litert)


@pytest.mark.parametrize(("channels", "side"), [(128, 2), (5, 2), (40, 3)])
@pytest.mark.parametrize("first", [True, False])
def test_a_shortcut_repeats_its_pixels(litert: Interpreter, channels: int, side: int, first: bool) -> None:
    graph = Graph()
    shape = (2, 2 * side, 3 * side, channels)
    x = binary(graph, graph.input(shape), channels)
    small = binary(graph, x, channels, 1, (side, side))
    wide = graph.concatenate(*[small] * side**2)
    large = graph.depth_to_space(wide, side)
    both = graph.add(large, x) if first else graph.add(x, large)
    passes(graph, [x, small, wide, large, both, graph.quantize(both)], shape, litert)


def test_pixels_of_other_sides_do_not_repeat(litert: Interpreter) -> None:
    graph = Graph()
    shape = (1, 4, 6, 12)
    x = binary(graph, graph.input(shape), 12)
    parts = graph.concatenate(*[binary(graph, x, 3, 1, (2, 2))] * 16)  # each pixel becomes four different ones
    large = graph.depth_to_space(parts, 2)
    both = graph.add(large, x)
    passes(graph, [parts, large, both, graph.quantize(both)], shape, litert)


@pytest.mark.parametrize("channels", [5, 64, 70, 128])
@pytest.mark.parametrize("scale", [0.02, 0.0013])
def test_floats_become_int8(litert: Interpreter, channels: int, scale: float) -> None:
    to = Quantization(scale, -7)

    def build(graph: Graph, x: int) -> list[int]:
        return [graph.to_int8(x, to)]

    def tail(graph: Graph, x: int) -> int:
        return graph.quantize(x)

    source = BEHIND_BINARY._replace(source=lambda graph, x: binary(graph, x, channels))
    check(litert, source, build, tail=tail)

    graph = Graph()
    shape = (2, 9, 11, channels)
    x = graph.input(shape)
    added = graph.add(binary(graph, x, channels), x)
    again = graph.add(binary(graph, added, channels, 1), added)
    small = graph.to_int8(again, to)
    passes(graph, [added, again, small, graph.quantize(again), graph.quantize(small)], shape, litert)


@pytest.mark.parametrize("kernel", kernels())
def test_what_is_no_number_becomes_int8(litert: Interpreter, kernel: str) -> None:
    graph = Graph()
    shape = (1, 2, 2, 64)
    x = graph.input(shape)
    quantized = graph.to_int8(graph.add(binary(graph, x, 64), x), Quantization(0.5, 3))
    values = np.full(shape, np.nan, np.float32)
    values[0, 0] = [[np.inf], [-np.inf]]
    model = graph.serialize(graph.quantize(quantized), quantized)
    (found,) = litert.run(model, [values], Litert(library(), kernel))[1:]
    assert (found[0, 0, 0] == 127).all()
    assert (found[0, 0, 1] == -128).all()
    assert (found[0, 1] == 127).all()


def test_networks_are_resized(litert: Interpreter) -> None:
    graph = Graph()
    x = graph.input((1, 8, 8, 3), np.uint8, UNSIGNED)
    layer = int8_layer(graph, graph.space_to_depth(graph.to_int8(x, IMAGE), 2), 32)
    y = graph.to_float(graph.average_pool(layer, (2, 2)))
    y = graph.add(binary(graph, y, 32), y)
    y = graph.add(binary(graph, y, 128, stride=(2, 2)), graph.concatenate(*[graph.average_pool(y, (2, 2))] * 4))
    model = graph.serialize(graph.depth_to_space(y, 2), graph.quantize(y))
    shapes = ((1, 8, 8, 3), (2, 32, 24, 3), (1, 40, 64, 3), (1, 8, 8, 3), (3, 8, 16, 3))
    feeds = [[any_values(np.uint8, shape)] for shape in shapes]
    for way in WAYS:
        (resized,) = litert.run_jobs([Job(model, feeds)], way)
        for feed, outputs in zip(feeds, resized, strict=True):
            ((fresh,),) = litert.run_jobs([Job(model, [feed])], WAYS[0])
            equal(outputs, fresh, way)


@pytest.mark.parametrize(("shape", "reason"), [((1, 9, 8, 3), "SPACE_TO_DEPTH"), ((1, 0, 8, 3), "empty")])
def test_an_image_resized_to_what_does_not_fit(litert: Interpreter, shape: tuple[int, ...], reason: str) -> None:
    graph = Graph()
    x = graph.input((1, 8, 8, 3), np.uint8, UNSIGNED)
    y = int8_layer(graph, graph.space_to_depth(graph.to_int8(x, IMAGE), 2), 8)
    with pytest.raises(InterpreterError, match=rf"{reason}[^;]*; check the input's shape"):
        litert.run(graph.serialize(graph.quantize(y)), [any_values(np.uint8, shape)], WAYS[0])


# Files that lie are the runtime's to refuse: the delegate takes nothing over that does not say what it would write.


def lying(name: str, source: Setting, options: Any, shape: Sequence[int], dtype: type[np.generic]) -> bytes:
    """Return a model in which one operator between ours gives a tensor of a `dtype` that it does not give."""
    graph = Graph()
    x = source.source(graph, graph.input((1, 4, 4, 5), source.dtype, source.quantization))
    y = graph.builtin(name, [x], graph.tensor(shape, dtype, source.quantization or IMAGE), options)
    return graph.serialize(graph.quantize(x), graph.quantize(y))


POOL = schema.Pool2DOptionsT(padding=schema.Padding.VALID, strideH=2, strideW=2, filterHeight=2, filterWidth=2)


@pytest.mark.parametrize(
    ("name", "setting", "options", "shape", "dtype"),
    [
        ("AVERAGE_POOL_2D", BEHIND_BINARY, POOL, (1, 2, 2, 36), np.int8),
        ("AVERAGE_POOL_2D", BEHIND_INT8, POOL, (1, 2, 2, 70), np.float32),
        ("DEPTH_TO_SPACE", BEHIND_BINARY, schema.DepthToSpaceOptionsT(blockSize=2), (1, 8, 8, 9), np.int8),
        ("SPACE_TO_DEPTH", BEHIND_INT8, schema.SpaceToDepthOptionsT(blockSize=2), (1, 2, 2, 280), np.float32),
    ],
    ids=["average of floats", "average of int8", "depth to space", "space to depth"],
)
def test_an_output_of_another_type(
    litert: Interpreter, name: str, setting: Setting, options: Any, shape: Sequence[int], dtype: type[np.generic]
) -> None:
    model = lying(name, setting, options, shape, dtype)
    with pytest.raises(InterpreterError, match=r"type"):
        litert.run(model, [any_values(setting.dtype, (1, 4, 4, 5))], WAYS[0])


def test_an_average_of_more_than_a_sum_can_hold_is_left_to_the_runtime(litert: Interpreter) -> None:
    graph = Graph()
    x = int8_layer(graph, graph.input((1, 4, 4, 5), np.int8, IMAGE), 8)
    y = graph.average_pool(x, (4096, 4096), padding="SAME")
    (part,) = litert.parts(graph.serialize(graph.quantize(x), y), WAYS[0])
    assert x in part.outputs
    assert y not in part.outputs
