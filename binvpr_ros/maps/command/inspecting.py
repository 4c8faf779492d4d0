# SPDX-License-Identifier: Apache-2.0
"""What a map holds, and whether it is whole."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import suppress
from pathlib import Path

from binvpr_ros.config import LOCAL_MODEL, ConfigError, share_directory
from binvpr_ros.counted import counted
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import LEARNED, Features, FeaturesError, Tag, learned_tag
from binvpr_ros.maps.command.rows import checked_closures, checked_rows
from binvpr_ros.maps.disk import log_of
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.schema import columns
from binvpr_ros.network.hamming import WORD_BITS
from binvpr_ros.network.model_card import ModelCard, ModelCardError


def info(path: Path) -> str:
    """Return what a map holds: keyframes, model, local features, uuid, camera, and its sessions with their times."""
    with opened(path) as (connection, facts):
        identity = Identity.of(connection, facts)
        sessions = connection.execute(
            "SELECT session, COUNT(*), MIN(stamp), MAX(stamp) FROM keyframes GROUP BY session ORDER BY session"
        ).fetchall()
        kinds = _kinds_of_features(connection)
        thumbnails = 0
        if "thumbnail" in columns(connection):
            (thumbnails,) = connection.execute("SELECT COUNT(thumbnail) FROM keyframes").fetchone()
    if not all(isinstance(number, int) for row in sessions for number in row):
        raise DatabaseError(f"{path} has damaged rows; run: map check")
    log = log_of(path)  # which holds what a node that is still running has added
    size = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    keyframes = sum(count for _, count, _, _ in sessions)
    lines = [
        f"{path}: {counted(keyframes, 'keyframe')} in {counted(len(sessions), 'session')}, {size / 2**20:.1f} MiB",
        f"model {_name_of(facts.model)}, {facts.words * WORD_BITS} bits; map version {facts.version}; "
        f"{counted(kinds.total(), 'keyframe')} with local features{_listed(kinds)}, {thumbnails} with a thumbnail",
        f"uuid {identity.uuid}; {_about(identity.camera)}",
    ]
    for session, count, first, last in sessions:
        begins, lasts = first / NANOSECONDS, (last - first) / NANOSECONDS
        lines.append(f"session {session}: {counted(count, 'keyframe')} from {begins:.3f} s, over {lasts:.3f} s")
    return "\n".join(lines)


def _kinds_of_features(connection: sqlite3.Connection) -> Counter[str]:
    """Return how many keyframes have local features of each kind."""
    if "features" not in columns(connection):
        return Counter()
    rows = connection.execute("SELECT features FROM keyframes WHERE features IS NOT NULL")
    tags = Counter(_tag_of(features) for (features,) in rows)
    return Counter({_kind_of(tag): count for tag, count in tags.items()})


def _tag_of(features: object) -> Tag | None:
    """Return the tag of the bytes of features; None where they cannot be read."""
    try:
        return Features.from_bytes(features).tag  # type: ignore[arg-type] # a damaged map may hold anything
    except (FeaturesError, TypeError):
        return None


def _kind_of(tag: Tag | None) -> str:
    """Return what the parameter local_features calls the kind of features with this tag."""
    if tag is None:
        return "damaged"
    kind, model = tag
    if kind != LEARNED:
        return "orb"
    with suppress(ConfigError, ModelCardError):
        if tag == learned_tag(ModelCard.read(share_directory() / "models" / LOCAL_MODEL).sha256):
            return "learned"
    return f"of another network, {model:02x}..."


def _listed(kinds: Counter[str]) -> str:
    """Return the kinds for people, in brackets, with their numbers where there are several."""
    if len(kinds) < 2:
        return "".join(f" ({kind})" for kind in kinds)
    return f" ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})"


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
    lens = f"{counted(len(camera.coefficients), 'coefficient')} of its {'fisheye' if camera.fisheye else 'lens'}"
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
