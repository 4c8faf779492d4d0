# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binvpr_ros.ros.recent_images import MOST_BYTES, Answer, RecentImages

NOTHING: Answer[str] = Answer([], [])
FRAME = 10_000_000
"""Nanoseconds."""


def test_a_stamp_after_its_image_and_before_it() -> None:
    recent: RecentImages[str] = RecentImages(10, len)
    assert recent.add(1 * FRAME, "one") == recent.add(2 * FRAME, "two") == NOTHING
    assert recent.ask(1 * FRAME) == Answer(["one"], [])
    assert recent.ask(4 * FRAME) == NOTHING
    assert recent.add(3 * FRAME, "three") == NOTHING
    assert recent.add(4 * FRAME, "four") == Answer(["four"], [])
    assert recent.ask(2 * FRAME) == Answer(["two"], [])


def test_a_stamp_for_which_no_image_came() -> None:
    recent: RecentImages[str] = RecentImages(10, len)
    recent.add(1 * FRAME, "one")
    recent.add(3 * FRAME, "three")
    assert recent.ask(2 * FRAME) == Answer([], [2 * FRAME])
    assert recent.ask(4 * FRAME) == NOTHING
    assert recent.ask(5 * FRAME) == NOTHING
    assert recent.add(6 * FRAME, "six") == Answer([], [4 * FRAME, 5 * FRAME])
    assert recent.ask(6 * FRAME) == Answer(["six"], [])
    assert recent.ask(6 * FRAME) == Answer([], [6 * FRAME])
    assert recent.ask(5 * FRAME) == Answer([], [5 * FRAME])


def test_old_images_and_old_stamps_are_given_up() -> None:
    recent: RecentImages[str] = RecentImages(2, len)
    for stamp in (1, 2, 3):
        recent.add(stamp * FRAME, str(stamp))
    assert recent.ask(1 * FRAME) == Answer([], [1 * FRAME])
    assert recent.ask(3 * FRAME) == Answer(["3"], [])
    assert [recent.ask(stamp * FRAME) for stamp in (10, 11, 12)] == [NOTHING, NOTHING, Answer([], [10 * FRAME])]


def test_stamps_that_never_come_true_leave_room_for_others() -> None:
    recent: RecentImages[str] = RecentImages(3, len)
    for number in range(10):
        recent.ask(10**18 + number * FRAME)
    for stamp in (1, 2, 3):
        assert recent.ask(stamp * FRAME).images == []
        assert recent.add(stamp * FRAME, str(stamp)) == Answer([str(stamp)], [])


def test_a_stamp_that_comes_twice_before_its_image_is_one() -> None:
    recent: RecentImages[str] = RecentImages(3, len)
    assert recent.ask(5 * FRAME) == recent.ask(5 * FRAME) == NOTHING
    assert recent.add(5 * FRAME, "five") == Answer(["five"], [])


def test_when_time_leaps_back_later_images_are_gone() -> None:
    recent: RecentImages[str] = RecentImages(10, len)
    recent.add(100 * FRAME, "late")
    recent.add(5 * FRAME, "early")
    assert recent.ask(5 * FRAME) == Answer(["early"], [])
    assert recent.ask(100 * FRAME) == NOTHING


def test_a_stamp_that_was_kept_as_a_double_names_its_image() -> None:
    """As ORB-SLAM keeps them: a quarter of a microsecond is the best that a double has for the seconds of our days."""
    recent: RecentImages[str] = RecentImages(30, len)
    stamps = [1_760_000_000_123_456_789 + 33_366_700 * number for number in range(60)]
    rounded = [int(stamp / 1e9 * 1e9) for stamp in stamps]
    assert sum(one != other for one, other in zip(stamps, rounded, strict=True)) > 50
    for number, (stamp, named) in enumerate(zip(stamps, rounded, strict=True)):
        if number % 2:
            assert recent.add(stamp, str(stamp)) == NOTHING
            assert recent.ask(named) == Answer([str(stamp)], [])
        else:
            assert recent.ask(named) == NOTHING
            assert recent.add(stamp, str(stamp)) == Answer([str(stamp)], [])


def test_of_two_images_the_nearer_one_is_named() -> None:
    recent: RecentImages[str] = RecentImages(10, len)
    recent.add(0, "one")
    recent.add(900_000, "two")
    assert recent.ask(500_000) == Answer(["two"], [])
    assert recent.ask(500_000) == Answer(["one"], [])
    assert recent.ask(3_000_000) == NOTHING
    assert recent.add(4_000_001, "too late for it") == Answer([], [3_000_000])


def test_large_images_are_limited_by_their_bytes() -> None:
    large = MOST_BYTES // 3
    recent: RecentImages[tuple[str, int]] = RecentImages(5, lambda image: image[1])
    fit = []
    for stamp in range(1, 5):
        recent.add(stamp * FRAME, ("large", large))
        fit.append(recent.fit)
    assert fit == [None, None, None, 3]
    assert recent.ask(1 * FRAME) == Answer([], [1 * FRAME])
    assert recent.ask(2 * FRAME) == Answer([("large", large)], [])
    recent.add(5 * FRAME, ("large", large))
    assert recent.ask(3 * FRAME) == Answer([("large", large)], [])  # room is made by what is asked for, too
    for stamp in range(6, 12):
        recent.add(stamp * FRAME, ("small", 1))
    assert recent.fit is None
    assert recent.ask(6 * FRAME) == Answer([], [6 * FRAME])  # five others have come since
    assert recent.ask(7 * FRAME) == Answer([("small", 1)], [])


def test_the_latest_image_is_kept_however_large() -> None:
    recent: RecentImages[int] = RecentImages(5, lambda image: image)
    recent.add(1 * FRAME, 1)
    recent.add(2 * FRAME, 2 * MOST_BYTES)
    assert recent.ask(1 * FRAME) == Answer([], [1 * FRAME])
    assert recent.ask(2 * FRAME) == Answer([2 * MOST_BYTES], [])
    for stamp in (9, 5, 5):  # the time leaps back, and a stamp comes twice: neither leaves bytes that nobody has
        recent.add(stamp * FRAME, MOST_BYTES)
    recent.add(6 * FRAME, 0)
    assert recent.ask(5 * FRAME) == Answer([MOST_BYTES], [])


@pytest.mark.parametrize("capacity", [1, 3])
@given(events=st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(-1_000_000, 1_000_000))))
def test_every_stamp_is_answered_once_at_most_and_by_its_own_image(
    events: list[tuple[bool, int, int]], capacity: int
) -> None:
    recent: RecentImages[int] = RecentImages(capacity, lambda _: MOST_BYTES // 2)
    asked, answered = 0, 0
    for is_image, frame, error in events:
        answer = recent.add(frame * FRAME, frame) if is_image else recent.ask(frame * FRAME + error)
        asked += not is_image
        answered += len(answer.images) + len(answer.without_image)
        assert answer.images in ([], [frame])
        assert answered <= asked
        assert len(recent._images) <= min(capacity, 2)
        assert len(recent._awaited) <= capacity
