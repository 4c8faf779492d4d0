# SPDX-License-Identifier: Apache-2.0
"""Drives: stamped images, each matched only against earlier ones.

Two images of a drive show the *same* place, or places *apart*, or are *near*: between the two. Where the poses of the
camera are known, same is within a radius and an angle between the optical axes, and apart beyond 2.5 radii or 60
degrees: the camera's roll makes no view another place. A closure of images that are near may still be right. Whether it
is, the epipolar geometry of the true poses tells: what really shows one scene obeys it.
"""

from __future__ import annotations

import dataclasses
import enum
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.cameras import read_camera
from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, DatasetError, Images, Options, with_more
from binvpr_ros.lab.evaluation.datasets.depths import Depths
from binvpr_ros.lab.evaluation.datasets.files import STAMP_BEHIND, WITHOUT_POSE
from binvpr_ros.lab.evaluation.datasets.published import Published
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth, Truth, Views, ViewTruth
from binvpr_ros.local_features.camera import Camera

ORTHOGONALITY = 0.02
"""By how much the rows of a rotation matrix may fail to be unit vectors at right angles: files round, cameras drift."""
POSE_TOLERANCE = 0.02
"""Seconds by which the stamps of an image and of its pose may differ."""
EPIPOLAR_SHARE = 10 / 640
"""Of the image's width, within which a match obeys the true poses: they, and the clocks, are not exact."""
BESIDE = 1.0
"""Seconds around a listed pair of images, in which others may show its place though the list does not say so."""
OPTICAL = {
    "z": np.eye(3),
    "-z": np.diag([1.0, -1.0, -1.0]),
    "x": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
}
"""By camera axis: the rotation [3,3] from the optical frame (x right, y down, z ahead) to the frame of the poses."""


class Relation(enum.IntEnum):
    """What two images of drives show."""

    SAME = 0
    NEAR = 1
    APART = 2


@dataclass(frozen=True, eq=False)
class ImageSequence(Dataset):
    """A drive of N images; `queries` and `references` are the same images."""

    stamps: NDArray[np.int64]  # [N], nanoseconds, ascending
    exclude_seconds: float
    camera: Camera | None = field(default=None, kw_only=True)
    place: str = field(default="", kw_only=True)  # drives of one place have the same; "": not known
    depths: Depths | None = field(default=None, kw_only=True)  # None: not recorded

    @cached_property
    def candidates(self) -> NDArray[np.int64]:
        """How many images [N], from the first on, are older than each by at least `exclude_seconds`."""
        return in_the_past(self.stamps, self.exclude_seconds)

    def relations(self, queries: NDArray[np.integer], matches: NDArray[np.integer]) -> NDArray[np.int8]:
        """Return the Relation of each of the pairs [C] of images, whichever came first."""
        raise NotImplementedError

    def obeys_poses(self, query: int, match: int, rays: NDArray[np.floating], theirs: NDArray[np.floating]) -> bool:
        """Tell whether half of the matches of two images, or more, obey the true poses.

        `rays` [M,2] are where those of the query meet the plane one ahead of the camera, `theirs` [M,2] those of the
        match. Returns True if the poses of the camera are unknown.
        """
        del query, match, rays, theirs
        return True

    def rolls(self, queries: NDArray[np.integer], matches: NDArray[np.integer]) -> NDArray[np.float64] | None:
        """Return by how many degrees [C] the camera has rolled between pairs [C] of images; None where unknown."""
        del queries, matches
        return None

    def motion(self, query: int, match: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return the pose of the camera of an image in the frame of another's: rotation [3,3] and translation [3].

        Both frames are optical, lengths in metres; None where they are unknown.
        """
        del query, match
        return None


def in_the_past(stamps: NDArray[np.int64], seconds: float) -> NDArray[np.int64]:
    """Return how many of the ascending `stamps` [N] lie before each by at least `seconds`, and before it at all."""
    older = np.searchsorted(stamps, stamps - round(seconds * NANOSECONDS), side="right")
    return np.minimum(older, np.arange(len(stamps)))


PosedKind = TypeVar("PosedKind", bound="PosedSequence")


@dataclass(frozen=True, eq=False)
class PosedSequence(ImageSequence):
    """A drive whose poses are known."""

    positions: NDArray[np.float64]  # [N,3], metres
    rotations: NDArray[np.float64]  # [N,3,3], to the world from the optical frame where `optical`, else from any
    optical: bool

    usual_radius: ClassVar[float] = 0.6  # metres
    usual_angle: ClassVar[float] = 40.0  # degrees

    @classmethod
    def from_poses(
        cls: type[PosedKind],
        name: str,
        images: Images,
        stamps: NDArray[np.int64],
        positions: NDArray[np.float64],
        rotations: NDArray[np.float64],
        options: Options,
        *,
        optical: bool,
        camera: Camera | None = None,
        left_out: Mapping[str, int] | None = None,
        depths: Depths | None = None,
    ) -> PosedKind:
        """Make a sequence of N images from stamps [N] (nanoseconds), positions [N,3] (metres) and rotations [N,3,3].

        The rotations lead to the world from the camera's optical frame (x right, y down, z ahead) where `optical`, else
        from the frame of something that the camera is fixed to. Images without a pose, and those whose stamps do not
        advance, are left out, beside those that the layout has `left_out` already (by the reason). Raises DatasetError
        where fewer than two images are left.
        """
        if not len(images) == len(stamps) == len(positions) == len(rotations):
            raise DatasetError(
                f"{name} has {len(images)} images, {len(stamps)} stamps and {len(positions)} poses; "
                "give each image one of each"
            )
        # What is not a number compares as False, so it is no pose either; a quaternion of zeros comes here as that.
        with np.errstate(invalid="ignore"):
            orthogonal = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) < ORTHOGONALITY
            right_handed = np.linalg.det(rotations) > 0
        posed = np.flatnonzero(orthogonal & right_handed & np.isfinite(positions).all(axis=1))
        counts = with_more(left_out or {}, WITHOUT_POSE, len(stamps) - len(posed))
        kept = posed[longest_ascent(stamps[posed])]
        counts = with_more(counts, STAMP_BEHIND, len(posed) - len(kept))
        if len(kept) < 2:
            reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
            raise DatasetError(
                f"{name} has {len(kept)} images with a pose and a stamp of their own"
                f"{f' (left out: {reasons})' if reasons else ''}; a drive needs at least two"
            )
        images, stamps, positions, rotations = images.take(kept), stamps[kept], positions[kept], rotations[kept]
        published = Published.of(name)
        if options.camera_axis:
            rotations, optical = rotations @ OPTICAL[options.camera_axis], True
        radius = first_of(options.radius, published.radius, cls.usual_radius)
        angle = first_of(options.angle, published.angle, cls.usual_angle)
        conditions = (
            f"same place: within {radius:g} m and {angle:g} degrees between "
            f"{'the optical axes' if optical else 'the poses, roll included, since the camera axis is not known'}; "
            f"matches must be at least {options.exclude_seconds:g} s older"
        )
        views = Views(positions, rotations[:, :, 2]) if optical else Views(positions, None, rotations)
        candidates = in_the_past(stamps, options.exclude_seconds)
        apart_radius = max(options.apart_radii, 1.0) * radius
        return cls(
            name, images, images,
            ViewTruth(views, views, radius, angle, apart_radius, max(options.apart_angle, angle), candidates), stamps,
            options.exclude_seconds, positions, rotations, optical, conditions=conditions, left_out=counts,
            camera=read_camera(options.camera) if options.camera else camera or published.camera,
            place=published.place, depths=depths.take(kept) if depths else None,
        )  # fmt: skip

    def relations(self, queries: NDArray[np.integer], matches: NDArray[np.integer]) -> NDArray[np.int8]:
        """Return the Relation of each of the pairs [C] of images, whichever came first."""
        same, apart = self._truth.of_pairs(queries, matches)
        return np.where(same, Relation.SAME, np.where(apart, Relation.APART, Relation.NEAR)).astype(np.int8)

    def obeys_poses(self, query: int, match: int, rays: NDArray[np.floating], theirs: NDArray[np.floating]) -> bool:
        """Tell whether half of the matches of two images, or more, obey the epipolar geometry of the true poses.

        `rays` [M,2] are where those of the query meet the plane one ahead of the camera, `theirs` [M,2] those of the
        match. Returns True if the camera, or its axis, is unknown.
        """
        if not self.optical or self.camera is None or not len(rays):
            return True
        rotation, translation = self._motion(query, match)
        offsets = epipolar_offsets(rotation, translation, rays, theirs) * self.camera.focal_length
        return bool((offsets <= EPIPOLAR_SHARE * self.camera.size[0]).mean() >= 0.5)

    def rolls(self, queries: NDArray[np.integer], matches: NDArray[np.integer]) -> NDArray[np.float64] | None:
        """Return by how many degrees [C] the camera has rolled between pairs [C] of images; None where unknown."""
        if not self.optical:
            return None
        turns = self.rotations[matches].transpose(0, 2, 1) @ self.rotations[queries]
        # The twist about the axis z, of the decomposition of a rotation into a swing and a twist.
        return np.abs(np.rad2deg(np.arctan2(turns[:, 1, 0] - turns[:, 0, 1], turns[:, 0, 0] + turns[:, 1, 1])))

    def motion(self, query: int, match: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return the pose of the camera of an image in the frame of another's, as of ImageSequence."""
        return self._motion(query, match) if self.optical else None

    def _motion(self, query: int, match: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        to_match = self.rotations[match].T
        return to_match @ self.rotations[query], to_match @ (self.positions[query] - self.positions[match])

    @property
    def _truth(self) -> ViewTruth:
        assert isinstance(self.truth, ViewTruth)  # noqa: S101 - from_poses has made it
        return self.truth

    def _take(
        self: PosedKind, queries: Sequence[int], references: Sequence[int], left_out: Mapping[str, int]
    ) -> PosedKind:
        taken = super()._take(queries, references, left_out)
        return dataclasses.replace(
            taken, references=taken.queries, stamps=self.stamps[queries], positions=self.positions[queries],
            rotations=self.rotations[queries], depths=self.depths.take(queries) if self.depths else None,
        )  # fmt: skip


ListedKind = TypeVar("ListedKind", bound="ListedSequence")


@dataclass(frozen=True, eq=False)
class ListedSequence(ImageSequence):
    """A drive without poses, whose loops are listed: pairs of images that show one place."""

    listed: Truth = field(repr=False)  # [N,N], both ways, whether or not the one may match the other

    @classmethod
    def from_pairs(
        cls: type[ListedKind],
        name: str,
        images: Images,
        stamps: NDArray[np.int64],
        pairs: NDArray[np.integer],
        options: Options,
        left_out: Mapping[str, int] | None = None,
    ) -> ListedKind:
        """Make a sequence of N images from stamps [N] (nanoseconds) and pairs [P,2] of images, in either order.

        Images whose stamps do not advance are left out. Raises DatasetError where fewer than two are left.
        """
        kept = longest_ascent(stamps)
        counts = with_more(left_out or {}, STAMP_BEHIND, len(stamps) - len(kept))
        if len(kept) < 2:
            raise DatasetError(f"{name} has {len(kept)} images whose stamps advance; a drive needs at least two")
        at = np.full(len(stamps), -1)
        at[kept] = np.arange(len(kept))
        pairs = at[pairs]
        pairs = pairs[(pairs >= 0).all(axis=1)]
        both = np.concatenate([pairs, pairs[:, ::-1]])
        stamps, images = stamps[kept], images.take(kept)
        past = in_the_past(stamps, options.exclude_seconds)
        shape = (len(kept), len(kept))
        published = Published.of(name)
        return cls(
            name, images, images, PairTruth.of_pairs(both[both[:, 1] < past[both[:, 0]]], shape), stamps,
            options.exclude_seconds, PairTruth.of_pairs(both, shape), left_out=counts, place=published.place,
            conditions="same place: the pairs that are listed; matches must be at least "
            f"{options.exclude_seconds:g} s older",
            camera=read_camera(options.camera) if options.camera else published.camera,
        )  # fmt: skip

    def relations(self, queries: NDArray[np.integer], matches: NDArray[np.integer]) -> NDArray[np.int8]:
        """Return the Relation of each of the pairs [C]; an unlisted pair next to a listed one is near.

        Next is within BESIDE of both images, or the image before or after.
        """
        found = []
        for query, match in zip(queries.tolist(), matches.tolist(), strict=True):
            first, last = self._around(query)
            start, stop = self._around(match)
            around = self.listed.rows(first, last)
            same = bool(around[query - first, match])
            beside = around[:, start:stop].any()
            found.append(Relation.SAME if same else Relation.NEAR if beside else Relation.APART)
        return np.array(found, np.int8)

    def _around(self, image: int) -> tuple[int, int]:
        """Return the first image beside another one, and the one after the last."""
        reach = round(BESIDE * NANOSECONDS)
        first, last = np.searchsorted(self.stamps, (self.stamps[image] - reach, self.stamps[image] + reach))
        return max(min(int(first), image - 1), 0), min(max(int(last), image + 1) + 1, len(self.stamps))

    def _take(self, queries: Sequence[int], references: Sequence[int], left_out: Mapping[str, int]) -> ListedSequence:
        taken = super()._take(queries, references, left_out)
        return dataclasses.replace(
            taken, references=taken.queries, stamps=self.stamps[queries], listed=self.listed.take(queries, queries)
        )


def first_of(*choices: float | None) -> float:
    """Return the first of some numbers that is one."""
    return next(choice for choice in choices if choice is not None)


def longest_ascent(stamps: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the places of the longest series of `stamps` that ascends strictly: one stamp that is off costs itself."""
    ends: list[int] = []  # the least stamp that a series of each length ends with
    places: list[int] = []  # of those stamps
    before = np.full(len(stamps), -1, np.intp)
    for place, stamp in enumerate(stamps.tolist()):
        length = bisect_left(ends, stamp)
        before[place] = places[length - 1] if length else -1
        ends[length : length + 1] = [stamp]
        places[length : length + 1] = [place]
    chosen, place = [], places[-1] if places else -1
    while place >= 0:
        chosen.append(place)
        place = int(before[place])
    return np.array(chosen[::-1], np.intp)


def epipolar_offsets(
    rotation: NDArray[np.float64],
    translation: NDArray[np.float64],
    rays: NDArray[np.floating],
    theirs: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Return how far matches [M] lie from the epipolar lines of a motion, in the plane one ahead of the camera.

    A point X of the one camera is `rotation` X + `translation` of the other (Hartley and Zisserman, section 9.6); of
    the two distances, one in each image, the larger one counts. Where the camera only turned a point has a place of
    its own, not a line.
    """
    ours = np.hstack([rays, np.ones((len(rays), 1))])
    others = np.hstack([theirs, np.ones((len(theirs), 1))])
    if np.linalg.norm(translation) < 1e-9:
        moved = ours @ rotation.T
        with np.errstate(divide="ignore", invalid="ignore"):
            offsets = np.linalg.norm(moved[:, :2] / moved[:, 2:] - theirs, axis=1)
        return np.where(moved[:, 2] > 0, offsets, np.inf)
    x, y, z = translation / np.linalg.norm(translation)
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    lines, back = ours @ essential.T, others @ essential
    residuals = np.abs((others * lines).sum(axis=1))
    lengths = np.minimum(np.hypot(lines[:, 0], lines[:, 1]), np.hypot(back[:, 0], back[:, 1]))
    return residuals / np.maximum(lengths, 1e-12)


def rotations_from_quaternions(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation matrices [N,3,3] of quaternions [N,4] in the order x, y, z, w; they need not be unit.

    A quaternion of zeros has no rotation: its matrix is not a number.
    """
    with np.errstate(invalid="ignore"):
        x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    return np.stack(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)


def nearest(
    stamps: NDArray[np.int64], others: NDArray[np.int64], tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for those `stamps` that have one of `others` within `tolerance` seconds, the indices into both.

    Both are in nanoseconds, and `others` ascend; of two that are equally near the earlier is taken.
    """
    if not len(others):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    after = np.minimum(np.searchsorted(others, stamps), len(others) - 1)
    before = np.maximum(after - 1, 0)
    closest = np.where(np.abs(others[before] - stamps) <= np.abs(others[after] - stamps), before, after)
    found = np.flatnonzero(np.abs(others[closest] - stamps) <= tolerance * NANOSECONDS)
    return found, closest[found]


def poses_of_images(
    name: str,
    stamps: NDArray[np.int64],
    pose_stamps: NDArray[np.int64],
    poses: NDArray[np.float64],
    tolerance: float = POSE_TOLERANCE,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return which of the images with `stamps` have a pose within `tolerance` seconds, and those poses.

    `poses` [P,7] are x, y, z (metres) and a quaternion x, y, z, w, at `pose_stamps` [P] in any order; stamps are in
    nanoseconds. Those that are no pose are passed by. Returns the N indices of the images, their positions [N,3] and
    rotations [N,3,3]; raises DatasetError where no image has a pose.
    """
    real = np.isfinite(poses).all(axis=1) & (np.abs(poses[:, 3:]).sum(axis=1) > 0)
    poses, pose_stamps = poses[real], pose_stamps[real]
    order = np.argsort(pose_stamps, kind="stable")
    found, closest = nearest(stamps, pose_stamps[order], tolerance)
    if not found.size:
        raise DatasetError(
            f"no image of {name} has a pose within {tolerance} s of its stamp; check that both have the same clock"
        )
    chosen = poses[order][closest]
    return found, chosen[:, :3], rotations_from_quaternions(chosen[:, 3:])
