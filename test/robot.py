# SPDX-License-Identifier: Apache-2.0
"""A node under test as a process of its own, and what surrounds it on a robot."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from binvpr_ros.ros.live import Listener, NodeProcess
from binvpr_ros.ros.messages import from_nanoseconds, message_from_array, to_nanoseconds
from binvpr_ros.ros.replay import wait_for_subscriber
from binvpr_ros.ros.sources import as_type

CAMERA = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class Robot:
    """A node under test, and what surrounds it on a robot."""

    def __init__(
        self,
        tmp_path: Path,
        *arguments: str,
        compressed: bool = False,
        namespace: str = "",
        topic: str = "/camera",
        wait: bool = True,
    ) -> None:
        """Start both; `wait` until the node subscribes to the images."""
        self.log = tmp_path / "node.log"
        self.listener = Listener(namespace)
        self.node = self.listener.node
        self.compressed = compressed
        self.full_name = f"{namespace}/binvpr"
        names = ["-r", f"image:={topic}", *(["-r", f"__ns:={namespace}"] if namespace else [])]
        self.process = NodeProcess(*arguments, *names, log=self.log)  # of two remappings the first holds
        kind = CompressedImage if compressed else Image
        self.camera = self.node.create_publisher(kind, topic, CAMERA)
        assert not wait or wait_for_subscriber(self.camera, 30.0), self.log.read_text()
        self.sent = 0

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain until {what}; the node said:\n{self.log.read_text()}"
            assert self.process.process.poll() is None, f"the node died; it said:\n{self.log.read_text()}"
            time.sleep(0.02)

    def send(self, message: Image | CompressedImage, stamp: int | None = None) -> None:
        """Send one image, and give the node a moment for it."""
        message.header.stamp = from_nanoseconds(time.time_ns() if stamp is None else stamp)
        message.header.frame_id = "camera_link"
        self.camera.publish(message)
        self.sent += 1
        time.sleep(0.05)

    def show(self, images: list[NDArray[np.uint8]], start: float, rate: float = 5.0) -> list[int]:
        """Show RGB images with stamps from `start` (s) on, each once the last is a keyframe; return the stamps."""
        stamps = [round((start + number / rate) * 1e9) for number in range(len(images))]
        for image, stamp in zip(images, stamps, strict=True):
            self.send(as_type(message_from_array(image, "rgb8"), self.compressed), stamp)
            self.wait(lambda: self.newest_keyframe() == stamp, "the image is a keyframe")  # noqa: B023 - called at once
        self.settle()
        return stamps

    def newest_keyframe(self) -> int | None:
        return to_nanoseconds(self.listener.keyframes[-1].stamp) if self.listener.keyframes else None

    def settle(self) -> None:
        assert self.listener.wait_until_settled(received=self.sent), self.log.read_text()

    def count(self, name: str) -> int:
        return int(self.listener.diagnostics.get(name, 0))

    def call(self, kind: Any, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, f"{self.full_name}/{service}")
        assert client.wait_for_service(20.0)
        future = client.call_async(request)
        self.wait(future.done, f"{service} answers")
        self.node.destroy_client(client)
        return future.result()

    def set(self, name: str, value: Any) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def close(self) -> None:
        self.process.stop()
        self.listener.close()
