# SPDX-License-Identifier: Apache-2.0
"""Open what a user names: a folder of images, a video, or a bag."""

from __future__ import annotations

from pathlib import Path

from binvpr_ros.images import IMAGE_SUFFIXES, image_paths, in_order
from binvpr_ros.recordings.bags import BAG_SUFFIXES, describe_bags, is_bag
from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.recordings.frames import Recording
from binvpr_ros.recordings.image_files import ImageFolder
from binvpr_ros.recordings.image_topic import ImageTopic
from binvpr_ros.recordings.videos import VIDEO_SUFFIXES, Video


def open_recording(path: Path, topic: str = "") -> Recording:
    """Open a folder of images, a video file or a bag (`topic` chooses among several); raises RecordingError."""
    if is_bag(path):
        return ImageTopic(path, topic)
    if path.is_dir():
        if files := image_paths(path):
            return ImageFolder(in_order(files))
        bags = sorted(below for below in path.iterdir() if is_bag(below))
        if len(bags) == 1:
            return ImageTopic(bags[0], topic)
        if bags:
            raise RecordingError(describe_bags(path, bags))
        raise RecordingError(
            f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}) and no bag ({', '.join(BAG_SUFFIXES)}); name a "
            "folder that does"
        )
    if not path.exists():
        raise RecordingError(f"{path} does not exist; give a folder of images, a video, or a ROS bag")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Video(path)
    raise RecordingError(
        f"{path} is neither a folder of images nor a video ({', '.join(VIDEO_SUFFIXES)}) nor a bag "
        f"({', '.join(BAG_SUFFIXES)}); name one of these"
    )
