# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import numpy as np
import pytest
from random_features import random_features

from binvpr_ros.images import Image
from binvpr_ros.local_features.colours import COLUMNS, ROWS
from binvpr_ros.local_features.features import MOST_DESCRIPTOR_BYTES, ORB, VERSIONS, Features, FeaturesError
from binvpr_ros.local_features.orb import MOST_FEATURES, MOST_WIDTH, extract

OTHER = (7, 9)
"""A kind that there is not."""


def assert_same(features: Features, others: Features) -> None:
    assert (features.size, features.tag) == (others.size, others.tag)
    for name in ("positions", "angles", "descriptors"):
        array, other = getattr(features, name), getattr(others, name)
        assert array.dtype == other.dtype
        np.testing.assert_array_equal(array, other)


def test_features_come_back_from_their_bytes(scene: Image) -> None:
    features = extract(scene)
    assert features.size == (MOST_WIDTH, MOST_WIDTH * 3 // 4)
    assert 100 < len(features.descriptors) <= MOST_FEATURES
    data = features.to_bytes()
    assert len(data) == 10 + 37 * len(features.descriptors)
    assert_same(Features.from_bytes(data), features)


@pytest.mark.parametrize("wide", range(8, MOST_DESCRIPTOR_BYTES + 1, 8))
@pytest.mark.parametrize("count", [0, 1, 9])
def test_features_of_any_kind_and_width_come_back(wide: int, count: int) -> None:
    features = random_features(wide, count, wide)._replace(tag=OTHER)
    assert_same(Features.from_bytes(features.to_bytes()), features)
    colours = np.random.default_rng(wide).integers(0, 256, (ROWS, COLUMNS), np.uint8)
    data = features._replace(colours=colours).to_bytes()
    assert len(data) == len(features.to_bytes()) + colours.nbytes == features._replace(colours=colours).nbytes
    assert_same(Features.from_bytes(data), features)
    np.testing.assert_array_equal(Features.from_bytes(data).colours, colours)
    with pytest.raises(FeaturesError, match="are not local features"):
        Features.from_bytes(data[: colours.nbytes])


@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_depths_come_back_and_take_two_bytes_each(count: int, coloured: bool) -> None:
    rng = np.random.default_rng(count)
    features = random_features(1, count)
    if coloured:
        features = features._replace(colours=rng.integers(0, 256, (ROWS, COLUMNS), np.uint8))
    deep = features._replace(depths=rng.integers(0, 1 << 16, count, np.uint16))
    data = deep.to_bytes()
    assert len(data) == deep.nbytes == features.nbytes + 2 * count == len(features.to_bytes()) + 2 * count
    found = Features.from_bytes(data)
    assert_same(found, features)
    assert found.depths is not None
    assert found.depths.dtype == np.uint16
    np.testing.assert_array_equal(found.depths, deep.depths)
    np.testing.assert_array_equal(found.colours, features.colours)
    # Programs that know of no depths read what has none, and refuse the rest by its version.
    assert (features.to_bytes()[3], data[3]) == (1 + coloured, 3 + coloured)
    for length in range(len(data) - 1, max(len(data) - 20, 10), -1):
        with pytest.raises(FeaturesError, match="are not local features"):
            Features.from_bytes(data[:length])


def test_chosen_features_keep_their_depths() -> None:
    features = random_features(1, 100)._replace(depths=np.arange(100, dtype=np.uint16))
    np.testing.assert_array_equal(features.only(np.array([7, 3])).depths, [7, 3])
    fewer = features.fewer(10).depths
    assert fewer is not None
    assert len(fewer) == 10
    assert random_features(1, 100).fewer(10).depths is None


@pytest.mark.parametrize("count", [0, 1, 500])
def test_bytes_without_a_tag_are_orb_of_an_earlier_version(count: int) -> None:
    """Maps of that version are full of them: width, height, positions, angles, descriptors."""
    features = random_features(1, count)
    arrays = b"".join(array.tobytes() for array in (features.positions, features.angles, features.descriptors))
    assert_same(Features.from_bytes(struct.pack("<HH", *features.size) + arrays), features)
    assert features.tag == ORB


@pytest.mark.parametrize(
    "data", [b"", *(bytes([first] * length) for first in (0, 1) for length in (3, 5, 9)), b"1" * 40]
)
def test_other_bytes_are_no_features(data: bytes) -> None:
    with pytest.raises(FeaturesError, match=f"{len(data)} bytes are not local features"):
        Features.from_bytes(data)


@pytest.mark.parametrize("wide", [0, 4, 31, 72, 255])
def test_descriptors_that_are_no_whole_words_are_no_features(wide: int) -> None:
    data = struct.pack("<HBBHHBB", 0, ORB[0], VERSIONS[0], 480, 360, wide, 0) + bytes(2 * (5 + wide))
    with pytest.raises(FeaturesError, match=f"{len(data)} bytes are not local features; restore a copy"):
        Features.from_bytes(data)


@pytest.mark.parametrize("size", [(0, 0), (480, 0), (0, 360)])
def test_features_of_an_image_without_size_are_none(size: tuple[int, int]) -> None:
    with pytest.raises(FeaturesError, match="are not local features"):
        Features.from_bytes(random_features(1, 9)._replace(size=size).to_bytes())


def test_features_that_are_cut_off_are_none() -> None:
    data = random_features(1, 20).to_bytes()
    for length in range(10, len(data)):
        if (length - 10) % 37:
            with pytest.raises(FeaturesError):
                Features.from_bytes(data[:length])


def test_features_of_a_later_version_are_refused() -> None:
    data = bytearray(random_features(1, 2).to_bytes())
    data[3] = VERSIONS[-1] + 1
    with pytest.raises(FeaturesError, match=f"version {data[3]} .*; use the program that wrote them"):
        Features.from_bytes(bytes(data))


@pytest.mark.parametrize("most", [0, 1, 2, 99, 100, 101])
def test_fewer_features_are_some_of_them_in_their_order(most: int) -> None:
    features = random_features(1, 100)
    fewer = features.fewer(most)
    assert len(fewer.positions) == len(fewer.angles) == len(fewer.descriptors) == min(most, 100)
    chosen = [int(np.flatnonzero((features.descriptors == one).all(axis=1))[0]) for one in fewer.descriptors]
    assert chosen == sorted(set(chosen))
    assert_same(fewer, features._replace(**{name: getattr(features, name)[chosen] for name in fewer._fields[1:4]}))


def test_fewer_features_are_from_all_scales(scene: Image) -> None:
    """ORB finds the features of one scale after those of another; a place from further away needs the last ones."""
    features = extract(scene)
    chosen = {one.tobytes() for one in features.fewer(len(features.positions) // 2).descriptors}
    kept = [one.tobytes() in chosen for one in features.descriptors]
    for part in np.array_split(kept, 8):
        assert 0.4 < part.mean() < 0.6


def test_points_are_pixels_of_an_image_of_any_size() -> None:
    features = random_features(1, 2)._replace(positions=np.array([[0, 0], [32768, 16384]], np.uint16))
    assert features.points(np.array([1, 0]), (640.0, 480.0)).tolist() == [[320, 120], [0, 0]]
