# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.ros.closures import LoopClosureRow, read_loop_closures
from binvpr_ros.ros.messages import from_nanoseconds, message_from_closures

BITS = np.zeros(32, np.uint64)
QUERY = Keyframe(40, 2, 1_790_000_000_200_000_003, BITS)


def test_rows_have_all_that_was_published_best_first() -> None:
    earlier = Keyframe(3, 2, 1_789_999_900_500_000_001, BITS)
    of_another_session = Keyframe(1, 0, 1_700_000_000_000_000_000, BITS)
    found = [LoopClosure(QUERY, earlier, 500, 0.75, 25), LoopClosure(QUERY, of_another_session, 600, 0.5)]
    message = message_from_closures(Header(stamp=from_nanoseconds(QUERY.stamp)), found)
    rows = read_loop_closures(message)
    assert rows == [
        LoopClosureRow(QUERY.stamp, earlier.stamp, 40, 3, 2, 2, 500, 0.75, 25),
        LoopClosureRow(QUERY.stamp, of_another_session.stamp, 40, 1, 2, 0, 600, 0.5, -1),
    ]
    assert [row.is_relocalisation for row in rows] == [False, True]
    assert all(type(value) in (int, float) for row in rows for value in row)


def test_a_message_without_rows_has_none() -> None:
    assert read_loop_closures(message_from_closures(Header(), [])) == []


def test_another_point_cloud_is_refused() -> None:
    with pytest.raises(ValueError, match="no table of loop closures: its fields differ"):
        read_loop_closures(PointCloud2())


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 5), ("width", 0), ("height", 2), ("row_step", 36), ("point_step", 18), ("data", b""),
     ("data", bytes(71)), ("data", bytes(36)), ("data", bytes(3 * 72))],
)  # fmt: skip
def test_data_of_another_size_are_refused(field: str, value: int | bytes) -> None:
    closure = LoopClosure(QUERY, Keyframe(3, 2, 1_789_999_900_500_000_001, BITS), 500, 0.75, 25)
    message = message_from_closures(Header(), [closure, closure])
    assert len(read_loop_closures(message)) == 2
    setattr(message, field, value)
    with pytest.raises(ValueError, match="its size is not that of its data; check the topic"):
        read_loop_closures(message)
