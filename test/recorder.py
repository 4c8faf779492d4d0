# SPDX-License-Identifier: Apache-2.0
"""Writes bags for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

SECOND = 10**9
KINDS = ("ros1", "sqlite3", "mcap")
MATRIX = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
PROJECTION = np.array([[36.0, 0, 23], [0, 36, 15], [0, 0, 1]])
"""Of a camera of 48x32 pixels, as its images come and rectified."""


class Recorder:
    """Writes a bag of ROS 1, or of ROS 2 in either storage."""

    def __init__(self, kind: str, path: Path) -> None:
        if kind == "ros1":
            self.path, self.store = path.with_suffix(".bag"), get_typestore(Stores.ROS1_NOETIC)
            self.writer: Any = Writer1(self.path)
            self.serialize: Any = self.store.serialize_ros1
        else:
            self.path, self.store = path, get_typestore(Stores.ROS2_JAZZY)
            self.writer = Writer2(path, version=9, storage_plugin=StoragePlugin[kind.upper()])
            self.serialize = self.store.serialize_cdr
        self.connections: dict[str, Any] = {}

    def __enter__(self) -> Recorder:
        self.writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def new(self, name: str, **fields: Any) -> Any:
        return self.store.types[name](**fields)

    def header(self, stamp: int) -> Any:
        time = self.new("builtin_interfaces/msg/Time", sec=stamp // SECOND, nanosec=stamp % SECOND)
        sequence = {"seq": 0} if isinstance(self.writer, Writer1) else {}
        return self.new("std_msgs/msg/Header", stamp=time, frame_id="front", **sequence)

    def write(self, topic: str, time: int, message: Any, cut: int = 0) -> None:
        """Write a message that was recorded at `time`, without its last `cut` bytes."""
        kind = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        data = bytes(self.serialize(message, kind))
        self.writer.write(self.connections[topic], time, data[: len(data) - cut])

    def image(
        self, topic: str, time: int, stamp: int, picture: NDArray[Any], encoding: str = "rgb8", cut: int = 0
    ) -> None:
        message = self.new(
            "sensor_msgs/msg/Image", header=self.header(stamp), height=picture.shape[0], width=picture.shape[1],
            encoding=encoding, is_bigendian=0, step=picture[0].nbytes, data=picture.reshape(-1).view(np.uint8),
        )  # fmt: skip
        self.write(topic, time, message, cut)

    def compressed(self, topic: str, time: int, stamp: int, data: Any, encoding: str) -> None:
        message = self.new("sensor_msgs/msg/CompressedImage", header=self.header(stamp), format=encoding, data=data)
        self.write(topic, time, message)

    def camera_info(self, topic: str, time: int) -> None:
        case = str.upper if isinstance(self.writer, Writer1) else str.lower
        region = self.new(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )  # fmt: skip
        numbers = {"d": np.array([0.1, 0.0, 0.0, 0.0, 0.0]), "k": MATRIX.reshape(-1), "r": np.eye(3).reshape(-1),
                   "p": np.hstack([PROJECTION, np.zeros((3, 1))]).reshape(-1)}  # fmt: skip
        message = self.new(
            "sensor_msgs/msg/CameraInfo", header=self.header(time), height=32, width=48, distortion_model="plumb_bob",
            binning_x=0, binning_y=0, roi=region, **{case(name): value for name, value in numbers.items()},
        )  # fmt: skip
        self.write(topic, time, message)
