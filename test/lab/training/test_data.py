# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.data import (
    TAUGHT_CELLS,
    TAUGHT_LEVELS,
    TrainingDataError,
    TrainingImages,
    ViewPairs,
    _move,
    distort,
    rendered_buildings,
    taught_view,
)


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
    data = TrainingImages.of_classes(folder, 64)
    assert data.images.shape == (11, 64, 64, 3)
    assert data.classes == ["attic", "barn"]
    np.testing.assert_array_equal(data.labels, [0] * 6 + [1] * 5)
    np.testing.assert_array_equal(data.places, np.arange(11))
    error = capsys.readouterr().err
    assert "broken.jpg: its 7 bytes cannot be decoded as an image" in error
    assert f"1 of 12 images of {folder} were left out" in error


def test_images_are_rgb(tmp_path: Path) -> None:
    (tmp_path / "sky").mkdir()
    cv2.imwrite(str(tmp_path / "sky" / "blue.png"), np.full((8, 8, 3), (255, 0, 0), np.uint8))  # OpenCV's order
    assert TrainingImages.of_classes(tmp_path, 4).images[0, 0, 0].tolist() == [0, 0, 255]


def test_images_are_decoded_as_the_node_does(tmp_path: Path) -> None:
    (tmp_path / "sky").mkdir()
    deep = np.full((8, 8), 200 * 256 + 255, np.uint16)
    upright = np.repeat(np.arange(0, 240, 60, dtype=np.uint8)[:, np.newaxis], 4, axis=1).repeat(8, 0).repeat(8, 1)
    jpeg = cv2.imencode(".jpg", upright)[1].tobytes()
    # A tag for viewers: turn the image upside down.
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 3, 0)
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + jpeg[2:]
    cv2.imwrite(str(tmp_path / "sky" / "0.png"), deep)
    (tmp_path / "sky" / "1.jpg").write_bytes(turned)
    (tmp_path / "sky" / "2.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    images = TrainingImages.of_classes(tmp_path, 4).images
    assert len(images) == 2
    assert np.unique(images[0]).tolist() == [200]
    np.testing.assert_allclose(images[1, :, 0, 0], [0, 60, 120, 180], atol=2)


def test_a_folder_of_places(folder: Path) -> None:
    data = TrainingImages.of_places(folder, 64)
    assert data.classes == []
    np.testing.assert_array_equal(data.places, [0] * 6 + [1] * 5)


def test_some_images_of_each_class(folder: Path) -> None:
    np.testing.assert_array_equal(TrainingImages.of_classes(folder, 64, per_class=2).labels, [0, 0, 1, 1])


def test_some_classes_alone(folder: Path) -> None:
    data = TrainingImages.of_classes(folder, 64, names=["barn"])
    assert data.classes == ["barn"]
    np.testing.assert_array_equal(data.labels, [0] * 5)
    with pytest.raises(TrainingDataError, match="lacks 1 classes, cellar among them"):
        TrainingImages.of_classes(folder, 64, names=["barn", "cellar"])


def test_places_that_are_held_out_are_not_trained_on(folder: Path) -> None:
    data = TrainingImages.of_classes(folder, 64)
    train, held_out = data.hold_out(4)
    assert held_out.places.tolist() == [2, 6, 10]
    assert sorted([*train.places, *held_out.places]) == list(range(11))
    np.testing.assert_array_equal(held_out.images[1], data.images[6])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "is no folder; give one that holds a folder of images for each class"),
        ("empty", "holds no folder of images; give one for each class"),
        ("with_an_empty_class", "with_an_empty_class/attic holds no images; remove the folder, or fill it"),
        ("with_rubbish", "no image of .* can be decoded"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "with_an_empty_class" / "attic").mkdir(parents=True)
    (tmp_path / "with_rubbish" / "attic").mkdir(parents=True)
    (tmp_path / "with_rubbish" / "attic" / "0.jpg").write_text("rubbish")
    with pytest.raises(TrainingDataError, match=sentence):
        TrainingImages.of_classes(tmp_path / name, 64)


def test_views_differ_but_show_the_same_place() -> None:
    image = rendered_buildings(128, buildings=1, images=4).images[0]
    rng = np.random.default_rng(0)
    (first, _), (second, _) = distort(image, 64, rng), distort(image, 64, rng)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert (first != second).mean() > 0.5


def test_distortion_never_fails_on_extreme_images() -> None:
    rng = np.random.default_rng(0)
    for value in (0, 255):
        for _ in range(50):
            assert distort(np.full((64, 64, 3), value, np.uint8), 32, rng)[0].shape == (32, 32, 3)


def test_the_teacher_is_seen_as_the_view_sees_its_image() -> None:
    """A teacher that says what colour is where: what is to be learnt of a view is what colour is where in the view."""
    ramp = np.arange(64, dtype=np.uint8) * 4
    image = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.uint8(99)), axis=2)
    taught = (cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).astype(np.int16) - 128).astype(np.int8)
    rng = np.random.default_rng(0)
    for _ in range(20):
        view, homography = _move(image, 32, rng)
        seen = taught_view(taught, homography, size=32, side=64) * TAUGHT_LEVELS + 128
        assert seen.shape == (TAUGHT_CELLS, TAUGHT_CELLS, 3)
        np.testing.assert_allclose(seen, cv2.resize(view, (TAUGHT_CELLS,) * 2, interpolation=cv2.INTER_AREA), atol=12)


def test_batches_hold_two_views_of_each_place_and_come_again() -> None:
    data = rendered_buildings(64, buildings=2, images=8)
    batches = ViewPairs(data, 64, places=8, seed=3)
    assert len(batches) == batches.per_epoch == 2
    images, targets = batches[0]
    assert images.shape == (16, 64, 64, 3)
    np.testing.assert_array_equal(targets["descriptor"], np.tile(np.arange(8), 2))
    np.testing.assert_array_equal(targets["logits"][:8], targets["logits"][8:])
    again, _ = ViewPairs(data, 64, places=8, seed=3)[0]
    np.testing.assert_array_equal(images, again)


def test_a_batch_depends_on_its_number_alone() -> None:
    data = rendered_buildings(64, buildings=2, images=8)
    whole = ViewPairs(data, 64, places=8, seed=3, first=0, last=6)
    rest = ViewPairs(data, 64, places=8, seed=3, first=3, last=6)
    assert len(rest) == 3
    for index in range(3):
        np.testing.assert_array_equal(whole[index + 3][0], rest[index][0])
    assert (whole[0][0] != whole[2][0]).any()  # the same places in another epoch


def test_each_place_is_shown_once_an_epoch() -> None:
    data = rendered_buildings(64, buildings=4, images=8)
    pairs = ViewPairs(data, 64, places=8, seed=0)
    for epoch in range(2):
        assert sorted(pairs.order(epoch)) == list(range(32))
    assert (pairs.order(0) != pairs.order(1)).any()


def test_classmates_stay_together() -> None:
    data = rendered_buildings(64, buildings=4, images=8)
    labels = data.labels[ViewPairs(data, 64, places=8, seed=0).order(0)].reshape(-1, 4)
    assert (labels == labels[:, :1]).all()
    alone = data.labels[ViewPairs(data, 64, places=8, seed=0, views=1).order(0)].reshape(-1, 4)
    assert (alone != alone[:, :1]).any(axis=1).sum() >= 6  # of eight; all four alike: 1 in 90


def test_both_views_of_a_place_are_of_different_images_where_there_are_some() -> None:
    colours = np.array([10, 60, 110, 160], np.uint8)
    images = np.tile(colours[:, None, None, None], (1, 32, 32, 3))
    data = TrainingImages(images, np.array([5, 5, 9, 9], np.int32), np.zeros(4, np.int32), [])
    shown, targets = ViewPairs(data, 32, places=2, seed=0, views=1, last=20)[0]
    assert "logits" not in targets
    assert set(shown[:, 0, 0, 0] // 100) == {0, 1}  # one of the dark place, one of the light one
    taught = np.tile(np.arange(4, dtype=np.int8)[:, None, None, None], (1, 8, 8, 2))
    maps = ViewPairs(data, 32, places=2, seed=0, taught=taught)[0][1]["teacher"]
    assert maps.shape == (4, TAUGHT_CELLS, TAUGHT_CELLS, 2)
    assert sorted(maps[:, 0, 0, 0] * TAUGHT_LEVELS) == [0, 1, 2, 3]


def test_one_view_is_the_image_itself() -> None:
    data = rendered_buildings(64, buildings=1, images=4)
    shown, targets = ViewPairs(data, 64, places=4, seed=0, views=1)[0]
    assert targets["descriptor"].tolist() == [0, 1, 2, 3]
    assert sorted(map(np.ndarray.tobytes, shown.astype(np.uint8))) == sorted(map(np.ndarray.tobytes, data.images))


def test_too_few_places_for_a_batch() -> None:
    with pytest.raises(TrainingDataError, match="there are 4 places, a batch needs 8; add images, or use a smaller"):
        ViewPairs(rendered_buildings(64, buildings=1, images=4), 64, places=8, seed=0)
