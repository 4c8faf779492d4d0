# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from binvpr_ros.ros.recent_depths import ALIVE, LONGEST_WAIT, MOST_IN_VAIN, TOLERANCE, RecentDepths
from binvpr_ros.ros.recent_images import MOST_BYTES

SECOND = 1_000_000_000


def depths(*stamps: int, capacity: int = 10) -> RecentDepths[str]:
    recent = RecentDepths[str](capacity, len)
    for stamp in stamps:
        recent.add(stamp, f"taken at {stamp}")
    return recent


def test_the_very_stamp_else_the_nearest_within_the_tolerance() -> None:
    recent = depths(SECOND, SECOND + TOLERANCE, 3 * SECOND)
    assert recent.at(SECOND) == f"taken at {SECOND}"
    assert recent.at(SECOND + TOLERANCE // 2 + 1) == f"taken at {SECOND + TOLERANCE}"
    assert recent.at(SECOND - TOLERANCE) == f"taken at {SECOND}"
    assert recent.at(SECOND - TOLERANCE - 1) is None
    assert recent.at(2 * SECOND) is None


def test_a_depth_image_that_comes_after_its_image_is_waited_for() -> None:
    recent = depths(SECOND)
    late = threading.Timer(LONGEST_WAIT / 4, recent.add, (2 * SECOND, "late"))
    late.start()
    assert recent.at(2 * SECOND) == "late"
    late.join()


def test_nobody_waits_for_what_will_not_come() -> None:
    recent = depths()
    assert recent.any_came is False
    recent.add(SECOND, "one")
    assert recent.at(2 * SECOND) is None  # after LONGEST_WAIT
    time.sleep(ALIVE)
    silent = threading.Timer(0, recent.at, (2 * SECOND,))
    silent.start()
    silent.join(timeout=30)
    assert not silent.is_alive()
    assert recent.at(SECOND) == "one"


def test_the_latest_are_kept_and_no_more_than_fit() -> None:
    recent = depths(*range(SECOND, 6 * SECOND, SECOND), capacity=3)
    assert [recent.at(second * SECOND) is not None for second in range(1, 6)] == [False, False, True, True, True]
    large = RecentDepths[int](10, lambda size: size)
    for second in range(1, 4):
        large.add(second * SECOND, MOST_BYTES // 2)
    assert [large.at(second * SECOND) is not None for second in range(1, 4)] == [False, True, True]


def test_after_a_leap_back_in_time_what_was_later_is_gone() -> None:
    recent = depths(5 * SECOND, 6 * SECOND, SECOND)
    assert recent.at(SECOND) is not None
    assert recent.at(6 * SECOND) is None


def test_after_waits_in_vain_nobody_waits_until_one_would_have_helped() -> None:
    recent = depths(SECOND)
    for second in range(2, 2 + MOST_IN_VAIN):
        assert recent.at(second * SECOND) is None
    started = time.monotonic()
    for second in range(4, 24):
        assert recent.at(second * SECOND) is None
    assert time.monotonic() - started < LONGEST_WAIT * 5  # of 20 waits
    recent.add(23 * SECOND, "just late")
    late = threading.Timer(LONGEST_WAIT / 4, recent.add, (24 * SECOND, "late"))
    late.start()
    assert recent.at(24 * SECOND) == "late"
    late.join()
