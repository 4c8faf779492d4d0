# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")

from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.recordings.kinds import open_recording
from recordings.frames_of import colours


def test_a_folder_around_a_bag(bag: Path) -> None:
    assert colours(open_recording(bag.parent)) == [0, 1, 2, 3]
    if bag.is_dir():
        (bag / "metadata.yaml").unlink()
        assert colours(open_recording(bag)) == [0, 1, 2, 3]
        (file,) = bag.iterdir()
        (bag / f"second{file.suffix}").write_bytes(file.read_bytes())
        with pytest.raises(
            RecordingError, match=r"holds 2 bags, or parts of one .* `ros2 bag reindex .*`.*: drive.*, second"
        ):
            open_recording(bag)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "does not exist; give a folder of images, a video, or a ROS bag"),
        ("empty", "holds no images"),
        (
            "broken.mp4",
            "cannot be opened as a video; convert it to mp4 (h264) or, if it was cut, copy or record it again",
        ),
        ("broken.bag", "broken.bag is not a .bag file, so restore it from a copy"),
        ("part.db3.zstd", "is a compressed part of a bag; decompress it with `zstd -d "),
        ("text.txt", "is neither a folder of images nor a video"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    for file in ("broken.mp4", "broken.bag", "part.db3.zstd", "text.txt"):
        (tmp_path / file).write_text("rubbish")
    with pytest.raises(RecordingError) as refused:
        open_recording(tmp_path / name)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_compressed_parts_of_a_bag_are_decompressed_before_they_are_joined(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"part_{number}.db3.zstd").touch()
    with pytest.raises(RecordingError, match=rf"parts with `zstd -d {tmp_path}/\*.zstd` and then `ros2 bag reindex "):
        open_recording(tmp_path)
