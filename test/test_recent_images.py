# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binvpr_ros.recent_images import Answer, RecentImages

NOTHING: Answer[str] = Answer([], [])


def test_a_stamp_after_its_image_and_before_it() -> None:
    recent: RecentImages[str] = RecentImages(10)
    assert recent.add(1, "one") == recent.add(2, "two") == NOTHING
    assert recent.ask(1) == Answer(["one"], [])
    assert recent.ask(4) == NOTHING
    assert recent.add(3, "three") == NOTHING
    assert recent.add(4, "four") == Answer(["four"], [])
    assert recent.ask(2) == Answer(["two"], [])


def test_a_stamp_for_which_no_image_came() -> None:
    recent: RecentImages[str] = RecentImages(10)
    recent.add(1, "one")
    recent.add(3, "three")
    assert recent.ask(2) == Answer([], [2])
    assert recent.ask(4) == NOTHING
    assert recent.ask(5) == NOTHING
    assert recent.add(6, "six") == Answer([], [4, 5])
    assert recent.ask(6) == Answer(["six"], [])
    assert recent.ask(6) == Answer([], [6])
    assert recent.ask(5) == Answer([], [5])


def test_old_images_and_old_stamps_are_given_up() -> None:
    recent: RecentImages[str] = RecentImages(2)
    for stamp in (1, 2, 3):
        recent.add(stamp, str(stamp))
    assert recent.ask(1) == Answer([], [1])
    assert recent.ask(3) == Answer(["3"], [])
    assert [recent.ask(stamp) for stamp in (10, 11, 12)] == [NOTHING, NOTHING, Answer([], [10])]


def test_stamps_that_never_come_true_leave_room_for_others() -> None:
    recent: RecentImages[str] = RecentImages(3)
    for number in range(10):
        recent.ask(10**18 + number)
    for stamp in (1, 2, 3):
        assert recent.ask(stamp).images == []
        assert recent.add(stamp, str(stamp)) == Answer([str(stamp)], [])


def test_a_stamp_that_comes_twice_before_its_image_is_one() -> None:
    recent: RecentImages[str] = RecentImages(3)
    assert recent.ask(5) == recent.ask(5) == NOTHING
    assert recent.add(5, "five") == Answer(["five"], [])


def test_when_time_leaps_back_later_images_are_gone() -> None:
    recent: RecentImages[str] = RecentImages(10)
    recent.add(100, "late")
    recent.add(5, "early")
    assert recent.ask(5) == Answer(["early"], [])
    assert recent.ask(100) == NOTHING


@pytest.mark.parametrize("capacity", [1, 3])
@given(events=st.lists(st.tuples(st.booleans(), st.integers(0, 12))))
def test_every_stamp_is_answered_once_at_most_and_by_its_own_image(
    events: list[tuple[bool, int]], capacity: int
) -> None:
    recent: RecentImages[int] = RecentImages(capacity)
    asked, answered = 0, 0
    for is_image, stamp in events:
        answer = recent.add(stamp, stamp) if is_image else recent.ask(stamp)
        asked += not is_image
        answered += len(answer.images) + len(answer.without_image)
        if not is_image:
            assert answer.images in ([], [stamp])
        assert answered <= asked
        assert len(recent._images) <= capacity
        assert len(recent._awaited) <= capacity
