# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.config import Config
from binvpr_ros.keyframes import FAST_CHANGE, NANOSECONDS, Keyframe, KeyframePolicy
from binvpr_ros.network.hamming import Descriptor

CONFIG = Config(keyframe_distance=0.25, keyframe_min_interval=0.8)
FAST = round(FAST_CHANGE * 128 + 0.5)
"""Bits of 128 that change when the view changes fast."""


def descriptor(changed_bits: int) -> Descriptor:
    """Return a descriptor of 128 bits that differs in so many from descriptor(0)."""
    return np.packbits(np.arange(128) < changed_bits).view(np.uint64)


def seconds(value: float) -> int:
    return round(value * NANOSECONDS)


@pytest.fixture
def policy() -> KeyframePolicy:
    """Return a policy whose last keyframe, of descriptor(0), was at 10 s."""
    policy = KeyframePolicy()
    policy.accept(Keyframe(0, 0, seconds(10), descriptor(0)))
    return policy


def test_the_first_image_is_a_keyframe() -> None:
    assert KeyframePolicy().wants(0, descriptor(0), CONFIG)


@pytest.mark.parametrize(
    ("after", "changed_bits", "wanted"),
    [
        (0.19, 128, False),  # whatever changes, not before a quarter of the interval
        (0.2, FAST, True),  # then only what changes fast
        (0.2, FAST - 1, False),
        (0.79, FAST, True),
        (0.79, FAST - 1, False),
        (0.8, 32, True),  # and from there on what changes enough
        (0.8, 31, False),
        (3600.0, 31, False),  # a robot that stands makes no more keyframes, however long
    ],
)
def test_change_and_time_make_a_keyframe(policy: KeyframePolicy, after: float, changed_bits: int, wanted: bool) -> None:
    assert policy.wants(seconds(10 + after), descriptor(changed_bits), CONFIG) == wanted


@pytest.mark.parametrize("distance", [0.0, 0.5])
def test_the_change_that_is_asked_for_may_be_none_or_more_than_a_fast_one(
    policy: KeyframePolicy, distance: float
) -> None:
    config = CONFIG.replace(keyframe_distance=distance)
    assert policy.wants(seconds(10.8), descriptor(64), config)
    assert policy.wants(seconds(10.8), descriptor(63), config) == (distance == 0.0)
    assert policy.wants(seconds(10.8), descriptor(0), config) == (distance == 0.0)
    assert policy.wants(seconds(10.2), descriptor(FAST), config) == (distance == 0.0)
    assert policy.wants(seconds(10.2), descriptor(64), config)


@pytest.mark.parametrize(
    ("after", "too_soon"),
    [
        (0.0, True),
        (0.19, True),  # no change makes a keyframe yet
        (0.2, False),
        (3600.0, False),
        (-0.1, False),  # time has leapt, or the image is late: stamps.py tells
    ],
)
def test_an_image_is_not_looked_at_before_it_may_be_a_keyframe(
    policy: KeyframePolicy, after: float, too_soon: bool
) -> None:
    assert policy.too_soon(seconds(10 + after), CONFIG) == too_soon


def looked_at(policy: KeyframePolicy, rate: int, changed_bits: int) -> list[int]:
    """Return which images of ten seconds are looked at, by their numbers, where all differ from the last keyframe."""
    numbers = []
    for number in range(10 * rate):
        stamp = seconds(20 + number / rate)
        if not policy.too_soon(stamp, CONFIG):
            policy.wants(stamp, descriptor(changed_bits), CONFIG)
            numbers.append(number)
    return numbers


@pytest.mark.parametrize(("rate", "every"), [(10, 1), (12, 1), (15, 2), (30, 3), (60, 5)])
def test_of_a_fast_camera_not_every_image_is_looked_at_while_little_changes(
    policy: KeyframePolicy, rate: int, every: int
) -> None:
    assert looked_at(policy, rate, FAST // 2 - 1) == list(range(0, 10 * rate, every))


def test_while_much_changes_every_image_is_looked_at(policy: KeyframePolicy) -> None:
    assert looked_at(policy, 60, FAST // 2 + 1) == list(range(600))


def test_an_image_without_contrast_is_as_one_that_shows_little_change(policy: KeyframePolicy) -> None:
    policy.rest(seconds(20))
    assert policy.too_soon(seconds(20.07), CONFIG)
    assert not policy.too_soon(seconds(20.08), CONFIG)


def test_without_an_interval_every_image_is_looked_at(policy: KeyframePolicy) -> None:
    policy.rest(seconds(20))
    assert not policy.too_soon(seconds(20), CONFIG.replace(keyframe_min_interval=0.0))


def test_without_an_interval_each_image_that_differs_is_a_keyframe(policy: KeyframePolicy) -> None:
    config = CONFIG.replace(keyframe_min_interval=0.0)
    assert policy.wants(seconds(10) + 1, descriptor(32), config)
    assert not policy.wants(seconds(10) + 1, descriptor(31), config)


def test_change_is_measured_against_the_last_keyframe(policy: KeyframePolicy) -> None:
    policy.accept(Keyframe(1, 0, seconds(11), descriptor(60)))
    assert not policy.wants(seconds(12), descriptor(60), CONFIG)
    assert policy.wants(seconds(12), descriptor(0), CONFIG)
