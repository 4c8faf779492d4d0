# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_server import Site

from binvpr_ros.local_features.camera import Camera
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.fleet import searching
from binvpr_ros.maps.fleet.found import FoundKeyframes, whole_id
from binvpr_ros.maps.fleet.mirror import Mirror, Nearest
from binvpr_ros.maps.fleet.searching import Search
from binvpr_ros.maps.fleet.server import realm_of
from binvpr_ros.maps.fleet.upkeep import push
from binvpr_ros.maps.identity import camera_text
from binvpr_ros.network.cells import shifted
from binvpr_ros.network.hamming import hamming

MODEL = "c" * 64
WORDS = 8
GRIDS = ((2, 64), (1, 256))
"""The first 256 of the bits move with a shift, and the last 256 do not."""


def near(one: np.ndarray[Any, Any], bits: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    unpacked = np.unpackbits(one.view(np.uint8))
    unpacked[rng.choice(len(unpacked), bits, replace=False)] ^= 1
    return np.packbits(unpacked).view(np.uint64)


@pytest.fixture
def large(fleet_server: Any, tmp_path: Path) -> tuple[Site, np.ndarray[Any, Any]]:
    """A site with a map of two sessions, and its descriptors [300,W], which drift on from one to the next."""
    site, rng = Site(fleet_server, MODEL, WORDS, GRIDS), np.random.default_rng(1)
    descriptors = [rng.integers(0, 2**64, WORDS, np.uint64)]
    for _ in range(299):
        descriptors.append(near(descriptors[-1], 30, rng))
    database = KeyframeDatabase(tmp_path / "map.db", MODEL, WORDS, (), GRIDS)
    for number, one in enumerate(descriptors):
        if number == 150:
            database.new_session()
        database.add(database.next_keyframe(number * 10**9, one))
    database.close()
    site.ask(lambda connection: push(connection, site.name, tmp_path / "map.db"), "alice")
    return site, np.array(descriptors)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("reach", [0, 1, 2])
def test_the_search_on_the_server_finds_what_the_exact_one_does(
    large: tuple[Site, np.ndarray[Any, Any]], index: bool, reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, descriptors = large
    monkeypatch.setattr(searching, "CANDIDATES", 100)
    rng = np.random.default_rng(2)

    async def search(connection: Any) -> list[tuple[Nearest, Nearest]]:
        realm = await realm_of(connection, site.name, MODEL, 64 * WORDS)
        assert (realm.index_from, realm.index_bits) == (257, 256)
        mirror, on_server = Mirror(WORDS), Search(realm, -1, WORDS, index=index)
        await mirror.refresh(connection, realm, -1)
        assert len(mirror) == len(descriptors)
        queries = [shifted(near(one, 20, rng), GRIDS, reach) for one in descriptors[::25]]
        return [(mirror.nearest(views), await on_server.nearest(connection, views)) for views in queries]

    for exact, found in site.ask(search, "bob"):
        best = [
            min((int(one.distances.min()), int(one.keyframes.ids[one.distances.argmin()])) for one in nearest.stretches)
            for nearest in (exact, found)
        ]
        assert best[0] == best[1]
        assert found.last is not None
        assert exact.last is None
        assert len(exact.typical) == len(descriptors)
        assert len(found.typical) == len(descriptors)
        for one in found.stretches:  # what comes from the server are runs of keyframes, each of one session
            assert len(set(one.keyframes.sessions.tolist())) == 1
            assert (one.keyframes.sessions == (one.keyframes.ids >= 150)).all()


def test_a_place_where_a_robot_stood_does_not_hide_its_double(fleet_server: Any, tmp_path: Path) -> None:
    site, rng = Site(fleet_server, MODEL, WORDS, GRIDS), np.random.default_rng(3)
    place = rng.integers(0, 2**64, WORDS, np.uint64)
    stood, others, double = range(60), range(60, 160), range(160, 163)
    database = KeyframeDatabase(tmp_path / "map.db", MODEL, WORDS, (), GRIDS)
    for number in (*stood, *others, *double):
        drawn = rng.integers(0, 2**64, WORDS, np.uint64)
        one = drawn if number in others else near(place, 5 if number in stood else 14, rng)
        database.add(database.next_keyframe(number * 10**9, one))
    database.close()
    site.ask(lambda connection: push(connection, site.name, tmp_path / "map.db"), "alice")

    async def search(connection: Any) -> Nearest:
        realm = await realm_of(connection, site.name, MODEL, 64 * WORDS)
        return await Search(realm, -1, WORDS, index=True).nearest(connection, place[np.newaxis])

    (found,) = site.ask(search, "bob").stretches
    assert set(double) & set(found.keyframes.ids.tolist())
    assert set(stood) <= set(found.keyframes.ids.tolist())


def test_what_was_found_is_searched_as_the_own_map_is(large: tuple[Site, np.ndarray[Any, Any]]) -> None:
    site, descriptors = large

    async def search(connection: Any) -> FoundKeyframes:
        realm = await realm_of(connection, site.name, MODEL, 64 * WORDS)
        mirror = Mirror(WORDS)
        await mirror.refresh(connection, realm, -1)
        nearest = mirror.nearest(shifted(descriptors[170], GRIDS, 1))
        return FoundKeyframes(nearest.stretches, nearest.typical, None, GRIDS, lambda _whose, _number: None)

    found = site.ask(search, "bob")
    assert (len(found), found.foreign, found.maps) == (300, 300, 1)
    assert (np.diff(found.ids) == 1).all()
    assert (np.diff(found.sessions) >= 0).all()
    match = found.keyframe(170)
    whose, number, session = found.origin(match)
    assert (whose.robot, number, session, match.stamp) == ("alice", 170, 1, 170 * 10**9)
    assert match.id == whole_id(whose.number, 170)
    assert (match.descriptor == descriptors[170]).all()
    views = found.views(descriptors[170], 1)
    assert found.distances(views)[170] == 0
    assert (found.distances(views) == [hamming(views, one).min() for one in descriptors]).all()
    assert found.motion(150, 160) is None  # it is not known
    assert found.features(match) is None
    assert found.camera_of(match) is None
    assert not found.calibration_is_sure(match)


def test_a_camera_that_was_calibrated_anew_is_the_one_that_is_found(large: tuple[Site, np.ndarray[Any, Any]]) -> None:
    site, descriptors = large
    widths = []

    async def search(connection: Any) -> None:
        realm = await realm_of(connection, site.name, MODEL, 64 * WORDS)
        on_server = Search(realm, -1, WORDS, index=True)
        for width in (480, 640):
            camera = Camera((width, 360), np.eye(3), np.zeros(4))
            await connection.execute("UPDATE maps SET camera = $2 WHERE realm = $1", realm.number, camera_text(camera))
            found = await on_server.nearest(connection, descriptors[170:171])
            camera_found = found.stretches[0].whose.identity.camera
            assert camera_found is not None
            widths.append(camera_found.size[0])

    site.ask(search)
    assert widths == [480, 640]
