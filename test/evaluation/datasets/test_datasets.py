# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.evaluation.datasets import LAYOUTS, DatasetError, Options, find_datasets, open_dataset

from .conftest import WriteImages

POSE = "1 0 0 0 0 1 0 0 0 0 1 0\n"


@pytest.fixture
def root(tmp_path: Path, write_images: WriteImages) -> Path:
    """A folder with a data set of each layout that holds images, and with what is none."""
    names = ["0.png", "1.png"]
    for folder in ("pair/queries", "pair/references", "bench/query", "bench/ref", "posed/images", "more/tum/rgb",
                   "more/tum/depth", "euroc/mav0/cam0/data", "euroc/mav0/cam1/data", "kitti/sequences/00/image_0",
                   "kitti/sequences/00/image_1", "nordland/summer", "nordland/winter", "pictures"):  # fmt: skip
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
    (tmp_path / "pictures/round").symlink_to(tmp_path)
    return tmp_path


FOUND = {
    "bench": "VprBench", "euroc": "EurocFolder", "kitti/sequences/00": "KittiOdometry", "more/tum": "TumFolder",
    "nordland": "Traverses", "pair": "FolderPair", "posed": "PosedFolder",
}  # fmt: skip


def test_every_layout_is_found_and_read(root: Path) -> None:
    assert [str(path.relative_to(root)) for path in find_datasets(root)] == sorted(FOUND)
    for name, kind in FOUND.items():
        dataset = open_dataset(root / name, Options())
        assert type(dataset).__name__ == kind
        assert dataset.truth.any()
        assert len(dataset.queries) == len(list(dataset.references)) == 2
        assert find_datasets(root / name) == [root / name]


def test_no_two_layouts_fit(root: Path) -> None:
    for name in FOUND:
        assert sum(layout.fits(root / name) for layout in LAYOUTS) == 1


def test_bags_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("one.bag", "two/metadata.yaml", "two/two_0.mcap", "three.txt"):
        (tmp_path / name).touch()
    assert find_datasets(tmp_path) == [tmp_path / "one.bag", tmp_path / "two"]


def test_a_folder_of_data_sets_is_told_what_it_holds(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"is no data set but holds some; name one of them: .*kitti/sequences/00"):
        open_dataset(root, Options())


def test_what_is_no_data_set_is_told_what_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="is none of the data sets that can be read: queries/") as refused:
        open_dataset(tmp_path / "empty", Options())
    assert all(layout.layout in str(refused.value) for layout in LAYOUTS)
    assert "\n" not in str(refused.value)
    with pytest.raises(DatasetError, match="away does not exist; name a folder or a bag"):
        open_dataset(root / "away", Options())
    with pytest.raises(DatasetError, match="is none of the data sets"):
        open_dataset(root / "pictures/0.png", Options())
    assert find_datasets(root / "away") == []
