# SPDX-License-Identifier: Apache-2.0
"""Every kernel gives the distances that counting bit by bit gives, for any number, width and alignment."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import DelegateError, hamming, kernels


def differing_bits(descriptors: NDArray[np.uint64], descriptor: NDArray[np.uint64]) -> NDArray[np.uint32]:
    bits = np.unpackbits((descriptors ^ descriptor).view(np.uint8), axis=1)
    return bits.sum(axis=1, dtype=np.uint32)


def at_offset(values: NDArray[np.uint64], offset: int) -> NDArray[np.uint64]:
    """Return `values` so many bytes into a piece of memory that ends with them."""
    memory = np.empty(offset + values.nbytes, np.uint8)
    moved = memory[offset:].view(np.uint64).reshape(values.shape)
    moved[:] = values
    return moved


@pytest.mark.parametrize("kernel", kernels())
@given(st.integers(0, 70), st.integers(1, 80), st.integers(0, 7), st.integers(0, 2**32))
@settings(deadline=None)
def test_any_number_width_and_alignment(kernel: str, count: int, words: int, offset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    descriptors = at_offset(rng.integers(0, 2**64, (count, words), np.uint64), offset)
    descriptor = at_offset(rng.integers(0, 2**64, words, np.uint64), 7 - offset)
    np.testing.assert_array_equal(
        hamming(descriptors, descriptor, kernel=kernel), differing_bits(descriptors, descriptor)
    )


@pytest.mark.parametrize("kernel", kernels())
@given(st.integers(0, 9), st.integers(1, 30), st.integers(1, 9), st.integers(0, 2**32))
@settings(deadline=None)
def test_of_several_views_the_nearest_counts(kernel: str, count: int, words: int, views: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    descriptors, queries = (rng.integers(0, 2**64, (n, words), np.uint64) for n in (count, views))
    distances = [differing_bits(descriptors, query) for query in queries]
    np.testing.assert_array_equal(hamming(descriptors, queries, kernel=kernel), np.min(distances, axis=0))


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("words", [16, 61, 62, 63, 64, 1000, 4608, 9001])
def test_all_bits_of_a_wide_descriptor_may_differ(kernel: str, words: int) -> None:
    descriptors = np.full((3, words), 2**64 - 1, np.uint64)
    np.testing.assert_array_equal(hamming(descriptors, np.zeros(words, np.uint64), kernel=kernel), [64 * words] * 3)


def test_distances_are_written_where_they_are_wanted_and_nowhere_else() -> None:
    descriptors = np.arange(20, dtype=np.uint64).reshape(5, 4)
    distances = np.full(9, 99, np.uint32)
    hamming(descriptors, descriptors[0], distances[2:7])
    np.testing.assert_array_equal(distances[2:7], differing_bits(descriptors, descriptors[0]))
    assert (distances[[0, 1, 7, 8]] == 99).all()


def test_every_other_column_or_row_is_no_different() -> None:
    descriptors = np.random.default_rng(0).integers(0, 2**64, (10, 6), np.uint64)
    for some in (descriptors[::2], descriptors[:, ::2]):
        np.testing.assert_array_equal(hamming(some, some[1]), differing_bits(some, some[1]))


def test_what_does_not_go_together_is_refused_before_it_is_read() -> None:
    descriptors = np.zeros((5, 4), np.uint64)
    with pytest.raises(ValueError, match="do not go together"):
        hamming(descriptors, np.zeros(3, np.uint64))
    for views in (np.zeros((2, 3), np.uint64), np.zeros((0, 4), np.uint64), np.zeros((1, 2, 4), np.uint64)):
        with pytest.raises(ValueError, match="do not go together"):
            hamming(descriptors, views)
    with pytest.raises(ValueError, match="do not go together"):
        hamming(descriptors, descriptors[0], np.zeros(4, np.uint32))
    with pytest.raises(ctypes.ArgumentError):
        hamming(descriptors.astype(np.int32), descriptors[0])
    fixed = np.zeros(5, np.uint32)
    fixed.flags.writeable = False
    with pytest.raises(ctypes.ArgumentError):
        hamming(descriptors, descriptors[0], fixed)
    with pytest.raises(ctypes.ArgumentError):
        hamming(descriptors, descriptors[0], np.zeros(10, np.uint32)[::2])


def test_a_kernel_that_is_not_there() -> None:
    with pytest.raises(DelegateError, match=r"this processor has no kernel abacus; choose one of .*portable"):
        hamming(np.zeros((1, 1), np.uint64), np.zeros(1, np.uint64), kernel="abacus")
