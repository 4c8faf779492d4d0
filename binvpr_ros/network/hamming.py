# SPDX-License-Identifier: Apache-2.0
"""Binary descriptors, and the Hamming distances between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from binvpr_ros import lce_delegate

Descriptor = NDArray[np.uint64]
"""uint64, [W]: the packed bits, filled up with zeros to whole words."""
WORD_BITS = 64


def _look_up_bit_count(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return _BITS_OF_UINT16[words.view(np.uint16)]


_BITS_OF_UINT16 = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(1, np.uint8)
# NumPy has a popcount of its own from 2.0 on.
_bit_count: Callable[[NDArray[np.uint64]], NDArray[np.uint8]] = getattr(np, "bitwise_count", _look_up_bit_count)


def hamming(
    descriptors: NDArray[np.uint64], descriptor: NDArray[np.uint64], out: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    """Return the Hamming distances [K] of `descriptors` [K,W] to one `descriptor` [W], in `out` [K] where it is given.

    Other shapes [...,W] are broadcast.
    """
    if descriptors.ndim == 2 and descriptor.ndim == 1:
        return nearest_view(descriptors, descriptor, out)
    return hamming_numpy(descriptors, descriptor, out)


def nearest_view(
    descriptors: NDArray[np.uint64], views: NDArray[np.uint64], out: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    """Return the Hamming distance [K] of each of `descriptors` [K,W] to the nearest of `views` [V,W], or to one [W].

    In `out` [K] where it is given.
    """
    with contextlib.suppress(lce_delegate.DelegateError):  # where it was not compiled
        return lce_delegate.hamming(descriptors, views, out)
    first, *others = np.atleast_2d(views)
    nearest = hamming_numpy(descriptors, first, out)
    for view in others:
        np.minimum(nearest, hamming_numpy(descriptors, view), out=nearest)
    return nearest


def hamming_numpy(
    descriptors: NDArray[np.uint64], descriptor: NDArray[np.uint64], out: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    """Return what `hamming` does, by NumPy alone."""
    differing = _bit_count(np.bitwise_xor(descriptors, descriptor))
    counts: NDArray[np.uint32] = differing.sum(axis=-1, dtype=np.uint32, out=out)
    return counts
