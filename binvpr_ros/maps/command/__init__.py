# SPDX-License-Identifier: Apache-2.0
"""`map`: inspect, check, merge, recover, redescribe and export map files."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from binvpr_ros.config import ConfigError
from binvpr_ros.maps.command.exporting import export
from binvpr_ros.maps.command.inspecting import info, problems
from binvpr_ros.maps.command.merging import merge
from binvpr_ros.maps.command.recovering import recover
from binvpr_ros.maps.command.redescribing import redescribe
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.network.backends import DescriptorError
from binvpr_ros.network.model_card import ModelCardError
from binvpr_ros.recordings.errors import RecordingError

__all__ = ["export", "info", "main", "merge", "problems", "recover", "redescribe"]

MOST_PROBLEMS = 20


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="map", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, sentence in (("info", "show what maps contain"), ("check", "check maps for damage")):
        commands.add_parser(name, help=sentence).add_argument("maps", type=Path, nargs="+", metavar="MAP")
    merging = commands.add_parser("merge", help="make a new map from several, which are not changed")
    merging.add_argument("maps", type=Path, nargs="+", metavar="MAP")
    merging.add_argument("--output", type=Path, required=True, help="the new map")
    recovering = commands.add_parser("recover", help="make a new map from what is readable in a damaged one")
    recovering.add_argument("map", type=Path, metavar="MAP")
    recovering.add_argument("--output", type=Path, required=True, help="the new map")
    redescribing = commands.add_parser("redescribe", help="make a new map for another model or other local features")
    redescribing.add_argument("map", type=Path, metavar="MAP")
    redescribing.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        metavar="RECORDING",
        help="bags or videos with the keyframes' images, found by stamp (default: the thumbnails in MAP)",
    )
    redescribing.add_argument(
        "--image-topic", "--topic", default="", metavar="TOPIC", help="image topic, if a bag has several"
    )
    redescribing.add_argument("--output", type=Path, required=True, help="the new map")
    redescribing.add_argument("--model", default="", help="model file (default: the packaged one)")
    redescribing.add_argument(
        "--local-features",
        default="",
        help="compute these anew: orb, learned or a model file (default: keep MAP's)",
    )
    redescribing.add_argument(
        "--mask", default="", help="the robot itself in the image, like the node's parameter mask"
    )
    redescribing.add_argument(
        "--stretch-16-bit", action="store_true", help="stretch 16-bit images, like the node's parameter stretch_16_bit"
    )
    exporting = commands.add_parser("export", help="write the keyframes as CSV")
    exporting.add_argument("map", type=Path, metavar="MAP")
    exporting.add_argument("--output", type=Path, help="file to write (default: standard output)")
    exporting.add_argument("--thumbnails", type=Path, help="new folder for the keyframes' thumbnails, <id>.jpg")
    choices = parser.parse_args(arguments)
    if choices.command == "merge" and len(choices.maps) < 2:
        parser.error("name at least two maps")
    if choices.command == "redescribe" and choices.mask and not choices.local_features:
        parser.error("--mask is for local features that are found anew; add --local-features")
    return choices


def main() -> int:
    """Do what the command line says; the exit status is 1 where a map is not whole, or cannot be used."""
    choices = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("map: stopped"))  # so that no part of a new map is left behind
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
        elif choices.command == "redescribe":
            print(
                redescribe(
                    choices.map,
                    choices.output,
                    choices.model,
                    choices.images,
                    choices.image_topic,
                    choices.local_features,
                    choices.mask,
                    choices.stretch_16_bit,
                )
            )
        else:
            export(choices.map, choices.output, choices.thumbnails)
        sys.stdout.flush()
    except (DatabaseError, ConfigError, ModelCardError, DescriptorError, RecordingError) as error:
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
