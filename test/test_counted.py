# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from binvpr_ros.counted import counted


def test_one_thing_and_several() -> None:
    assert [counted(number, "keyframe") for number in range(3)] == ["0 keyframes", "1 keyframe", "2 keyframes"]
