# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.images import Image
from binvpr_ros.local_features.features import ANGLE_STEPS, ORB, POSITION_STEPS
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.orb import DESCRIPTOR_BYTES, MOST_FEATURES, extract, matches

from .views import seen


@pytest.mark.parametrize("shape", [(480, 640, 3), (480, 640), (1, 1), (2, 2000), (600, 3, 3), (24, 32), (32, 32)])
def test_an_image_of_any_size_has_features_or_none(shape: tuple[int, ...]) -> None:
    features = extract(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    count = len(features.descriptors)
    assert features.positions.shape == (count, 2)
    assert features.angles.shape == (count,)
    assert features.descriptors.shape == (count, DESCRIPTOR_BYTES)
    assert features.tag == ORB
    assert verify(features, features).inliers >= 0


def test_an_image_full_of_corners_has_a_thousand_features(scene: Image) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8)
    assert 900 < len(extract(noise).descriptors) <= MOST_FEATURES == 1000
    assert len(extract(scene).descriptors) > 500


def test_colour_changes_little(scene: Image) -> None:
    grey, colour = extract(scene), extract(np.dstack([scene] * 3))
    assert verify(grey, colour).inliers >= 0.9 * len(grey.descriptors)


@pytest.mark.parametrize("shape", [(480, 640), (36, 48), (1, 1)])
def test_there_are_features_only_where_it_is_visible(scene: Image, shape: tuple[int, int]) -> None:
    image = seen(scene, 640, 480)
    visible = np.full(shape, 255, np.uint8)
    visible[shape[0] * 3 // 4 :] = 0  # as where the lowest quarter shows the robot's deck
    if shape == (1, 1):
        assert not len(extract(image, visible).positions)
        return
    some, everywhere = extract(image, visible), extract(image)
    assert len(some.positions) > 100
    assert some.positions[:, 1].max() < 0.76 * POSITION_STEPS < everywhere.positions[:, 1].max()


def test_matches_turn_by_about_the_same_angle(scene: Image) -> None:
    query, match = extract(seen(scene, 640, 480)), extract(seen(scene, 640, 480, turn=25))
    ours, theirs = matches(query, match)
    assert len(ours) > 100
    turned = (query.angles[ours] - match.angles[theirs]).astype(np.int8).astype(int)
    assert np.abs(turned - np.median(turned)).max() <= ANGLE_STEPS / 10
    assert abs(abs(np.median(turned)) - 25 / 360 * ANGLE_STEPS) < 3
    # What turns otherwise is no match, though its descriptor is the same.
    angles = match.angles.copy()
    angles[theirs[::4]] += 90
    fewer, _ = matches(query, match._replace(angles=angles))
    assert set(fewer) == set(ours) - set(ours[::4])


def test_what_repeats_in_an_image_matches_nothing(scene: Image) -> None:
    query = extract(seen(scene, 640, 480))
    match = query._replace(descriptors=query.descriptors ^ np.uint8(1))
    twice = match._replace(
        positions=np.repeat(match.positions, 2, axis=0), angles=np.repeat(match.angles, 2),
        descriptors=np.repeat(match.descriptors, 2, axis=0),
    )  # fmt: skip
    assert len(matches(query, match)[0]) > 300
    assert not len(matches(query, twice)[0])
