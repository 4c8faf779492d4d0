# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from binvpr_ros.lab.evaluation.datasets import LAYOUTS, DatasetError, Options, find_datasets, open_dataset

from .conftest import WriteImages

POSE = "1 0 0 0 0 1 0 0 0 0 1 0\n"


@pytest.fixture
def root(tmp_path: Path, write_images: WriteImages) -> Path:
    """A folder with a data set of each layout that holds images, and others."""
    names = ["0.png", "1.png"]
    for folder in ("pair/queries", "pair/references", "bench/query", "bench/ref", "posed/images", "more/tum/rgb",
                   "more/tum/depth", "euroc/mav0/cam0/data", "euroc/mav0/cam1/data", "kitti/sequences/00/image_0",
                   "kitti/sequences/00/image_1", "nordland/summer", "nordland/winter", "pictures",
                   "tumvi/mav0/cam0/data", "colmap/images", "colmap/images_2", "nerf/images", "nerf/images_2",
                   "citycentre/images", "listed/images", "listed/depth"):  # fmt: skip
        write_images(tmp_path / folder, names)
    (tmp_path / "pair/ground_truth.csv").write_text("query,references\n0,0\n")
    np.save(tmp_path / "bench/ground_truth_new.npy", np.array([[0, 0], [1, 1]]))
    matrix = [f"T{row}{column}" for row in range(4) for column in range(4)]
    (tmp_path / "posed/poses.csv").write_text(
        "\n".join(
            [",".join(["frame", "stamp_s", *matrix]), "0,0" + ",1,0,0,0,0" * 3 + ",1", "1,20" + ",1,0,0,0,0" * 3 + ",1"]
        )
    )
    (tmp_path / "more/tum/rgb.txt").write_text("0 rgb/0.png\n20 rgb/1.png\n")
    (tmp_path / "more/tum/groundtruth.txt").write_text("0 0 0 0 0 0 0 1\n20 0 0 0 0 0 0 1\n")
    (tmp_path / "euroc/mav0/cam0/data.csv").write_text("0,0.png\n20000000000,1.png\n")
    (tmp_path / "euroc/mav0/state_groundtruth_estimate0").mkdir()
    (tmp_path / "euroc/mav0/state_groundtruth_estimate0/data.csv").write_text(
        "0,0,0,0,1,0,0,0\n20000000000,0,0,0,1,0,0,0\n"
    )
    (tmp_path / "kitti/sequences/00/times.txt").write_text("0\n20\n")
    (tmp_path / "kitti/poses").mkdir()
    (tmp_path / "kitti/poses/00.txt").write_text(POSE * 2)
    shutil.copy(tmp_path / "euroc/mav0/cam0/data.csv", tmp_path / "tumvi/mav0/cam0/data.csv")
    shutil.copytree(tmp_path / "euroc/mav0/state_groundtruth_estimate0", tmp_path / "tumvi/mav0/mocap0")
    (tmp_path / "colmap/sparse/0").mkdir(parents=True)
    (tmp_path / "colmap/sparse/0/images.txt").write_text("1 1 0 0 0 0 0 0 1 0.png\n\n2 1 0 0 0 0 0 0 1 1.png\n\n")
    (tmp_path / "colmap/sparse/0/cameras.txt").write_text("1 PINHOLE 8 6 5 5 4 3\n")
    shutil.copytree(tmp_path / "colmap/sparse", tmp_path / "nerf/sparse")
    frames = [{"file_path": f"images/{name}", "transform_matrix": np.eye(4).tolist()} for name in names]
    (tmp_path / "nerf/transforms.json").write_text(json.dumps({"frames": frames}))
    scenes = ["frame-000000", "frame-000600"]
    write_images(tmp_path / "chess/seq-01", [f"{scene}.color.png" for scene in scenes])
    for scene in scenes:
        np.savetxt(tmp_path / f"chess/seq-01/{scene}.pose.txt", np.eye(4))
    write_images(tmp_path / "pitts/queries", ["@0@0@.png", "@9@0@.png"])
    write_images(tmp_path / "pitts/database", ["@1@0@.png", "@90@0@.png"])
    savemat(tmp_path / "citycentre/CityCentreGroundTruth.mat", {"truth": np.eye(2)[::-1]})
    (tmp_path / "listed/loops.csv").write_text("query,match\n1,0\n")
    shutil.copytree(tmp_path / "posed", tmp_path / "kitchen")
    (tmp_path / "kitchen/loops.csv").write_text("query,match\n1,0\n")
    (tmp_path / "pictures/round").symlink_to(tmp_path)
    return tmp_path


FOUND = {
    "bench": "VprBench", "chess/seq-01": "SevenScenes", "citycentre": "ListedFolder", "colmap": "ColmapModel",
    "euroc": "EurocFolder", "kitchen": "PosedFolder", "kitti/sequences/00": "KittiOdometry", "listed": "ListedFolder",
    "more/tum": "TumFolder", "nerf": "Transforms", "nordland": "Traverses", "pair": "FolderPair",
    "pitts": "CoordinateNames", "posed": "PosedFolder", "tumvi": "EurocFolder",
}  # fmt: skip
LESS_LIKELY = {
    "colmap": ["Traverses"], "kitchen": ["ListedFolder"], "nerf": ["ColmapModel", "Traverses"],
}  # fmt: skip
"""Layouts that fit too, and must be asked later."""


def test_every_layout_is_found_and_read(root: Path) -> None:
    assert [str(path.relative_to(root)) for path in find_datasets(root)] == sorted(FOUND)
    for name, kind in FOUND.items():
        dataset = open_dataset(root / name, Options(rate=0.1))
        assert type(dataset).__name__ == kind
        assert dataset.truth.answerable.any()
        assert len(dataset.queries) == len(list(dataset.references)) == 2
        assert dataset.left_out == {}
        assert find_datasets(root / name) == [root / name]


def test_each_layout_fits_its_own_data_sets_only(root: Path) -> None:
    for name, kind in FOUND.items():
        fitting = [layout.__name__ for layout in LAYOUTS if layout.fits(root / name)]
        assert fitting == [kind, *LESS_LIKELY.get(name, [])]


def test_real_data_sets_keep_their_layouts(shared_data: Path) -> None:
    kinds = {"eval/corridor": "FolderPair", "loops/redkitchen": "PosedFolder", "loops/tum_fr1_rpy": "TumFolder",
             "loops/kitti00_part/sequences/00": "KittiOdometry", "loops/south_building": "PosedFolder"}  # fmt: skip
    for name, kind in kinds.items():
        assert type(open_dataset(shared_data / name, Options())).__name__ == kind


def test_bags_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("one.bag", "two/metadata.yaml", "two/two_0.mcap", "three.txt"):
        (tmp_path / name).touch()
    assert find_datasets(tmp_path) == [tmp_path / "one.bag", tmp_path / "two"]


def test_a_folder_of_data_sets_is_told_what_it_holds(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not a data set but contains several; name one: .*kitti/sequences/00"):
        open_dataset(root, Options())


def test_what_is_no_data_set_is_told_what_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="is not a data set of a known layout: queries/") as refused:
        open_dataset(tmp_path / "empty", Options())
    assert all(layout.layout in str(refused.value) for layout in LAYOUTS)
    assert "\n" not in str(refused.value)
    with pytest.raises(DatasetError, match="away does not exist; name a folder or a bag"):
        open_dataset(root / "away", Options())
    with pytest.raises(DatasetError, match="is not a data set of a known layout"):
        open_dataset(root / "pictures/0.png", Options())
    assert find_datasets(root / "away") == []


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (
            ["a_0.db3.zstd", "a_1.db3.zstd"],
            r"join parts with `zstd -d {}/\*.zstd` and then `ros2 bag reindex {}`.*: a_0",
        ),
        (["a_0.mcap", "a_1.mcap"], "join parts with `ros2 bag reindex {}`.*: a_0.mcap, a_1.mcap$"),
        (["a_0.db3", "a_0.db3.zstd"], "join parts with `ros2 bag reindex {}`.*: "),
        (["a.bag", "b.bag"], "{} holds 2 bags; name one of them: a.bag, b.bag$"),
    ],
)
def test_a_folder_of_bags_is_told_how_to_join_parts(tmp_path: Path, names: list[str], remedy: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=remedy.replace("{}", str(tmp_path))):
        open_dataset(tmp_path, Options())
