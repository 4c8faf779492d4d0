# SPDX-License-Identifier: Apache-2.0
"""Hours of images take no memory beyond that of keyframes, no file descriptors and no threads; more: `make soak`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.orb import extract
from binvpr_ros.maps.command import info
from binvpr_ros.network.model_card import ModelCard
from binvpr_ros.recognizer import PlaceRecognizer

IMAGES = int(os.environ.get("SOAK_IMAGES", "5000"))
"""Through the recognizer."""
HOURS = float(os.environ.get("SOAK_HOURS", "0.05"))
"""Of recording through the node."""
RATE = 15
"""Images a second in the recording."""
WARM_UP = 0.5
"""Share of the images after which nothing may grow: SQLite fills its cache of the map first."""
MOST_GROWTH = 0.01 if HOURS >= 1 else 0.04
"""Of the memory after warm-up. A run of minutes is not over all of it: SQLite's cache and what doubles when it is full
come to 3 MB until there are 1,100 keyframes, and to 0.5 MB in the 1,100 after that."""
KEYFRAME_BYTES = 4 + 4 + 8 + 4 + 36 + 40 + 4 + 4
"""Of a keyframe in memory: id, session, stamp, what it closes, motion, whereabouts, view; its descriptor is on top."""


class Usage(NamedTuple):
    """What a process takes."""

    memory: int  # bytes, resident and its own
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: int | str) -> Usage:
        """Return the usage of the process of this number, or of `self`."""
        folder = Path(f"/proc/{process}")
        resident, shared = (int(pages) for pages in (folder / "statm").read_text(encoding="ascii").split()[1:3])
        memory = (resident - shared) * os.sysconf("SC_PAGE_SIZE")
        return cls(memory, *(len(list((folder / name).iterdir())) for name in ("fd", "task")))


def see_no_growth(what: str, warm: Usage, end: Usage, keyframes: int, descriptor_bits: int) -> None:
    """See that a process has grown by no more than what the keyframes since its warm-up need."""
    needed = keyframes * (KEYFRAME_BYTES + descriptor_bits // 8)
    growth = (end.memory - warm.memory - needed) / warm.memory
    print(f"{what}: {warm.memory / 2**20:.1f} MiB after warm-up, then {(end.memory - warm.memory) / 2**20:+.2f} MiB, "
          f"{needed / 2**20:.2f} MiB of it for {keyframes} keyframes: {growth:+.2%}; "
          f"{end.descriptors} descriptors ({end.descriptors - warm.descriptors:+}), "
          f"{end.threads} threads ({end.threads - warm.threads:+})")  # fmt: skip
    assert growth < MOST_GROWTH
    assert end.descriptors <= warm.descriptors
    assert end.threads <= warm.threads


def soak_recognizer(path: Path, images: int) -> None:
    """Recognise places in `images` random ones, one in a hundred of them a keyframe, and see no growth."""
    # After a quarter of the interval, since a random image is nothing like the one before.
    recognizer = PlaceRecognizer(Config(database=str(path), keyframe_min_interval=400.0 / RATE))
    rng = np.random.default_rng(1)
    scenes = rng.integers(0, 256, (50, 12, 16, 3), np.uint8).repeat(10, 1).repeat(10, 2)
    features = extract(scenes[0])
    verify(features, features, None)  # OpenCV starts its threads for the first pair, which may come after warm-up
    warm, keyframes = Usage.of("self"), 0
    for number in range(images):
        scene = np.roll(scenes[number % len(scenes)], rng.integers(0, 120), 0)
        recognition = recognizer.process(scene, number * 10**9 // RATE)
        keyframes += recognition.keyframe is not None
        if number == int(WARM_UP * images):
            warm, keyframes = Usage.of("self"), 0
    see_no_growth(f"recognizer, {images} images", warm, Usage.of("self"), keyframes,
                  recognizer.network.card.descriptor_bits)  # fmt: skip
    assert keyframes >= images // 250  # of the second half
    recognizer.close()


@pytest.mark.timeout(120 + IMAGES)
@pytest.mark.long
def test_the_recognizer_does_not_grow(tmp_path: Path) -> None:
    # In a process of its own: that of the tests holds what other tests have left.
    command = [sys.executable, __file__, str(tmp_path / "map.db"), str(IMAGES)]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stdout


@pytest.mark.usefixtures("ros")
@pytest.mark.timeout(180 + 3 * HOURS * 3600)
@pytest.mark.long
def test_the_node_does_not_grow(tmp_path: Path, world_images: list[NDArray[np.uint8]], model: Path) -> None:
    robots = pytest.importorskip("robot", reason="ROS 2 is not installed")
    from binvpr_ros.ros.messages import from_nanoseconds, message_from_array

    path, images = tmp_path / "map.db", round(HOURS * 3600 * RATE)
    messages = [message_from_array(image, "rgb8") for image in [*world_images, *world_images[::-1]]]
    robot = robots.Robot(tmp_path, "-p", f"database:={path}")
    try:
        warm, warm_keyframes = Usage.of("self"), -1
        for number in range(images):
            # Faster than it can: what it has no time for it drops.
            message = messages[number % len(messages)]
            message.header.stamp = from_nanoseconds(number * 10**9 // RATE)
            robot.camera.publish(message)
            time.sleep(0.01)
            assert robot.process.process.poll() is None, robot.log.read_text()
            if number == int(WARM_UP * images):
                warm, warm_keyframes = Usage.of(robot.process.process.pid), robot.count("keyframes")
        end, keyframes = Usage.of(robot.process.process.pid), robot.count("keyframes") - warm_keyframes
        print(f"{images} images sent, {robot.count('images_processed')} processed, "
              f"{robot.count('images_dropped')} dropped, {robot.count('images_unusable')} unusable")  # fmt: skip
        assert robot.count("images_processed") > 0
    finally:
        robot.close()
    assert keyframes > 0
    see_no_growth(f"node, {HOURS:g} hours at {RATE} images/s", warm, end, keyframes,
                  ModelCard.read(model).descriptor_bits)  # fmt: skip
    assert "Traceback" not in robot.log.read_text()
    print(info(path))


if __name__ == "__main__":
    soak_recognizer(Path(sys.argv[1]), int(sys.argv[2]))
