# SPDX-License-Identifier: Apache-2.0
"""A node that is killed at any moment leaves a map that opens, with every keyframe that it announced.

For more than a test: `make kill RUNS=200`, and for other moments than last time SEED=<number>.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from robot import CAMERA
from sensor_msgs.msg import Image

from binvpr_ros.counted import counted
from binvpr_ros.maps.command import problems
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.network.model_card import ModelCard
from binvpr_ros.ros.dds import PROFILE_VARIABLES
from binvpr_ros.ros.live import Listener, NodeProcess
from binvpr_ros.ros.messages import from_nanoseconds, message_from_array, to_nanoseconds

pytestmark = [pytest.mark.usefixtures("ros"), pytest.mark.long]

RUNS = int(os.environ.get("KILL_RUNS", "20"))
SEED = int(os.environ.get("KILL_SEED", "1"))
LONGEST_LIFE = 0.6
"""Seconds from the first keyframe of a run to its end."""
LONGEST_START = 2.0
"""Seconds from the start of a run to its end, of those that end as they come."""
START_TIMEOUT = 60.0
FRAME = 50_000_000
"""Nanoseconds from image to image."""


class Camera:
    """Shows one image after the other, with stamps that go on from run to run."""

    def __init__(self, images: list[NDArray[np.uint8]]) -> None:
        self._images: Iterator[Image] = itertools.cycle([message_from_array(image, "rgb8") for image in images])
        self._stamps = itertools.count(FRAME, FRAME)

    def next(self) -> Image:
        image = next(self._images)
        image.header.stamp = from_nanoseconds(next(self._stamps))
        return image


def live_and_die(number: int, path: Path, camera: Camera, rng: random.Random, log: Path) -> list[int]:
    """Run a node on the map, kill it at a random moment, and return the stamps of the keyframes that it announced."""
    arguments = ["-r", f"__ns:=/run{number}", "-p", f"database:={path}", "-p", "keyframe_distance:=0.0",
                 "-p", "keyframe_min_interval:=0.0"]  # fmt: skip
    with Listener(f"/run{number}") as listener:
        publisher = listener.node.create_publisher(Image, f"/run{number}/image", CAMERA)
        # A process that is killed leaves its shared memory behind: half a megabyte without our profile. The profile is
        # left out for the node alone, since Fast DDS reads it once in a process, with the first node, and tests after
        # this one need room for large images.
        with pytest.MonkeyPatch.context() as environment:
            for variable in PROFILE_VARIABLES:
                environment.delenv(variable, raising=False)
            node = NodeProcess(*arguments, log=log)
        try:
            end = time.monotonic() + START_TIMEOUT
            if number % 4 == 3:  # while it opens the map, or what it left behind last time
                end = time.monotonic() + rng.uniform(0.3, LONGEST_START)
            alive = False
            while time.monotonic() < end and node.process.poll() is None:
                publisher.publish(camera.next())
                time.sleep(0.01)
                if listener.keyframes and not alive:
                    alive = True
                    end = min(end, time.monotonic() + rng.uniform(0.0, LONGEST_LIFE))
        finally:
            node.process.kill()
            node.stop(signal.SIGKILL)
        time.sleep(0.1)  # what it announced last is on its way
        return [to_nanoseconds(header.stamp) for header in listener.keyframes]


def faults(path: Path, announced: set[int], log: str, before: int, card: ModelCard) -> tuple[list[str], int]:
    """Return a sentence for each thing that is wrong with a map after a run, and how many keyframes it holds.

    `before` is how many it held before that run, whose `log` says how many the node found.
    """
    found = [f"the node said: {line}" for line in log.splitlines() if "cannot start" in line or "Traceback" in line]
    if "ready: " in log and f" {counted(before, 'keyframe')}, images from" not in log:
        found.append(f"the node did not go on with the {before} keyframes of the map")
    if not path.exists():  # killed before it opened anything
        return found + ["the map is gone"] * bool(before or announced), 0
    try:
        database = KeyframeDatabase(path, card.sha256, card.descriptor_bits // 64)
    except DatabaseError as error:
        return [*found, str(error)], before
    missing = announced - set(database.stamps.tolist())
    if missing:
        found.append(f"{len(missing)} announced keyframes are missing, the first of {min(missing) / 1e9:.3f} s")
    if not np.array_equal(database.ids, np.arange(len(database))):
        found.append("the keyframes are not numbered one by one")
    if any(database.features(database.keyframe(index)) is None for index in range(before, len(database))):
        found.append("a keyframe has lost its features")
    database.close()
    return found + problems(path), len(database)


@pytest.mark.timeout(120 + 20 * RUNS)
def test_a_node_that_is_killed_loses_nothing_that_it_announced(
    world_images: list[NDArray[np.uint8]], model: Path, tmp_path: Path
) -> None:
    rng, camera, card = random.Random(SEED), Camera(world_images), ModelCard.read(model)  # noqa: S311 - no secret
    path, log = tmp_path / "map.db", tmp_path / "node.log"
    announced: set[int] = set()
    kept, failures, with_log = 0, 0, 0
    for number in range(RUNS):
        announced.update(live_and_die(number, path, camera, rng, log))
        # A copy is looked at: the node itself shall mend what it left behind.
        for file in tmp_path.glob("map.db*"):
            shutil.copy(file, tmp_path / file.name.replace("map", "copy"))
        with_log += (tmp_path / "copy.db-wal").exists()
        sentences, kept = faults(tmp_path / "copy.db", announced, log.read_text(), kept, card)
        for file in tmp_path.glob("copy.db*"):
            file.unlink()
        for sentence in sentences:
            print(f"run {number}: {sentence}")
        failures += bool(sentences)
    print(f"kill: {RUNS} runs with seed {SEED}, {with_log} of them left a write-ahead log; {len(announced)} keyframes "
          f"announced, {kept} in the map; {failures} runs failed")  # fmt: skip
    assert not failures
    assert kept >= len(announced) >= RUNS  # the node did live and write
