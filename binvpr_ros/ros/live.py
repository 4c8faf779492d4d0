# SPDX-License-Identifier: Apache-2.0
"""A live node, and all that lab/ needs of ROS to drive one: the node as a process, a listener, a camera, messages."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy import create_node
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from binvpr_ros.ros.dds import isolate_ros, make_room_for_large_images
from binvpr_ros.ros.fleet_closures import read_fleet_closures
from binvpr_ros.ros.messages import (
    decode,
    from_nanoseconds,
    message_from_array,
    message_from_closures,
    rows_from_message,
    to_nanoseconds,
)
from binvpr_ros.ros.node import EVERY_RESULT, status_name
from binvpr_ros.ros.replay import LIKE_A_CAMERA, publish, wait_for_subscriber
from binvpr_ros.ros.sources import ImageMessage, Source, SourceError, in_time, open_source

__all__ = [
    "EVERY_RESULT", "LIKE_A_CAMERA", "Header", "Image", "ImageMessage", "Listener", "NodeProcess", "PointCloud2",
    "Source", "SourceError", "Trigger", "create_node", "decode", "from_nanoseconds", "in_time",
    "message_from_array", "message_from_closures", "open_source", "own_ros", "publish", "read_fleet_closures",
    "rows_from_message", "to_nanoseconds", "wait_for_subscriber",
]  # fmt: skip


@contextlib.contextmanager
def own_ros() -> Iterator[None]:
    """Run rclpy in this process, kept to itself and its children on this host, with room for large images."""
    isolate_ros()
    make_room_for_large_images()
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()


class NodeProcess:
    """`binvpr_node` with `arguments` (such as -p name:=value, -r image:=/camera), stopped at the end of a `with`."""

    STOP_SECONDS = 20.0

    def __init__(self, *arguments: str, log: Path | None = None) -> None:
        self._log: IO[str] | None = None if log is None else log.open("w", encoding="utf-8")
        command = [sys.executable, "-m", "binvpr_ros.ros.node"]
        if arguments:
            command += ["--ros-args", *arguments]
        # The log goes to standard error, which keeps a program's own standard output clean.
        output = self._log if self._log is not None else sys.stderr
        self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        """Ask the node to stop, wait for it, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(self.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class Listener:
    """Collects, in a thread, what the node publishes: closures, keyframes and the newest diagnostics."""

    def __init__(self, namespace: str = "") -> None:
        self.node = rclpy.create_node("listener", namespace=namespace)
        self.closures: list[PointCloud2] = []
        self.keyframes: list[Header] = []
        self.diagnostics: dict[str, str] = {}
        self.level: bytes = b""
        self.message = ""
        self.hardware_id = ""
        self._status_name = status_name("binvpr", namespace)
        self.node.create_subscription(PointCloud2, "loop_closures", self.closures.append, EVERY_RESULT)
        self.node.create_subscription(Header, "keyframes", self.keyframes.append, EVERY_RESULT)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def wait_until_settled(self, timeout: float = 10.0, received: int = 1) -> bool:
        """Wait until the node has dealt with `received` images, as its diagnostics say; return whether it has."""
        names = ("images_processed", "images_dropped", "images_unusable", "messages_lost")
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if sum(int(self.diagnostics.get(name, 0)) for name in names) >= received:
                return True
            time.sleep(0.05)
        return False

    def wait_until_still(self, timeout: float = 30.0) -> bool:
        """Wait until the node has dealt with all images that reached it, and no more come; return whether that was so.

        Not all that are published need reach it: what a newer one replaces before the node takes it is counted nowhere.
        """
        deadline = time.monotonic() + timeout
        last = self.diagnostics
        while time.monotonic() < deadline:
            if (newest := self.diagnostics) is not last:
                received, before = (int(values.get("images_received", 0)) for values in (newest, last))
                dealt_with = sum(int(newest[f"images_{fate}"]) for fate in ("processed", "dropped", "unusable"))
                if dealt_with == received == before > 0:
                    return True
                last = newest
            time.sleep(0.05)
        return False

    def close(self) -> None:
        """Stop listening."""
        self._executor.shutdown()
        self._thread.join(timeout=5)
        self.node.destroy_node()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._status_name:
                self.diagnostics = {value.key: value.value for value in status.values}
                self.level, self.message, self.hardware_id = status.level, status.message, status.hardware_id
