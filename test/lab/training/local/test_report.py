# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, Images
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth
from binvpr_ros.lab.training.local.report import Method, chosen_pairs, draw, inliers, main, measure, rolled
from binvpr_ros.local_features import orb


@dataclass(frozen=True)
class Shown(Images):
    images: list[Image]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> Image:
        return self.images[index]


@pytest.fixture
def dataset() -> Dataset:
    """Return three places, each seen from two sides a little apart."""
    rng = np.random.default_rng(0)
    references = []
    for _ in range(3):
        image = np.full((240, 320), 128, np.uint8)
        for corner in rng.integers(0, (320, 240), (120, 2)).tolist():
            end = (corner[0] + int(rng.integers(5, 30)), corner[1] + int(rng.integers(5, 30)))
            cv2.rectangle(image, corner, end, int(rng.integers(256)), -1)
        references.append(image)
    moved = np.array([[1.0, 0.02, -9], [-0.02, 1.0, 6]])
    queries = [cv2.warpAffine(references[number % 3], moved, (320, 240)) for number in range(6)]
    return Dataset("places", Shown(queries), Shown(references), PairTruth([[number % 3] for number in range(6)], 3))


def test_matches_that_obey_one_motion_are_counted() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 400, (60, 2)).astype(np.float32)
    there = points @ np.array([[0.9, 0.1], [-0.1, 0.9]], np.float32) + np.float32(20)
    there[40:] = rng.uniform(0, 400, (20, 2))
    assert 40 <= inliers(points, there) <= 48
    assert inliers(points[:7], there[:7]) == 0
    assert inliers(points, np.zeros_like(points)) in range(61)


def test_pairs_of_different_places_are_found_among_queries_too(dataset: Dataset) -> None:
    true, apart = chosen_pairs(dataset, half=False)
    assert true == [(number, [number % 3]) for number in range(6)]
    assert len(apart) == 6 * 2 + 12  # with the references, and among the queries
    assert all(one[1] % 3 != other[1] % 3 for one, other in apart)
    half, _ = chosen_pairs(dataset, half=True)
    assert [query for query, _ in half] == [0, 1, 2]


def test_places_are_told_apart(dataset: Dataset) -> None:
    figures = measure(dataset, Method("orb", orb, 1000))
    assert (figures["queries"], figures["apart"], figures["above"]) == (6, 24, 1)
    assert figures["median"] > figures["most_apart"]
    turned = rolled(dataset, Method("orb", orb, 1000))
    assert turned[0] > turned[45] > 20


def test_curves_are_drawn_of_each_data_set(dataset: Dataset, tmp_path: Path) -> None:
    methods = [Method(f"orb {most}", orb, most) for most in (50, 500)]
    of = {method: measure(dataset, method) for method in methods}
    widths = []
    for names in (("one",), ("one", "other")):
        draw(dict.fromkeys(names, of), tmp_path / "curves.png")
        picture = cv2.imread(str(tmp_path / "curves.png"))
        assert picture is not None
        assert np.ptp(picture) > 100
        widths.append(picture.shape[1])
    assert widths[1] == 2 * widths[0]


def test_what_is_no_model_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.tflite").write_bytes(b"no model")
    assert main([str(tmp_path / "model.tflite"), str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("use the pair of files that train_offline wrote\n")
    assert main([str(tmp_path / "none.tflite"), str(tmp_path)]) == 1
