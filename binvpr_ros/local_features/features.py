# SPDX-License-Identifier: Apache-2.0
"""The local features of one image, and their bytes."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.local_features.camera import Points
from binvpr_ros.local_features.colours import COLUMNS, ROWS, Colours

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Indices [M] of features of the one image, and [M] of the other's."""
NO_PAIRS: Pairs = (np.empty(0, np.intp), np.empty(0, np.intp))
POSITION_STEPS = 1 << 16  # over the width, and over the height
ANGLE_STEPS = 256
Tag = tuple[int, int]
"""A kind of features, and what tells its models apart: features of different tags do not match."""
ORB: Tag = (0, 0)
"""That of features whose bytes have none: ORB, of maps that were written before there were others."""
LEARNED = 1
"""The kind of those that a network finds; the first byte of its checksum tells it from others (0 to 255)."""


def learned_tag(checksum: str) -> Tag:
    """Return the tag of what the network in a file with this SHA-256, in hexadecimal, finds."""
    return LEARNED, int(checksum[:2], 16)


_UNTAGGED = struct.Struct("<HH")  # width and height in pixels
_UNTAGGED_DESCRIPTOR_BYTES = 32
MOST_DESCRIPTOR_BYTES = 64
"""They are matched as whole words of 8 bytes."""
_TAGGED = struct.Struct("<HBBHHBB")  # zero, which is no width; kind, version, width, height, descriptor bytes, model
VERSIONS = (1, 2, 3, 4)
"""1, and 1 more with colours, and 2 more with depths; what has neither is read by programs that know of neither."""
MILLIMETRES = 1000  # a metre
MOST_DEPTH = (1 << 16) - 1  # millimetres


class FeaturesError(ValueError):
    """Bytes are no features."""


class Features(NamedTuple):
    """The N local features of one image."""

    size: tuple[int, int]  # width and height in pixels of the image in which they were found
    positions: NDArray[np.uint16]  # [N,2], x and y in 1/65536 of the width and of the height
    angles: NDArray[np.uint8]  # [N], 1/256 of a turn
    descriptors: NDArray[np.uint8]  # [N,B]
    tag: Tag = ORB
    colours: Colours | None = None  # of the image; None where they are not known
    depths: NDArray[np.uint16] | None = None  # [N], millimetres along the optical axis, 0 unknown; None: all unknown

    @property
    def nbytes(self) -> int:
        """Length of what `to_bytes` returns."""
        colours = 0 if self.colours is None else self.colours.nbytes
        depths = 0 if self.depths is None else self.depths.nbytes
        return _TAGGED.size + colours + len(self.positions) * (5 + self.descriptors.shape[1]) + depths

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` reads: 10 + (5 + B) N bytes, little-endian, those of the colours, 2 N of depths."""
        kind, model = self.tag
        version = VERSIONS[0] + (self.colours is not None) + 2 * (self.depths is not None)
        header = _TAGGED.pack(0, kind, version, *self.size, self.descriptors.shape[1], model)
        depths = None if self.depths is None else self.depths.astype("<u2")
        arrays = (self.colours, self.positions.astype("<u2"), self.angles, self.descriptors, depths)
        return header + b"".join(array.tobytes() for array in arrays if array is not None)

    @classmethod
    def from_bytes(cls, data: bytes) -> Features:
        """Return the features that `to_bytes` of this or an earlier version wrote; raises FeaturesError."""
        colours, has_depths = None, False
        if data[:2] == b"\0\0" and len(data) >= _TAGGED.size:
            _, kind, version, width, height, wide, model = _TAGGED.unpack_from(data)
            if version not in VERSIONS:
                raise FeaturesError(
                    f"features of version {version} cannot be read, only up to {VERSIONS[-1]}; use the program that "
                    "wrote them"
                )
            tag, start = (kind, model), _TAGGED.size
            has_colours, has_depths = ((version - VERSIONS[0]) & bit != 0 for bit in (1, 2))
            if has_colours:
                if len(data) < start + ROWS * COLUMNS:
                    raise _no_features(data)
                colours = np.frombuffer(data, np.uint8, ROWS * COLUMNS, start).reshape(ROWS, COLUMNS)
                start += colours.nbytes
        elif len(data) >= _UNTAGGED.size:
            (width, height), tag, wide, start = _UNTAGGED.unpack_from(data), ORB, _UNTAGGED_DESCRIPTOR_BYTES, 4
        else:
            raise _no_features(data)
        count, rest = divmod(len(data) - start, 5 + wide + 2 * has_depths)
        if rest or not 0 < wide <= MOST_DESCRIPTOR_BYTES or wide % 8 or not (width and height):
            raise _no_features(data)
        positions = np.frombuffer(data, "<u2", 2 * count, start).astype(np.uint16).reshape(-1, 2)
        angles = np.frombuffer(data, np.uint8, count, start + 4 * count)
        descriptors = np.frombuffer(data, np.uint8, count * wide, start + 5 * count).reshape(-1, wide)
        depths = np.frombuffer(data, "<u2", offset=start + (5 + wide) * count).astype(np.uint16) if has_depths else None
        return cls((width, height), positions, angles, descriptors, tag, colours, depths)

    def points(self, chosen: NDArray[np.intp], size: tuple[float, float]) -> Points:
        """Return the positions [M,2] of the `chosen` features in an image of `size` (width, height), in pixels."""
        scale = np.array(size, np.float32) / np.float32(POSITION_STEPS)
        points: Points = self.positions[chosen] * scale
        return points

    def only(self, chosen: NDArray[Any]) -> Features:
        """Return the features that are chosen, by a mask [N] or by their indices [M]."""
        return self._replace(
            positions=self.positions[chosen], angles=self.angles[chosen], descriptors=self.descriptors[chosen],
            depths=None if self.depths is None else self.depths[chosen],
        )  # fmt: skip

    def fewer(self, most: int) -> Features:
        """Return `most` of the features, from all scales alike, since they are found scale after scale."""
        if len(self.positions) <= most:
            return self
        return self.only(np.linspace(0, len(self.positions) - 1, most).astype(int))


def _no_features(data: bytes) -> FeaturesError:
    return FeaturesError(f"{len(data)} bytes are not local features; restore a copy of the file that holds them")
