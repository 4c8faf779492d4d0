# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from binvpr_ros.loop_constraint import LoopConstraint, RelativePose
from binvpr_ros.ros.constraints import read_loop_constraints
from binvpr_ros.ros.messages import (
    LOOP_CONSTRAINT_ROW,
    from_nanoseconds,
    message_from_closures,
    message_from_constraints,
)

QUERY_STAMP = 1_790_000_000_200_000_003


def constraint(seed: int, scale_known: bool = True) -> LoopConstraint:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    translation = rng.normal(size=3)
    rotation = np.asarray(cv2.Rodrigues(rng.normal(size=3))[0], np.float64)
    if not scale_known:
        translation /= np.linalg.norm(translation)
        root[:3] -= np.outer(translation, translation @ root[:3])
    pose = RelativePose(rotation, translation, root @ root.T, scale_known, 40 + seed)
    return LoopConstraint(90, seed, 2, 0, QUERY_STAMP, 1_700_000_000_999_999_999 + seed, pose)


def changed(message: PointCloud2, field: str, value: Any, at: int = 0) -> PointCloud2:
    """Return the message with a number of its first row changed."""
    rows = np.frombuffer(bytes(message.data), LOOP_CONSTRAINT_ROW).copy()
    if rows[field].ndim > 1:
        rows[field][0, at] = value
    else:
        rows[field][0] = value
    message.data = rows.tobytes()
    return message


def test_constraints_survive_the_wire() -> None:
    sent = [constraint(0), constraint(1, scale_known=False)]
    message = message_from_constraints(Header(stamp=from_nanoseconds(QUERY_STAMP), frame_id="camera"), sent)
    message = deserialize_message(serialize_message(message), PointCloud2)
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 2, 384, 768)
    assert message.is_dense
    assert (message.fields[-1].name, message.fields[-1].count) == ("covariance", 36)
    assert message.fields[-1].datatype == PointField.FLOAT64
    received = read_loop_constraints(message)
    for one, other in zip(sent, received, strict=True):
        numbers, others = (
            {key: value for key, value in dataclasses.asdict(some).items() if key != "pose"} for some in (one, other)
        )
        assert numbers == others
        np.testing.assert_allclose(other.pose.rotation, one.pose.rotation, atol=1e-12)
        np.testing.assert_array_equal(other.pose.translation, one.pose.translation)
        np.testing.assert_array_equal(other.pose.covariance, one.pose.covariance)
        assert (other.pose.scale_known, other.pose.inliers) == (one.pose.scale_known, one.pose.inliers)


def test_a_message_without_rows_has_none() -> None:
    assert read_loop_constraints(message_from_constraints(Header(), [])) == []


def test_another_point_cloud_is_refused() -> None:
    for other in (PointCloud2(), message_from_closures(Header(), [])):
        with pytest.raises(ValueError, match="no table of loop constraints: its fields differ"):
            read_loop_constraints(other)


@pytest.mark.parametrize(
    ("field", "value"), [("width", 2), ("height", 2), ("row_step", 36), ("data", b""), ("data", bytes(383))]
)
def test_data_of_another_size_are_refused(field: str, value: int | bytes) -> None:
    message = message_from_constraints(Header(), [constraint(0)])
    setattr(message, field, value)
    with pytest.raises(ValueError, match="its size is not that of its data; check the topic"):
        read_loop_constraints(message)


@pytest.mark.parametrize(
    ("field", "value", "at", "sentence"),
    [
        ("x", np.nan, 0, "not finite"),
        ("covariance", np.inf, 7, "not finite"),
        ("qx", 0.9, 0, "quaternion"),
        ("qw", 1e308, 0, "quaternion"),
        ("scale_known", 2, 0, "scale_known of a loop constraint is 2"),
        ("covariance", -1.0, 0, "positive semidefinite"),
        ("covariance", 9.0, 1, "symmetric"),
        ("covariance", 1e308, 1, "covariance larger than 1e\\+08"),
        ("covariance", 1e16, 35, "covariance larger than 1e\\+08"),
        ("x", 1e6, 0, "farther than 1e\\+05 m"),
        ("x", 1e308, 0, "farther than 1e\\+05 m"),
    ],
)
def test_numbers_that_are_no_pose_are_refused(field: str, value: float, at: int, sentence: str) -> None:
    message = changed(message_from_constraints(Header(), [constraint(0)]), field, value, at)
    with pytest.raises(ValueError, match=sentence):
        read_loop_constraints(message)


def test_a_direction_is_of_length_one() -> None:
    message = message_from_constraints(Header(), [constraint(1, scale_known=False)])
    assert len(read_loop_constraints(message)) == 1
    with pytest.raises(ValueError, match="direction"):
        read_loop_constraints(changed(message, "x", 2.0))


def test_a_negative_variance_beside_a_large_one_is_refused() -> None:
    known = constraint(0)
    off = dataclasses.replace(known.pose, covariance=np.diag([1e6, 1, 1, 1, 1, -0.9]))
    with pytest.raises(ValueError, match="positive semidefinite"):
        read_loop_constraints(message_from_constraints(Header(), [dataclasses.replace(known, pose=off)]))


def test_a_covariance_of_zeros_is_one() -> None:
    known = constraint(0)
    exact = dataclasses.replace(known, pose=dataclasses.replace(known.pose, covariance=np.zeros((6, 6))))
    assert read_loop_constraints(message_from_constraints(Header(), [exact]))
