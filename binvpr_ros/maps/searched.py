# SPDX-License-Identifier: Apache-2.0
"""SearchedKeyframes: what a loop is closed to, be it the robot's own map, or what a fleet's map has like the query."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.store import composed
from binvpr_ros.network.hamming import Descriptor

MOST_STEPS = 256
"""Along which motions are composed: errors add up."""
Integers = NDArray[np.signedinteger[Any]]


class SearchedKeyframes(Protocol):
    """Keyframes by ascending id, those of each session together, in columns; positions are those in the columns."""

    @property
    def maps(self) -> int:
        """How many maps the keyframes are of."""

    @property
    def foreign(self) -> int:
        """How many of them, the first, are of other robots, whose clocks do not tell what is too near in time."""

    def __len__(self) -> int:
        """Return the number K of keyframes."""

    @property
    def ids(self) -> Integers:
        """Ids [K], ascending."""

    @property
    def sessions(self) -> Integers:
        """Sessions [K]."""

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Stamps [K], nanoseconds."""

    @property
    def closes(self) -> Integers:
        """Ids [K] of the keyframes whose places they were found to show, or NOTHING_CLOSED."""

    @property
    def whereabouts(self) -> NDArray[np.float64]:
        """Whereabouts [K,5] by odometry (`KeyframeStore.whereabouts`)."""

    def motion(self, first: int, last: int) -> NDArray[np.float64] | None:
        """Return the homography [3,3] from the keyframe at position `last` to that at `first`, which is not after it.

        None where it is not known.
        """

    def views(self, descriptor: Descriptor, shift_cells: int) -> NDArray[np.uint64]:
        """Return `descriptor` as it would be with the image moved by up to so many cells, itself first: [V,W]."""

    def distances(self, views: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return the Hamming distance of the nearest of the query's views [V,W] to every keyframe [K]."""

    def typical(self, distances: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return distances [N] that stand for the map as a whole, given those to the keyframes [K] that are here."""

    def keyframe(self, index: int) -> Keyframe:
        """Return the keyframe at a position, without its features."""

    def features(self, keyframe: Keyframe) -> Features | None:
        """Return the features of a keyframe; None where there are none, or they cannot be read."""

    def camera_of(self, keyframe: Keyframe) -> Camera | None:
        """Return the camera that took the images of a keyframe's map, the latest of several; None if not known."""

    def calibration_is_sure(self, keyframe: Keyframe) -> bool:
        """Tell whether `camera_of` a keyframe surely took its image."""


def motion_along(steps: NDArray[np.floating[Any]]) -> NDArray[np.float64] | None:
    """Return the motion [3,3] along `steps` [N,9]; None where that of one is not known, or they are too many."""
    if len(steps) > MOST_STEPS or np.isnan(steps).any():
        return None
    motion = np.eye(3).ravel()
    for step in steps:
        motion = composed(motion, step)
    return motion.reshape(3, 3)
