# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.stamps import StampError, Stamps

WINDOW = 10.0


def fates(seconds: list[float], chosen: bool = False) -> list[str]:
    """Return what becomes of images with these stamps: "+" follows, "-" is refused, "new" begins a session."""
    stamps = Stamps()
    found = []
    for second in seconds:
        try:
            new = stamps.advance(round(second * NANOSECONDS), WINDOW, chosen)
        except StampError:
            found.append("-")
        else:
            found.append("new" if new else "+")
    return found


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([5, 6, 16], ["+", "+", "+"]),  # up to the window ahead
        ([5, 5, 4.9, 6], ["+", "-", "-", "+"]),  # late images say nothing
        ([5, 3.9, 4.5, 4.9], ["+", "-", "-", "new"]),  # unless they go on in order for a second
        ([5, 4, 3.5, 4.4], ["+", "-", "-", "-"]),
        ([5, 90, 6], ["+", "-", "+"]),  # one leap may be a mistake
        ([5, 90, 91], ["+", "-", "+"]),  # a second image confirms it
        ([90, 5, 6], ["+", "-", "new"]),  # back, in a new session
        ([90, 5, 4], ["+", "-", "-"]),
        ([0, 12, 24, 36], ["+", "-", "+", "+"]),  # images that come seldom, once their interval is known
    ],
)
def test_what_follows_and_what_leaps(seconds: list[float], expected: list[str]) -> None:
    assert fates(seconds) == expected


def test_what_a_back_end_chose_may_leap_ahead_and_not_back() -> None:
    assert fates([5, 90, 200], chosen=True) == ["+", "+", "+"]
    assert fates([90, 5, 6], chosen=True) == ["+", "-", "new"]


def test_the_sentence_says_which_way_it_is_off() -> None:
    stamps = Stamps()
    stamps.advance(5 * NANOSECONDS, WINDOW)
    with pytest.raises(StampError, match=r"its stamp \(4\.500 s\) is not later than the last image's"):
        stamps.advance(4_500_000_000, WINDOW)
    with pytest.raises(StampError, match=r"its stamp leaps by 95\.000 s"):
        stamps.advance(100 * NANOSECONDS, WINDOW)
