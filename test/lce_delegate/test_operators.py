# SPDX-License-Identifier: Apache-2.0
"""What the delegate makes of the four operators is what the reference makes of them, bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from binvpr_ros.lce_delegate import kernels, library
from lce_delegate.cases import EXAMPLES, GRID, Border, Case, Example, assert_same, cases
from lce_delegate.models import Graph
from lce_delegate.oracle import Interpreter, Job, Litert

KERNELS = kernels()


def check(litert: Interpreter, case: Case, kernel: str = "auto") -> None:
    """Compare the delegate with the reference."""
    (actual,) = litert.run(case.model(), [case.values()], Litert(library(), kernel, case.threads))
    assert_same(actual, case.expected())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", GRID, ids=str)
def test_convolution(litert: Interpreter, case: Case, kernel: str) -> None:
    check(litert, case, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(deadline=None)
@given(case=cases())
def test_convolutions_of_any_shape(litert: Interpreter, case: Case, kernel: str) -> None:
    check(litert, case, kernel)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_example(litert: Interpreter, example: Example, kernel: str, threads: int) -> None:
    outputs = litert.run(example.model, [example.values], Litert(library(), kernel, threads))
    for actual, expected in zip(outputs, example.expected, strict=True):
        assert_same(actual, expected)


LAYER = Case(1, (7, 9), 100, 70, (3, 3), (1, 2), (1, 1), "ONE", "RELU", np.float32, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_bits_in_a_filter_than_sixteen_count(litert: Interpreter, kernel: str) -> None:
    dtypes: tuple[type[np.generic], ...] = (np.float32, np.int8, np.int32)
    for dtype in dtypes:
        check(litert, replace(LAYER, image=(9, 8), size=(9, 8), channels_in=1024, channels_out=5, dtype=dtype), kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_image_of_many_tiles(litert: Interpreter, kernel: str) -> None:
    check(litert, replace(LAYER, image=(61, 83), channels_in=256, channels_out=129, threads=2), kernel)


def test_bits_out_of_zero_padding_need_no_multiplier(litert: Interpreter) -> None:
    case = replace(LAYER, border="ZERO", dtype=np.int32)
    convolution = replace(case.convolution(), multiplier=None, bias=None)
    graph = Graph()
    image = graph.input((1, *case.image, case.channels_in))
    model = graph.serialize(graph.bconv2d(graph.quantize(image), convolution))
    (actual,) = litert.run(model, [case.values()], Litert(library()))
    assert_same(actual, case.expected())


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int32])
def test_half_bits_of_zero_padding(litert: Interpreter, dtype: type[np.generic]) -> None:
    # The Larq Compute Engine refuses this.
    check(litert, replace(LAYER, border="ZERO", channels_in=33, dtype=dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int32])
@pytest.mark.parametrize("border", ["VALID", "ZERO", "ONE"])
def test_inputs_can_be_resized_again_and_again(litert: Interpreter, border: Border, dtype: type[np.generic]) -> None:
    first = replace(LAYER, border=border, dtype=dtype)
    later = [
        replace(first, batch=batch, image=image)
        for batch, image in ((3, (7, 9)), (1, (20, 31)), (2, (3, 3)), (1, (7, 9)))
    ]
    job = Job(first.model(), [[case.values()] for case in (first, *later)])
    (outputs,) = litert.run_jobs([job], Litert(library(), threads=2))
    for case, (actual,) in zip((first, *later), outputs, strict=True):
        assert_same(actual, case.expected())


def test_a_resized_input_resizes_what_is_dequantized(litert: Interpreter) -> None:
    graph = Graph()
    model = graph.serialize(graph.dequantize(graph.quantize(graph.input((1, 2, 2, 40))), 40))
    values = np.random.default_rng(0).normal(size=(2, 5, 3, 40)).astype(np.float32)
    (actual,) = litert.run(model, [values], Litert(library()))
    assert_same(actual, np.sign(values))


def test_an_invocation_leaves_nothing_behind_for_the_next(litert: Interpreter) -> None:
    example = EXAMPLES[-1]
    feeds = [[example.values], [-example.values], [example.values], [example.values]]
    ((first, other, *again),) = litert.run_jobs([Job(example.model, feeds)], Litert(library(), threads=2))
    assert not np.array_equal(first[0], other[0])
    for outputs in again:
        for actual, expected in zip(outputs, first, strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_interpreters_side_by_side_do_not_disturb_each_other(litert: Interpreter, threads: int) -> None:
    chosen = [replace(LAYER, image=(20, 20), channels_out=64 + n) for n in range(4)]
    jobs = [Job(case.model(), [[case.values()]] * 20) for case in chosen]
    for case, invocations in zip(chosen, litert.run_jobs(jobs, Litert(library(), threads=threads)), strict=True):
        for (actual,) in invocations:
            assert_same(actual, case.expected())


def test_around_xnnpack_nothing_changes(litert: Interpreter) -> None:
    example = EXAMPLES[-1]
    outputs = litert.run(example.model, [example.values], Litert(library(), xnnpack=True))
    for actual, expected in zip(outputs, example.expected, strict=True):
        assert_same(actual, expected)


def test_a_model_without_larq_operators_runs_as_ever(litert: Interpreter) -> None:
    graph = Graph()
    x = graph.input((1, 2, 2, 3))
    values = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    (actual,) = litert.run(graph.serialize(graph.add(x, x)), [values], Litert(library()))
    np.testing.assert_array_equal(actual, 2 * values)
