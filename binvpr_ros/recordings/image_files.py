# SPDX-License-Identifier: Apache-2.0
"""ImageFolder: the image files of a folder as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from binvpr_ros.images import ImageError
from binvpr_ros.recordings.frames import DEFAULT_RATE, EncodedImage, Frame, LeftOut, RecordedImage, Recording, convert

JPEG_AND_PNG = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
"""Suffixes of the files that stay as they are, and the names of their formats in ROS."""


class ImageFolder(Recording):
    """Image files in the order given, at the default rate."""

    has_stamps = False
    calibration = None

    def __init__(self, files: list[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._files)

    def backwards(self) -> ImageFolder:
        """Return the files from the last to the first."""
        return ImageFolder(self._files[::-1])

    def read(self) -> Iterator[Frame | LeftOut]:
        """Yield the files in order."""
        for file in self._files:
            try:
                image = read_image_file(file)
            except OSError as error:
                yield LeftOut("unreadable", f"{file}: it cannot be read ({error.strerror})")
            except ImageError as error:
                yield LeftOut("undecodable", f"{file}: {error}")
            else:
                yield Frame(str(file), 1 / DEFAULT_RATE, image)


def read_image_file(file: Path) -> RecordedImage:
    """Return a JPEG or PNG file as it is, and any other file decoded; raises OSError and ImageError."""
    suffix = file.suffix.lower()
    image = EncodedImage(JPEG_AND_PNG.get(suffix, suffix[1:]), np.frombuffer(file.read_bytes(), np.uint8))
    return image if suffix in JPEG_AND_PNG else convert(image, compressed=False)
