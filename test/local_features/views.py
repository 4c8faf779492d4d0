# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2

from binvpr_ros.images import Image


def seen(scene: Image, x: float, y: float, scale: float = 1.0, turn: float = 0.0) -> Image:
    """Return the view [480,640] of `scene` around x, y, enlarged and turned (degrees)."""
    motion = cv2.getRotationMatrix2D((x, y), turn, scale)
    motion[:, 2] += (320 - x, 240 - y)
    view: Image = cv2.warpAffine(scene, motion, (640, 480))
    return view
