# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2

from binvpr_ros.recordings.kinds import open_recording
from recordings.frames_of import Picture, colours, frames_of, intervals_of


def test_a_video_with_its_rate_and_stamps(tmp_path: Path, pictures: list[Picture]) -> None:
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (48, 32))
    for picture in pictures:
        writer.write(picture[..., ::-1])
    writer.release()
    recording = open_recording(path)
    assert len(recording) == 4
    assert intervals_of(recording) == [0.1] * 4
    assert colours(recording) == [0, 1, 2, 3]
    assert [frame.stamp for frame in frames_of(recording)] == [0, 100_000_000, 200_000_000, 300_000_000]
