# SPDX-License-Identifier: Apache-2.0
"""KeyframeSource: what KeyframeDatabase needs of keyframes that are kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.store import Columns


class OtherClosure(NamedTuple):
    """A loop that a keyframe closed to a keyframe of another map."""

    keyframe: int  # id
    map_uuid: str
    match: int  # id in that map


class KeyframeSource(Protocol):
    """Keyframes of one model that were kept earlier: today the file of a map, later the map of a fleet.

    A source has ids and sessions of its own, from 0 on; the database numbers those of all its sources on. Calls come
    from several threads, one at a time. The database reads all keyframes once, at the start, and then asks for the
    features and the thumbnails of single ones, many times a second.
    """

    identity: Identity

    def read(self) -> Iterator[Columns]:
        """Yield all keyframes, some at a time and never none, by ascending id.

        Their sessions are not negative. Raises DatabaseError where a keyframe is damaged or the source cannot be read.
        """

    def closures(self) -> Iterator[OtherClosure]:
        """Yield the closures with keyframes of other maps; raises DatabaseError where they cannot be read."""

    def features(self, number: int) -> Features | None:
        """Return the features of the keyframe of this id; None where there are none, or they cannot be read."""

    def thumbnail(self, number: int) -> bytes | None:
        """Return the small jpeg file of the keyframe of this id; None where there is none, or it cannot be read."""

    def close(self) -> None:
        """Let the source go; it is not asked again."""
