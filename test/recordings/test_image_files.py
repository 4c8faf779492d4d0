# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from binvpr_ros.recordings.frames import DEFAULT_RATE, LeftOut
from binvpr_ros.recordings.image_files import ImageFolder
from binvpr_ros.recordings.kinds import open_recording
from recordings.frames_of import Picture, colours, intervals_of, left_out_of


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_folder_in_file_name_order_and_backwards(tmp_path: Path, pictures: list[Picture], suffix: str) -> None:
    for number in (2, 0, 3, 1):
        cv2.imwrite(str(tmp_path / f"{number:03}{suffix}"), pictures[number][..., ::-1])
    (tmp_path / "notes.txt").write_text("not an image")
    recording = open_recording(tmp_path)
    assert len(recording) == 4
    assert colours(recording) == [0, 1, 2, 3]
    assert intervals_of(recording) == [1 / DEFAULT_RATE] * 4
    assert not recording.has_stamps
    assert isinstance(recording, ImageFolder)
    assert colours(recording.backwards()) == [3, 2, 1, 0]


def test_a_folder_in_the_order_of_its_numbers(
    tmp_path: Path, pictures: list[Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, picture in zip(("1", "2", "10", "11"), pictures, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    recording = open_recording(tmp_path)
    assert colours(recording) == [0, 1, 2, 3]
    assert isinstance(recording, ImageFolder)
    assert colours(recording.backwards()) == [3, 2, 1, 0]
    assert capsys.readouterr().err.count("images are read in numeric order, 2.png before 10.png") == 1


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path, pictures: list[Picture]) -> None:
    for number in (0, 3):
        cv2.imwrite(str(tmp_path / f"{number}.bmp"), pictures[number][..., ::-1])
    (tmp_path / "1.bmp").write_text("rubbish")
    (tmp_path / "2.jpg").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    huge = bytearray((tmp_path / "0.bmp").read_bytes())
    huge[18:26] = np.array([60_000, 60_000], "<i4").tobytes()  # more pixels than OpenCV reads
    (tmp_path / "5.bmp").write_bytes(huge)
    recording = open_recording(tmp_path)
    assert colours(recording) == [0, 3]
    bad, missing, huge_one = left_out_of(recording)
    assert bad.sentence.startswith(f"{tmp_path / '1.bmp'}: its ")
    assert missing == LeftOut("unreadable", f"{tmp_path / '2.jpg'}: it cannot be read (No such file or directory)")
    assert huge_one.sentence.startswith(f"{tmp_path / '5.bmp'}: its ")
    assert bad.reason == huge_one.reason == "undecodable"
