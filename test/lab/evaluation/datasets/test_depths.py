# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from binvpr_ros.lab.evaluation.datasets.dataset import Options
from binvpr_ros.lab.evaluation.datasets.depths import DepthCamera, DepthFiles
from binvpr_ros.lab.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.lab.evaluation.datasets.seven_scenes import SevenScenes
from binvpr_ros.lab.evaluation.datasets.tum import TumFolder


def written(path: Path, value: int, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size[::-1], value, np.uint16))
    return path


def depth_of(depths: object, index: int) -> float | None:
    assert depths is not None
    depth = depths[index]  # type: ignore[index]
    return None if depth is None else float(np.median(depth))


def test_files_are_metres_and_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    colour = tmp_path / "colour.png"
    cv2.imwrite(str(colour), np.zeros((48, 64, 3), np.uint8))
    files = DepthFiles([written(tmp_path / "a.png", 7500), None, broken, colour, tmp_path / "missing.png"], 5000)
    assert [depth_of(files, index) for index in range(5)] == [1.5, None, None, None, None]
    assert depth_of(files.take([1, 0]), 1) == 1.5
    assert depth_of(DepthFiles(files.paths, 5000, unknown=7500), 0) == 0


def test_a_depth_camera_beside_the_colour_camera(tmp_path: Path) -> None:
    values = np.zeros((480, 640), np.uint16)
    values[300, 480], values[300, 520] = 1000, 2000
    cv2.imwrite(str(tmp_path / "a.png"), values)
    depth = DepthFiles([tmp_path / "a.png"], 1000, depth_camera=DepthCamera(600.0, 300.0, 0.1))[0]
    assert depth is not None
    # Half as far from the centre, and to the left by 300 pixels times 0.1 m over the depth.
    assert (depth[270, 320 + 80 - 30], depth[270, 320 + 100 - 15]) == (1, 2)
    assert np.count_nonzero(depth) == 2


def test_where_a_depth_camera_sees_two_things_the_nearer_one_hides_the_other() -> None:
    depth = np.zeros((480, 640), np.float32)
    depth[240, 340], depth[240, 325] = 1.0, 2.0
    for flipped in (depth, depth[::-1]):
        found = DepthCamera(500.0, 500.0, 0.06).registered(flipped)
        assert found[found > 0] == [1.0]


def test_tum_takes_the_nearest_depth_image(tmp_path: Path) -> None:
    for number in range(4):
        written(tmp_path / "depth" / f"{number}.png", 5000 * (number + 1))
        cv2.imwrite(str(written(tmp_path / "rgb" / f"{number}.png", 0)), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "rgb.txt").write_text("".join(f"{100 + number}.0 rgb/{number}.png\n" for number in range(4)))
    (tmp_path / "depth.txt").write_text("# none for the last\n" + "".join(
        f"{100 + number}.015 depth/{number}.png\n" for number in (2, 0, 1)
    ))  # fmt: skip
    (tmp_path / "groundtruth.txt").write_text(
        "".join(f"{100 + number}.0 {number} 0 0 0 0 0 1\n" for number in range(4))
    )
    drive = TumFolder.read(tmp_path, Options())
    assert [depth_of(drive.depths, index) for index in range(4)] == [1, 2, 3, None]
    (tmp_path / "depth.txt").unlink()
    assert TumFolder.read(tmp_path, Options()).depths is None


def test_seven_scenes_has_millimetres_and_images_without_a_pose_keep_theirs_in_order(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"frame-{number:06d}.color.png"), np.zeros((48, 64, 3), np.uint8))
        written(tmp_path / f"frame-{number:06d}.depth.png", 1000 + number if number != 2 else 65535)
        if number != 1:
            matrix = np.eye(4)
            matrix[0, 3] = number
            np.savetxt(tmp_path / f"frame-{number:06d}.pose.txt", matrix)
    drive = SevenScenes.read(tmp_path, Options())
    assert len(drive.queries) == 2
    assert [depth_of(drive.depths, index) for index in range(2)] == [1, 0]


def test_the_rendered_building_has_depths_that_are_the_same_each_time() -> None:
    drive = RenderedBuilding.make(Options(), 12)
    assert drive.depths is not None
    one, again = drive.depths[5], RenderedBuilding.make(Options(), 12).depths
    assert again is not None
    np.testing.assert_array_equal(one, again[5])
    motion = drive.motion(1, 0)
    assert motion is not None
    ahead = motion[1]
    assert ahead[2] > 0.5 * np.linalg.norm(ahead) > 0
