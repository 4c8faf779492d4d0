# SPDX-License-Identifier: Apache-2.0
"""Every kernel finds the rows that comparing all with all, bit by bit, finds: also among rows that are as near."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import MATCH_BYTES, NO_DISTANCE, NO_ROW, DelegateError, NearestTwo, kernels, nearest_two

Rows = NDArray[np.uint8]


def expected(these: Rows, those: Rows) -> NearestTwo:
    ours, theirs = (np.unpackbits(rows, axis=1).astype(np.float32) for rows in (these, those))
    distances = (ours @ (1 - theirs).T + (1 - ours) @ theirs.T).astype(np.uint16)
    two = np.sort(np.pad(distances, ((0, 0), (0, 2)), constant_values=NO_DISTANCE), axis=1)
    nearest = distances.argmin(axis=1) if len(those) else np.full(len(these), NO_ROW)
    back = distances.argmin(axis=0) if len(these) else np.full(len(those), NO_ROW)
    return NearestTwo(nearest.astype(np.int32), two[:, 0], two[:, 1], back.astype(np.int32))


def check(these: Rows, those: Rows, kernel: str) -> None:
    found, right = nearest_two(these, those, kernel), expected(these, those)
    for name in NearestTwo._fields:
        assert getattr(found, name).dtype == getattr(right, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(right, name), name)


def drawn(rng: np.random.Generator, count: int, size: int, distinct: int, flips: int = 0) -> Rows:
    """Return rows that are alike but for some bits: `count` of so many `distinct` ones."""
    rows = rng.integers(0, 256, (distinct, size), np.uint8)[rng.integers(0, distinct, count)]
    for _ in range(flips):
        places = rng.integers(0, size, count)
        rows[np.arange(count), places] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)
    return rows


@pytest.mark.parametrize("kernel", kernels())
@given(
    st.integers(0, 140), st.integers(0, 140), st.sampled_from(MATCH_BYTES), st.sampled_from([1, 3, 1000]),
    st.integers(0, 3), st.integers(0, 2**32),
)  # fmt: skip
@settings(deadline=None)
def test_any_numbers_and_widths(kernel: str, n: int, m: int, size: int, distinct: int, flips: int, seed: int) -> None:
    both = drawn(np.random.default_rng(seed), n + m, size, distinct, flips)
    check(both[:n], both[n:], kernel)


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("count", [4095, 4096, 4097, 8300])
def test_more_rows_than_are_compared_at_a_time(kernel: str, count: int) -> None:
    both = drawn(np.random.default_rng(count), count + 131, 32, 40, 1)
    check(both[count:], both[:count], kernel)
    check(both[:count], both[count:], kernel)
    check(both[:66], np.repeat(both[:1], count, axis=0), kernel)


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("size", MATCH_BYTES)
def test_all_bits_or_none_may_differ(kernel: str, size: int) -> None:
    zeros, ones = np.zeros((5, size), np.uint8), np.full((70, size), 255, np.uint8)
    for these, those in ((zeros, ones), (ones, zeros), (ones, ones), (np.concatenate([zeros, ones]), ones)):
        check(these, those, kernel)


@pytest.mark.parametrize("kernel", kernels())
def test_of_one_row_or_none_there_is_no_second_or_nearest(kernel: str) -> None:
    row, none = np.ones((1, 32), np.uint8), np.empty((0, 32), np.uint8)
    expectations: list[tuple[Rows, Rows, list[list[int]]]] = [
        (row, row, [[0], [0], [NO_DISTANCE], [0]]),
        (row, none, [[NO_ROW], [NO_DISTANCE], [NO_DISTANCE], []]),
        (none, row, [[], [], [], [NO_ROW]]),
        (none, none, [[], [], [], []]),
    ]
    for these, those, found in expectations:
        assert [values.tolist() for values in nearest_two(these, those, kernel)] == found


@pytest.mark.parametrize("kernel", kernels())
def test_rows_may_lie_anywhere(kernel: str) -> None:
    memory = np.random.default_rng(0).integers(0, 256, 64 * 200 + 8, np.uint8)
    for offset in range(8):
        rows = memory[offset : offset + 64 * 200].reshape(200, 64)
        check(rows[:90], rows[90:], kernel)
        check(rows[::3], rows[::-1], kernel)
        check(rows[:70, ::2], rows[70:, 1:33], kernel)


def test_what_does_not_go_together_is_refused_before_it_is_read() -> None:
    rows = np.zeros((5, 32), np.uint8)
    for others in (np.zeros((5, 40), np.uint8), np.zeros(32, np.uint8), np.zeros((1, 5, 32), np.uint8)):
        for pair in ((rows, others), (others, rows)):
            with pytest.raises(ValueError, match=r"rows of the shapes .* cannot be matched; give two arrays"):
                nearest_two(*pair)
    for size in (0, 4, 33, 72, 1000):
        wide = np.zeros((5, size), np.uint8)
        with pytest.raises(ValueError, match="rows of 8 to 64 bytes, a multiple of 8"):
            nearest_two(wide, wide)
    for kind in (np.int8, np.uint64, np.float32, np.bool_):
        with pytest.raises(ValueError, match=r"cannot be matched; give rows of uint8"):
            nearest_two(rows, rows.astype(kind))


def test_a_kernel_that_is_not_there() -> None:
    rows = np.zeros((1, 8), np.uint8)
    with pytest.raises(DelegateError, match=r"this processor has no kernel abacus; choose one of .*portable"):
        nearest_two(rows, rows, "abacus")
