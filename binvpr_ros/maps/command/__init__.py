# SPDX-License-Identifier: Apache-2.0
"""`map`: look after map files: what is in them, whether they are whole, what is left, several as one, as a table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from binvpr_ros.maps.command.exporting import export
from binvpr_ros.maps.command.inspecting import info, problems
from binvpr_ros.maps.command.merging import merge
from binvpr_ros.maps.command.recovering import recover
from binvpr_ros.maps.errors import DatabaseError

__all__ = ["export", "info", "main", "merge", "problems", "recover"]

MOST_PROBLEMS = 20


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="map", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, sentence in (("info", "what maps hold"), ("check", "tell whether maps are whole")):
        commands.add_parser(name, help=sentence).add_argument("maps", type=Path, nargs="+", metavar="MAP")
    merging = commands.add_parser("merge", help="make one new map of several, which stay as they are")
    merging.add_argument("maps", type=Path, nargs="+", metavar="MAP")
    merging.add_argument("--output", type=Path, required=True, help="the new map")
    recovering = commands.add_parser("recover", help="make one new map of what can be read of a damaged one")
    recovering.add_argument("map", type=Path, metavar="MAP")
    recovering.add_argument("--output", type=Path, required=True, help="the new map")
    exporting = commands.add_parser("export", help="write the keyframes as CSV")
    exporting.add_argument("map", type=Path, metavar="MAP")
    exporting.add_argument("--output", type=Path, help="the new file (default: standard output)")
    exporting.add_argument("--thumbnails", type=Path, help="a new folder for the keyframes' thumbnails, <id>.jpg")
    choices = parser.parse_args(arguments)
    if choices.command == "merge" and len(choices.maps) < 2:
        parser.error("name two maps at least")
    return choices


def main() -> int:
    """Do what the command line says; the exit status is 1 where a map is not whole, or cannot be used."""
    choices = parse(sys.argv[1:])
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a file's name may be any bytes
    try:
        if choices.command == "info":
            print("\n".join(info(path) for path in choices.maps))
        elif choices.command == "check":
            return _check(choices.maps)
        elif choices.command == "merge":
            print(merge(choices.maps, choices.output))
        elif choices.command == "recover":
            print(recover(choices.map, choices.output))
        else:
            export(choices.map, choices.output, choices.thumbnails)
        sys.stdout.flush()
    except DatabaseError as error:
        print(f"map: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # of `| head`, say: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = error.filename or "standard output"
        print(f"map: {where} cannot be written ({error.strerror}); name a new file", file=sys.stderr)
        return 1
    return 0


def _check(paths: Sequence[Path]) -> int:
    status = 0
    for path in paths:
        try:
            found = problems(path)
        except DatabaseError as error:
            found = [str(error)]
        status |= bool(found)
        print(f"{path}: {'whole' if not found else f'problems: {len(found)}'}")
        for sentence in found[:MOST_PROBLEMS]:
            print(f"  {sentence}")
    return status
