# SPDX-License-Identifier: Apache-2.0
"""Images made smaller: the pixels that OpenCV's INTER_AREA has."""

from __future__ import annotations

import platform

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binvpr_ros.lce_delegate import shrink

EXACT = platform.machine() == "x86_64"  # elsewhere OpenCV fuses multiplications and additions


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Return the height and width of an image and of a smaller one."""
    height, width = draw(st.integers(1, 200)), draw(st.integers(2, 200))
    return height, width, draw(st.integers(1, height)), draw(st.integers(1, width))


@settings(deadline=None)
@given(shapes=sizes(), seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([2, 256]))
def test_the_pixels_are_those_of_opencv(shapes: tuple[int, int, int, int], seed: int, levels: int) -> None:
    height, width, to_height, to_width = shapes
    image = np.random.default_rng(seed).integers(0, levels, (height, width, 3)).astype(np.uint8)
    image[image == 1] = 255
    ours = shrink(image, (to_width, to_height)).astype(int)
    theirs = cv2.resize(image, (to_width, to_height), interpolation=cv2.INTER_AREA).astype(int)
    whole = width % to_width == height % to_height == 0  # then it sums integers
    assert np.abs(ours - theirs).max() <= (1 if whole or not EXACT else 0)


@pytest.mark.parametrize("size", [(640, 480), (848, 480), (1280, 720), (1928, 1208)])
@pytest.mark.parametrize("to", [(224, 224), (480, 360)])
def test_of_the_sizes_of_cameras(size: tuple[int, int], to: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 2)
    ours, theirs = shrink(image, to).astype(int), cv2.resize(image, to, interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(ours - theirs).max() <= (0 if EXACT else 1)


def test_rows_may_lie_apart_and_nothing_beside_the_image_is_read_or_written() -> None:
    padded = np.full((30, 100, 3), 255, np.uint8)
    image = padded[4:25, 11:80]
    image[:] = np.random.default_rng(1).integers(0, 200, image.shape)
    expected = shrink(np.ascontiguousarray(image), (20, 9))
    np.testing.assert_array_equal(shrink(image, (20, 9)), expected)
    np.testing.assert_array_equal(shrink(np.asfortranarray(image), (20, 9)), expected)
    np.testing.assert_array_equal(shrink(image[::-1], (20, 9)), shrink(image[::-1].copy(), (20, 9)))
    np.testing.assert_array_equal(shrink(image[:, ::2], (20, 9)), shrink(image[:, ::2].copy(), (20, 9)))
    assert padded[:4].min() == padded[25:].min() == padded[:, :11].min() == padded[:, 80:].min() == 255


def test_one_level_stays_that_level() -> None:
    for level in range(256):
        assert (shrink(np.full((17, 23, 3), level, np.uint8), (7, 5)) == level).all()


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((9, 9), np.uint8, (3, 3)),
        ((9, 9, 4), np.uint8, (3, 3)),
        ((9, 9, 3), np.float32, (3, 3)),
        ((9, 9, 3), np.uint8, (10, 3)),
        ((9, 9, 3), np.uint8, (3, 10)),
        ((9, 9, 3), np.uint8, (0, 3)),
        ((9, 9, 3), np.uint8, (3, 0)),
        ((9, 1, 3), np.uint8, (1, 3)),
    ],
)
def test_what_cannot_be_made_smaller_is_refused(
    shape: tuple[int, ...], kind: type[np.generic], size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=r"cannot be made smaller to .*; give a larger RGB image of uint8"):
        shrink(np.zeros(shape, kind), size)
