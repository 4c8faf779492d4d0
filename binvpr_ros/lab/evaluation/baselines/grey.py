# SPDX-License-Identifier: Apache-2.0
"""Grey images, which is what the hand-made descriptors look at."""

from __future__ import annotations

import cv2

from binvpr_ros.images import Image


def grey(image: Image) -> Image:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, as [H,W] grey."""
    pixels: Image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return pixels


def grey_square(image: Image, side: int) -> Image:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, as [side,side] grey, its aspect ratio given up."""
    # By area even where it enlarges, which repeats pixels, so that HOG's figures can be set beside earlier ones.
    pixels: Image = cv2.resize(grey(image), (side, side), interpolation=cv2.INTER_AREA)
    return pixels
