# SPDX-License-Identifier: Apache-2.0
"""`benchmark --start`: how long the node takes until it is there, and its memory, above a node that does nothing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from binvpr_ros.config import Config, model_path
from binvpr_ros.lab.node_benchmark import KEYFRAMES, LONGEST_WAIT, TOPIC, NodeError
from binvpr_ros.lab.search import write_map
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import WORD_BITS
from binvpr_ros.recordings.world import World, drive
from binvpr_ros.ros.live import (
    LIKE_A_CAMERA,
    Image,
    NodeProcess,
    create_node,
    from_nanoseconds,
    message_from_array,
    own_ros,
    wait_for_subscriber,
)

IMAGES = 20
INTERVAL = 0.1
"""Seconds between images, of which many become keyframes."""
BARE = f"""
import cv2, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("bare")
node.create_subscription(Image, "{TOPIC}", lambda message: None, qos_profile_sensor_data)
rclpy.spin(node)
"""


def start_figures(config: Config, repeat: int) -> dict[str, Any]:
    """Start a bare node, which imports rclpy and cv2 and takes images, and ours with 10,000 keyframes, in turns.

    `seconds` are from the start of the process until its subscription is found, and `megabytes` the memory after
    some images, shared pages in parts (PSS): medians of `repeat` starts. `above` is what ours takes more.
    """
    network = DescriptorNetwork(model_path(config), config.backend, config.threads, config.untried_runtime)
    world = World()
    images = [message_from_array(np.asarray(world.render(*place)), "rgb8") for place in drive(IMAGES)]
    figures: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "megabytes": []} for name in ("bare", "node")}
    with own_ros(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "map.db")
        write_map(path, KEYFRAMES, network.words * WORD_BITS, network.card.sha256)
        ours = ("-r", f"image:={TOPIC}", "-p", f"database:={path}", "-p", f"local_features:={config.local_features}")
        starts: dict[str, Callable[[], NodeProcess | _Bare]] = {"bare": _Bare, "node": lambda: NodeProcess(*ours)}
        for _ in range(repeat):
            for name, start in starts.items():
                seconds, megabytes = _measure(start, images)
                figures[name]["seconds"].append(seconds)
                figures[name]["megabytes"].append(megabytes)
    medians = {
        name: {what: round(float(np.median(values)), 2) for what, values in both.items()}
        for name, both in figures.items()
    }
    above = {what: round(medians["node"][what] - medians["bare"][what], 2) for what in medians["bare"]}
    return {**medians, "above": above, "keyframes": KEYFRAMES}


class _Bare(NodeProcess):
    """A node that does nothing, as a process."""

    def __init__(self) -> None:
        self._log = None
        self.process = subprocess.Popen([sys.executable, "-c", BARE], stderr=subprocess.DEVNULL)


def _measure(start: Callable[[], NodeProcess], images: list[Image]) -> tuple[float, float]:
    """Return the seconds until a process is there, and the megabytes that it has after some images."""
    node = create_node("camera")
    camera = node.create_publisher(Image, TOPIC, LIKE_A_CAMERA)
    begun = time.monotonic()
    try:
        with start() as process:
            if not wait_for_subscriber(camera, LONGEST_WAIT):
                raise NodeError("a node did not start; its messages are above")
            seconds = time.monotonic() - begun
            for message in images:
                message.header.stamp = from_nanoseconds(time.time_ns())
                camera.publish(message)
                time.sleep(INTERVAL)
            return seconds, _megabytes(process.process.pid)
    finally:
        node.destroy_node()


def _megabytes(pid: int) -> float:
    """Return the memory of a process, of which shared pages count in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
