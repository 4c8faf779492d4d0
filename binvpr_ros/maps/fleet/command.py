# SPDX-License-Identifier: Apache-2.0
"""`binvpr fleet`: make the map of a fleet in PostgreSQL, and look after it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from binvpr_ros.config import Config, ConfigError, check_fleet_url, model_path
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.fleet import schema, upkeep
from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.fleet.server import connected, why_unsafe
from binvpr_ros.network.hamming import WORD_BITS
from binvpr_ros.network.model_card import ModelCard, ModelCardError

DEFAULT_SITE = Config.value_of("fleet_site", Config.fleet_site)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(
        prog="fleet", description=__doc__,
        epilog="URL is postgresql://USER@SERVER/DATABASE; the password comes from PGPASSWORD or ~/.pgpass.",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, sentence: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=sentence, description=sentence)
        made.add_argument("url", metavar="URL")
        return made

    init = command("init", "make the tables, sites and robots that are not there yet; as the database's owner")
    init.add_argument("--site", default=DEFAULT_SITE, help=f"a site (default: {DEFAULT_SITE})")
    init.add_argument("--model", default="", help="model file of that site's robots (default: the packaged one)")
    init.add_argument("--robot", nargs="+", default=[], metavar="NAME", help="roles that may write their own maps")
    command("status", "tell what the server holds")
    push = command("push", "send what the server lacks of a map file")
    push.add_argument("map", type=Path, metavar="MAP")
    push.add_argument("--site", default=DEFAULT_SITE, help=f"its site (default: {DEFAULT_SITE})")
    pull = command("pull", "write a map of the server into a new map file")
    pull.add_argument("--map", required=True, metavar="UUID", help="as status tells it")
    pull.add_argument("--output", type=Path, required=True, help="the new map")
    forget = command("forget", "delete what is old, or a whole map")
    which = forget.add_mutually_exclusive_group(required=True)
    which.add_argument("--older-than", type=float, metavar="DAYS", help="keyframes, by the robots' clocks")
    which.add_argument("--map", metavar="UUID", help="a whole map")
    forget.add_argument("--features", action="store_true", help="delete only features and pictures, nine tenths of all")
    forget.add_argument("--site", default=DEFAULT_SITE, help=f"of keyframes by age (default: {DEFAULT_SITE})")
    choices = parser.parse_args(arguments)
    if choices.command == "forget" and choices.map and choices.features:
        parser.error("--features goes with --older-than")
    return choices


async def run(choices: argparse.Namespace) -> list[str]:
    """Do what the command line says; return what to print. Raises FleetError, DatabaseError and ModelCardError."""
    card = ModelCard.read(model_path(Config(model=choices.model))) if choices.command == "init" else None
    async with connected(choices.url, patient=True) as connection:
        if card is not None:
            return await _init(connection, choices, card)
        if choices.command == "status":
            return await upkeep.status(connection)
        if choices.command == "push":
            return [await upkeep.push(connection, choices.site, choices.map)]
        if choices.command == "pull":
            return [await upkeep.pull(connection, choices.map, choices.output)]
        if choices.map:
            return [await upkeep.forget_map(connection, choices.map)]
        return [await upkeep.forget_old(connection, choices.site, choices.older_than, features_only=choices.features)]


async def _init(connection: object, choices: argparse.Namespace, card: ModelCard) -> list[str]:
    done = await schema.init(connection)
    await schema.add_pgvector(connection)
    words = -(-card.descriptor_bits // WORD_BITS)
    done.append(await schema.add_realm(connection, choices.site, card.sha256, words, card.grids))
    done += await schema.add_indexes(connection)
    done += [await schema.add_robot(connection, name) for name in choices.robot]
    done.append(schema.why_without_index(await schema.pgvector(connection)))
    return [sentence for sentence in done if sentence] or ["all is there already"]


def main() -> int:
    """Do what the command line says; the exit status is 1 where the server, or a map, cannot be used."""
    choices = parse(sys.argv[1:])
    try:
        check_fleet_url(choices.url)
        if unsafe := why_unsafe(choices.url):
            print(f"fleet: {unsafe}", file=sys.stderr)
        print("\n".join(asyncio.run(run(choices))))
    except (FleetError, DatabaseError, ConfigError, ModelCardError) as error:
        print(f"fleet: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("fleet: interrupted", file=sys.stderr)
    else:
        return 0
    return 1
