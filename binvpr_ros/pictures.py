# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: a keyframe's thumbnail."""

from __future__ import annotations

import cv2

from binvpr_ros.descriptor import Image, resize

THUMBNAIL_SIDE = 160
"""Pixels of its longer side."""
THUMBNAIL_QUALITY = 80
"""Of JPEG, 0 to 100."""


def thumbnail(image: Image) -> bytes:
    """Return a uint8 image, [H,W,3] RGB or [H,W] grey, as a small jpeg file; none is enlarged."""
    height, width = image.shape[:2]
    scale = THUMBNAIL_SIDE / max(height, width)
    if scale < 1:
        image = resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY))[1].tobytes()
