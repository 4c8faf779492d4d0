# SPDX-License-Identifier: Apache-2.0
"""ImageTopic: one image topic of a bag as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.recordings.bags import choose_topic, open_bag, read_calibration, read_messages
from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.recordings.frames import (
    DEFAULT_RATE,
    LONGEST_PAUSE,
    SHORTEST_INTERVAL,
    Frame,
    LeftOut,
    RecordedImage,
    Recording,
    image_of,
    stamp_of,
)

LATEST_STAMP = (1 << 31) * NANOSECONDS
"""Nanoseconds: the seconds of a ROS time have 32 bits, one of them for the sign."""


class ImageTopic(Recording):
    """One image topic of a ROS 1 or ROS 2 bag, at its recorded pace, read without a ROS installation.

    `topic` chooses among several. Raises RecordingError.
    """

    has_stamps = True

    def __init__(self, path: Path, topic: str = "") -> None:
        self._path = path
        with open_bag(path) as reader:
            connections = choose_topic(reader, path, "image", topic)
            self._topic = connections[0].topic
            self._count = sum(c.msgcount for c in connections)
            self.calibration = read_calibration(reader, self._topic)

    def __len__(self) -> int:
        """Return the number of images."""
        return self._count

    def read(self) -> Iterator[Frame | LeftOut]:
        """Yield the images in order, up to where the bag is damaged; raises RecordingError where none can be read."""
        count = 0
        last: tuple[int, int] | None = None  # when the image before was recorded, and its stamp
        try:
            with open_bag(self._path) as reader:
                connections = choose_topic(reader, self._path, "image", self._topic)
                for recorded, message in read_messages(reader, connections, _Message.of):
                    name = f"image {count} on {self._topic}"
                    count += 1
                    if message is None:
                        yield LeftOut("unreadable", f"{name}: its message is damaged")
                        continue
                    interval = interval_between(recorded - last[0], message.stamp - last[1]) if last else 0.0
                    last = recorded, message.stamp
                    yield Frame(name, interval, message.image, message.stamp, message.frame_id)
        except RecordingError as error:
            if not count:
                raise
            rest = max(self._count - count, 1)
            yield LeftOut("beyond damage to the bag", f"the last {rest} images: {error}", rest)


class _Message(NamedTuple):
    """What a frame takes from an image message."""

    image: RecordedImage
    stamp: int  # nanoseconds
    frame_id: str

    @classmethod
    def of(cls, message: Any) -> _Message:
        stamp = stamp_of(message)
        if not -LATEST_STAMP <= stamp < LATEST_STAMP:
            raise ValueError("its stamp is not a ROS 2 time")
        return cls(image_of(message), stamp, str(message.header.frame_id))


def interval_between(recorded: int, stamped: int) -> float:
    """Return the seconds from one image to the next, from the nanoseconds between their recording and their stamps.

    The stamps are the camera's own, but they may stand still, leap, or be missing. Then the times of recording count,
    which may be those of a disk or a converter.
    """
    if SHORTEST_INTERVAL <= stamped / NANOSECONDS <= LONGEST_PAUSE:
        return stamped / NANOSECONDS
    if recorded / NANOSECONDS >= SHORTEST_INTERVAL:
        return min(recorded / NANOSECONDS, LONGEST_PAUSE)
    return 1 / DEFAULT_RATE
