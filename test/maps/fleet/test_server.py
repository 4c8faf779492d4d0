# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import pytest
from fleet_server import Site

from binvpr_ros.config import Config, ConfigError
from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.fleet.server import connected, host_of, why_unsafe


async def connect(url: str) -> None:
    async with connected(url):
        pass


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://alice@localhost:1/fleet", "localhost/fleet cannot be reached"),
        ("postgresql://alice@/fleet?host=/nowhere", "/nowhere/fleet cannot be reached"),
    ],
)
def test_why_there_is_no_connection_is_said_in_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(FleetError, match=sentence) as raised:
        asyncio.run(connect(url))
    assert not raised.value.lasting


def test_what_somebody_must_change_is_lasting(site: Site) -> None:
    for url, sentence in (
        (site.server.url(database="nothing"), "holds no map of a fleet"),
        (site.server.url("nobody"), "refuses the user"),
    ):
        with pytest.raises(FleetError, match=sentence) as raised:
            asyncio.run(connect(url))
        assert raised.value.lasting


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql://alice@/fleet?host=/run/postgresql", True),
        ("postgresql://alice@localhost/fleet", True),
        ("postgresql://alice@db.example.com/fleet", False),
        ("postgresql://alice@db.example.com/fleet?sslmode=require", False),
        ("postgresql://alice@db.example.com/fleet?sslmode=verify-full", True),
    ],
)
def test_a_server_that_is_not_verified_is_told(url: str, safe: bool) -> None:
    assert (not why_unsafe(url)) == safe


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://alice:secret@db/fleet", "must hold no password"),
        ("postgresql://alice@db/fleet?password=secret", "must hold no password"),
        ("postgresql://alice@db/fleet?PASSWORD=secret", "must hold no password"),
        ("postgresql://alice:secret/1@db/fleet", "fleet is no URL; write it as"),
        ("postgresql://alice:secret\u2100@db/fleet", "fleet is no URL; write it as"),
        ("postgresql://alice:12/secret@db/fleet", "fleet has an @ after the server's name"),
        ("postgresql://alice:12?secret@db/fleet", "fleet has an @ after the server's name"),
        ("mysql://alice@db/fleet", "must be a URL such as postgresql://"),
        ("db/fleet", "must be a URL such as postgresql://"),
        ("postgresql://alice@db:port/fleet", "is no URL"),
    ],
)
def test_a_url_of_another_kind_or_with_a_password_is_refused_without_being_shown(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as raised:
        Config(database="a.db", fleet=url)
    assert "secret" not in str(raised.value)
    assert host_of("postgresql://alice:secret@db:5433/fleet?sslmode=require") == "db/fleet"


def test_the_fleet_needs_a_map_and_a_site() -> None:
    with pytest.raises(ConfigError, match="fleet needs database"):
        Config(fleet="postgresql://alice@db/fleet")
    with pytest.raises(ConfigError, match="fleet_site must not be empty"):
        Config(database="a.db", fleet="postgresql://alice@db/fleet", fleet_site="")
