# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.pose_errors import PoseError, figures, pose_error
from binvpr_ros.loop_constraint import RelativePose

Array = NDArray[np.float64]


def turned(*vector: float) -> Array:
    return np.asarray(cv2.Rodrigues(np.array(vector))[0], np.float64)


def test_an_error_with_scale_is_in_metres_and_degrees() -> None:
    truth = turned(0.1, -0.2, 0.3), np.array([1.0, 2, 3])
    pose = RelativePose(turned(0, 0, -0.02) @ truth[0], np.array([1.0, 2, 3.05]), 0.03**2 * np.eye(6), True, 50)
    found = pose_error(pose, *truth)
    assert (found.scale_known, found.inside) == (True, True)
    assert (found.translation, found.rotation) == pytest.approx((0.05, np.rad2deg(0.02)))
    assert not pose_error(RelativePose(*truth_of(pose), 0.01**2 * np.eye(6), True, 50), *truth).inside


def truth_of(pose: RelativePose) -> tuple[Array, Array]:
    return pose.rotation, pose.translation


@pytest.mark.parametrize("angle", [0.05, 3.0])
def test_an_error_without_scale_is_an_angle(angle: float) -> None:
    direction = np.array([1.0, 0, 0])
    covariance = np.diag([0, 0.04**2, 0.04**2, 0.01**2, 0.01**2, 0.01**2])
    pose = RelativePose(np.eye(3), direction, covariance, False, 50)
    found = pose_error(pose, np.eye(3), 7 * np.array([np.cos(angle), np.sin(angle), 0]))
    assert found.translation == pytest.approx(np.rad2deg(angle))
    assert found.rotation == 0
    assert found.inside == (angle < 1)


@pytest.mark.parametrize("numbers", [6, 5])
def test_of_errors_with_a_true_covariance_95_percent_are_inside(numbers: int) -> None:
    rng, inside = np.random.default_rng(numbers), []
    for _ in range(2000):
        root = 0.02 * rng.normal(size=(6, 6))
        translation = np.array([0.0, 0, 1])
        if numbers == 5:
            root[2] = 0
        off = root @ rng.normal(size=6)
        there = translation + off[:3]
        if numbers == 5:
            across = np.linalg.norm(off[:2])
            there = np.array([*(np.sin(across) * off[:2] / across), np.cos(across)])
        pose = RelativePose(np.eye(3), translation, root @ root.T, numbers == 6, 50)
        inside.append(pose_error(pose, turned(*off[3:]), there).inside)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_figures_are_of_both_kinds() -> None:
    errors = [PoseError(True, 0.02, 0.5, True), PoseError(True, 0.04, 1.5, False), PoseError(True, 0.03, 1.0, True)]
    assert figures(errors) == {
        "with_scale": {
            "number": 3, "median_metres": 0.03, "median_rotation_degrees": 1.0, "within_95": pytest.approx(0.667),
        },
        "without_scale": None,
    }  # fmt: skip
    assert figures([]) == {"with_scale": None, "without_scale": None}
