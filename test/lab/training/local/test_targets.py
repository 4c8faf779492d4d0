# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.local import targets
from binvpr_ros.lab.training.local.targets import SQUARES, ask, squares, stand_in
from binvpr_ros.lab.training.teacher import TeacherError

TEACHER = Path(__file__).resolve().parents[5] / "shared/data/teachers/xfeat.onnx"
Teacher = Callable[[np.ndarray], list[np.ndarray]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two canvases of photographs, and one photograph more; they are of several sizes."""
    rng = np.random.default_rng(0)
    for number in range(2 * SQUARES + 1):
        path = tmp_path / "photographs" / str(number % 3) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = cv2.GaussianBlur(rng.integers(0, 256, (128 + 8 * (number % 2), 160, 3), np.uint8), (0, 0), 2)
        cv2.imwrite(str(path), image)
    (tmp_path / "teacher.onnx").write_bytes(b"a teacher")
    return tmp_path / "photographs"


class Asked:
    """A teacher whose maps tell which cells they are of; it counts how often it is asked."""

    def __init__(self, last: int = 99) -> None:
        self.count, self.last = 0, last

    def __call__(self, _teacher: Path) -> Teacher:
        return self.maps

    def maps(self, image: np.ndarray) -> list[np.ndarray]:
        assert image.shape == (1, 3, 640, 640)
        self.count += 1
        if self.count > self.last:
            raise KeyboardInterrupt
        cells = image[:, :1, 4::8, 4::8]
        logits = np.zeros((1, 65, 80, 80), np.float32)
        logits[:, 5] = 9
        return [np.repeat(cells, 64, axis=1) * np.linspace(-1, 1, 64)[:, None, None], logits, np.full_like(cells, 0.5)]


def test_the_teacher_is_asked_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()
    monkeypatch.setattr(targets, "_session", asked)
    asked_about = squares(folder, 0, seed=0)
    assert len(asked_about) == 2 * SQUARES
    assert asked_about != sorted(asked_about)
    taught = ask(asked_about, tmp_path / "teacher.onnx", tmp_path / "targets")
    assert asked.count == 2
    assert taught.images.shape == (2 * SQUARES, 128, 128, 3)
    np.testing.assert_array_equal(taught.reliability, 128)
    assert (taught.keypoints.argmax(axis=3) == 5).all()
    ratio = taught.descriptors[..., 0].astype(float) / taught.descriptors[..., -1]
    np.testing.assert_allclose(ratio, -1)
    again = ask(asked_about, tmp_path / "teacher.onnx", tmp_path / "targets")
    assert asked.count == 2
    np.testing.assert_array_equal(again.descriptors, taught.descriptors)
    ask(asked_about[:SQUARES], tmp_path / "teacher.onnx", tmp_path / "targets")
    assert asked.count == 3  # other photographs


def test_an_interrupted_teacher_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_about = squares(folder, 0, seed=0)
    monkeypatch.setattr(targets, "_session", Asked())
    whole = ask(asked_about, tmp_path / "teacher.onnx", tmp_path / "whole")
    monkeypatch.setattr(targets, "NOTE_EVERY", 1)
    monkeypatch.setattr(targets, "_session", Asked(last=1))
    with pytest.raises(KeyboardInterrupt):
        ask(asked_about, tmp_path / "teacher.onnx", tmp_path / "targets")
    rest = Asked()
    monkeypatch.setattr(targets, "_session", rest)
    taught = ask(asked_about, tmp_path / "teacher.onnx", tmp_path / "targets")
    assert rest.count == 1
    for name in ("images", "descriptors", "keypoints", "reliability"):
        np.testing.assert_array_equal(getattr(taught, name), getattr(whole, name))


def test_what_cannot_be_used_is_said(folder: Path, tmp_path: Path) -> None:
    asked_about = squares(folder, SQUARES, seed=0)
    with pytest.raises(TeacherError, match="cannot be read"):
        ask(asked_about, tmp_path / "none.onnx", tmp_path / "targets")
    pytest.importorskip("onnxruntime", reason="no teacher can be asked without it")
    with pytest.raises(TeacherError, match=r"teacher\.onnx is not a teacher"):
        ask(asked_about, tmp_path / "teacher.onnx", tmp_path / "targets")
    with pytest.raises(TeacherError, match="at least 25 are needed"):
        squares(tmp_path / "targets", 0, seed=0)


def test_a_file_that_is_no_image_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_about = squares(folder, SQUARES, seed=0)
    asked_about[3].path.write_bytes(b"no image")
    monkeypatch.setattr(targets, "_session", Asked())
    with pytest.raises(TeacherError, match=f"{asked_about[3].path.name} cannot be read"):
        ask(asked_about, tmp_path / "teacher.onnx", tmp_path / "targets")


def test_a_large_photograph_is_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is brought to 480 pixels, as the node does, and its squares reach from edge to edge."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    columns = np.linspace(0, 255, 960).astype(np.uint8)
    for number in range(5):
        cv2.imwrite(str(folder / f"{number}.png"), np.broadcast_to(columns[None, :, None], (540, 960, 3)))
    (tmp_path / "teacher.onnx").write_bytes(b"a teacher")
    found = squares(folder, 0, seed=0)
    assert len(found) == SQUARES  # of 30: 2 rows of 3 each
    assert {(square.row, square.column) for square in found} == {(row, column) for row in (0, 1) for column in range(3)}
    monkeypatch.setattr(targets, "_session", Asked())
    images = ask(found, tmp_path / "teacher.onnx", tmp_path / "targets").images
    for square, image in zip(found, images, strict=True):
        left = 176 * square.column
        np.testing.assert_allclose(image[64, :, 0], np.linspace(0, 255, 480)[left : left + 128], atol=2)


@pytest.mark.skipif(not TEACHER.exists(), reason=f"{TEACHER} is not there")
def test_the_real_teacher_says_something(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="no teacher can be asked without it")
    taught = ask(squares(folder, SQUARES, seed=0), TEACHER, tmp_path / "targets")
    assert taught.descriptors.std() > 10
    assert taught.keypoints.max() > 50
    assert taught.reliability.max() > 10


def test_squares_of_one_photograph_are_held_out_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(6):  # of 6 squares each
        cv2.imwrite(str(folder / f"{number}.png"), np.full((270, 480, 3), 40 * number, np.uint8))
    (tmp_path / "teacher.onnx").write_bytes(b"a teacher")
    found = squares(folder, 0, seed=0)
    monkeypatch.setattr(targets, "_session", Asked())
    taught = ask(found, tmp_path / "teacher.onnx", tmp_path / "targets")
    train, held_out = taught.split(2)
    assert sorted([*train, *held_out]) == list(range(len(found)))
    assert {len(found) - 1, len(found) - 2} < set(held_out.tolist())
    trained, held = ({found[number].path for number in part} for part in (train, held_out))
    assert 1 <= len(held) <= 2
    assert not trained & held


def test_small_photographs_are_one_square_each() -> None:
    taught = stand_in(np.random.default_rng(0).integers(0, 256, (10, 128, 128, 3), np.uint8))
    train, held_out = taught.split(3)
    assert (train.tolist(), held_out.tolist()) == ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9])
