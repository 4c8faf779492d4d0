# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS, Keyframe, KeyframePolicy
from binvpr_ros.network.hamming import Descriptor

CONFIG = Config(keyframe_distance=0.25, keyframe_min_interval=0.5, keyframe_max_interval=3.0)


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
        (0.49, 128, False),  # whatever changes, not before the least interval
        (0.5, 32, True),
        (0.5, 31, False),
        (2.99, 31, False),
        (3.0, 0, True),  # without any change, at the longest interval
    ],
)
def test_change_decides_between_the_least_and_the_longest_interval(
    policy: KeyframePolicy, after: float, changed_bits: int, wanted: bool
) -> None:
    assert policy.wants(seconds(10 + after), descriptor(changed_bits), CONFIG) == wanted


def test_change_is_measured_against_the_last_keyframe(policy: KeyframePolicy) -> None:
    policy.accept(Keyframe(1, 0, seconds(11), descriptor(60)))
    assert not policy.wants(seconds(12), descriptor(60), CONFIG)
    assert policy.wants(seconds(12), descriptor(0), CONFIG)
