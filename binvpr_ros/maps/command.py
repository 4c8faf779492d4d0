# SPDX-License-Identifier: Apache-2.0
"""`map`: look after map files: what is in them, whether they are whole, what is left, several as one, as a table."""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from binvpr_ros.keyframes import NANOSECONDS, NOTHING_CLOSED
from binvpr_ros.local_features.features import Features, FeaturesError
from binvpr_ros.maps.file import (
    LATEST_STAMP,
    REMEDY,
    SCHEMA,
    SCHEMA_VERSION,
    SQLITE_ERRORS,
    DatabaseError,
    Facts,
    columns,
    first_line,
    log_of,
    opened,
)
from binvpr_ros.maps.store import MOST_KEYFRAMES
from binvpr_ros.network.hamming import WORD_BITS

MOST_PROBLEMS = 20
INTEGERS = {"id": (0, MOST_KEYFRAMES), "session": (0, 1 << 31), "stamp": (-LATEST_STAMP, LATEST_STAMP)}
"""The least value of each, and what it stays below."""
ESSENTIAL_COLUMNS = (*INTEGERS, "descriptor")
LATER_COLUMNS = ("features", "closes", "thumbnail")
"""Those that a map of an earlier version may lack."""
MOST_LOST_IDS = 1_000_000
"""Ids in a row without a keyframe that can be read, after which recovery looks for no more: seconds."""
JPEG = b"\xff\xd8\xff"
"""How such a file begins."""


def info(path: Path) -> str:
    """Return what a map holds: keyframes, model, and its sessions with their times."""
    with opened(path) as (connection, facts):
        sessions = connection.execute(
            "SELECT session, COUNT(*), MIN(stamp), MAX(stamp) FROM keyframes GROUP BY session ORDER BY session"
        ).fetchall()
        kept = dict.fromkeys(("features", "thumbnail"), 0)
        for name in kept.keys() & columns(connection):
            (kept[name],) = connection.execute(f"SELECT COUNT({name}) FROM keyframes").fetchone()  # noqa: S608
    if not all(isinstance(number, int) for row in sessions for number in row):
        raise DatabaseError(f"{path} has damaged rows; run: map check")
    log = log_of(path)  # which holds what a node that is still running has added
    size = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    keyframes = sum(count for _, count, _, _ in sessions)
    lines = [
        f"{path}: {keyframes} keyframes in {len(sessions)} sessions, {size / 2**20:.1f} MiB",
        f"model {facts.model}, {facts.words * WORD_BITS} bits; map version {facts.version}; "
        f"{kept['features']} keyframes with local features, {kept['thumbnail']} with a thumbnail",
    ]
    for session, count, first, last in sessions:
        begins, lasts = first / NANOSECONDS, (last - first) / NANOSECONDS
        lines.append(f"session {session}: {count} keyframes from {begins:.3f} s, over {lasts:.3f} s")
    return "\n".join(lines)


def problems(path: Path) -> list[str]:
    """Return a sentence for each thing that is wrong with a map, none for a whole one."""
    found = []
    with opened(path) as (connection, facts):
        damage = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        found += [f"SQLite: {line}" for line in damage if line != "ok"]
        for row, sentences in _rows(connection, facts):
            found += [f"keyframe {row['id']}: {sentence}" for sentence in sentences]
    return found


def _rows(connection: sqlite3.Connection, facts: Facts) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield the keyframes by id, each as its values by column, and a sentence for each thing that is wrong with it.

    Of the later columns there are those that the map has.
    """
    names = _names(connection)
    before = None
    for values in connection.execute(f"SELECT {', '.join(names)} FROM keyframes ORDER BY id"):  # noqa: S608
        row = dict(zip(names, values, strict=True))
        twice = ["its id is there twice"] if row["id"] == before else []
        before = row["id"]
        yield row, [*_problems_of(row, facts), *twice]


def _names(connection: sqlite3.Connection) -> list[str]:
    """Return the columns of the keyframes that are ours: of the later ones those that the map has."""
    there = columns(connection)
    return [*ESSENTIAL_COLUMNS, *(name for name in LATER_COLUMNS if name in there)]


def _whole_rows(path: Path, connection: sqlite3.Connection, facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the keyframes as `_rows` does; raises DatabaseError at the first that is damaged."""
    for row, sentences in _rows(connection, facts):
        for sentence in sentences:
            raise DatabaseError(f"{path} is damaged at keyframe {row['id']}: {sentence}; {REMEDY}")
        yield row


def _problems_of(row: dict[str, Any], facts: Facts) -> Iterator[str]:
    length = facts.words * WORD_BITS // 8
    for name, (least, limit) in INTEGERS.items():
        if not isinstance(row[name], int):
            yield f"its {name} is no integer"
        elif not least <= row[name] < limit:
            yield f"its {name} is out of range"
    descriptor, features, closes, thumbnail = row["descriptor"], *(row.get(name) for name in LATER_COLUMNS)
    if not isinstance(descriptor, bytes) or len(descriptor) != length:
        yield f"its descriptor is not of {length} bytes"
    if features is not None:
        try:
            Features.from_bytes(features)
        except (FeaturesError, TypeError):
            yield "its features cannot be read"
    if closes is not None and not isinstance(closes, int):
        yield "what it closes is no integer"
    elif closes is not None and isinstance(row["id"], int) and not NOTHING_CLOSED <= closes < row["id"]:
        yield "what it closes is no earlier keyframe"
    if thumbnail is not None and not (isinstance(thumbnail, bytes) and thumbnail.startswith(JPEG)):
        yield "its thumbnail is no jpeg file"


def merge(paths: Sequence[Path], output: Path) -> str:
    """Write one new map with the sessions of several, numbered on in their order; return a sentence about it.

    They must be of one model. The maps themselves stay as they are. Raises DatabaseError.
    """
    files = [path.resolve() for path in paths]
    if twice := [path for path, file in zip(paths, files, strict=True) if files.count(file) > 1]:
        raise DatabaseError(f"{twice[0]} is named twice; name each map once")
    with _new_map(output) as merged:
        first: Facts | None = None
        keyframes = sessions = 0
        for path in paths:
            with opened(path) as (connection, facts):
                if first is not None and facts[1:] != first[1:]:
                    raise DatabaseError(f"{path} was made with another model than {paths[0]}; merge maps of one model")
                first = first or facts
                keyframes, sessions = _append(_whole_rows(path, connection, facts), merged, keyframes, sessions)
        assert first is not None  # noqa: S101 -- the command asks for two files at least
        merged.execute("INSERT INTO map VALUES (?, ?, ?)", (SCHEMA_VERSION, first.model, first.words))
        (count,) = merged.execute("SELECT COUNT(*) FROM keyframes").fetchone()
    return f"{output}: {count} keyframes in {sessions} sessions"


@contextlib.contextmanager
def _new_map(output: Path) -> Iterator[sqlite3.Connection]:
    """Give a map without facts to be filled, which stands at `output` once it is whole; raises DatabaseError."""
    # SQLite would take the log of a map that stood there for one of the new map.
    for file in (output, log_of(output), output.with_name(output.name + "-journal")):
        if file.exists():
            raise DatabaseError(f"{file} exists; name a new file")
    try:
        beside = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.")
    except OSError as error:
        raise DatabaseError(f"{output} cannot be written ({error.strerror}); name a new file elsewhere") from None
    with beside as folder:
        part = Path(folder, "map.db")
        try:
            with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as connection:
                connection.executescript("BEGIN; " + SCHEMA)
                yield connection
                connection.execute("COMMIT")
            part.rename(output)
        except SQLITE_ERRORS as error:
            reason = first_line(error)
            raise DatabaseError(f"{output} cannot be written ({reason}); check the disk and its space") from None


def _insert(connection: sqlite3.Connection, values: dict[str, Any]) -> None:
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO keyframes ({', '.join(values)}) VALUES ({places})", tuple(values.values()))  # noqa: S608


def _append(rows: Iterator[dict[str, Any]], merged: sqlite3.Connection, ids: int, sessions: int) -> tuple[int, int]:
    """Copy all keyframes, their ids from `ids` on and their sessions from `sessions` on; return what comes next."""
    numbers: dict[int, int] = {}  # of sessions: those without keyframes are left out
    last = ids - 1
    for values in rows:
        values["id"] = last = values["id"] + ids
        values["session"] = numbers.setdefault(values["session"], sessions + len(numbers))
        if values.get("closes") is not None:
            values["closes"] += ids
        _insert(merged, values)
    return last + 1, sessions + len(numbers)


def recover(path: Path, output: Path) -> str:
    """Write one new map of the keyframes of a damaged one that can be read; return a sentence about it.

    Of a keyframe whose features, closure or thumbnail are damaged the rest is kept. Ids and sessions stay as they are,
    and so does the damaged map. Raises DatabaseError where no keyframe can be read.
    """
    with _new_map(output) as recovered, opened(path, cut=True) as (connection, facts):
        names = _names(connection)
        kept = in_part = lost = last = 0
        unknown = ""
        for number, missed in _reachable_ids(connection):
            if number is None:
                unknown = f"; what comes after keyframe {last} cannot be looked up"
                break
            row = _salvaged(connection, facts, names, number)
            lost += missed + (row is None)
            if row is not None:
                _insert(recovered, row)
                kept, in_part, last = kept + 1, in_part + (len(row) < len(names)), number
        if not kept:
            raise DatabaseError(f"{path} holds no keyframe that can be read; restore a copy of the file")
        recovered.execute("INSERT INTO map VALUES (?, ?, ?)", (SCHEMA_VERSION, facts.model, facts.words))
    # An id that cannot be looked up may be one that was forgotten.
    said = f"at most {lost} cannot be read" if lost else "no other was found"
    return f"{output}: {kept} keyframes, {in_part} of them in part; {said}{unknown}"


def _reachable_ids(connection: sqlite3.Connection) -> Iterator[tuple[int | None, int]]:
    """Yield the ids of a damaged map that can be looked up, each with how many just before it cannot.

    The last is None where the end of the map cannot be looked up.
    """
    number = missed = 0
    while missed < MOST_LOST_IDS and number < MOST_KEYFRAMES:
        try:
            # Each by itself: a query over all ends at the first damaged page, but the tree leads past it.
            found = connection.execute(
                "SELECT id FROM keyframes WHERE id >= ? ORDER BY id LIMIT 1", (number,)
            ).fetchone()
            if found is None:
                break
            if not number <= found[0] < MOST_KEYFRAMES:
                raise sqlite3.DatabaseError("its ids are in disorder")
        except SQLITE_ERRORS:
            number, missed = number + 1, missed + 1
            continue
        yield found[0], missed
        number, missed = found[0] + 1, 0
    if missed:
        yield None, missed


def _salvaged(connection: sqlite3.Connection, facts: Facts, names: Sequence[str], number: int) -> dict[str, Any] | None:
    """Return what is whole of a keyframe, by those column names; None where that is no keyframe any more."""

    def read(name: str) -> Any:
        found = connection.execute(f"SELECT {name} FROM keyframes WHERE id = ?", (number,)).fetchone()  # noqa: S608
        if found is None:
            raise sqlite3.DatabaseError("its ids are in disorder")
        return found[0]

    try:
        row = {name: read(name) for name in ESSENTIAL_COLUMNS}
    except SQLITE_ERRORS:
        return None
    if any(_problems_of(row, facts)):
        return None
    for name in names[len(ESSENTIAL_COLUMNS) :]:
        with contextlib.suppress(*SQLITE_ERRORS):
            more = {**row, name: read(name)}
            if not any(_problems_of(more, facts)):
                row = more
    return row


def export(path: Path, output: Path | None, thumbnails: Path | None = None) -> None:
    """Write a map's keyframes as CSV: id, session, stamp in seconds, and the packed bits as hexadecimal digits.

    Their thumbnails go into the folder `thumbnails`, which is made, as <id>.jpg.
    """
    with opened(path) as (connection, facts), contextlib.ExitStack() as stack:
        # So that what cannot be exported as a whole leaves nothing behind.
        pictures = sum(row.get("thumbnail") is not None for row in _whole_rows(path, connection, facts))
        if thumbnails is not None and not pictures:
            raise DatabaseError(f"{path} keeps no thumbnails; leave out --thumbnails (the node's thumbnails:=true)")
        if thumbnails is not None and thumbnails.exists():
            raise DatabaseError(f"{thumbnails} exists; name a new folder")
        file = sys.stdout if output is None else stack.enter_context(output.open("x", encoding="utf-8", newline=""))
        if thumbnails is not None:
            thumbnails.mkdir()
        writer = csv.writer(file)
        writer.writerow(["id", "session", "stamp", "descriptor"])
        for row in _whole_rows(path, connection, facts):
            seconds, nanoseconds = divmod(row["stamp"], NANOSECONDS)
            writer.writerow([row["id"], row["session"], f"{seconds}.{nanoseconds:09}", row["descriptor"].hex()])
            if thumbnails is not None and row.get("thumbnail") is not None:
                (thumbnails / f"{row['id']:06}.jpg").write_bytes(row["thumbnail"])


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


if __name__ == "__main__":
    sys.exit(main())
