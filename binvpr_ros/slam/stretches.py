# SPDX-License-Identifier: Apache-2.0
"""Stretches of a route between two joints: what odometry says of the keyframes there, added up.

The poses of a stretch's keyframes follow from those of its ends, as no other measurement is of them: of the error that
has added up at its end, each has the share that is the most likely by the noise of odometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.slam.poses import Transform, adjoints, carried, inverse, moved, twists_of


@dataclass
class Stretch:
    """Keyframes after the joint `start`, whose numbers follow its own; the last one is a joint too where `is_closed`.

    `motions` [4,4] are their poses in the frame of the start by odometry, `noise` [6,6] the covariances of the twists
    on the left of these by which that is off.
    """

    start: int
    motions: list[Transform] = field(default_factory=list)
    noise: list[NDArray[np.float64]] = field(default_factory=list)
    is_closed: bool = False
    factor: int | None = None  # its number in the solver

    @property
    def end(self) -> int:
        """The number of the last keyframe."""
        return self.start + len(self.motions)

    def extend(self, motion: Transform, covariance: NDArray[np.float64]) -> None:
        """Add a keyframe: its pose [4,4] in the frame of the last one, and the covariance [6,6] on its right."""
        pose = self.motions[-1] @ motion if self.motions else motion
        added = carried(covariance, adjoints(pose))
        self.noise.append(self.noise[-1] + added if self.noise else added)
        self.motions.append(pose)

    def motion_to(self, number: int) -> Transform:
        """Return the pose [4,4] of a keyframe in the frame of the start, by odometry."""
        return self.motions[number - self.start - 1] if number > self.start else np.eye(4)

    def whole(self) -> tuple[Transform, NDArray[np.float64]]:
        """Return the pose [4,4] of the end in the frame of the start, and its covariance [6,6] as in poses.py."""
        return self.motions[-1], carried(self.noise[-1], adjoints(inverse(self.motions[-1])))

    def split(self, number: int) -> tuple[Stretch, Stretch]:
        """Return the stretches before and after a keyframe, which becomes a joint."""
        count = number - self.start
        before = Stretch(self.start, self.motions[:count], self.noise[:count], True)
        after = Stretch(number, is_closed=self.is_closed)
        if len(self.motions) > count:
            back = inverse(self.motions[count - 1])
            after.motions = list(back @ np.stack(self.motions[count:]))
            after.noise = list(carried(np.stack(self.noise[count:]) - self.noise[count - 1], adjoints(back)))
        return before, after


def between(stretches: Sequence[Stretch], poses: dict[int, Transform]) -> dict[int, Transform]:
    """Return the poses [4,4] of all keyframes that are no joints, by their numbers, from those of the joints."""
    some = [one for one in stretches if len(one.motions) > one.is_closed]
    if not some:
        return {}
    starts = np.stack([poses[one.start] for one in some])
    ends = np.stack([poses[one.end] if one.is_closed else poses[one.start] @ one.motions[-1] for one in some])
    off = twists_of(inverse(starts) @ ends @ inverse(np.stack([one.motions[-1] for one in some])))
    weights = np.linalg.solve(np.stack([one.noise[-1] for one in some]), off[..., None])
    # Of each keyframe: of which stretch it is, and its place there.
    of, places = np.array([
        (number, place) for number, one in enumerate(some) for place in range(len(one.motions) - one.is_closed)
    ]).T  # fmt: skip
    motions, noise = (
        np.stack([getattr(some[one], name)[place] for one, place in zip(of.tolist(), places.tolist(), strict=True)])
        for name in ("motions", "noise")
    )
    shares = (noise @ weights[of])[..., 0]
    numbers = np.array([one.start for one in some])[of] + 1 + places
    return dict(zip(numbers.tolist(), starts[of] @ moved(shares) @ motions, strict=True))
