# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.cameras import camera_of
from binvpr_ros.lab.evaluation.datasets.dataset import CAMERA_AXES, DatasetError, ImageFiles, Options
from binvpr_ros.lab.evaluation.datasets.sequences import (
    ListedSequence,
    PosedSequence,
    Relation,
    in_the_past,
    longest_ascent,
    nearest,
    poses_of_images,
    rotations_from_quaternions,
)

from .test_truth import turns

SECOND = 10**9
CAMERA = camera_of((640, 480), (500, 500, 320, 240), "plumb_bob", ())
NAN = float("nan")


def files(count: int) -> ImageFiles:
    return ImageFiles([Path(f"{number}.png") for number in range(count)])


def numbers(sequence: Any) -> list[int]:
    return [int(path.stem) for path in sequence.queries.paths]


def straight(stamps: list[float], images: int | None = None, **changes: Any) -> PosedSequence:
    count = len(stamps)
    parts: dict[str, Any] = {
        "positions": np.zeros((count, 3)), "rotations": np.tile(np.eye(3), (count, 1, 1)), "optical": True,
        "options": Options(exclude_seconds=1.5), "camera": CAMERA,
    } | changes  # fmt: skip
    nanoseconds = (np.array(stamps) * SECOND).astype(np.int64)
    return PosedSequence.from_poses("drive", files(count if images is None else images), nanoseconds, **parts)


def test_a_drive_matches_its_own_past_alone() -> None:
    drive = straight([0, 1, 2], positions=np.array([(0, 0, 0), (0, 0, 9), (0, 0.5, 0)]))
    assert drive.candidates.tolist() == [0, 0, 1]
    assert drive.truth.dense().tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert drive.queries is drive.references
    assert (drive.left_out, drive.place, drive.camera) == ({}, "", CAMERA)
    assert drive.conditions.startswith("same place: within 0.6 m and 40 degrees between the optical axes;")


@given(st.lists(st.integers(-50, 50), max_size=12).map(sorted), st.integers(0, 9))
def test_the_past_ends_so_many_seconds_before_an_image(stamps: list[int], seconds: int) -> None:
    past = in_the_past(np.array(stamps, np.int64) * SECOND, seconds)
    expected = [
        sum(at < here and stamp - older >= seconds for at, older in enumerate(stamps))
        for here, stamp in enumerate(stamps)
    ]
    assert past.tolist() == expected


def looking(vectors: Any, **changes: Any) -> list[bool]:
    """Return whether each of the images from the second on shows the place of the first."""
    drive = straight([100.0 * at for at in range(len(vectors))], rotations=turns(vectors), **changes)
    assert isinstance(drive, PosedSequence)
    return drive.truth.dense()[:, 0].tolist()[1:]


def test_a_camera_that_only_rolled_sees_the_same_place_and_one_that_turned_does_not() -> None:
    quarter = np.pi / 2
    quarters = [(0, 0, 0), (0, 0, quarter), (0, quarter, 0), (quarter, 0, 0)]
    assert looking(quarters) == [True, False, False]
    # Where it is not known which way the camera looks, any turn counts.
    assert looking(quarters, optical=False) == [False, False, False]
    assert looking(quarters, optical=False, options=Options(camera_axis="x")) == [False, False, True]
    assert looking(quarters, optical=False, options=Options(camera_axis="-z")) == [True, False, False]
    assert "the camera axis is not known" in straight([0, 1], optical=False).conditions


@pytest.mark.parametrize("axis", CAMERA_AXES)
def test_an_axis_is_that_of_an_optical_frame(axis: str) -> None:
    ahead = {"z": (0, 0, 1), "-z": (0, 0, -1), "x": (1, 0, 0)}[axis]
    up = {"z": (0, -1, 0), "-z": (0, 1, 0), "x": (0, 0, 1)}[axis]
    drive = straight([0, 1], optical=False, options=Options(camera_axis=axis))
    assert drive.optical
    assert drive.rotations[0][:, 2].tolist() == list(ahead)
    assert (-drive.rotations[0][:, 1]).tolist() == list(up)
    assert np.linalg.det(drive.rotations[0]) == pytest.approx(1)


def test_relations_hold_on_their_bounds() -> None:
    angles = [0, 40, 40.1, 60, 60.1, 0, 0, 0, 0]
    distances = [0.0, 0, 0, 0, 0, 0.6, 0.601, 1.5, 1.501]
    drive = straight(
        [100.0 * at for at in range(9)], rotations=turns([(0, np.deg2rad(angle), 0) for angle in angles]),
        positions=np.array([(distance, 0, 0) for distance in distances]),
    )  # fmt: skip
    others = np.arange(1, 9)
    same, near, apart = Relation.SAME, Relation.NEAR, Relation.APART
    expected = [same, near, near, apart, same, near, near, apart]
    assert drive.relations(others, np.zeros(8, int)).tolist() == expected
    assert drive.relations(np.zeros(8, int), others).tolist() == expected


def test_one_bad_item_costs_itself_alone() -> None:
    positions = np.zeros((8, 3))
    positions[1, 2] = NAN
    rotations = np.tile(np.eye(3), (8, 1, 1))
    rotations[2], rotations[3] = NAN, 2 * np.eye(3)
    mirrored = np.diag([1.0, 1.0, -1.0])
    with pytest.raises(DatasetError, match=r"left out: 2 without a pose"):
        straight([0, 1], rotations=np.stack([mirrored, mirrored]))
    drive = straight(
        [0, 1, 2, 3, 1e8, 5, 5, 6], positions=positions, rotations=rotations, left_out={"without a file": 2}
    )
    assert numbers(drive) in ([0, 5, 7], [0, 6, 7])
    assert drive.stamps.tolist() == [0, 5 * SECOND, 6 * SECOND]
    assert drive.left_out == {"without a file": 2, "without a pose": 3, "with a stamp that does not advance": 2}


@pytest.mark.parametrize(
    ("stamps", "changes", "sentence"),
    [
        ([], {}, "drive has 0 images with a pose and a stamp of their own; a drive needs at least two"),
        ([1], {}, "drive has 1 images with a pose and a stamp of their own; a drive needs at least two"),
        ([2, 1], {}, r"drive has 1 images .* \(left out: 1 with a stamp that does not advance\)"),
        ([1, 2], {"images": 3}, "drive has 3 images, 2 stamps and 2 poses"),
        ([1, 2], {"rotations": np.full((2, 3, 3), np.nan)}, r"drive has 0 images .* \(left out: 2 without a pose\)"),
    ],
)
def test_what_is_no_drive_is_refused(stamps: list[float], changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        straight(stamps, **changes)


def test_some_of_a_drive_keep_what_belongs_to_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in (paths[0], paths[2], paths[3]):
        cv2.imwrite(str(path), np.zeros((4, 4), np.uint8))
    paths[1].write_bytes(b"rubbish")
    stamps = np.arange(4) * 10 * SECOND
    positions = np.array([(0, 0, 0), (5, 0, 0), (9, 0, 0), (0, 0.1, 0)], float)
    drive = PosedSequence.from_poses(
        "drive", ImageFiles(paths), stamps, positions, np.tile(np.eye(3), (4, 1, 1)), Options(), optical=True
    ).readable()
    assert numbers(drive) == [0, 2, 3]
    assert drive.queries is drive.references
    assert drive.left_out == {"unreadable": 1}
    assert drive.positions[:, 0].tolist() == [0, 9, 0]
    assert drive.stamps.tolist() == [0, 20 * SECOND, 30 * SECOND]
    assert drive.candidates.tolist() == [0, 1, 2]
    assert np.argwhere(drive.truth.dense()).tolist() == [[2, 0]]
    assert drive.relations(np.array([2]), np.array([1])).tolist() == [Relation.APART]
    listed = ListedSequence.from_pairs("drive", ImageFiles(paths), stamps, np.array([(3, 0), (3, 2)]), Options())
    assert np.argwhere(listed.truth.dense()).tolist() == [[3, 0], [3, 2]]
    assert np.argwhere(listed.readable().truth.dense()).tolist() == [[2, 0], [2, 1]]


def seen_from(drive: PosedSequence, image: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the rays to points [M,3] of the world meet the plane one ahead of the camera, [M,2]."""
    local = (points - drive.positions[image]) @ drive.rotations[image]
    return local[:, :2] / local[:, 2:]


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_true_matches_obey_the_poses_and_chance_does_not(seed: int, only_turned: bool) -> None:
    rng = np.random.default_rng(seed)
    positions = np.zeros((2, 3)) if only_turned else np.array([(0, 0, 0), rng.uniform(0.3, 1, 3)])
    drive = straight([0, 100], positions=positions, rotations=turns([(0, 0, 0), rng.normal(0, 0.1, 3)]))
    points = rng.uniform((-4, -3, 5), (4, 3, 15), (60, 3))
    rays, theirs = seen_from(drive, 1, points), seen_from(drive, 0, points)
    noise = rng.normal(0, 0.5 / 500, rays.shape)
    assert drive.obeys_poses(1, 0, rays + noise, theirs)
    assert drive.obeys_poses(0, 1, theirs, rays + noise)
    chance = rng.uniform((-0.6, -0.45), (0.6, 0.45), rays.shape)
    assert not drive.obeys_poses(1, 0, rays, chance)
    # A majority decides.
    mixed = np.where(np.arange(60)[:, None] < 35, theirs, chance)
    assert drive.obeys_poses(1, 0, rays, mixed)
    for unknown in (straight([0, 100], camera=None), straight([0, 100], optical=False)):
        assert unknown.obeys_poses(1, 0, rays, chance)


def test_rolls_are_those_about_the_optical_axis() -> None:
    vectors = [(0, 0, 0), (0, 0, np.deg2rad(30)), (0, 0, np.deg2rad(-100)), (0, np.deg2rad(30), 0)]
    drive = straight([0, 100, 200, 300], rotations=turns(vectors))
    rolls = drive.rolls(np.array([1, 2, 3, 0]), np.array([0, 0, 0, 1]))
    assert rolls is not None
    np.testing.assert_allclose(rolls, [30, 100, 0, 30], atol=1e-6)
    upside_down = straight([0, 100], rotations=np.stack([np.eye(3), np.diag([-1.0, -1.0, 1.0])]))
    half_a_turn = upside_down.rolls(np.array([1]), np.array([0]))
    assert half_a_turn is not None
    np.testing.assert_allclose(half_a_turn, [180], atol=1e-6)
    assert straight([0, 1], optical=False).rolls(np.array([1]), np.array([0])) is None


@given(st.lists(st.integers(0, 9), max_size=9))
def test_no_ascent_is_longer(stamps: list[int]) -> None:
    found = longest_ascent(np.array(stamps, np.int64)).tolist()
    chosen = [stamps[at] for at in found]
    assert found == sorted(found)
    assert chosen == sorted(set(chosen))
    longer = combinations(stamps, len(found) + 1)
    assert not any(all(a < b for a, b in pairwise(some)) for some in longer)


def test_one_stamp_that_is_off_costs_itself() -> None:
    for off in (10**18, 0):
        stamps = np.arange(100, 200)
        stamps[50] = off
        assert longest_ascent(stamps).tolist() == [at for at in range(100) if at != 50]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_quaternions_turn_as_rodrigues_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = rng.normal(0, 1, (5, 3))
    angles = np.linalg.norm(axes, axis=1, keepdims=True)
    quaternions = np.hstack([axes / angles * np.sin(angles / 2), np.cos(angles / 2)])
    lengths = rng.uniform(0.5, 2, (5, 1))
    np.testing.assert_allclose(rotations_from_quaternions(quaternions * lengths), turns(axes), atol=1e-12)


def test_a_quaternion_of_zeros_is_no_rotation() -> None:
    assert np.isnan(rotations_from_quaternions(np.zeros((1, 4)))).all()


sorted_stamps = st.lists(st.integers(-50, 50), max_size=12).map(sorted)


@given(st.lists(st.integers(-50, 50), max_size=12), sorted_stamps, st.integers(0, 20))
def test_nearest_is_what_comparing_with_each_gives(stamps: list[int], others: list[int], tolerance: int) -> None:
    found, closest = nearest(
        np.array(stamps, np.int64) * SECOND, np.array(others, np.int64) * SECOND, float(tolerance)
    )  # fmt: skip
    distances = [min((abs(stamp - other) for other in others), default=1000) for stamp in stamps]
    assert found.tolist() == [at for at, distance in enumerate(distances) if distance <= tolerance]
    assert [abs(stamps[a] - others[b]) for a, b in zip(found, closest, strict=True)] == [distances[a] for a in found]


def test_poses_may_come_in_any_order_and_images_without_one_are_left_out() -> None:
    poses = np.array([(2, 0, 0, 0, 0, 0, 1), (9, 0, 0, 0, 0, 0, 0), (9, NAN, 0, 0, 0, 0, 1), (1, 0, 0, 0, 0, 1, 0)])
    stamps = np.array([1, 2, 3]) * SECOND
    pose_stamps = np.array([3, 2, 3, 1]) * SECOND
    found, positions, rotations = poses_of_images("drive", stamps, pose_stamps + 10**7, poses)
    assert found.tolist() == [0, 2]
    assert positions[:, 0].tolist() == [1, 2]
    np.testing.assert_allclose(rotations, [np.diag([-1, -1, 1]), np.eye(3)])
    with pytest.raises(DatasetError, match=r"no image of drive has a pose within 0.02 s"):
        poses_of_images("drive", stamps, pose_stamps + 3 * 10**7, poses)


def test_listed_pairs_count_both_ways_and_beside_them_is_near() -> None:
    stamps = np.arange(60) * SECOND
    drive = ListedSequence.from_pairs("drive", files(60), stamps, np.array([(5, 40), (41, 5), (50, 49)]), Options())
    assert np.argwhere(drive.truth.dense()).tolist() == [[40, 5], [41, 5]]
    queries, matches = np.array([40, 5, 50, 49, 40, 42, 43]), np.array([5, 40, 49, 50, 6, 4, 5])
    same, near, apart = Relation.SAME, Relation.NEAR, Relation.APART
    assert drive.relations(queries, matches).tolist() == [same, same, same, same, near, near, apart]
    assert drive.rolls(queries, matches) is None
    assert drive.obeys_poses(40, 5, np.zeros((4, 2)), np.ones((4, 2)))


@pytest.mark.parametrize(("rate", "images"), [(30, 30), (1, 1), (0.2, 1)])
def test_what_is_near_a_listed_pair_is_a_matter_of_time(rate: float, images: int) -> None:
    stamps = (np.arange(200) / rate * SECOND).astype(np.int64)
    drive = ListedSequence.from_pairs("drive", files(200), stamps, np.array([(150, 60)]), Options())
    queries, matches = np.array([150 + images, 150, 151 + images]), np.array([60, 60 - images, 60])
    assert drive.relations(queries, matches).tolist() == [Relation.NEAR, Relation.NEAR, Relation.APART]


def test_a_listed_image_whose_stamp_does_not_advance_takes_its_pairs_along() -> None:
    stamps = np.array([0, 20, 20, 40, 60]) * SECOND
    drive = ListedSequence.from_pairs("drive", files(5), stamps, np.array([(4, 0), (3, 1), (3, 2)]), Options())
    assert drive.left_out == {"with a stamp that does not advance": 1}
    assert len(drive.queries) == 4
    assert np.argwhere(drive.truth.dense()).tolist() == [[2, 1], [3, 0]]
    with pytest.raises(DatasetError, match="drive has 1 images whose stamps advance"):
        ListedSequence.from_pairs("drive", files(2), np.array([1, 1]), np.zeros((0, 2), int), Options())
