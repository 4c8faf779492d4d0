# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.training.data import ClassFolder, TrainingDataError, ViewPairs, distort, rendered_buildings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("attic", 6), ("barn", 5)):
        (tmp_path / name).mkdir()
        for number in range(count):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), rng.integers(0, 256, (20, 30, 3), np.uint8))
    return tmp_path


def test_a_folder_of_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "barn" / "broken.jpg").write_text("rubbish")
    data = ClassFolder.read(folder, 64)
    assert data.images.shape == (11, 64, 64, 3)
    assert data.classes == ["attic", "barn"]
    np.testing.assert_array_equal(data.labels, [0] * 6 + [1] * 5)
    assert "broken.jpg: it cannot be decoded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "sentence"), [("nowhere", "is no folder"), ("empty", "has no images in class folders")]
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingDataError, match=sentence):
        ClassFolder.read(tmp_path / name, 64)


def test_views_differ_but_show_the_same_place() -> None:
    image = rendered_buildings(128, buildings=1, images=4).images[0]
    rng = np.random.default_rng(0)
    first, second = distort(image, 64, rng), distort(image, 64, rng)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert (first != second).mean() > 0.5


def test_batches_hold_two_views_of_each_place_and_come_again() -> None:
    data = rendered_buildings(64, buildings=2, images=8)
    batches = ViewPairs(data, 64, places=8, seed=3)
    assert len(batches) == 2
    images, targets = batches[0]
    assert images.shape == (16, 64, 64, 3)
    np.testing.assert_array_equal(targets["descriptor"], np.tile(np.arange(8), 2))
    np.testing.assert_array_equal(targets["logits"][:8], targets["logits"][8:])
    again, _ = ViewPairs(data, 64, places=8, seed=3)[0]
    np.testing.assert_array_equal(images, again)
    batches.on_epoch_end()
    assert (batches[0][0] != images).any()


def test_classmates_stay_together() -> None:
    data = rendered_buildings(64, buildings=4, images=8)
    labels = data.labels[ViewPairs(data, 64, places=8, seed=0).order].reshape(-1, 4)
    assert (labels == labels[:, :1]).all()
