# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binvpr_ros import lce_delegate
from binvpr_ros.network.hamming import hamming, nearest_view


@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_hamming_counts_the_differing_bits(count: int, words: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    descriptors = rng.integers(0, 2**64, (count, words), np.uint64)
    descriptor = rng.integers(0, 2**64, words, np.uint64)
    expected = [sum((int(a) ^ int(b)).bit_count() for a, b in zip(row, descriptor, strict=True)) for row in descriptors]
    np.testing.assert_array_equal(hamming(descriptors, descriptor), expected)


def test_without_the_library_numpy_gives_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = np.random.default_rng(0).integers(0, 2**64, (30, 5), np.uint64)
    compiled = hamming(descriptors, descriptors[3])
    nearest = {5: compiled, 30: nearest_view(descriptors, descriptors[3:9])}
    assert (nearest[30] < compiled).any()
    monkeypatch.setattr(lce_delegate, "LIBRARY", "not-compiled.so")
    lce_delegate._functions.cache_clear()
    with pytest.raises(lce_delegate.DelegateError, match="was not compiled"):
        lce_delegate.hamming(descriptors, descriptors[3])
    out = np.empty(30, np.uint32)
    assert hamming(descriptors, descriptors[3], out) is out
    np.testing.assert_array_equal(out, compiled)
    for views in (descriptors[3], descriptors[3:4], descriptors[3:9]):
        np.testing.assert_array_equal(nearest_view(descriptors, views, out), nearest[views.size])
        assert nearest_view(descriptors, views, out) is out


def test_hamming_broadcasts_other_shapes() -> None:
    descriptors = np.random.default_rng(0).integers(0, 2**64, (7, 5), np.uint64)
    every_pair = hamming(descriptors, descriptors[:, np.newaxis])
    np.testing.assert_array_equal(every_pair, [hamming(descriptors, descriptor) for descriptor in descriptors])
    assert int(hamming(descriptors[0], descriptors[1])) == every_pair[0, 1]
