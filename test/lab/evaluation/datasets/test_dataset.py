# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, DatasetError, ImageFiles, read_image, with_more
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth

from .conftest import WriteImages, same_images


def test_images_are_read_in_order_colour_as_rgb_and_grey_as_grey(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path, ["b.png", "a.PNG", "c.bmp"])
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    images = ImageFiles.of_folder(tmp_path)
    assert same_images(images, [pictures[1], pictures[0], pictures[2]])
    assert same_images(images.take(np.array([2, 0])), [pictures[2], pictures[1]])
    cv2.imwrite(str(tmp_path / "grey.png"), pictures[0][..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), pictures[0][..., 0])


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.png").write_text("rubbish")
    for name in ("empty.png", "broken.png"):
        with pytest.raises(DatasetError, match=f"{name} cannot be used: its . bytes cannot be decoded as an image"):
            read_image(tmp_path / name)
    with pytest.raises(DatasetError, match=r"away.png cannot be read \(No such file or directory\)"):
        read_image(tmp_path / "away.png")
    for folder in (tmp_path / "away", tmp_path / "hollow"):
        with pytest.raises(DatasetError, match="holds no images"):
            ImageFiles.of_folder(folder)


def test_numbers_are_the_order_unless_the_contract_says_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0", "1", "2", "10"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((4, 4), np.uint8))
    (tmp_path / "._0.png").write_bytes(b"a note of some system")
    assert [path.stem for path in ImageFiles.of_folder(tmp_path).paths] == ["0", "1", "2", "10"]
    assert "numeric order" in capsys.readouterr().err
    assert [path.stem for path in ImageFiles.of_folder(tmp_path, by_name=True).paths] == ["0", "1", "10", "2"]
    assert capsys.readouterr().err == ""


def test_a_data_set_without_its_unreadable_images(
    tmp_path: Path, write_images: WriteImages, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_images(tmp_path, ["0.png", "1.png", "2.png"])
    images = ImageFiles.of_folder(tmp_path)
    dataset = Dataset("home", images, images.take([0, 1, 2]), PairTruth.of_matrix(np.eye(3, dtype=bool)))
    assert dataset.candidates.tolist() == [3, 3, 3]
    assert dataset.readable() is dataset
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[:-20])
    left = dataset.readable()
    assert same_images(left.queries, [pictures[0], pictures[2]])
    assert left.truth.dense().tolist() == [[1, 0], [0, 1]]
    assert left.candidates.tolist() == [2, 2]
    assert left.left_out == {"unreadable": 2}
    assert "1.png" in capsys.readouterr().err
    for name in ("0.png", "2.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no image of home can be read: .*0.png"):
        dataset.readable()


def test_counts_by_reason() -> None:
    assert with_more({"a": 1}, "a", 2) == {"a": 3}
    assert with_more({"a": 1}, "b", 0) == {"a": 1}
