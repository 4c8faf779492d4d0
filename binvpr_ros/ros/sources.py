# SPDX-License-Identifier: Apache-2.0
"""A recording as a stream of image messages."""

from __future__ import annotations

import array
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header
from tqdm import tqdm

from binvpr_ros.images import ImageError, Stretch
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.recordings.bags import Calibration
from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.recordings.frames import (
    LONGEST_PAUSE,
    Frame,
    LeftOut,
    RawImage,
    RecordedImage,
    Recording,
    convert,
    image_of,
)
from binvpr_ros.recordings.kinds import open_recording
from binvpr_ros.ros.messages import from_nanoseconds
from binvpr_ros.ros.recent_depths import TOLERANCE

ImageMessage: TypeAlias = Image | CompressedImage
Paced: TypeAlias = tuple[float, ImageMessage]
"""A message, and the seconds from the message before it."""
MOST_NAMED = 5
"""Images that are named for each reason for which they are left out: of a depth camera's bag it may be all of them."""
SourceError = RecordingError
"""The images cannot be read; the message says why and what to do."""


class Source:
    """The images of a recording in order, as messages; their headers hold the recorded stamps, 0 where there are none.

    `camera_info` is the calibration of the camera, without a header; None where it is not recorded.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.camera_info = None if recording.calibration is None else _camera_info(recording.calibration)
        self.left_out: Counter[str] = Counter()
        """How many images the last `read` has left out so far, by the reason."""

    def __len__(self) -> int:
        """Return the number of images, or an estimate."""
        return len(self._recording)

    def read(
        self, compressed: bool = False, ascending: bool = False, stretch: Stretch | None = None
    ) -> Iterator[Paced]:
        """Yield the messages in order, as Image or as CompressedImage, with the seconds between them.

        With `stretch`, 16-bit grey images become 8-bit ones, stretched as in the node.

        Images that cannot be used are counted in `left_out`, and the first MOST_NAMED for each reason are named on
        standard error; with `ascending`, so are those with a repeated or late stamp. Raises SourceError if a bag cannot
        be read at all.
        """
        self.left_out.clear()
        pause, last = 0.0, None
        for frame in self._recording.read():
            if isinstance(frame, LeftOut):
                self._leave_out(frame)
                continue
            pause += frame.interval
            try:
                image = convert(frame.image, compressed, stretch)
            except ImageError as error:
                self._leave_out(LeftOut("undecodable", f"{frame.name}: {error}"))
                continue
            # A greater leap back is the recording's own: the node begins a new session there.
            if ascending and last is not None and 0 <= last - frame.stamp <= LONGEST_PAUSE * NANOSECONDS:
                sentence = f"{frame.name}: its stamp does not advance"
                self._leave_out(LeftOut("with a stamp that does not advance", sentence))
                continue
            header = Header(stamp=from_nanoseconds(frame.stamp), frame_id=frame.frame_id)
            yield min(pause, LONGEST_PAUSE), _message(image, header)
            pause, last = 0.0, frame.stamp

    def _leave_out(self, left_out: LeftOut) -> None:
        if self.left_out[left_out.reason] < MOST_NAMED:
            tqdm.write(f"left out {left_out.sentence}", file=sys.stderr)
        self.left_out[left_out.reason] += left_out.images

    def describe_left_out(self) -> str:
        """Return how many images were left out and why, for people; "" for none."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return f"{self.left_out.total()} left out: {reasons}" if reasons else ""


class DepthsBeside:
    """The depth images of a recording, asked for by the stamps of the images that they are beside, in their order."""

    def __init__(self, recording: Recording) -> None:
        self._frames = (frame for frame in recording.read() if isinstance(frame, Frame))
        self._near: list[Frame] = []

    def at(self, stamp: int) -> Image | None:
        """Return the depth image that is nearest to `stamp` (nanoseconds), without one; None where none is near."""
        while not self._near or self._near[-1].stamp <= stamp + TOLERANCE:
            if (frame := next(self._frames, None)) is None:
                break
            self._near.append(frame)
        self._near = [frame for frame in self._near if frame.stamp >= stamp - TOLERANCE]
        nearest = min(self._near, key=lambda frame: abs(frame.stamp - stamp), default=None)
        if nearest is None or nearest.stamp > stamp + TOLERANCE:
            return None
        try:
            image = convert(nearest.image, compressed=False)
        except ImageError:
            return None
        return _message(image, Header(frame_id=nearest.frame_id))


def open_source(path: Path, topic: str = "") -> Source:
    """Open a folder of images, a video file or a bag (`topic` chooses among several); raises SourceError."""
    return Source(open_recording(path, topic))


def in_time(messages: Iterable[Paced]) -> Iterator[ImageMessage]:
    """Yield each message when it is due after the one before it.

    After a delay the rest is late by as much: a burst to catch up would overwhelm who listens.
    """
    due = time.monotonic()
    for interval, message in messages:
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        yield message


def as_type(message: ImageMessage, compressed: bool, stretch: Stretch | None = None) -> ImageMessage:
    """Return the message as CompressedImage or as Image, as `convert` does, with the same header; raises ImageError."""
    image = image_of(message)
    converted = convert(image, compressed, stretch)
    return message if converted is image else _message(converted, message.header)


def _message(image: RecordedImage, header: Header) -> ImageMessage:
    """Return an image as a message."""
    data = array.array("B", image.data.tobytes())
    if isinstance(image, RawImage):
        return Image(
            header=header, height=image.height, width=image.width, encoding=image.encoding,
            is_bigendian=int(image.is_bigendian), step=image.step, data=data,
        )  # fmt: skip
    return CompressedImage(header=header, format=image.format, data=data)


def _camera_info(calibration: Calibration) -> CameraInfo:
    """Return a recorded calibration as a message."""
    x, y, width, height = calibration.region
    return CameraInfo(
        width=calibration.size[0], height=calibration.size[1], distortion_model=calibration.model, d=calibration.d,
        k=calibration.k, r=calibration.r, p=calibration.p, binning_x=calibration.binning[0],
        binning_y=calibration.binning[1],
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
    )  # fmt: skip
