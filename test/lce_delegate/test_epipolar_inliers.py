# SPDX-License-Identifier: Apache-2.0
"""The matches that obey one epipolar geometry: those of a known scene, as many as OpenCV finds, the same again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import epipolar_inliers

FOCAL = 400.0
CENTRE = (240.0, 180.0)
Floats = NDArray[np.float32]


def seen(points: NDArray[np.float64], rotation: NDArray[np.float64], translation: NDArray[np.float64]) -> Floats:
    """Return where a camera sees points [N,3]: pixels [N,2]."""
    x, y, z = (points @ rotation.T + translation).T
    return np.stack([FOCAL * x / z + CENTRE[0], FOCAL * y / z + CENTRE[1]], axis=1).astype(np.float32)


def two_views(rng: np.random.Generator, count: int, noise: float, flat: bool = False) -> tuple[Floats, Floats]:
    """Return the pixels of as many points in two images, with `noise` in pixels."""
    depth = np.full(count, 5.0) if flat else rng.uniform(2, 9, count)
    points = np.stack([rng.uniform(-1, 1, count) * depth * 0.5, rng.uniform(-1, 1, count) * depth * 0.4, depth], axis=1)
    rotation, _ = cv2.Rodrigues(rng.normal(0, 0.05, 3))
    here = seen(points, np.eye(3), np.zeros(3))
    there = seen(points, np.asarray(rotation, np.float64), rng.normal(0, 0.3, 3))
    return (here + rng.normal(0, noise, here.shape)).astype(np.float32), (
        there + rng.normal(0, noise, there.shape)
    ).astype(np.float32)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("outliers", [0.0, 0.3, 0.5])
def test_the_matches_of_a_scene_are_told_from_others(outliers: float, flat: bool) -> None:
    rng = np.random.default_rng(7)
    found, wrong = [], []
    for _ in range(20):
        here, there = two_views(rng, 150, 0.2, flat)
        other = rng.random(150) < outliers
        there[other] = rng.uniform((0, 0), (480, 360), (int(other.sum()), 2))
        inliers = epipolar_inliers(here, there, 1.0)
        found.append(inliers[~other].mean())
        wrong += [inliers[other].mean()] if other.any() else []
    # 500 samples of seven, of which one in 128 is free of outliers where half are.
    assert np.mean(found) > (0.97 if outliers < 0.5 else 0.9)
    # A line two pixels wide crosses a hundredth of an image; many geometries fit a plane.
    assert np.mean(wrong or [0.0]) < (0.1 if flat else 0.05)


def test_as_many_as_opencv_finds() -> None:
    rng = np.random.default_rng(8)
    ours, theirs = 0, 0
    for _ in range(40):
        here, there = two_views(rng, 120, 0.5)
        there[:40] += rng.normal(0, 8, (40, 2)).astype(np.float32)
        ours += int(epipolar_inliers(here, there, 1.0).sum())
        theirs += int(cv2.findFundamentalMat(here, there, cv2.USAC_MAGSAC, 1.0, 0.99, 500)[1].sum())
    assert ours >= 0.98 * theirs


def test_the_same_again_wherever_the_arrays_lie() -> None:
    rng = np.random.default_rng(9)
    here, there = two_views(rng, 203, 0.4)
    there[::3] = rng.uniform(0, 300, there[::3].shape)
    first = epipolar_inliers(here, there, 1.0)
    wide_here, wide_there = np.repeat(here, 2, axis=0)[::2], np.repeat(there, 2, axis=0)[::2]
    np.testing.assert_array_equal(epipolar_inliers(wide_here, wide_there, 1.0), first)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_fewer_than_eight_say_nothing(count: int) -> None:
    here, there = two_views(np.random.default_rng(1), count, 0.0)
    assert not epipolar_inliers(here, there, 1.0).any()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(8, 60), kind=st.sampled_from(["line", "point", "grid", "far"]))
def test_degenerate_matches_do_no_harm(seed: int, count: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    here = rng.uniform(0, 480, (count, 2)).astype(np.float32)
    if kind == "line":
        here[:, 1] = here[:, 0]
    elif kind == "point":
        here[:] = here[0]
    elif kind == "grid":
        here = np.rint(here / 100) * 100
    else:
        here *= np.float32(1e18)
    there = here + rng.integers(0, 2, here.shape).astype(np.float32)
    inliers = epipolar_inliers(here, there, 1.0)
    assert inliers.shape == (count,)
    assert set(np.unique(inliers.view(np.uint8))) <= {0, 1}


def test_what_are_no_matches_is_refused() -> None:
    with pytest.raises(ValueError, match="not matches; give"):
        epipolar_inliers(np.zeros((9, 2), np.float32), np.zeros((8, 2), np.float32), 1.0)
    with pytest.raises(ValueError, match="not matches; give"):
        epipolar_inliers(np.zeros((9, 3), np.float32), np.zeros((9, 3), np.float32), 1.0)
    with pytest.raises(MemoryError, match="give fewer"):
        epipolar_inliers(np.zeros((1 << 15, 2), np.float32), np.zeros((1 << 15, 2), np.float32), 1.0)
