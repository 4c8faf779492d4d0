# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")

from recorder import KINDS, SECOND, Recorder

from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.recordings.frames import DEFAULT_RATE, LONGEST_PAUSE, LeftOut, RawImage
from binvpr_ros.recordings.kinds import open_recording
from recordings.frames_of import Picture, colours, frames_of, intervals_of, left_out_of

HOUR = 3600 * SECOND
TENTH = SECOND // 10
TIMES = [number * SECOND // 2 for number in range(4)]


def test_a_bag_with_its_stamps_and_frame(bag: Path) -> None:
    recording = open_recording(bag)
    assert len(recording) == 4
    assert colours(recording) == [0, 1, 2, 3]
    frames = frames_of(recording)
    assert [frame.stamp for frame in frames] == [(100 + number) * 10**9 + 7 for number in range(4)]
    assert {frame.frame_id for frame in frames} == {"front"}
    assert recording.calibration is None


@pytest.mark.parametrize(
    ("recorded", "stamps", "intervals"),
    [
        # As a camera and a recorder do, but for a disk that was slow.
        ([0, TENTH, TENTH, 3 * TENTH], [0, TENTH, 2 * TENTH, 3 * TENTH], [0.1, 0.1, 0.1]),
        # A pause of an hour.
        ([0, TENTH, HOUR, HOUR + TENTH], [0, TENTH, HOUR, HOUR + TENTH], [0.1, LONGEST_PAUSE, 0.1]),
        # No stamps; stamps that stand still, that leap, that go back.
        ([0, TENTH, 3 * TENTH, 4 * TENTH], [0, 0, 0, 0], [0.1, 0.2, 0.1]),
        ([0, TENTH, 3 * TENTH, 4 * TENTH], [SECOND, SECOND, HOUR, 0], [0.1, 0.2, 0.1]),
        # Times of recording that a converter has lost.
        ([7, 7, 7, 7], [0, TENTH, 3 * TENTH, 4 * TENTH], [0.1, 0.2, 0.1]),
        # Nothing at all.
        ([7, 7, 7, 7], [0, 0, 0, 0], [1 / DEFAULT_RATE] * 3),
    ],
)
def test_a_bag_has_its_recorded_pace(
    tmp_path: Path, pictures: list[Picture], recorded: list[int], stamps: list[int], intervals: list[float]
) -> None:
    with Recorder("mcap", tmp_path / "drive") as recorder:
        recorder.write("/chatter", 0, recorder.new("std_msgs/msg/String", data="long before the camera"))
        for time, stamp, picture in zip(recorded, stamps, pictures, strict=True):
            recorder.image("/image", time + 24 * HOUR, stamp, picture)
    assert intervals_of(open_recording(recorder.path)) == pytest.approx([0.0, *intervals])


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_not_taken_for_the_camera(tmp_path: Path, pictures: list[Picture], kind: str) -> None:
    depth = np.full((32, 48), 900, np.uint16)
    with Recorder(kind, tmp_path / "drive") as recorder:
        for time, picture in zip(TIMES, pictures, strict=True):
            recorder.image("/depth_camera/image_raw", time, time, picture)
            recorder.image("/depth_camera/depth/image_raw", time, time, depth, "16UC1")
            recorder.image("/confidence", time, time, depth.astype(np.float32), "32FC1")
            recorder.compressed("/stereo/compressedDepth", time, time, np.zeros(9, np.uint8), "16UC1; compressedDepth")
    assert colours(open_recording(recorder.path)) == [0, 1, 2, 3]
    (frame, *_) = frames_of(open_recording(recorder.path, "/depth_camera/depth/image_raw"))
    assert isinstance(frame.image, RawImage)
    assert frame.image.encoding == "16UC1"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_message_costs_itself_only(tmp_path: Path, pictures: list[Picture], kind: str) -> None:
    with Recorder(kind, tmp_path / "drive") as recorder:
        for time, picture in zip(TIMES, pictures, strict=True):
            recorder.image("/image", time, time, picture, cut=100 if time == TIMES[2] else 0)
    recording = open_recording(recorder.path)
    assert colours(recording) == [0, 1, 3]
    assert intervals_of(recording)[2] == 1.0
    assert left_out_of(recording) == [LeftOut("unreadable", "image 2 on /image: its message is damaged")]


def test_a_bag_is_read_up_to_its_damage(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    with Recorder("ros1", tmp_path / "drive") as recorder:
        for number in range(100):
            recorder.image("/image", number * SECOND, number * SECOND, noise)
    data = bytearray(recorder.path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40_000] = bytes(40_000)
    recorder.path.write_bytes(data)
    recording = open_recording(recorder.path)
    read = len(frames_of(recording))
    assert 0 < read < 100
    (left_out,) = left_out_of(recording)
    assert (left_out.reason, left_out.images) == ("beyond damage to the bag", 100 - read)
    assert left_out.sentence.startswith(f"the last {100 - read} images: {recorder.path} cannot be read as a bag (")
    assert "repair drive.bag with `rosbag reindex " in left_out.sentence


def test_a_bag_without_the_topic_that_was_asked_for(bag: Path) -> None:
    with pytest.raises(RecordingError, match="does not hold the image topic /rear/image_raw"):
        open_recording(bag, "/rear/image_raw")
