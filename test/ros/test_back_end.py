# SPDX-License-Identifier: Apache-2.0
"""The node serves a back end: its closures take the drift out of odometry."""

from __future__ import annotations

import csv
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("scipy", reason="the extra `test` is not installed")

from back_end import BackEnd, Pose
from robot import Robot

from binvpr_ros.ros.messages import message_from_array, to_nanoseconds

pytestmark = pytest.mark.usefixtures("ros")

CAMERA = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])  # of the 7-Scenes recordings
RATE = 15.0
KEYFRAME_EVERY = 2  # images
OUTCOMES = ("images_processed", "images_dropped", "images_unusable", "stamps_without_image")
"""What may become of a keyframe's stamp, as the node counts it once a second."""
PATIENCE = 2.0
"""Seconds for which the node may take to a keyframe, before its image is thought lost."""


def read_poses(file: Path) -> list[Pose]:
    with file.open(encoding="utf-8") as table:
        return [
            np.array([float(row[f"T{at // 4}{at % 4}"]) for at in range(16)]).reshape(4, 4)
            for row in csv.DictReader(table)
        ]


def drifting(poses: list[Pose]) -> list[Pose]:
    """Return the motions between poses as wheels would measure them: too long by 8%, and turning by half a degree."""
    turn = np.eye(4)
    turn[:3, :3] = cv2.Rodrigues(np.array([0, np.deg2rad(0.5), 0]))[0]
    motions = [np.linalg.inv(before) @ after @ turn for before, after in pairwise(poses)]
    for motion in motions:
        motion[:3, 3] *= 1.08
    return motions


def error(poses: list[Pose], truth: list[Pose]) -> float:
    """Return the root mean square distance [m] between positions, both from the first pose on."""
    places, true = (np.stack([np.linalg.inv(of[0]) @ pose for pose in of])[:, :3, 3] for of in (poses, truth))
    return float(np.sqrt(((places - true) ** 2).sum(axis=1).mean()))


@pytest.mark.timeout(600)
@pytest.mark.long
def test_closures_take_the_drift_out_of_odometry(shared_data: Path, tmp_path: Path) -> None:
    room = shared_data / "loops" / "redkitchen"
    truth = read_poses(room / "poses.csv")
    stamps = [round((100 + index / RATE) * 1e9) for index in range(len(truth))]
    files = dict(zip(stamps, sorted((room / "images").iterdir()), strict=True))

    def grey(stamp: int) -> NDArray[np.uint8]:
        return np.asarray(cv2.imread(str(files[stamp]), cv2.IMREAD_GRAYSCALE))

    keyframes = stamps[::KEYFRAME_EVERY]
    truth = truth[::KEYFRAME_EVERY]
    motions = dict(zip(keyframes, [None, *drifting(truth)], strict=True))
    robot = Robot(tmp_path, "-p", "keyframe_source:=topic")

    def send(stamp: int) -> None:
        robot.send(message_from_array(np.asarray(cv2.imread(str(files[stamp])))[..., ::-1], "rgb8"), stamp)

    def unanswered() -> int:
        return len(back_end.stamps) - sum(robot.count(outcome) for outcome in OUTCOMES)

    def all_answered() -> bool:
        send(stamps[-1])  # no keyframe: it says that the last keyframe's image was lost, where it was
        return not unanswered()

    try:
        back_end = BackEnd(robot.node, CAMERA, grey)
        for stamp in stamps:
            send(stamp)
            if stamp in motions:
                back_end.add(stamp, motions[stamp])
                # A machine that is slow, or busy with other tests, must not lose images for it: few of them wait.
                deadline = time.monotonic() + PATIENCE
                while robot.newest_keyframe() != stamp and time.monotonic() < deadline:
                    time.sleep(0.01)
        robot.wait(all_answered, "every keyframe is described")
        robot.wait(lambda: len(back_end.suggested) == robot.count("loop_closures"), "all closures have come")
        assert robot.count("stamps_without_image") < len(keyframes) / 20
        assert {to_nanoseconds(header.stamp) for header in robot.listener.keyframes} <= set(keyframes)
    finally:
        robot.close()
    before = error(back_end.poses, truth)
    closed = back_end.close_loops()
    after = error(back_end.poses, truth)
    print(f"{len(back_end.suggested)} suggested, {closed} closed, error {before:.3f} m before and {after:.3f} m after")
    assert closed >= 10
    assert before > 0.3
    assert after < before / 2
