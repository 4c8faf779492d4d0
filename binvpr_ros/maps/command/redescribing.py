# SPDX-License-Identifier: Apache-2.0
"""A map for another model, or with other local features, of the images that its keyframes were made of."""

from __future__ import annotations

import functools
import itertools
import sqlite3
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config, ConfigError, model_path
from binvpr_ros.counted import counted
from binvpr_ros.images import Image, ImageError, Stretch, from_thumbnail
from binvpr_ros.keyframes import KEPT_FEATURES, NANOSECONDS
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.depth import with_depths_of
from binvpr_ros.local_features.features import Features, FeaturesError
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.kinds import LocalFeatures, open_local_features
from binvpr_ros.local_features.mask import Mask, read_mask
from binvpr_ros.maps.command.new_map import insert, new_map
from binvpr_ros.maps.command.rows import whole_closures, whole_rows
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.file import forget
from binvpr_ros.maps.identity import Identity, write_facts
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.reading import read_thumbnail
from binvpr_ros.maps.schema import SCHEMA_VERSION, Facts
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.recordings.frames import LeftOut, Recording
from binvpr_ros.recordings.kinds import open_recording

NEAR = 1_000_000
"""Nanoseconds by which the stamps of a keyframe and its image may differ: a video's are rounded."""
NAMED = 5
"""Keyframes that are named, of those without an image."""


def redescribe(
    path: Path,
    output: Path,
    model: str = "",
    images: Sequence[Path] = (),
    topic: str = "",
    local_features: str = "",
    mask: str = "",
    stretch_16_bit: bool = False,
) -> str:
    """Write one new map of the same keyframes as a map of `model`; return a sentence about it.

    Each is described by its image, which is looked for by its stamp in the recordings `images` (`topic` chooses among
    several of a bag), or without these by its thumbnail. With `local_features` these and the camera's motion are found
    anew in the images, outside `mask`; otherwise they stay. `model`, `local_features`, `mask` and `stretch_16_bit` are
    the parameters of these names.

    Ids, sessions, stamps, closures, the camera and the thumbnails stay, and so does the uuid: what other maps say of a
    keyframe of the map is as true of the new one. So does the map itself. Keyframes without an image are left out.
    Raises DatabaseError, ConfigError, ModelCardError, DescriptorError or RecordingError.
    """
    config = Config(model=model, local_features=local_features or Config.local_features, mask=mask)
    if local_features and not images:
        raise ConfigError(
            "thumbnails are too small to find local features in; name recordings with --images, or leave out "
            "--local-features, and those of the map stay"
        )
    recordings = [_stamped(file, topic) for file in images]
    network = DescriptorNetwork(model_path(config))
    kind = open_local_features(config.local_features) if local_features else None
    visible = Mask(read_mask(config.mask))
    with opened(path) as (connection, facts):
        identity, closures = Identity.of(connection, facts), list(whole_closures(path, connection))
    if kind is None and facts.model == network.card.sha256:
        raise DatabaseError(f"{path} is a map of this model already; name another --model, or --local-features")
    with new_map(output) as new:
        for row in _rows(path):
            insert(new, row)
        new.executemany("INSERT OR REPLACE INTO closures VALUES (?, ?, ?)", closures)
        write_facts(new, Facts(SCHEMA_VERSION, network.card.sha256, network.words), identity)
        stamps: dict[int, int] = dict(new.execute("SELECT id, stamp FROM keyframes ORDER BY id"))
        describing = _Describing(new, network, kind, visible, identity.camera)
        left_out = set(stamps)
        sessions: dict[int, int] = dict(new.execute("SELECT id, session FROM keyframes"))
        found_images = _recorded(recordings, stamps, sessions, stretch_16_bit)
        for number, image in found_images if images else _thumbnails(new, stamps):
            describing.describe(number, image)
            left_out.remove(number)
        found = len(stamps) - len(left_out)
        if found < len(left_out):
            source, remedy = "a thumbnail", "name the recordings of its drives with --images"
            if images:
                source, remedy = (
                    "an image with their stamp",
                    "name the recordings that the node saw (`replay` has to --keep-stamps)",
                )
            raise DatabaseError(
                f"{path} has {counted(len(stamps), 'keyframe')}, of which {found} have {source}; {remedy}"
            )
        _leave_out(new, left_out)
        describing.write_motions()
    coarser = "" if images else " by their thumbnails, which is coarser than by their images (--images)"
    return f"{output}: {counted(found, 'keyframe')} described anew{coarser}{_named(left_out, stamps)}"


def _named(left_out: Collection[int], stamps: Mapping[int, int]) -> str:
    """Return how many keyframes are left out, and the first of them, for people; "" for none."""
    if not left_out:
        return ""
    first = [f"{number} (at {stamps[number] / NANOSECONDS:.3f} s)" for number in sorted(left_out)[:NAMED]]
    more = ", ..." if len(left_out) > NAMED else ""
    return f"; {len(left_out)} left out, which have no image: {', '.join(first)}{more}"


def _stamped(path: Path, topic: str) -> Recording:
    recording = open_recording(path, topic)
    if not recording.has_stamps:
        raise RecordingError(f"{path} has no stamps, by which keyframes are found; name a bag or a video")
    return recording


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a map; by itself, so that what SQLite says of the new map is not taken for this one's."""
    with opened(path) as (connection, facts):
        yield from whole_rows(path, connection, facts)


def _recorded(
    recordings: Sequence[Recording], stamps: Mapping[int, int], sessions: Mapping[int, int], stretch: bool
) -> Iterator[tuple[int, Image]]:
    """Yield the ids of keyframes with these `stamps` and `sessions`, by id, and their images, recording by recording.

    Images that cannot be used are named on standard error. Raises RecordingError where keyframes of several drives have
    a stamp that several images have: in simulations, and in videos, times come again.
    """
    from tqdm import tqdm

    ids = sorted(stamps, key=lambda number: (stamps[number], number))
    times = np.array([stamps[number] for number in ids], np.int64)
    missing = set(ids)
    come_again = _of_times_that_come_again(stamps, sessions)
    for recording in recordings:
        stretched = Stretch() if stretch else None
        with tqdm(recording.read(), total=len(recording), desc="redescribe", unit="image", file=sys.stderr) as frames:
            for frame in frames:
                if not missing and not come_again:
                    return
                if isinstance(frame, LeftOut):
                    tqdm.write(f"left out {frame.sentence}", file=sys.stderr)
                    continue
                first, last = times.searchsorted([frame.stamp - NEAR, frame.stamp + NEAR + 1])
                # Of two drives of one bag, an image shows both.
                wanted = [number for number in ids[first:last] if number in missing]
                if again := come_again.intersection(ids[first:last]) - missing:
                    raise RecordingError(
                        f"two images have the stamp of keyframe {min(again)}, and the map has several drives at that "
                        "time, so that it is not known which is whose; redescribe maps of one drive each"
                    )
                if not wanted and stretched is None:  # which follows all images
                    continue
                try:
                    image = frame.image.decode(stretched)
                except ImageError as error:
                    tqdm.write(f"left out {frame.name}: {error}", file=sys.stderr)
                    continue
                missing.difference_update(wanted)
                yield from ((number, image) for number in wanted)


def _of_times_that_come_again(stamps: Mapping[int, int], sessions: Mapping[int, int]) -> set[int]:
    """Return the ids of the keyframes with stamps from the time of another session."""
    of: dict[int, list[int]] = {}
    for number, session in sessions.items():
        of.setdefault(session, []).append(stamps[number])
    spans = {session: (min(times) - NEAR, max(times) + NEAR) for session, times in of.items()}
    return {
        number
        for number, session in sessions.items()
        if any(first <= stamps[number] <= last for other, (first, last) in spans.items() if other != session)
    }


def _thumbnails(new: sqlite3.Connection, ids: Collection[int]) -> Iterator[tuple[int, Image]]:
    """Yield the ids of keyframes, and their thumbnails, of those that have one."""
    from tqdm import tqdm

    for number in tqdm(ids, desc="redescribe", unit="keyframe", file=sys.stderr):
        image = from_thumbnail(read_thumbnail(new, number))
        if image is not None:
            yield number, image


class _Describing:
    """Writes what describes keyframes into a map; their local features too, where there is a `kind` to be found."""

    def __init__(
        self,
        new: sqlite3.Connection,
        network: DescriptorNetwork,
        kind: LocalFeatures | None,
        mask: Mask,
        camera: Camera | None,
    ) -> None:
        self._new, self._network, self._kind, self._mask, self._camera = new, network, kind, mask, camera
        self._sessions = dict(new.execute("SELECT id, session FROM keyframes"))
        self._latest: dict[int, tuple[int, Features]] = {}  # ids and features, by session
        self._motions: dict[int, tuple[int, NDArray[np.float32]]] = {}  # by id, each with the id that it leads to

    def describe(self, number: int, image: Image) -> None:
        """Describe the keyframe of this id, which `image` shows; those of a session come in their order."""
        descriptor = self._network.describe(image).descriptor.astype("<u8").tobytes()
        features = None
        if self._kind is not None:
            found = self._mask.features(functools.partial(self._kind.extract, image))
            features = self._with_depths(number, found.fewer(KEPT_FEATURES)).to_bytes()
            self._follow(number, found)
        self._new.execute(
            "UPDATE keyframes SET descriptor = ?, features = IFNULL(?, features) WHERE id = ?",
            (descriptor, features, number),
        )

    def _with_depths(self, number: int, found: Features) -> Features:
        """Return features with the depths that the keyframe's earlier ones have nearby: images tell none."""
        ((earlier,),) = self._new.execute("SELECT features FROM keyframes WHERE id = ?", (number,))
        try:
            return found if earlier is None else with_depths_of(found, Features.from_bytes(earlier))
        except FeaturesError:  # of a damaged map
            return found

    def _follow(self, number: int, features: Features) -> None:
        """Find the camera's motion since the keyframe of the same session that was described before."""
        session = self._sessions[number]
        if session in self._latest:
            before, latest = self._latest[session]
            motion = verify(features, latest, self._camera, self._camera).motion
            if motion is not None:
                self._motions[number] = before, motion
        self._latest[session] = number, features

    def write_motions(self) -> None:
        """Write the motions that were found, once all keyframes are there that will be.

        Where none was, that of before stays: what moves is the camera, whatever features tell of it.
        """
        ids = [number for (number,) in self._new.execute("SELECT id FROM keyframes ORDER BY id")]
        for before, number in itertools.pairwise(ids):
            since, motion = self._motions.get(number, (None, None))
            if motion is not None and since == before:
                values = (motion.astype("<f4").tobytes(), number)
                self._new.execute("UPDATE keyframes SET motion = ? WHERE id = ?", values)


def _leave_out(new: sqlite3.Connection, left_out: Collection[int]) -> None:
    """Forget keyframes. Those that closed one of them close what it closed or, if that is nothing, the first of them.

    That they show one place stays known, as in KeyframeStore.remove.
    """
    closes = dict(new.execute("SELECT id, closes FROM keyframes WHERE closes IS NOT NULL ORDER BY id"))
    first: dict[int, int] = {}  # of those that closed a keyframe
    for number, closed in closes.items():
        place = closed
        while place in left_out and place in closes:
            place = closes[place]
        if place in left_out and number not in left_out:
            place = first.setdefault(place, number)
        if place != closed:
            values = (None if place == number else place, number)
            new.execute("UPDATE keyframes SET closes = ? WHERE id = ?", values)
    for number in sorted(left_out):
        forget(new, number)
