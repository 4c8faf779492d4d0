# SPDX-License-Identifier: Apache-2.0
"""Video: a video file as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.recordings.frames import DEFAULT_RATE, SHORTEST_INTERVAL, Frame, RawImage, Recording

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")


class Video(Recording):
    """A video file, as OpenCV reads it, with stamps from 0 on; raises RecordingError where it cannot be opened."""

    has_stamps = True
    calibration = None

    def __init__(self, path: Path) -> None:
        self._path = path
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        self._interval = 1 / (rate if 0 < rate < 1 / SHORTEST_INTERVAL else DEFAULT_RATE)
        self._count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()

    def __len__(self) -> int:
        """Return the number of frames that the file claims to hold."""
        return self._count

    def read(self) -> Iterator[Frame]:
        """Yield the frames in order, at the rate of the video."""
        capture = self._open()
        try:
            number = 0
            while True:
                success, pixels = capture.read()
                if not success:
                    return
                image = RawImage.of_array(pixels, "mono8" if pixels.ndim == 2 else "bgr8")
                stamp = round(number * self._interval * NANOSECONDS)
                yield Frame(f"frame {number} of {self._path}", self._interval, image, stamp)
                number += 1
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise RecordingError(
                f"{self._path} cannot be opened as a video; convert it to mp4 (h264) or, if it was cut, copy or record "
                "it again"
            )
        return capture
