# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fleet_server import Site

from binvpr_ros.lab.embedded_postgres import EmbeddedPostgres
from binvpr_ros.maps.fleet import schema
from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.fleet.server import connected
from binvpr_ros.network.model_card import ModelCard
from maps.fleet.driver import driving
from maps.small_maps import MODEL, WORDS


def test_all_is_made_once(site: Site) -> None:
    async def again(connection: Any) -> list[object]:
        return [
            await schema.init(connection),
            await schema.add_realm(connection, site.name, MODEL, WORDS, ()),
            await schema.add_indexes(connection),
            await schema.add_robot(connection, "alice"),
        ]

    assert site.ask(again) == [[], "", [], ""]


def test_the_index_holds_the_bits_of_the_card_that_a_shift_leaves_alone(model: Path) -> None:
    card = ModelCard.read(model)
    assert schema.indexed_bits(card.grids, card.descriptor_bits) == (1537, 512)
    assert schema.indexed_bits((), 2048) == (1, 2048)
    assert schema.indexed_bits(((8, 32),), 2048) == (1, 2048)  # a shift moves them all


def test_a_robot_reads_all_maps_and_writes_its_own(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1, 2)
        alice.wait()
    assert len(site.rows("SELECT 1 FROM keyframes JOIN features USING (map_no, keyframe)", robot="bob")) >= 2
    ((number,),) = site.rows("SELECT map_no FROM maps JOIN realms USING (realm) WHERE site = $1", site.name)
    for statement in (
        "UPDATE maps SET camera = 'x' WHERE map_no = $1 RETURNING 1",
        "UPDATE keyframes SET stamp = 0 WHERE map_no = $1 RETURNING 1",
        "DELETE FROM features WHERE map_no = $1 RETURNING 1",
        "DELETE FROM keyframes WHERE map_no = $1 RETURNING 1",
        "DELETE FROM maps WHERE map_no = $1 RETURNING 1",
    ):
        assert site.rows(statement, number, robot="bob") == []
    for statement in (
        "INSERT INTO keyframes SELECT realm, map_no, 7, session, stamp, closes, motion, descriptor, 1 FROM keyframes "
        "WHERE map_no = $1",
        "INSERT INTO features SELECT realm, map_no, 7, 0, NULL, NULL FROM maps WHERE map_no = $1",
        "INSERT INTO closures SELECT map_no, 7, map, 1, 1 FROM maps WHERE map_no = $1",
        "INSERT INTO maps (map, realm, robot) SELECT gen_random_uuid(), realm, robot FROM maps WHERE map_no = $1",
    ):
        with pytest.raises(FleetError, match="row-level security"):
            site.rows(statement, number, robot="bob")
    for statement in ("UPDATE realms SET site = 'x'", "DELETE FROM version", "DROP TABLE keyframes"):
        with pytest.raises(FleetError, match="does not allow it"):
            site.rows(statement, robot="bob")
    assert len(site.rows("SELECT 1 FROM keyframes WHERE map_no = $1", number)) == 2


def test_a_row_that_would_stop_the_search_of_others_is_refused(site: Site, tmp_path: Path) -> None:
    with driving(tmp_path / "a.db", site.url("alice"), site.name) as alice:
        alice.drive(1, 2)
        alice.wait()
    ((number,),) = site.rows("SELECT map_no FROM maps JOIN realms USING (realm) WHERE site = $1", site.name)
    other = Site(site.server, MODEL, WORDS)
    ((elsewhere,),) = site.rows("SELECT realm FROM realms WHERE site = $1", other.name)
    for statement, values in (
        ("UPDATE keyframes SET descriptor = B'101' WHERE map_no = $1", (number,)),
        ("UPDATE keyframes SET session = -1 WHERE map_no = $1", (number,)),
        ("UPDATE keyframes SET keyframe = -1 WHERE map_no = $1 AND keyframe = 0", (number,)),
        ("UPDATE maps SET camera = repeat('x', 200000000) WHERE map_no = $1", (number,)),
    ):
        with pytest.raises(FleetError, match="violates check constraint"):
            site.rows(statement, *values, robot="alice")
    for statement in (
        "UPDATE maps SET realm = $2 WHERE map_no = $1",
        "UPDATE keyframes SET realm = $2 WHERE map_no = $1",
        "UPDATE features SET realm = $2 WHERE map_no = $1",
    ):
        with pytest.raises(FleetError, match="violates foreign key constraint"):
            site.rows(statement, number, elsewhere, robot="alice")


@pytest.mark.parametrize(
    ("version", "index"), [("0.8.4", True), ("0.8.5", True), ("1.0.0", True), ("0.8.3", False), (None, False)]
)
def test_pgvector_must_be_whole(version: str | None, index: bool) -> None:
    why = schema.why_without_index(version)
    assert (not why) == index
    assert index or "100,000 keyframes" in why


@pytest.fixture
def database(fleet_server: EmbeddedPostgres) -> Callable[[Callable[[Any], Awaitable[Any]]], Any]:
    """Ask an empty database of its own."""

    async def made() -> None:
        async with connected(fleet_server.url()) as connection:
            await connection.execute("DROP DATABASE IF EXISTS versions")
            await connection.execute("CREATE DATABASE versions")

    asyncio.run(made())

    def ask(what: Callable[[Any], Awaitable[Any]]) -> Any:
        async def asked() -> Any:
            async with connected(fleet_server.url(database="versions")) as connection:
                return await what(connection)

        return asyncio.run(asked())

    return ask


def test_the_tables_of_a_version_become_those_of_the_next(
    database: Callable[[Callable[[Any], Awaitable[Any]]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database(schema.version_of) is None
    assert database(schema.init) == ["the fleet's map was made, version 1"]
    monkeypatch.setattr(schema, "VERSION", 3)
    monkeypatch.setattr(schema, "FROM_VERSION", {
        1: "ALTER TABLE binvpr.maps ADD COLUMN colour text;", 2: "ALTER TABLE binvpr.maps ADD COLUMN size int;",
    })  # fmt: skip
    assert database(schema.init) == ["the fleet's map was brought from version 1 to 3"]
    assert database(schema.init) == []
    assert database(schema.version_of) == 3
    monkeypatch.undo()
    with pytest.raises(FleetError, match="version 3, not 1; upgrade binvpr_ros"):
        database(schema.version_of)
