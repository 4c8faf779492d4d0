# SPDX-License-Identifier: Apache-2.0
"""A robot of a fleet without a camera: it keeps keyframes in its map, and takes equal descriptors for one place.

`python driver.py MAP URL SITE` drives until it is killed, and prints the stamp of each keyframe that it has kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.fleet.found import FoundKeyframes
from binvpr_ros.maps.fleet.link import Link, OwnClosure, Robot, Settings
from binvpr_ros.maps.fleet.mirror import MOST_MIRRORED, Nearest
from binvpr_ros.maps.store import MOST_KEYFRAMES
from maps.small_maps import CAMERA, MODEL, WORDS, descriptor, features, motion


class Driver(Robot):
    """A robot whose keyframes are made of seeds: those of one seed show one place."""

    def __init__(self, path: Path, url: str, site: str, most_mirrored: int = MOST_MIRRORED, model: str = MODEL) -> None:
        self.lock = threading.Lock()
        self.database = KeyframeDatabase(path, model, WORDS)
        self.link = Link(Settings(url, site, path, model, WORDS, (), most_mirrored), self)
        self.forks: list[str] = []
        self.closures: list[tuple[int, str, int]] = []  # own keyframe, robot, keyframe there
        self.slowest = 0.0  # seconds in which a keyframe was kept, and offered

    def drive(self, *seeds: int) -> None:
        for seed in seeds:
            started = time.monotonic()
            with self.lock:
                keyframe = self.database.next_keyframe(seed * 1000, descriptor(seed), features(seed), b"jpeg")
                keyframe = dataclasses.replace(keyframe, motion=motion(seed))
                self.database.add(keyframe, camera=CAMERA)
            self.link.offer(keyframe)
            self.slowest = max(self.slowest, time.monotonic() - started)

    def shift_cells(self) -> int:
        return 0

    def fork(self, reason: str) -> None:
        self.forks.append(reason)
        with self.lock:
            self.database.renew()

    def decide(self, query: Keyframe, found: FoundKeyframes, nearest: Nearest, *, live: bool) -> list[OwnClosure]:
        assert isinstance(live, bool)
        assert nearest.stretches
        distances = found.distances(found.views(query.descriptor, 0))
        closures = []
        for position in np.flatnonzero(distances[: found.foreign] == 0):
            match = found.keyframe(int(position))
            assert found.camera_of(match) is not None
            if (theirs := found.features(match)) is not None:
                whose, there, _ = found.origin(match)
                number = query.id % MOST_KEYFRAMES
                self.closures.append((number, whose.robot, there))
                closures.append(OwnClosure(number, whose.identity.uuid, there, len(theirs.positions)))
        return closures

    def in_step(self) -> bool:
        status = self.link.status
        return status.connected and not status.lag_keyframes and not status.undecided

    def wait(self, condition: Callable[[], object] | None = None, seconds: float = 60.0) -> None:
        """Wait until a condition holds, or until all is sent and decided."""
        deadline = time.monotonic() + seconds
        while not (condition or self.in_step)():
            assert time.monotonic() < deadline, self.link.status
            time.sleep(0.02)


@contextlib.contextmanager
def driving(
    path: Path, url: str, site: str, most_mirrored: int = MOST_MIRRORED, model: str = MODEL
) -> Iterator[Driver]:
    driver = Driver(path, url, site, most_mirrored, model)
    driver.link.start()
    try:
        yield driver
    finally:
        driver.link.close()
        driver.database.close()


def main() -> None:
    path, url, site = sys.argv[1:]
    with driving(Path(path), url, site) as driver:
        seed = len(driver.database)
        while True:
            driver.drive(seed)
            print(seed * 1000, flush=True)
            seed += 1
            time.sleep(0.01)


if __name__ == "__main__":
    main()
