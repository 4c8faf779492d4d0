# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binvpr_ros.evaluation.datasets.dataset import (
    DatasetError,
    ImageFiles,
    Options,
    in_the_past,
    nearest,
    poses_of_images,
    read_image,
    rotations_from_quaternions,
    within,
)
from binvpr_ros.evaluation.datasets.posed_folder import PosedFolder

from .conftest import WriteImages, same_images

SECOND = 10**9


def turns(vectors: Any) -> Any:
    return np.array([cv2.Rodrigues(vector)[0] for vector in np.asarray(vectors, float)])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3), st.floats(1, 400), st.sampled_from([0.0, 5e6]))
@settings(max_examples=50, deadline=None)
def test_within_is_what_comparing_each_with_each_gives(seed: int, radius: float, angle: float, origin: float) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 3, (12, 3))
    rotations = turns(rng.normal(0, 1, (12, 3)))
    found = within(positions + origin, rotations, radius, angle)
    for a in range(12):
        for b in range(12):
            distance = np.linalg.norm(positions[a] - positions[b])
            turn = np.rad2deg(np.linalg.norm(cv2.Rodrigues(rotations[a].T @ rotations[b])[0]))
            if abs(distance - radius) > 1e-4 and abs(turn - angle) > 1e-4:
                assert found[a, b] == (distance < radius and turn < angle)


def test_within_holds_on_its_bounds() -> None:
    rotations = turns([(0, 0, 0), (0, 0, np.deg2rad(40)), (0, 0, np.deg2rad(40.1))])
    assert within(np.zeros((3, 3)), rotations, 0.6, 40).tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    positions = np.array([(0, 0, 0), (0.6, 0, 0), (1.201, 0, 0.0)])
    assert within(positions, turns(np.zeros((3, 3))), 0.6, 40).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_quaternions_turn_as_rodrigues_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = rng.normal(0, 1, (5, 3))
    angles = np.linalg.norm(axes, axis=1, keepdims=True)
    quaternions = np.hstack([axes / angles * np.sin(angles / 2), np.cos(angles / 2)])
    lengths = rng.uniform(0.5, 2, (5, 1))
    np.testing.assert_allclose(rotations_from_quaternions(quaternions * lengths), turns(axes), atol=1e-12)


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
    poses = np.array([(2, 0, 0, 0, 0, 0, 1), (1, 0, 0, 0, 0, 1, 0)], float)
    stamps = np.array([1, 2, 3]) * SECOND
    found, positions, rotations = poses_of_images("drive", stamps, np.array([3, 1]) * SECOND + 10**7, poses)
    assert found.tolist() == [0, 2]
    assert positions[:, 0].tolist() == [1, 2]
    np.testing.assert_allclose(rotations, [np.diag([-1, -1, 1]), np.eye(3)])
    with pytest.raises(DatasetError, match=r"no image of drive has a pose within 0.02 s"):
        poses_of_images("drive", stamps, np.array([3, 1]) * SECOND + 3 * 10**7, poses)


def test_the_past_ends_so_many_seconds_before_an_image() -> None:
    stamps = np.array([0, 1, 3]) * SECOND
    assert in_the_past(stamps, 2).tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]
    assert in_the_past(stamps, 0).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]


def straight(stamps: list[float], images: int | None = None, **changes: Any) -> PosedFolder:
    count = len(stamps)
    poses = {"positions": np.zeros((count, 3)), "rotations": np.tile(np.eye(3), (count, 1, 1))} | changes
    files = ImageFiles([Path(f"{number}.png") for number in range(count if images is None else images)])
    nanoseconds = (np.array(stamps) * SECOND).astype(np.int64)
    return PosedFolder.from_poses("drive", files, nanoseconds, options=Options(exclude_seconds=1.5), **poses)


def test_a_drive_matches_its_own_past_alone() -> None:
    drive = straight([0, 1, 2], positions=np.array([(0, 0, 0), (0, 0, 9), (0, 0.5, 0)]))
    assert drive.same_place.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert drive.candidates.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert drive.truth.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert (drive.radius, drive.angle, drive.exclude_seconds) == (0.6, 40, 1.5)


@pytest.mark.parametrize(
    ("stamps", "changes", "sentence"),
    [
        ([1], {}, "drive has 1 images with a pose; a drive needs two at least"),
        ([1, 1], {}, "the stamps of drive do not ascend from image to image"),
        ([2, 1], {}, "the stamps of drive do not ascend from image to image"),
        ([1, 2], {"images": 3}, "drive has 3 images, 2 stamps and 2 poses"),
        ([1, 2], {"positions": np.array([(0, 0, 0), (0, np.nan, 0)])}, "image 1 of drive has a pose that is no"),
        ([1, 2], {"rotations": np.full((2, 3, 3), np.nan)}, "image 0 of drive has a pose that is no"),
        ([1, 2], {"rotations": np.stack([np.eye(3), 2 * np.eye(3)])}, "image 1 of drive has a pose that is no"),
    ],
)
def test_what_is_no_drive_is_refused(stamps: list[float], changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        straight(stamps, **changes)


def test_images_are_read_in_file_name_order_colour_as_rgb_and_grey_as_grey(
    tmp_path: Path, write_images: WriteImages
) -> None:
    pictures = write_images(tmp_path, ["b.png", "a.PNG", "c.bmp"])
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    assert same_images(ImageFiles.of_folder(tmp_path), [pictures[1], pictures[0], pictures[2]])
    cv2.imwrite(str(tmp_path / "grey.png"), pictures[0][..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), pictures[0][..., 0])


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.png").write_text("rubbish")
    for name in ("empty.png", "broken.png"):
        with pytest.raises(DatasetError, match=f"{name} cannot be decoded as an image"):
            read_image(tmp_path / name)
    with pytest.raises(DatasetError, match=r"away.png cannot be read \(No such file or directory\)"):
        read_image(tmp_path / "away.png")
    for folder in (tmp_path / "away", tmp_path / "hollow"):
        with pytest.raises(DatasetError, match="holds no images"):
            ImageFiles.of_folder(folder)


def test_numbers_without_zeros_are_taken_by_name_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0", "1", "2", "10"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((4, 4), np.uint8))
    (tmp_path / "._0.png").write_bytes(b"a note of some system")
    assert [path.stem for path in ImageFiles.of_folder(tmp_path).paths] == ["0", "1", "10", "2"]
    assert "10.png is taken as image 2, its number would make it image 3" in capsys.readouterr().err
    assert [path.stem for path in ImageFiles.of_folder(tmp_path, numeric=True).paths] == ["0", "1", "2", "10"]
    assert capsys.readouterr().err == ""
