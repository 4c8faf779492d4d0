# SPDX-License-Identifier: Apache-2.0
"""ROS 1 and ROS 2 bags with images and poses as data sets."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.images import Image, ImageError
from binvpr_ros.lab.evaluation.datasets.cameras import own_camera
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Images, Options, own_stretch, with_more
from binvpr_ros.lab.evaluation.datasets.files import WITHOUT_POSE
from binvpr_ros.lab.evaluation.datasets.sequences import PosedSequence, poses_of_images
from binvpr_ros.recordings.bags import (
    _converted,
    camera_info_topic,
    choose_topic,
    is_bag,
    open_bag,
    read_calibration,
    read_messages,
)
from binvpr_ros.recordings.frames import RecordedImage, image_of, stamp_of

POSE_TOLERANCE = 0.05
"""Seconds: odometry often comes at 20 Hz or less."""


class PosedBag(PosedSequence):
    """A bag with a topic of images (raw or compressed) and a topic of poses (a pose, a transform, or odometry).

    An image takes the pose whose header stamp is nearest to its own, within 0.05 s; images without one are left out.
    The pose is taken as the camera's; that of a robot's body will do if the camera is fixed to it.
    """

    layout = "a ROS bag with images and poses"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether this is a bag; its topics are looked at when it is read."""
        return is_bag(path)

    @classmethod
    def read(cls, path: Path, options: Options) -> PosedBag:
        """Read the stamps and the poses of the bag; images are read when they are needed. Raises DatasetError."""
        with open_bag(path) as reader:
            image_connections = choose_topic(reader, path, "image", options.image_topic)
            pose_connections = choose_topic(reader, path, "pose", options.pose_topic)
            topic = image_connections[0].topic
            entries: list[_Entry] = []
            stamps: list[int] = []
            unreadable = 0
            for entry, connection, raw in _numbered(reader.messages(image_connections)):
                stamp = _converted(reader, connection, raw, stamp_of)
                if stamp is None:
                    unreadable += 1
                else:
                    entries.append(entry)
                    stamps.append(stamp)
            poses = [pose for _, pose in read_messages(reader, pose_connections, _stamped_pose) if pose is not None]
            calibration = read_calibration(reader, topic)
        image_stamps = np.array(stamps, np.int64)
        pose_stamps = np.array([stamp for stamp, _ in poses], np.int64)
        for kind, found_stamps, connections in (
            ("image", image_stamps, image_connections),
            ("pose", pose_stamps, pose_connections),
        ):
            if not found_stamps.size:
                raise DatasetError(
                    f"no {kind} on {connections[0].topic} of {path} can be read; if the bag is compressed, name its "
                    "folder instead of its file, else record it again"
                )
            if not found_stamps.any():
                raise DatasetError(
                    f"all {kind}s on {connections[0].topic} of {path} have the stamp 0; record them again with the "
                    "time in their headers"
                )
        name = path.absolute().stem if path.is_file() else path.absolute().name
        found, positions, rotations = poses_of_images(
            name, image_stamps, pose_stamps, np.array([pose for _, pose in poses]), POSE_TOLERANCE
        )
        images = BagImages(path, topic, [entries[at] for at in found])
        camera = calibration and own_camera(options, f"{camera_info_topic(topic)} of {path}", calibration.camera)
        left_out = with_more({}, "unreadable", unreadable)
        return cls.from_poses(
            name, images, image_stamps[found], positions, rotations, options,
            # The frame of the poses may be any.
            optical=False,
            camera=camera,
            left_out=with_more(left_out, WITHOUT_POSE, len(entries) - len(found)),
        )  # fmt: skip


class _Entry(NamedTuple):
    """Where an image is in its bag."""

    time: int  # of recording, in nanoseconds
    number: int  # among the images of that time


def _numbered(messages: Iterator[tuple[Any, int, bytes]]) -> Iterator[tuple[_Entry, Any, bytes]]:
    """Yield the entry, the connection and the bytes of each of a reader's messages of one topic."""
    last = _Entry(-1, 0)
    for connection, time, raw in messages:
        last = _Entry(time, last.number + 1 if last.time == time else 0)
        yield last, connection, raw


@dataclass(frozen=True)
class BagImages(Images):
    """Images of one topic of a bag, none of which is kept in memory; all in order take one pass through the bag."""

    path: Path
    topic: str
    entries: list[_Entry]
    stretch: bool = False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.entries)

    def __getitem__(self, index: int, /) -> Image:
        """Return one image, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError."""
        return _checked(next(self._read([self.entries[index]])))

    def __iter__(self) -> Iterator[Image]:
        """Yield all images in order; raises DatasetError."""
        return map(_checked, self._read_all())

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> BagImages:
        """Return some of the images, in that order."""
        return replace(self, entries=[self.entries[index] for index in indices])

    def stretched(self) -> BagImages:
        """Return these images, those of 16 bits stretched."""
        return replace(self, stretch=True)

    def unreadable(self) -> dict[int, str]:
        """Return the index of each image that cannot be read, and why."""
        images = tqdm(
            self._read_all(), total=len(self), desc="check images", unit="image", leave=False, file=sys.stderr
        )  # fmt: skip
        return {index: str(image) for index, image in enumerate(images) if isinstance(image, DatasetError)}

    def _read_all(self) -> Iterator[Image | DatasetError]:
        if all(one < other for one, other in itertools.pairwise(self.entries)):
            return self._read(self.entries)
        return (image for entry in self.entries for image in self._read([entry]))

    def _read(self, entries: list[_Entry]) -> Iterator[Image | DatasetError]:
        """Yield each image of ascending entries, or the error if it cannot be decoded.

        Raises DatasetError if the bag is damaged.
        """
        if not entries:
            return
        wanted = set(entries)
        with open_bag(self.path) as reader:
            connections = choose_topic(reader, self.path, "image", self.topic)
            # One nanosecond early: rosbags before 0.11 leaves out the last message of an mcap chunk otherwise.
            messages = reader.messages(connections, entries[0].time - 1, entries[-1].time + 1)
            for entry, connection, raw in _numbered(messages):
                if entry in wanted:
                    wanted.remove(entry)
                    yield self._decode(_converted(reader, connection, raw, image_of))
        if wanted:
            raise DatasetError(f"{self.path} has changed since it was opened; read it again")

    def _decode(self, image: RecordedImage | None) -> Image | DatasetError:
        try:
            if image is None:
                raise ImageError("its message is damaged")
            return image.decode(own_stretch(self.stretch))
        except ImageError as error:
            return DatasetError(f"an image on {self.topic} of {self.path} cannot be decoded: {error}")


def _checked(image: Image | DatasetError) -> Image:
    if isinstance(image, DatasetError):
        raise image
    return image


def _stamped_pose(message: Any) -> tuple[int, tuple[float, ...]]:
    """Return stamp (nanoseconds) and x, y, z and the quaternion x, y, z, w of a message of any of the pose types."""
    if hasattr(message, "transform"):
        position, rotation = message.transform.translation, message.transform.rotation
    else:
        pose = getattr(message.pose, "pose", message.pose)  # with a covariance there is one more level
        position, rotation = pose.position, pose.orientation
    return stamp_of(message), (position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w)
