# SPDX-License-Identifier: Apache-2.0
"""KeyframeDatabase: descriptors in memory for search, one SQLite file for keeps, earlier maps to match against."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.counted import counted
from binvpr_ros.keyframes import NOTHING_CLOSED, Keyframe
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.earlier import EarlierMap
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.file import MapFile
from binvpr_ros.maps.forgetting import most_redundant
from binvpr_ros.maps.searched import SearchedKeyframes, motion_along
from binvpr_ros.maps.source import KeyframeSource, OtherClosure
from binvpr_ros.maps.store import MOST_KEYFRAMES, Columns, KeyframeStore, joined
from binvpr_ros.maps.unsaved import UnsavedFeatures
from binvpr_ros.network.cells import Grids, shifted
from binvpr_ros.network.hamming import Descriptor

MOST_THUMBNAILS = 4096
"""Latest thumbnails that are kept in memory where there is no file, some 2 kB each."""

__all__ = ["DatabaseError", "KeyframeDatabase"]


class KeyframeDatabase(SearchedKeyframes):
    """All keyframes of a map, and of `earlier` ones. `path` None keeps the map in memory only.

    `grids` say which bits of a descriptor belong to which cell of the image.

    Ids and sessions count through all maps in their order, as if they were one. A keyframe is committed to the file
    before `add` returns. One process at a time opens a map; earlier ones are opened read-only: a loop that is closed to
    one of them is remembered in the map's own file. Keyframes of sessions before a reset stay in the file and are not
    matched until `reload`. Raises DatabaseError.
    """

    def __init__(
        self,
        path: Path | None,
        model_sha256: str,
        descriptor_words: int,
        earlier: Sequence[Path] = (),
        grids: Grids = (),
    ) -> None:
        self._store = KeyframeStore(descriptor_words)
        self._grids = grids
        self._first_matched = 0
        self._features = UnsavedFeatures()  # of the keyframes that are in no file
        self._thumbnails: dict[int, bytes] = {}  # by id, likewise
        self._camera: Camera | None = None  # of this map, the latest that is known
        self._camera_from = 0  # first id of this map of whose image it is sure
        self._no_camera_yet = True  # since the start
        self._earlier: list[tuple[int, KeyframeSource]] = []  # each with its first id
        self._paths = [*earlier, path]
        self._file: MapFile | None = None
        self.session = 0
        self._next_id = 0
        try:
            for map_path in earlier:
                source = EarlierMap(map_path, model_sha256, descriptor_words)
                self._earlier.append((self._next_id, source))
                self._take_in(source, map_path)
            self._own_id, self._own_session, self._own_start = self._next_id, self.session, len(self._store)
            if path is not None:
                self._file = MapFile(path, model_sha256, descriptor_words)
                self._take_in(self._file, path)
                self._camera = self._file.identity.camera
                self._camera_from = self._own_id + self._file.identity.camera_from
            self._camera_from_at_start = self._camera_from
            self._take_in_closures()
        except DatabaseError:
            self.close()
            raise

    def _take_in(self, source: KeyframeSource, path: Path) -> None:
        """Read a map; its ids and sessions follow those that are there."""
        first_id, first_session = self._next_id, self.session
        for keyframes in source.read():
            ids, closes = keyframes.ids + np.int64(first_id), keyframes.closes + np.int64(first_id)
            if ids[-1] >= MOST_KEYFRAMES or keyframes.sessions.max() >= MOST_KEYFRAMES - 1 - first_session:
                raise DatabaseError(f"{path} has too many keyframes, or sessions, beside the other maps; name fewer")
            self._store.append(
                Columns(
                    ids.astype(np.int32),
                    keyframes.sessions + np.int32(first_session),
                    keyframes.stamps,
                    np.where(keyframes.closes == NOTHING_CLOSED, NOTHING_CLOSED, closes).astype(np.int32),
                    keyframes.motions,
                    keyframes.whereabouts,
                    keyframes.descriptors,
                )
            )
            self._next_id = int(ids[-1]) + 1
            self.session = max(self.session, int(keyframes.sessions.max()) + 1 + first_session)

    def _take_in_closures(self) -> None:
        """Read which loops keyframes closed to those of other maps that are here too."""
        sources: list[tuple[int, KeyframeSource]] = list(self._earlier)
        if self._file is not None:
            sources.append((self._own_id, self._file))
        starts = [*(first for first, _ in sources), self._next_id]
        spans = [range(*pair) for pair in itertools.pairwise(starts)]  # of ids
        by_uuid: dict[str, range] = {}
        for span, (_, source) in zip(spans, sources, strict=True):
            by_uuid.setdefault(source.identity.uuid, span)
        for span, (_, source) in zip(spans, sources, strict=True):
            for closure in source.closures():
                others = by_uuid.get(closure.map_uuid, range(0))
                # What a copy closed in its original is no closure within the copy: the original may have gone on.
                if closure.keyframe < len(span) and closure.match < len(others) and others != span:
                    position = int(self._store.ids.searchsorted(span[closure.keyframe]))
                    if self._store.ids[position] == span[closure.keyframe]:
                        self._store.closes[position] = others[closure.match]

    def repeated(self) -> str:
        """Return a sentence about keyframes that are there twice, as with a merged map beside a part; "" for none."""
        if self.maps == 1:  # which may have seen a recording again
            return ""
        stamps, counts = np.unique(self._store.stamps, return_counts=True)
        seen: set[tuple[int, bytes]] = set()
        twins = []
        for position in np.flatnonzero(np.isin(self._store.stamps, stamps[counts > 1])):
            keyframe = self._store.keyframe(int(position))
            image = keyframe.stamp, keyframe.descriptor.tobytes()  # simulations repeat stamps
            if image in seen:
                twins.append(keyframe)
            seen.add(image)
        if not twins:
            return ""
        return (
            f"the maps hold {counted(len(twins), 'keyframe')} twice, the first of them in {self.path_of(twins[0])}, so "
            "that each closure with these is published twice; leave out copies, and maps that another was merged from"
        )

    def __len__(self) -> int:
        """Return the number K of keyframes that can be matched."""
        return len(self._store) - self._first_matched

    @property
    def ids(self) -> NDArray[np.int32]:
        """Ids [K], ascending."""
        return self._store.ids[self._first_matched :]

    @property
    def sessions(self) -> NDArray[np.int32]:
        """Sessions [K]."""
        return self._store.sessions[self._first_matched :]

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Stamps [K], nanoseconds."""
        return self._store.stamps[self._first_matched :]

    @property
    def closes(self) -> NDArray[np.int32]:
        """Ids [K] of the keyframes whose places they were found to show, or NOTHING_CLOSED."""
        return self._store.closes[self._first_matched :]

    @property
    def whereabouts(self) -> NDArray[np.float64]:
        """Whereabouts [K,5] by odometry (`KeyframeStore.whereabouts`)."""
        return self._store.whereabouts[self._first_matched :]

    def motion(self, first: int, last: int) -> NDArray[np.float64] | None:
        """Return the homography [3,3] from the keyframe at position `last` to that at `first`, which is not after it.

        It is composed along all keyframes between them; None where that of one is not known, or they are too many.
        """
        if self.sessions[first] != self.sessions[last]:
            return None
        return motion_along(self._store.motions[self._first_matched :][first + 1 : last + 1])

    @property
    def own(self) -> int:
        """Number of keyframes of this map, earlier maps left out."""
        return len(self._store) - self._own_start

    def views(self, descriptor: Descriptor, shift_cells: int) -> NDArray[np.uint64]:
        """Return `descriptor` as it would be with the image moved by up to so many cells, itself first: [V,W]."""
        return shifted(descriptor, self._grids, shift_cells)

    def distances(self, views: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return the Hamming distance of a descriptor [W], or of the nearest of [V,W], to every keyframe [K]; exact."""
        return self._store.distances(views, self._first_matched)

    def typical(self, distances: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return distances that stand for the map as a whole: all of them."""
        return distances

    def keyframe(self, index: int) -> Keyframe:
        """Return the keyframe at position `index` of the arrays above, without its features."""
        return self._store.keyframe(range(self._first_matched, len(self._store))[index])

    def features(self, keyframe: Keyframe) -> Features | None:
        """Return the features of a keyframe of the map; None where there are none, or they cannot be read."""
        found = self._features.get(keyframe.id)
        if found is not None:
            return found
        source, number = self._source_of(keyframe.id)
        return None if source is None else source.features(number)

    @property
    def features_dropped(self) -> int:
        """Number of keyframes in no file whose features no disk had room for."""
        return self._features.dropped

    def camera_of(self, keyframe: Keyframe) -> Camera | None:
        """Return the camera that took the images of a keyframe's map, the latest of several; None if not known."""
        if keyframe.id >= self._own_id:
            return self._camera
        source, _ = self._source_of(keyframe.id)
        return None if source is None else source.identity.camera

    def calibration_is_sure(self, keyframe: Keyframe) -> bool:
        """Tell whether `camera_of` a keyframe surely took its image: no other one may have, of several of the map."""
        if keyframe.id >= self._own_id:
            return self._camera is not None and keyframe.id >= self._camera_from
        source, number = self._source_of(keyframe.id)
        return source is not None and source.identity.camera is not None and number >= source.identity.camera_from

    @property
    def maps(self) -> int:
        """How many maps the keyframes are of: those of earlier drives, and the own one."""
        return len(self._earlier) + 1

    @property
    def foreign(self) -> int:
        """Number of keyframes of other robots: none."""
        return 0

    def path_of(self, keyframe: Keyframe) -> Path | None:
        """Return the map file that a keyframe belongs to; None where that is memory only."""
        if keyframe.id >= self._own_id:
            return self._paths[-1]
        return self._paths[sum(first <= keyframe.id for first, _ in self._earlier) - 1]

    def thumbnail(self, keyframe: Keyframe) -> bytes | None:
        """Return the small jpeg file of a keyframe of the map; None where there is none, or it cannot be read."""
        if keyframe.id in self._thumbnails:
            return self._thumbnails[keyframe.id]
        source, number = self._source_of(keyframe.id)
        return None if source is None else source.thumbnail(number)

    def _source_of(self, number: int) -> tuple[KeyframeSource | None, int]:
        """Return the source that holds the keyframe of an id, None where it is only in memory, and its id there."""
        if number >= self._own_id:
            return self._file, number - self._own_id
        first_id, source = next((first, source) for first, source in reversed(self._earlier) if first <= number)
        return source, number - first_id

    def next_keyframe(
        self, stamp: int, descriptor: Descriptor, features: Features | None = None, thumbnail: bytes | None = None
    ) -> Keyframe:
        """Return the keyframe that an image of the present session would become; `add` keeps it."""
        return Keyframe(self._next_id, self.session, stamp, descriptor, features, thumbnail=thumbnail)

    def redundant(self, config: Config) -> list[int]:
        """Return the ids of the keyframes of this map that are to make room for the next one, two at most.

        They are of those that can be matched. There are none where there is room (`max_keyframes`), or where each of
        those that were looked at is the only view of its place.
        """
        too_many = self.own + 1 - config.max_keyframes
        if not config.max_keyframes or too_many <= 0:
            return []
        first = max(self._own_start, self._first_matched)
        return self._store.ids[most_redundant(self._store, first, config, min(too_many, 2))].tolist()

    def add(self, keyframe: Keyframe, forgotten: Sequence[int] = (), camera: Camera | None = None) -> None:
        """Keep `keyframe`, and forget those of this map with the ids `forgotten`.

        `camera` took the image; None if it is not known. Where the file cannot be written all this holds for the memory
        alone, and DatabaseError is raised.
        """
        self._take_camera(keyframe.id, camera)
        # The new one comes first: its motion leads to the one before it, also if that goes.
        self._store.append(Columns.of(keyframe))
        self._next_id = keyframe.id + 1
        joined = []
        for number in forgotten:
            position = int(self._store.ids.searchsorted(number))
            joined += self._store.remove(position)
            self._first_matched -= position < self._first_matched
            self._features.forget(number)
            self._thumbnails.pop(number, None)
        try:
            if self._file is not None:
                numbers = [number - self._own_id for number in forgotten]
                changed = self._own_keyframes(set(joined) - set(forgotten))
                self._file.add(
                    self._as_in_file(keyframe), self._other_closure(keyframe), self._camera,
                    self._camera_from - self._own_id, numbers,
                    [(self._as_in_file(one), self._other_closure(one)) for one in changed],
                )  # fmt: skip
        except DatabaseError:
            self._keep(keyframe)
            raise
        if self._file is None:
            self._keep(keyframe)

    def _take_camera(self, number: int, camera: Camera | None) -> None:
        """Note which camera took the image of the keyframe of this id, the latest; None if it is not known."""
        if camera is None:
            self._camera_from = number + 1
            return
        if self._camera is None or not camera.is_that(self._camera):
            self._camera, self._camera_from = camera, number
        elif self._no_camera_yet:
            # It goes on, and so it took the images too that came before its calibration.
            self._camera_from = self._camera_from_at_start
        self._no_camera_yet = False

    def _keep(self, keyframe: Keyframe) -> None:
        """Keep in memory what belongs to a keyframe that is in no file."""
        if keyframe.features is not None:
            self._features.add(keyframe.id, keyframe.features)
        if keyframe.thumbnail is not None:
            self._thumbnails[keyframe.id] = keyframe.thumbnail
            if len(self._thumbnails) > MOST_THUMBNAILS:
                del self._thumbnails[next(iter(self._thumbnails))]

    def _own_keyframes(self, numbers: Iterable[int]) -> list[Keyframe]:
        """Return those keyframes with these ids that are of this map."""
        positions = self._store.ids.searchsorted([number for number in numbers if number >= self._own_id])
        return [self._store.keyframe(position) for position in positions.tolist()]

    def _as_in_file(self, keyframe: Keyframe) -> Keyframe:
        """Return a keyframe with the ids of the file, as one that closes nothing where that is of an earlier map."""
        closes = keyframe.closes - self._own_id if keyframe.closes >= self._own_id else NOTHING_CLOSED
        session = keyframe.session - self._own_session
        return dataclasses.replace(keyframe, id=keyframe.id - self._own_id, session=session, closes=closes)

    def _other_closure(self, keyframe: Keyframe) -> OtherClosure | None:
        """Return the closure of a keyframe with an earlier map, by the ids of the two files; None if there is none."""
        if not 0 <= keyframe.closes < self._own_id:
            return None
        source, match = self._source_of(keyframe.closes)
        uuid = None if source is None else source.identity.uuid
        return None if uuid is None else OtherClosure(keyframe.id - self._own_id, uuid, match)

    def matched_before(self, number: int) -> tuple[Columns, slice]:
        """Return a copy of all keyframes, and which of them are matched with the one of this id."""
        every = joined([self._store.columns(0, len(self._store))])
        return every, slice(self._first_matched, max(self._first_matched, int(every.ids.searchsorted(number))))

    def numbered(self, number: int, session: int) -> tuple[int, int]:
        """Return the id and the session here of a keyframe with these in the map's own file."""
        return number + self._own_id, session + self._own_session

    def in_file(self, keyframe: Keyframe) -> Keyframe:
        """Return a keyframe of this map with the id and the session that it has in the map's own file."""
        return self._as_in_file(keyframe)

    def remember(self, closure: OtherClosure) -> None:
        """Keep a closure with a map that is not here, by the ids of the files; raises DatabaseError."""
        if self._file is not None:
            self._file.remember(closure)

    def renew(self) -> None:
        """Give this map a new uuid; raises DatabaseError."""
        if self._file is not None:
            self._file.renew()

    def save(self) -> str:
        """Bring all that was committed into the one file, so that it can be copied; return a sentence about it."""
        if self._file is None:
            raise DatabaseError("there is no file to save to; start the node with the parameter database")
        return self._file.save()

    def reset(self) -> None:
        """Begin a new session and match no more against what came before; it stays in the file."""
        self._first_matched = len(self._store)
        self.session += 1

    def new_session(self) -> None:
        """Begin a new session that is matched against the earlier ones."""
        self.session += 1

    def reload(self) -> None:
        """Match against all keyframes of the map, and of earlier maps, again."""
        self._first_matched = 0

    def close(self) -> None:
        """Close the files."""
        for _, source in self._earlier:
            source.close()
        self._earlier = []
        self._features.close()
        if self._file is not None:
            self._file.close()
            self._file = None
