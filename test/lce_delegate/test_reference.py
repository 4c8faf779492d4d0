# SPDX-License-Identifier: Apache-2.0
"""The reference is what the Larq Compute Engine does: each case through both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from lce_delegate.cases import EXAMPLES, GRID, Case, Example, assert_same, cases
from lce_delegate.oracle import Interpreter, InterpreterError, Lce, LceKernel


def check(lce: Interpreter, case: Case, kernel: LceKernel) -> None:
    """Compare, or see that the kernel refuses what it does not do."""

    def run() -> None:
        (actual,) = lce.run(case.model(), [case.values()], Lce(kernel, threads=case.threads))
        assert_same(actual, case.expected())

    unclamped = case.dtype is np.float32 and case.activation == "NONE"
    does_zeros = case.channels_in % 2 == 0 if kernel == "reference" else unclamped
    if case.groups > 1 and kernel == "default":
        with pytest.raises(InterpreterError, match="Grouped binary convolutions are not supported"):
            run()
    elif case.border == "ZERO" and not does_zeros:
        with pytest.raises(InterpreterError, match="Zero-padding is only supported"):
            run()
    elif case.border == "ZERO" and not case.inside and kernel != "reference":
        pytest.skip(f"the {kernel} kernel is wrong about zeros on both sides of an image at once")
    else:
        run()


@pytest.mark.parametrize("kernel", ["reference", "default", "indirect"])
@pytest.mark.parametrize("case", GRID, ids=str)
def test_convolution(lce: Interpreter, case: Case, kernel: LceKernel) -> None:
    check(lce, case, kernel)


@settings(deadline=None)
@given(case=cases())
def test_convolutions_of_any_shape(lce: Interpreter, case: Case) -> None:
    check(lce, case, "reference")


@pytest.mark.parametrize("kernel", ["reference", "default", "indirect"])
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_example(lce: Interpreter, example: Example, kernel: LceKernel) -> None:
    outputs = lce.run(example.model, [example.values], Lce(kernel))
    for actual, expected in zip(outputs, example.expected, strict=True):
        assert_same(actual, expected)
