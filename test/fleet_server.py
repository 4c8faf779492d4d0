# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL with pgvector, and sites of a fleet's map on it, for tests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from binvpr_ros.lab.embedded_postgres import EmbeddedPostgres
from binvpr_ros.maps.fleet import schema
from binvpr_ros.maps.fleet.server import connected
from binvpr_ros.network.cells import Grids

SITES = itertools.count()
ROBOTS = ("alice", "bob")
Result = TypeVar("Result")


def prepare(server: EmbeddedPostgres) -> None:
    """Make the tables, and the robots."""

    async def made() -> None:
        async with connected(server.url(), patient=True) as connection:
            await schema.init(connection)
            await schema.add_pgvector(connection)
            for robot in ROBOTS:
                await schema.add_robot(connection, robot)

    asyncio.run(made())


class Site:
    """A site of a fleet's map that nobody else writes."""

    def __init__(self, server: EmbeddedPostgres, model: str, words: int, grids: Grids = ()) -> None:
        self.server = server
        self.name = f"site {next(SITES)}"

        async def made(connection: Any) -> None:
            await schema.add_realm(connection, self.name, model, words, grids)
            await schema.add_indexes(connection)

        self.ask(made)

    def url(self, robot: str = "alice") -> str:
        return self.server.url(robot)

    def ask(self, what: Callable[[Any], Awaitable[Result]], robot: str = "postgres") -> Result:
        """Return what a coroutine function returns of a connection."""

        async def asked() -> Result:
            async with connected(self.url(robot), patient=True) as connection:
                return await what(connection)

        return asyncio.run(asked())

    def rows(self, statement: str, *values: Any, robot: str = "postgres") -> list[tuple[Any, ...]]:
        """Return what a statement returns."""

        async def fetch(connection: Any) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await connection.fetch(statement, *values)]

        return self.ask(fetch, robot)
