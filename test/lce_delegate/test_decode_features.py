# SPDX-License-Identifier: Apache-2.0
"""Every kernel decodes local features as NumPy does, bit for bit: also where many are as good."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import (
    CELL,
    LOGITS,
    MOST_CELLS,
    MOST_DESCRIPTOR_BITS,
    MOST_FEATURES,
    DelegateError,
    decode_features,
    kernels,
)
from binvpr_ros.local_features.decoding import Maps, decode_numpy

EVERY_LOGIT = np.arange(-128, 128)


def drawn(
    rng: np.random.Generator, rows: int, columns: int, bits: int, low: int, high: int, none: int | None = None
) -> Maps:
    """Return maps whose logits are from `low` to `high`; that of no keypoint is `none`, where it is given."""
    keypoints = rng.integers(low, high + 1, (rows, columns, LOGITS)).astype(np.int8)
    if none is not None:
        keypoints[..., -1] = none
    return Maps(
        rng.integers(-128, 128, (rows, columns, bits)).astype(np.int8),
        keypoints,
        rng.integers(low, high + 1, (rows, columns)).astype(np.int8),
    )


def check(maps: Maps, size: tuple[int, int], most: int, kernel: str) -> int:
    """Compare what is found with what NumPy finds, and return how many features that is."""
    found, right = decode_features(*maps, size, most, kernel), decode_numpy(maps, size, most)
    for name in ("points", "scores", "descriptors"):
        values, expected = getattr(found, name), getattr(right, name)
        assert values.dtype == expected.dtype
        assert values.shape == expected.shape
        np.testing.assert_array_equal(values, expected, name)
        assert values.tobytes() == expected.tobytes()
    return len(found.scores)


def whole(maps: Maps) -> tuple[int, int]:
    """Return the size of an image that fills all cells."""
    rows, columns = maps.reliability.shape
    return CELL * columns, CELL * rows


@pytest.mark.parametrize("kernel", kernels())
@given(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([8, 16, 64, 72, 256, 264]),
    st.sampled_from([(-128, 127), (-1, 1), (0, 0), (40, 60), (-128, -120), (120, 127)]),
    st.sampled_from([None, -128, 0, 100, 127]), st.sampled_from([1, 2, 7, 40, 100_000]), st.integers(0, 2**32),
)  # fmt: skip
@settings(deadline=None)
def test_any_maps_of_images_of_any_size(
    kernel: str, rows: int, columns: int, bits: int, logits: tuple[int, int], none: int | None, most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    maps = drawn(rng, rows, columns, bits, *logits, none)
    check(maps, whole(maps), most, kernel)
    check(maps, (int(rng.integers(1, CELL * columns + 1)), int(rng.integers(1, CELL * rows + 1))), most, kernel)


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("spread", [1, 2, 30, 127])
@pytest.mark.parametrize("most", [1, 10, 500, 2000, MOST_FEATURES])
def test_a_whole_image(kernel: str, spread: int, most: int) -> None:
    maps = drawn(np.random.default_rng(spread), 46, 60, 256, -spread, spread)
    assert check(maps, (480, 360), most, kernel) == min(most, len(decode_numpy(maps, (480, 360), most).scores))


@pytest.mark.parametrize("kernel", kernels())
def test_logits_that_are_all_the_same_have_one_feature(kernel: str) -> None:
    for logit in (-128, 0, 127):
        maps = drawn(np.random.default_rng(0), 5, 7, 16, logit, logit)
        assert check(maps, whole(maps), 100, kernel) == 1
        maps.keypoints[..., -1] = 127
        assert check(maps, whole(maps), 100, kernel) == (logit == 127)


@pytest.mark.parametrize("kernel", kernels())
def test_a_row_and_a_column_of_pixels(kernel: str) -> None:
    maps = drawn(np.random.default_rng(0), 6, 6, 24, -3, 3)
    for size in ((1, 1), (48, 1), (1, 48), (2, 48), (48, 3), (9, 16), (16, 17), (47, 41)):
        assert check(maps, size, 100, kernel) > 0


@pytest.mark.parametrize("kernel", kernels())
def test_every_logit_counts_as_much(kernel: str) -> None:
    """All powers of e and all reliabilities are those of NumPy: one that differed would show in the scores."""
    maps = drawn(np.random.default_rng(0), 16, 16, 8, -128, -128)
    maps.reliability[:] = EVERY_LOGIT.reshape(16, 16)
    maps.keypoints[..., 3 * CELL + 3] = 127
    check(maps, whole(maps), 256, kernel)
    maps.keypoints[..., -1] = EVERY_LOGIT.reshape(16, 16)
    check(maps, whole(maps), 256, kernel)
    maps.keypoints[:] = EVERY_LOGIT.reshape(16, 16, 1)
    maps.keypoints[..., 3 * CELL + 3] = 127
    assert check(maps, whole(maps), 256, kernel) == 256


@pytest.mark.parametrize("kernel", kernels())
def test_just_probable_enough(kernel: str) -> None:
    """A cell where nothing can be is left out early; where something can be it is not."""
    maps = drawn(np.random.default_rng(0), 16, 16, 8, -128, -128, 127)
    maps.keypoints[..., 3 * CELL + 3] = EVERY_LOGIT.reshape(16, 16)
    assert 50 < check(maps, whole(maps), 256, kernel) < 100


@pytest.mark.parametrize("kernel", kernels())
def test_extreme_descriptors_are_interpolated_without_overflow(kernel: str) -> None:
    maps = drawn(np.random.default_rng(0), 4, 4, 256, -2, 2)
    for values in ([-128, 127], [-1, 0], [-128], [127]):
        maps.descriptors[:] = np.random.default_rng(1).choice(values, maps.descriptors.shape)
        assert check(maps, whole(maps), 1000, kernel) > 20


@pytest.mark.parametrize("kernel", kernels())
def test_maps_may_lie_anywhere(kernel: str) -> None:
    rng = np.random.default_rng(0)
    memory = rng.integers(-128, 128, 6 * 7 * (64 + LOGITS + 1) + 8).astype(np.int8)
    for offset in range(8):
        ends = offset + 42 * np.cumsum([0, 64, LOGITS, 1])
        parts = [memory[start:end] for start, end in itertools.pairwise(ends)]
        maps = Maps(parts[0].reshape(6, 7, 64), parts[1].reshape(6, 7, LOGITS), parts[2].reshape(6, 7))
        check(maps, (53, 47), 100, kernel)
    check(Maps(maps.descriptors[::2, ::-1], maps.keypoints[1::2], maps.reliability[::-2]), (53, 23), 100, kernel)


def test_what_does_not_go_together_is_refused_before_it_is_read() -> None:
    def zeros(*shape: int) -> NDArray[np.int8]:
        return np.zeros(shape, np.int8)

    descriptors, keypoints, reliability = zeros(3, 4, 16), zeros(3, 4, LOGITS), zeros(3, 4)
    shapes = [
        (zeros(3, 4, 12), keypoints, reliability), (zeros(3, 4, 0), keypoints, reliability),
        (zeros(3, 4, MOST_DESCRIPTOR_BITS + 8), keypoints, reliability), (zeros(12, 16), keypoints, reliability),
        (zeros(4, 3, 16), keypoints, reliability), (descriptors, zeros(3, 4, LOGITS - 1), reliability),
        (descriptors, keypoints, zeros(4, 3)), (descriptors, keypoints, zeros(3, 4, 1)),
        (zeros(0, 4, 16), zeros(0, 4, LOGITS), zeros(0, 4)), (zeros(3, 0, 16), zeros(3, 0, LOGITS), zeros(3, 0)),
        (zeros(1, MOST_CELLS + 1, 8), zeros(1, MOST_CELLS + 1, LOGITS), zeros(1, MOST_CELLS + 1)),
    ]  # fmt: skip
    for maps in shapes:
        with pytest.raises(ValueError, match=r"maps of the shapes .* cannot be decoded; give"):
            decode_features(*maps, (8, 8), 10)
    for kind in (np.uint8, np.float32, np.int16):
        with pytest.raises(ValueError, match="cannot be decoded; give maps of int8"):
            decode_features(descriptors, keypoints.astype(kind), reliability, (32, 24), 10)
    for size in ((0, 24), (32, 0), (33, 24), (32, 25), (-1, 24)):
        with pytest.raises(ValueError, match=r"3 x 4 cells do not fit an image of .* pixels; give"):
            decode_features(descriptors, keypoints, reliability, size, 10)
    for most in (0, -1, MOST_FEATURES + 1):
        with pytest.raises(ValueError, match="features cannot be found; ask for 1 to"):
            decode_features(descriptors, keypoints, reliability, (32, 24), most)


def test_a_kernel_that_is_not_there() -> None:
    maps = drawn(np.random.default_rng(0), 1, 1, 8, 0, 1)
    with pytest.raises(DelegateError, match=r"this processor has no kernel abacus; choose one of .*portable"):
        decode_features(*maps, (8, 8), 1, "abacus")
