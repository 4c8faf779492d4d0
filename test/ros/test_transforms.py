# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
from geometry_msgs.msg import Quaternion, Transform, Vector3

from binvpr_ros.ros.transforms import matrix_of, message_of, pose_in, pose_of
from binvpr_ros.slam.poses import FORWARD_CAMERA, inverse, transform_of

LINK = transform_of([0.1, 0.0, 0.3], [0.0, 0.0, 0.0, 1.0])
SENSOR = transform_of([0.0, 0.02, 0.0], [0.0, 0.1, 0.0, 1.0])
STATICS = {
    "camera_link": ("base_link", LINK),
    "camera_sensor": ("camera_link", SENSOR),
    "camera_optical": ("camera_sensor", FORWARD_CAMERA),
    "base_link": ("base_footprint", transform_of([0.0, 0.0, 0.05], [0.0, 0.0, 0.0, 1.0])),
    "one": ("other", LINK),
    "other": ("one", LINK),
}


def test_messages_and_matrices() -> None:
    matrix = transform_of([1.0, 2.0, 3.0], [0.1, -0.2, 0.3, 0.9])
    back = matrix_of(message_of(matrix))
    assert back is not None
    np.testing.assert_allclose(back, matrix)
    pose = pose_of(matrix)
    assert (pose.position.x, pose.position.z) == (1.0, 3.0)
    assert pose.orientation.w == message_of(matrix).rotation.w


@pytest.mark.parametrize("rotation", [Quaternion(w=0.0), Quaternion(w=float("nan"))])
def test_what_is_no_transform(rotation: Quaternion) -> None:
    assert matrix_of(Transform(translation=Vector3(x=1.0), rotation=rotation)) is None


def test_a_camera_is_found_through_frames_between() -> None:
    found = pose_in(STATICS, "camera_optical", "base_link")
    assert found is not None
    np.testing.assert_allclose(found, LINK @ SENSOR @ FORWARD_CAMERA)


def test_a_camera_is_found_where_the_robot_is_beside_it_in_the_tree() -> None:
    beside = pose_in(STATICS | {"wheels": ("base_link", LINK)}, "camera_link", "wheels")
    assert beside is not None
    np.testing.assert_allclose(beside, np.eye(4), atol=1e-12)
    below = pose_in(STATICS, "base_footprint", "camera_link")
    assert below is not None
    np.testing.assert_allclose(below, inverse(STATICS["base_link"][1] @ LINK))


@pytest.mark.parametrize("frame", ["one", "somewhere"])
def test_frames_that_are_not_joined(frame: str) -> None:
    assert pose_in(STATICS, "camera_optical", frame) is None
