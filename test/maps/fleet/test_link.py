# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_server import Site

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.fleet.found import FoundKeyframes
from binvpr_ros.maps.fleet.link import Link, OwnClosure, Robot, Settings
from binvpr_ros.maps.fleet.mirror import MOST_MIRRORED, Nearest
from binvpr_ros.maps.store import MOST_KEYFRAMES
from maps.small_maps import CAMERA, MODEL, WORDS, descriptor, features, motion


class Driver(Robot):
    """A robot that keeps keyframes in its map, and takes what is no more than a bit away for a closure."""

    def __init__(self, path: Path, site: Site, robot: str = "alice", most_mirrored: int = MOST_MIRRORED) -> None:
        self.lock = threading.Lock()
        self.database = KeyframeDatabase(path, MODEL, WORDS)
        self.link = Link(Settings(site.url(robot), site.name, path, MODEL, WORDS, (), most_mirrored), self)
        self.forks: list[str] = []
        self.closures: list[tuple[int, str, str, int]] = []

    def drive(self, *seeds: int) -> None:
        for seed in seeds:
            with self.lock:
                keyframe = self.database.next_keyframe(seed * 1000, descriptor(seed), features(seed), b"jpeg")
                keyframe = dataclasses.replace(keyframe, motion=motion(seed))
                self.database.add(keyframe, camera=CAMERA)
            self.link.offer(keyframe)

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
        number = query.id % MOST_KEYFRAMES
        closures = []
        for position in np.flatnonzero(distances[: found.foreign] <= 1):
            match = found.keyframe(int(position))
            theirs = found.features(match)
            if theirs is None:
                continue
            assert query.features is not None
            whose, there, _ = found.origin(match)
            assert found.camera_of(match) is not None
            self.closures.append((number, whose.robot, whose.identity.uuid, there))
            closures.append(OwnClosure(number, whose.identity.uuid, there, len(theirs.positions)))
        return closures


@contextmanager
def driving(path: Path, site: Site, robot: str = "alice", most_mirrored: int = MOST_MIRRORED) -> Iterator[Driver]:
    driver = Driver(path, site, robot, most_mirrored)
    driver.link.start()
    try:
        yield driver
    finally:
        driver.link.close()
        driver.database.close()


def wait(condition: Callable[[], object], driver: Driver, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, driver.link.status
        time.sleep(0.02)


def in_step(driver: Driver) -> bool:
    status = driver.link.status
    return status.connected and not status.lag_keyframes and not status.undecided


def sent(site: Site) -> list[tuple[Any, ...]]:
    return site.rows(
        "SELECT robot, keyframe, stamp, features, motion IS NOT NULL, thumbnail, closes FROM binvpr.maps "
        "JOIN binvpr.realms USING (realm) JOIN binvpr.keyframes USING (realm, map_no) "
        "JOIN binvpr.features USING (realm, map_no, keyframe, stamp) WHERE site = $1 ORDER BY map_no, keyframe",
        site.name,
    )


@pytest.mark.parametrize("most_mirrored", [MOST_MIRRORED, 0])
def test_two_robots_find_each_other(site: Site, tmp_path: Path, most_mirrored: int) -> None:
    with driving(tmp_path / "a.db", site, "alice", most_mirrored) as alice:
        alice.drive(1, 2, 3)
        wait(lambda: in_step(alice), alice)
        uuid = site.rows(
            "SELECT map::text FROM binvpr.maps JOIN binvpr.realms USING (realm) WHERE site = $1", site.name
        )
        with driving(tmp_path / "b.db", site, "bob", most_mirrored) as bob:
            bob.drive(10, 2, 11)
            wait(lambda: in_step(bob), bob)
            assert bob.closures == [(1, "alice", uuid[0][0], 1)]
            assert bob.link.status.mirrored == (most_mirrored > 0)
            assert bob.link.robot == "bob"
            alice.drive(20, 11)
            wait(lambda: in_step(alice) and alice.closures, alice)
            assert [(one[0], one[1], one[3]) for one in alice.closures] == [(4, "bob", 2)]
    assert [row[:3] for row in sent(site)] == [
        *(("alice", number, seed * 1000) for number, seed in enumerate((1, 2, 3, 20, 11))),
        *(("bob", number, seed * 1000) for number, seed in enumerate((10, 2, 11))),
    ]
    assert all(row[3] == features(row[2] // 1000).to_bytes() for row in sent(site))
    assert all(row[4:6] == (row[1] > 0, b"jpeg") for row in sent(site))
    closures = site.rows(
        "SELECT keyframe, to_keyframe, inliers FROM binvpr.closures JOIN binvpr.maps USING (map_no) "
        "JOIN binvpr.realms USING (realm) WHERE site = $1 ORDER BY 1", site.name,
    )  # fmt: skip
    assert closures == [(1, 1, 5), (4, 2, 5)]
