# SPDX-License-Identifier: Apache-2.0
"""What a map holds, and whether it is whole."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from binvpr_ros.config import ConfigError, share_directory
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.maps.command.rows import checked_closures, checked_rows
from binvpr_ros.maps.disk import log_of
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.schema import columns
from binvpr_ros.network.hamming import WORD_BITS
from binvpr_ros.network.model_card import ModelCard, ModelCardError


def info(path: Path) -> str:
    """Return what a map holds: keyframes, model, uuid, camera, and its sessions with their times."""
    with opened(path) as (connection, facts):
        identity = Identity.of(connection, facts)
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
        f"{path}: {_count(keyframes, 'keyframe')} in {_count(len(sessions), 'session')}, {size / 2**20:.1f} MiB",
        f"model {_name_of(facts.model)}, {facts.words * WORD_BITS} bits; map version {facts.version}; "
        f"{_count(kept['features'], 'keyframe')} with local features, {kept['thumbnail']} with a thumbnail",
        f"uuid {identity.uuid}; {_about(identity.camera)}",
    ]
    for session, count, first, last in sessions:
        begins, lasts = first / NANOSECONDS, (last - first) / NANOSECONDS
        lines.append(f"session {session}: {_count(count, 'keyframe')} from {begins:.3f} s, over {lasts:.3f} s")
    return "\n".join(lines)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _name_of(sha256: str) -> str:
    """Return the name of the packaged model with this checksum, or else the checksum."""
    with suppress(ConfigError):  # a map can be looked at where no model is installed
        for model in sorted((share_directory() / "models").glob("*.tflite")):
            with suppress(ModelCardError):
                card = ModelCard.read(model)
                if card.sha256 == sha256:
                    return card.name
    return sha256


def _about(camera: Camera | None) -> str:
    if camera is None:
        return "camera not known"
    width, height = camera.size
    lens = f"{_count(len(camera.coefficients), 'coefficient')} of its {'fisheye' if camera.fisheye else 'lens'}"
    return f"camera of {width}x{height} pixels, focal length {camera.focal_length:.1f} pixels, {lens}"


def problems(path: Path) -> list[str]:
    """Return a sentence for each thing that is wrong with a map, none for a whole one."""
    found = []
    with opened(path) as (connection, facts):
        damage = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        found += [f"SQLite: {line}" for line in damage if line != "ok"]
        for row, sentences in checked_rows(connection, facts):
            found += [f"keyframe {row['id']}: {sentence}" for sentence in sentences]
        for closure, sentences in checked_closures(connection):
            found += [f"keyframe {closure.keyframe}: {sentence}" for sentence in sentences]
    return found
