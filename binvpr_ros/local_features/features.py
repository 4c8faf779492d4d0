# SPDX-License-Identifier: Apache-2.0
"""The local features of one image, and their bytes."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.local_features.camera import Points

DESCRIPTOR_BYTES = 32
_HEADER = struct.Struct("<HH")  # width and height in pixels
POSITION_STEPS = 1 << 16  # over the width, and over the height
ANGLE_STEPS = 256
_FEATURE_BYTES = 2 + 2 + 1 + DESCRIPTOR_BYTES


class FeaturesError(ValueError):
    """Bytes are no features."""


class Features(NamedTuple):
    """The N local features of one image."""

    size: tuple[int, int]  # width and height in pixels of the image in which they were found
    positions: NDArray[np.uint16]  # [N,2], x and y in 1/65536 of the width and of the height
    angles: NDArray[np.uint8]  # [N], 1/256 of a turn
    descriptors: NDArray[np.uint8]  # [N,32]

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` reads: 4 + 37 N bytes, little-endian."""
        arrays = (self.positions.astype("<u2"), self.angles, self.descriptors)
        return _HEADER.pack(*self.size) + b"".join(array.tobytes() for array in arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Features:
        """Return the features that `to_bytes` wrote; raises FeaturesError where they are none."""
        count, rest = divmod(len(data) - _HEADER.size, _FEATURE_BYTES)
        if count < 0 or rest:
            raise FeaturesError(f"{len(data)} bytes are no features; restore a copy of the file that holds them")
        width, height = _HEADER.unpack_from(data)
        after_positions = _HEADER.size + 4 * count
        positions = np.frombuffer(data, "<u2", 2 * count, _HEADER.size).astype(np.uint16).reshape(-1, 2)
        angles = np.frombuffer(data, np.uint8, count, after_positions)
        descriptors = np.frombuffer(data, np.uint8, offset=after_positions + count).reshape(-1, DESCRIPTOR_BYTES)
        return cls((width, height), positions, angles, descriptors)

    def points(self, chosen: NDArray[np.intp], size: tuple[int, int]) -> Points:
        """Return the positions [N,2] of the `chosen` features in an image of `size` (width, height), in pixels."""
        scale = np.array(size, np.float32) / np.float32(POSITION_STEPS)
        points: Points = self.positions[chosen] * scale
        return points
