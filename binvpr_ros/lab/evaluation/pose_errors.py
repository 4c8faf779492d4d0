# SPDX-License-Identifier: Apache-2.0
"""By how much the relative poses of closures are off, and whether their covariances say so.

An error of a pose with scale is six numbers, metres and radians; without, five: the angle to the true direction of
travel, in its tangent, and the rotation. It is inside where its Mahalanobis distance is within that of 95% of a normal
distribution: of a true covariance 95% are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.loop_constraint import RelativePose

CHI_SQUARE_95 = {5: 11.070, 6: 12.592}
"""By how many numbers an error is."""

Array = NDArray[np.float64]


class PoseError(NamedTuple):
    """Of one relative pose."""

    scale_known: bool
    translation: float  # metres; without scale, degrees between the directions
    rotation: float  # degrees
    inside: bool  # the ellipsoid that holds 95%


def pose_error(pose: RelativePose, rotation: Array, translation: Array) -> PoseError:
    """Return the error of a pose, of which the true `rotation` [3,3] and `translation` [3] (metres) are known."""
    turn = np.asarray(cv2.Rodrigues(rotation @ pose.rotation.T)[0], np.float64).ravel()
    if pose.scale_known:
        off, covariance = translation - pose.translation, pose.covariance
        length = float(np.linalg.norm(off))
    else:
        tangent = np.linalg.svd(pose.translation[np.newaxis])[2][1:]
        across = tangent @ translation
        sine = float(np.linalg.norm(across))
        angle = np.arctan2(sine, float(pose.translation @ translation))
        off = across / sine * angle if sine else np.array([angle, 0.0])
        chosen = np.zeros((5, 6))
        chosen[:2, :3], chosen[2:, 3:] = tangent, np.eye(3)
        covariance = chosen @ pose.covariance @ chosen.T
        length = float(np.rad2deg(angle))
    error = np.concatenate([off, turn])
    square = float(error @ np.linalg.pinv(covariance, hermitian=True) @ error)
    degrees = float(np.rad2deg(np.linalg.norm(turn)))
    return PoseError(pose.scale_known, length, degrees, square <= CHI_SQUARE_95[len(error)])


def figures(errors: Iterable[PoseError]) -> dict[str, Any]:
    """Return number, medians, and the share of errors inside, of poses with scale and of those without."""
    found = list(errors)
    return {
        name: _figures([error for error in found if error.scale_known == known], unit)
        for name, known, unit in (("with_scale", True, "metres"), ("without_scale", False, "direction_degrees"))
    }


def _figures(errors: list[PoseError], unit: str) -> dict[str, Any] | None:
    if not errors:
        return None
    return {
        "number": len(errors),
        f"median_{unit}": round(float(np.median([error.translation for error in errors])), 4),
        "median_rotation_degrees": round(float(np.median([error.rotation for error in errors])), 3),
        "within_95": round(float(np.mean([error.inside for error in errors])), 3),
    }
