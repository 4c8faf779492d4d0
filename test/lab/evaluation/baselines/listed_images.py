# SPDX-License-Identifier: Apache-2.0
"""Images in memory, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.datasets.dataset import Images


@dataclass(frozen=True)
class ListedImages(Images):
    """Images of a list."""

    images: Sequence[Image]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int, /) -> Image:
        """Return one image."""
        return self.images[index]

    def __iter__(self) -> Iterator[Image]:
        """Yield all images in order."""
        return iter(self.images)
