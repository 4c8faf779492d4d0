# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from binvpr_ros.loop_constraint import quaternion_from_rotation, rotation_from_quaternion


@pytest.mark.parametrize("seed", range(20))
def test_a_rotation_survives_as_a_quaternion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    # Half a turn is where the usual formulas divide by zero.
    angle = np.pi if seed % 2 else rng.uniform(0, np.pi)
    rotation = np.asarray(cv2.Rodrigues(angle * axis / np.linalg.norm(axis))[0], np.float64)
    quaternion = quaternion_from_rotation(rotation)
    assert np.linalg.norm(quaternion) == pytest.approx(1)
    assert quaternion[3] >= 0
    np.testing.assert_allclose(rotation_from_quaternion(quaternion), rotation, atol=1e-12)
    np.testing.assert_allclose(rotation_from_quaternion(-3 * quaternion), rotation, atol=1e-12)


def test_the_order_is_x_y_z_w() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(quaternion_from_rotation(np.eye(3)), [0, 0, 0, 1], atol=1e-12)
    quarter_about_z = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(quaternion_from_rotation(quarter_about_z), [0, 0, half, half], atol=1e-12)
