# SPDX-License-Identifier: Apache-2.0
"""A robot and the server in step, whatever breaks: what the robot has kept comes to the server once, and whole."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fleet_server import Site

from binvpr_ros.config import Config
from binvpr_ros.keyframes import Keyframe
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.fleet import link
from binvpr_ros.maps.fleet.found import FoundKeyframes
from binvpr_ros.maps.fleet.link import OwnClosure
from binvpr_ros.maps.fleet.mirror import MOST_MIRRORED, Nearest
from binvpr_ros.maps.fleet.schema import ROBOTS
from binvpr_ros.maps.source import OtherClosure
from binvpr_ros.maps.store import MOST_KEYFRAMES
from maps.fleet.driver import Driver, driving
from maps.small_maps import CAMERA, MODEL, WORDS, descriptor, features

SEED = int(os.environ.get("KILL_SEED", "1"))


def sent(site: Site, robot: str = "%") -> list[tuple[Any, ...]]:
    """Return the keyframes of a site: robot, id, stamp, features, whether there is a motion, thumbnail, closes."""
    return site.rows(
        "SELECT robot::text, keyframe, stamp, features, motion IS NOT NULL, thumbnail, closes FROM binvpr.maps "
        "JOIN binvpr.realms USING (realm) JOIN binvpr.keyframes USING (realm, map_no) "
        "JOIN binvpr.features USING (realm, map_no, keyframe, stamp) WHERE site = $1 AND robot LIKE $2 "
        "ORDER BY map_no, keyframe", site.name, robot,
    )  # fmt: skip


def maps(site: Site) -> list[tuple[str, str]]:
    return site.rows(
        "SELECT map::text, robot::text FROM binvpr.maps JOIN binvpr.realms USING (realm) WHERE site = $1 "
        "ORDER BY map_no",
        site.name,
    )


def kept(path: Path) -> list[tuple[int, int]]:
    """Return id and stamp of the keyframes of a map that nobody has open."""
    database = KeyframeDatabase(path, MODEL, WORDS)
    found = list(zip(database.ids.tolist(), database.stamps.tolist(), strict=True))
    database.close()
    return found


@pytest.mark.parametrize("most_mirrored", [MOST_MIRRORED, 0])
def test_two_robots_find_each_other(site: Site, tmp_path: Path, most_mirrored: int) -> None:
    with driving(tmp_path / "a.db", site.url("alice"), site.name, most_mirrored) as alice:
        alice.drive(1, 2, 3)
        alice.wait()
        with driving(tmp_path / "b.db", site.url("bob"), site.name, most_mirrored) as bob:
            bob.drive(10, 2, 11)
            bob.wait()
            assert bob.closures == [(1, "alice", 1)]
            assert bob.link.status.mirrored == (most_mirrored > 0)
            assert bob.link.robot == "bob"
            alice.drive(20, 11)
            alice.wait()
            assert alice.closures == [(4, "bob", 2)]
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


def test_what_was_kept_without_a_network_is_sent_and_decided_when_it_is_back(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1, 2)
        alice.wait()
    with driving(tmp_path / "b.db", "postgresql://bob@/postgres?host=/nowhere", site.name) as bob:
        bob.drive(2, 5)
        bob.wait(lambda: bob.link.status.refused)
        assert bob.link.status.lag_keyframes == 2
        assert "cannot be reached" in bob.link.status.refused
    with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:
        bob.wait()
        assert bob.closures == [(0, "alice", 1)]
    with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:  # what is decided is not decided again
        bob.wait()
        assert not bob.closures


def test_what_is_in_memory_is_found_while_the_server_is_away(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FIRST_PAUSE", 3.0)
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1, 2, 3)
        alice.wait()
    with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:
        bob.drive(2)
        bob.wait()
        site.server.kill()
        bob.wait(lambda: not bob.link.status.connected)
        bob.drive(2, 3)  # the features of the first were fetched, and those of the second were not
        bob.wait(lambda: len(bob.closures) == 2)
        site.server.start()
        bob.wait()
        assert bob.closures == [(0, "alice", 1), (1, "alice", 1), (2, "alice", 2)]
    assert len(sent(site, "bob")) == 3


def test_closures_that_are_found_while_the_server_is_away_keep_their_inliers(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remembering(Driver):
        def decide(self, query: Keyframe, found: FoundKeyframes, nearest: Nearest, *, live: bool) -> list[OwnClosure]:
            closures = super().decide(query, found, nearest, live=live)
            with self.lock:
                for one in closures:
                    self.database.remember(OtherClosure(one.keyframe, one.map_uuid, one.match))
            return closures

    monkeypatch.setattr(link, "FIRST_PAUSE", 3.0)
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1)
        alice.wait()
    bob = Remembering(tmp_path / "b.db", site.url("bob"), site.name)
    bob.link.start()
    try:
        bob.drive(1)
        bob.wait()
        site.server.kill()
        bob.wait(lambda: not bob.link.status.connected)
        bob.drive(1)
        bob.wait(lambda: len(bob.closures) == 2)
        site.server.start()
        bob.wait()
    finally:
        bob.link.close()
        bob.database.close()
    inliers = site.rows(
        "SELECT keyframe, inliers FROM binvpr.closures JOIN binvpr.maps USING (map_no) "
        "JOIN binvpr.realms USING (realm) WHERE site = $1 ORDER BY 1", site.name,
    )  # fmt: skip
    assert inliers == [(0, 5), (1, 5)]


class Trouble:
    """Kills the server, connections, or the robot's process."""

    def __init__(self, site: Site, path: Path, log: Path) -> None:
        self.site, self.path, self.log = site, path, log
        self.announced: set[int] = set()
        self.start()

    def start(self) -> None:
        test = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(test.parent), str(test)])}
        driver = [sys.executable, "-m", "maps.fleet.driver", str(self.path), self.site.url(), self.site.name]
        with self.log.open("w") as output:
            self.robot = subprocess.Popen(driver, env=environment, stdout=output, stderr=output)

    def kill_robot(self) -> None:
        self.end()
        self.start()

    def end(self) -> None:
        self.robot.send_signal(signal.SIGKILL)
        self.robot.wait()
        lines = self.log.read_text().splitlines(keepends=True)
        assert all(line.strip().isdecimal() for line in lines), self.log.read_text()
        self.announced.update(int(line) for line in lines if line.endswith("\n"))

    def kill_server(self) -> None:
        self.site.server.kill()
        time.sleep(0.2)
        self.site.server.start()

    def kill_connections(self) -> None:
        self.site.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'")


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_kills_at_any_moment_lose_nothing(site: Site, tmp_path: Path, times: int) -> None:
    rng = random.Random(SEED)  # noqa: S311 - no secret
    path = tmp_path / "a.db"
    trouble = Trouble(site, path, tmp_path / "log")
    for number in range(times):
        time.sleep(rng.uniform(0.5, 3.0))
        (trouble.kill_server, trouble.kill_robot, trouble.kill_connections)[number % 3]()
    time.sleep(1.0)
    trouble.end()
    with driving(path, site.url(), site.name) as alice:
        alice.wait()
    rows = sent(site)
    assert trouble.announced <= {row[2] for row in rows}
    assert len(trouble.announced) > 5 * times
    assert [row[1:3] for row in rows] == kept(path)
    assert all(row[3] == features(row[2] // 1000).to_bytes() for row in rows)
    assert len(maps(site)) == 1


def test_a_restored_copy_becomes_a_map_of_its_own(site: Site, tmp_path: Path) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    with driving(path, site.url(), site.name) as alice:
        alice.drive(1, 2, 3)
        alice.wait()
    shutil.copy(path, copy)
    with driving(path, site.url(), site.name) as alice:
        alice.drive(4, 5)
        alice.wait()
    with driving(copy, site.url(), site.name) as restored:
        restored.drive(6)
        restored.wait()
        assert len(restored.forks) == 1
    assert len(maps(site)) == 2
    assert [row[2] for row in sent(site)] == [1000, 2000, 3000, 4000, 5000, 1000, 2000, 3000, 6000]
    with driving(path, site.url(), site.name) as alice:  # the original goes on as if nothing were
        alice.drive(7)
        alice.wait()
        assert not alice.forks
    assert len(maps(site)) == 2


def leave_a_copy_behind(path: Path, copy: Path, site: Site) -> None:
    """Let a map be copied after two keyframes, and go on with a third."""
    with driving(path, site.url(), site.name) as alice:
        alice.drive(1, 2)
        alice.wait()
    shutil.copy(path, copy)
    with driving(path, site.url(), site.name) as alice:
        alice.drive(3)
        alice.wait()


def test_a_copy_that_has_overtaken_the_original_is_told_by_what_it_holds(site: Site, tmp_path: Path) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    leave_a_copy_behind(path, copy, site)
    with driving(copy, site.url(), site.name) as restored:
        restored.drive(4, 5, 6, 7)
        restored.wait()
        assert restored.forks == ["the server has other keyframes under the numbers of this map's"]


def test_a_cloned_card_in_another_robot_becomes_a_map_of_its_own(site: Site, tmp_path: Path) -> None:
    path, clone = tmp_path / "a.db", tmp_path / "clone.db"
    with driving(path, site.url("alice"), site.name) as alice:
        alice.drive(1, 2)
        alice.wait()
        shutil.copy(path, clone)  # its log lies beside it
        for file in tmp_path.glob("a.db-*"):
            shutil.copy(file, tmp_path / file.name.replace("a.db", "clone.db"))
        with driving(clone, site.url("bob"), site.name) as bob:
            bob.drive(3)
            bob.wait()
            assert bob.forks == ["robot 'alice' writes a map of the same uuid"]
            assert not bob.closures  # with what both have seen as one
        with driving(tmp_path / "clone.db", site.url("bob"), site.name) as bob:
            bob.wait()
            assert not bob.forks
    assert [robot for _, robot in maps(site)] == ["alice", "bob"]


def test_two_with_one_map_and_one_name_wait_for_each_other_until_they_differ(site: Site, tmp_path: Path) -> None:
    path, clone = tmp_path / "a.db", tmp_path / "clone.db"
    with driving(path, site.url(), site.name) as alice:
        alice.drive(1)
        alice.wait()
    shutil.copy(path, clone)
    with driving(path, site.url(), site.name) as alice, driving(clone, site.url(), site.name) as other:
        (alice if alice.link.status.connected else other).wait(lambda: alice.in_step() or other.in_step())
        first, second = (alice, other) if alice.in_step() else (other, alice)
        second.wait(lambda: "another connection" in second.link.status.refused)
        first.drive(2)
        first.wait()
        second.drive(3)
        second.wait()
        assert (len(first.forks), len(second.forks)) == (0, 1)


def test_another_model_and_another_site_are_refused(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url(), site.name, model="b" * 64) as alice:
        alice.drive(1)
        alice.wait(lambda: "another model" in alice.link.status.refused)
    with driving(tmp_path / "b.db", site.url(), "nowhere") as alice:
        alice.drive(1)
        alice.wait(lambda: "no site 'nowhere'" in alice.link.status.refused)
    other = Site(site.server, MODEL, WORDS)
    with driving(tmp_path / "c.db", site.url(), site.name) as alice:
        alice.drive(1)
        alice.wait()
    with driving(tmp_path / "c.db", site.url(), other.name) as alice:
        alice.wait(lambda: f"belongs to site {site.name!r}" in alice.link.status.refused)
        assert f"binvpr fleet forget URL --map {maps(site)[0][0]}" in alice.link.status.refused
    assert len(sent(site)) == 1
    assert not sent(other)


def test_a_gap_on_a_restored_server_is_sent_again_and_seen_by_others(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:
        with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
            alice.drive(1, 2, 3, 4)
            alice.wait()
        bob.wait(lambda: bob.link.status.keyframes == 4)
        site.rows("DELETE FROM binvpr.keyframes USING binvpr.maps m, binvpr.realms r WHERE keyframes.map_no = m.map_no "
                  "AND r.realm = m.realm AND site = $1 AND keyframe IN (1, 3)", site.name)  # fmt: skip
        with driving(tmp_path / "c.db", site.url("bob"), site.name) as late:
            late.wait(lambda: late.link.status.keyframes == 2)
            with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
                alice.wait()
            late.wait(lambda: late.link.status.keyframes == 4)
            late.drive(4)
            late.wait()
            assert late.closures == [(0, "alice", 3)]
        assert [row[2] for row in sent(site, "alice")] == [1000, 2000, 3000, 4000]


def test_what_the_robot_forgets_is_deleted(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FORGOTTEN_SECONDS", 0.1)
    monkeypatch.setattr("binvpr_ros.maps.fleet.mirror.COMPARE_SECONDS", 0.1)
    with (
        driving(tmp_path / "a.db", site.url("alice"), site.name) as alice,
        driving(tmp_path / "b.db", site.url("bob"), site.name) as bob,
    ):
        alice.drive(*range(6))
        alice.wait()
        bob.wait(lambda: bob.link.status.keyframes == 6)
        with alice.lock:
            keyframe = alice.database.next_keyframe(9000, alice.database.keyframe(5).descriptor)
            alice.database.add(dataclasses.replace(keyframe, closes=5), [1, 2])
        alice.drive(7)
        bob.wait(lambda: bob.link.status.keyframes == 6)
        bob.wait(lambda: [row[1] for row in sent(site, "alice")] == [0, 3, 4, 5, 7])  # 6 has no features
        bob.drive(2, 3)
        bob.wait()
        assert bob.closures == [(1, "alice", 3)]


def test_a_server_that_is_slow_or_takes_no_writes_leaves_the_robot_as_it_was(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url(), site.name) as alice:
        alice.drive(1)
        alice.wait()
        locked, unlock = threading.Event(), threading.Event()

        async def lock(connection: Any) -> None:
            async with connection.transaction():
                await connection.execute("LOCK TABLE binvpr.maps IN ACCESS EXCLUSIVE MODE")
                locked.set()
                while not unlock.is_set():
                    await connection.fetchval("SELECT pg_sleep(0.05)")

        locking = threading.Thread(target=site.ask, args=(lock,))
        locking.start()
        assert locked.wait(30.0)
        try:
            alice.drive(2, 3)
            alice.wait(lambda: "too slow" in alice.link.status.refused)
            alice.drive(4)
            alice.wait(lambda: alice.link.status.lag_keyframes == 3)
            assert len(alice.database) == 4
        finally:
            unlock.set()
            locking.join()
        alice.wait()
        site.rows("ALTER ROLE alice SET default_transaction_read_only = on")
        try:
            site.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'")
            alice.drive(5)
            alice.wait(lambda: "takes no writes" in alice.link.status.refused)
            assert len(alice.database) == 5
        finally:
            site.rows("ALTER ROLE alice RESET default_transaction_read_only")
        alice.wait()
    assert [row[2] for row in sent(site)] == [1000, 2000, 3000, 4000, 5000]


def test_a_full_server_leaves_the_robot_as_it_was(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url(), site.name) as alice:
        alice.drive(1)
        alice.wait()
        ((realm,),) = site.rows("SELECT realm FROM realms WHERE site = $1", site.name)
        site.rows(
            "CREATE FUNCTION binvpr.full() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END$$"
        )
        try:
            site.rows(f"CREATE TRIGGER full_{realm} BEFORE INSERT ON binvpr.features_{realm} "
                      "FOR EACH ROW EXECUTE FUNCTION binvpr.full()")  # fmt: skip
            alice.drive(2, 3)
            alice.wait(lambda: "has no room (no space left)" in alice.link.status.refused)
            assert (len(alice.database), alice.link.status.lag_keyframes) == (3, 2)
        finally:
            site.rows("DROP FUNCTION binvpr.full CASCADE")
        alice.wait()
    assert [row[2] for row in sent(site)] == [1000, 2000, 3000]


@pytest.mark.parametrize("most_mirrored", [MOST_MIRRORED, 0])
def test_a_map_on_the_server_that_makes_no_sense_is_left_out_until_it_does(
    site: Site, tmp_path: Path, most_mirrored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("binvpr_ros.maps.fleet.mirror.REFUSED_SECONDS", 0.1)
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1, 2)
        alice.wait()
    with driving(tmp_path / "c.db", site.url("alice"), site.name) as alice:
        alice.drive(3)
        alice.wait()
    (first, _), (second, _) = maps(site)
    site.rows("UPDATE binvpr.keyframes SET session = 1 - keyframe FROM binvpr.maps m WHERE keyframes.map_no = m.map_no "
              "AND map::text = $1", first)  # fmt: skip
    site.rows("UPDATE binvpr.features SET features = 'rubbish'::bytea FROM binvpr.maps m "
              "WHERE features.map_no = m.map_no AND map::text = $1", second)  # fmt: skip
    with driving(tmp_path / "b.db", site.url("bob"), site.name, most_mirrored) as bob:
        bob.drive(1, 3)
        bob.wait()
        assert bob.link.status.maps == (1 if most_mirrored else 0)
        assert not bob.closures
        assert bob.link.status.warnings == (
            "the keyframes of robot 'alice' on the server make no sense; its map is left out",
        )
        site.rows("UPDATE binvpr.keyframes SET session = 0 FROM binvpr.maps m WHERE keyframes.map_no = m.map_no "
                  "AND map::text = $1", first)  # fmt: skip
        bob.wait(lambda: not most_mirrored or bob.link.status.maps == 2)
        bob.drive(2)
        bob.wait()
        bob.wait(lambda: not bob.link.status.warnings)
        assert bob.closures == [(2, "alice", 1)]


def test_features_of_a_map_whose_number_is_given_out_again_are_not_those_of_the_old_one(
    site: Site, tmp_path: Path
) -> None:
    with driving(tmp_path / "b.db", site.url("bob"), site.name, most_mirrored=0) as bob:
        bob.wait()
        with driving(tmp_path / "old.db", site.url("alice"), site.name) as alice:
            alice.drive(1, 2)
            alice.wait()
        bob.drive(2)  # the features are kept from now on
        bob.wait()
        ((number, old),) = site.rows("SELECT map_no, map::text FROM maps JOIN realms USING (realm) "
                                     "WHERE site = $1 AND robot = 'alice'", site.name)  # fmt: skip
        site.rows("DELETE FROM maps WHERE map_no = $1", number)  # as on a server that was restored
        site.rows(f"ALTER TABLE maps ALTER map_no RESTART WITH {number:d}")
        with driving(tmp_path / "new.db", site.url("alice"), site.name) as alice:
            alice.drive(71)
            with alice.lock:
                keyframe = alice.database.next_keyframe(72000, descriptor(72), features(72, 9))
                alice.database.add(keyframe, camera=CAMERA)
            alice.link.offer(keyframe)
            alice.wait()
        bob.drive(72)
        bob.wait()
    closures = site.rows(
        "SELECT keyframe, to_map::text, to_keyframe, inliers FROM closures JOIN maps USING (map_no) "
        "JOIN realms USING (realm) WHERE site = $1 ORDER BY 1", site.name,
    )  # fmt: skip
    new = {robot: uuid for uuid, robot in maps(site)}["alice"]
    assert closures == [(0, old, 1, 5), (1, new, 1, 9)]


def test_a_link_needs_no_more_than_the_parameters_of_a_node(site: Site, tmp_path: Path) -> None:
    config = Config(database=str(tmp_path / "a.db"), fleet=site.url(), fleet_site=site.name)
    assert config.fleet == site.url()
    assert isinstance(Driver(Path(config.database), config.fleet, config.fleet_site).link.status, link.Status)


def test_a_keyframe_whose_decision_fails_does_not_hold_up_the_others(site: Site, tmp_path: Path) -> None:
    class Failing(Driver):
        def decide(self, query: Keyframe, found: FoundKeyframes, nearest: Nearest, *, live: bool) -> list[OwnClosure]:
            if query.id % MOST_KEYFRAMES == 1:
                raise ValueError("one bad keyframe")
            return super().decide(query, found, nearest, live=live)

    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1, 2, 3)
        alice.wait()
    with driving(tmp_path / "b.db", "postgresql://bob@/postgres?host=/nowhere", site.name) as bob:
        bob.drive(1, 2, 3)
    bob = Failing(tmp_path / "b.db", site.url("bob"), site.name)
    bob.link.start()
    try:
        bob.wait()
        assert bob.closures == [(0, "alice", 0), (2, "alice", 2)]
        assert "keyframe 1 is not looked for" in bob.link.status.warnings[-1]
    finally:
        bob.link.close()
        bob.database.close()


def test_a_keyframe_is_decided_without_features_that_never_come(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1, 2)
        alice.wait()
    site.rows(f"REVOKE SELECT ON binvpr.features FROM {ROBOTS}")  # noqa: S608
    try:
        with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:
            bob.drive(2, 1)
            bob.wait()
            assert not bob.closures
    finally:
        site.rows(f"GRANT SELECT ON binvpr.features TO {ROBOTS}")


def test_features_beyond_all_that_a_map_keeps_are_not_fetched(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1)
        alice.wait()
    huge = features(1, 28_000).to_bytes()
    site.rows("UPDATE binvpr.features SET features = $1 FROM binvpr.maps m JOIN binvpr.realms r USING (realm) "
              "WHERE features.map_no = m.map_no AND site = $2", huge, site.name)  # fmt: skip
    with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:
        bob.drive(1)
        bob.wait()
        assert not bob.closures


def test_a_picture_that_is_no_blob_does_not_hold_up_what_is_sent(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", "postgresql://alice@/postgres?host=/nowhere", site.name) as alice:
        alice.drive(1, 2)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("UPDATE keyframes SET thumbnail = 'text', motion = 'text' WHERE id = 0")
        connection.commit()
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.wait()
    assert [(row[1], row[4], row[5]) for row in sent(site)] == [(0, False, None), (1, True, b"jpeg")]


def test_a_copy_becomes_a_map_of_its_own_once_its_disk_has_room(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Driver):
        failures = 0

        def fork(self, reason: str) -> None:
            if self.failures <= link.MOST_FORKS:
                self.failures += 1
                raise DatabaseError("the disk is full")
            super().fork(reason)

    monkeypatch.setattr(link, "LASTING_PAUSE", 0.1)
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    with driving(path, site.url(), site.name) as alice:
        alice.drive(1)
        alice.wait()
    shutil.copy(path, copy)
    with driving(path, site.url(), site.name) as alice:
        alice.drive(2)
        alice.wait()
    restored = Full(copy, site.url(), site.name)
    restored.link.start()
    try:
        restored.wait()
        assert restored.failures > link.MOST_FORKS
    finally:
        restored.link.close()
        restored.database.close()
    assert len(maps(site)) == 2


def test_what_a_copy_has_kept_since_it_was_made_is_decided_after_the_fork(site: Site, tmp_path: Path) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:
        bob.drive(7, 8)
        bob.wait()
    leave_a_copy_behind(path, copy, site)
    with driving(copy, "postgresql://alice@/postgres?host=/nowhere", site.name) as restored:
        restored.drive(7, 8)
    with driving(copy, site.url(), site.name) as restored:
        restored.wait()
        assert len(restored.forks) == 1
        assert restored.closures == [(2, "bob", 0), (3, "bob", 1)]


def test_a_map_that_is_forgotten_while_its_robot_is_connected_is_sent_again(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url(), site.name) as alice:
        alice.drive(1)
        alice.wait()
        ((uuid, _),) = maps(site)
        site.rows("DELETE FROM binvpr.maps WHERE map::text = $1", uuid)
        alice.drive(2)
        alice.wait(lambda: "was forgotten on the server" in alice.link.status.refused)
        alice.wait()
    assert [row[2] for row in sent(site)] == [1000, 2000]


def test_a_server_that_is_restored_has_nothing_published_again(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1, 2)
        alice.wait()
    with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:
        bob.drive(1, 2)
        bob.wait()
        noted = "SELECT decided FROM maps JOIN realms USING (realm) WHERE site = $1 AND robot = 'bob'"
        bob.wait(lambda: site.rows(noted, site.name) == [(1,)])
        ((_, uuid),) = ((robot, uuid) for uuid, robot in maps(site) if robot == "bob")
        site.rows("DELETE FROM binvpr.maps WHERE map::text = $1", uuid)
        bob.drive(5)
        bob.wait(lambda: len(maps(site)) == 2 and bob.in_step())
        assert bob.closures == [(0, "alice", 0), (1, "alice", 1)]


def test_features_that_were_missing_are_asked_for_anew_by_the_next_connection(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1)
        alice.wait()
        ((_, _, _, blob, *_),) = sent(site)
        change = ("UPDATE binvpr.features SET features = $1 FROM binvpr.maps m JOIN binvpr.realms r USING (realm) "
                  "WHERE features.map_no = m.map_no AND site = $2")  # fmt: skip
        site.rows(change, b"rubbish", site.name)
        with driving(tmp_path / "b.db", site.url("bob"), site.name) as bob:
            bob.drive(1)
            bob.wait()
            assert not bob.closures
            site.rows(change, blob, site.name)
            site.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bob'")
            bob.wait(lambda: not bob.link.status.connected)
            bob.wait()
            bob.drive(1)
            bob.wait()
            assert bob.closures == [(1, "alice", 0)]
