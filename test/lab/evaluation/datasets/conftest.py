# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Pictures = list[NDArray[np.uint8]]
WriteImages = Callable[[Path, Sequence[str]], Pictures]


@pytest.fixture
def write_images() -> WriteImages:
    """A function that writes random PNGs of the names given into a folder, and returns them as RGB [6,8,3]."""
    rng = np.random.default_rng(0)

    def write(folder: Path, names: Sequence[str]) -> Pictures:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = [rng.integers(0, 256, (6, 8, 3), np.uint8) for _ in names]
        for name, picture in zip(names, pictures, strict=True):
            cv2.imwrite(str(folder / name), picture[..., ::-1])
        return pictures

    return write


def same_images(images: Any, pictures: Pictures) -> bool:
    """Tell whether the images are these pictures, in order and one by one alike."""
    indexed = [images[index] for index in range(len(images))]
    return len(images) == len(pictures) and all(
        np.array_equal(a, c) and np.array_equal(b, c) for a, b, c in zip(images, indexed, pictures, strict=True)
    )
