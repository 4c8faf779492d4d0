# SPDX-License-Identifier: Apache-2.0
"""What a robot holds of the maps of others, by what becomes of them on the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleet_server import Site

from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.fleet.mirror import Mirror
from binvpr_ros.maps.fleet.schema import Realm
from binvpr_ros.maps.fleet.server import realm_of
from binvpr_ros.maps.fleet.upkeep import push
from binvpr_ros.network.hamming import WORD_BITS
from maps.small_maps import MODEL, WORDS, descriptor, fill


def send(site: Site, path: Path, count: int, start: int = 0) -> int:
    """Send a map of so many keyframes as alice; return its number."""
    database = KeyframeDatabase(path, MODEL, WORDS)
    fill(database, count, start)
    database.close()
    site.ask(lambda connection: push(connection, site.name, path), "alice")
    return int(site.rows("SELECT max(map_no) FROM maps JOIN realms USING (realm) WHERE site = $1", site.name)[0][0])


def refresh(site: Site, mirror: Mirror) -> None:
    async def read(connection: Any) -> None:
        realm: Realm = await realm_of(connection, site.name, MODEL, WORDS * WORD_BITS)
        await mirror.refresh(connection, realm, -1)

    site.ask(read, "bob")


def nearest(mirror: Mirror, seed: int) -> tuple[str, int, int]:
    """Return uuid, keyframe and distance of what is nearest to a place."""
    found = mirror.nearest(descriptor(seed)[None]).stretches
    best = min(found, key=lambda one: int(one.distances.min()))
    position = int(best.distances.argmin())
    return best.whose.identity.uuid, int(best.keyframes.ids[position]), int(best.distances[position])


def forget(site: Site, number: int) -> None:
    """Delete the newest map, and let the next one have its number, as on a server that was restored."""
    site.rows("DELETE FROM maps WHERE map_no = $1", number)
    site.rows(f"ALTER TABLE maps ALTER map_no RESTART WITH {number:d}")


def test_a_number_that_a_restored_server_gives_out_again_is_another_map(site: Site, tmp_path: Path) -> None:
    mirror = Mirror(WORDS)
    number = send(site, tmp_path / "old.db", 3)
    refresh(site, mirror)
    old = nearest(mirror, 1)
    assert old[1:] == (1, 0)
    forget(site, number)
    assert send(site, tmp_path / "new.db", 4, start=70) == number
    refresh(site, mirror)
    new = nearest(mirror, 71)
    assert len(mirror) == 4
    assert new[0] != old[0]
    assert new[1:] == (1, 0)
    assert nearest(mirror, 1)[2] > 0


def test_more_than_a_mirror_may_hold_is_not_read(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binvpr_ros.maps.fleet.mirror.ROWS_AT_ONCE", 4)
    mirror = Mirror(WORDS, most=10)
    for number in range(3):
        send(site, tmp_path / f"{number}.db", 7, start=number * 100)
    refresh(site, mirror)
    assert len(mirror) == 11  # two maps are more than it may hold, and the third is not read any more


def test_maps_without_keyframes_take_no_room(site: Site) -> None:
    mirror = Mirror(WORDS)
    site.rows("INSERT INTO maps (map, realm) SELECT gen_random_uuid(), realm FROM realms, generate_series(1, 10) "
              "WHERE site = $1", site.name, robot="alice")  # fmt: skip
    refresh(site, mirror)
    assert mirror.maps == 0


def test_a_map_that_made_no_sense_is_read_again(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(WORDS)
    number = send(site, tmp_path / "a.db", 3)
    site.rows("UPDATE keyframes SET session = 9 - keyframe WHERE map_no = $1", number)
    refresh(site, mirror)
    assert list(mirror.refused) == [number]
    site.rows("UPDATE keyframes SET session = 0 WHERE map_no = $1", number)
    refresh(site, mirror)
    assert (list(mirror.refused), len(mirror)) == ([number], 0)
    monkeypatch.setattr(mirror, "_again", 0.0)  # ten minutes later
    refresh(site, mirror)
    assert (mirror.refused, len(mirror)) == ({}, 3)
