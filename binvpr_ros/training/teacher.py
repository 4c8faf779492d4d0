# SPDX-License-Identifier: Apache-2.0
"""What a pretrained network says of the training images, computed once and kept."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.training.efficientnet_lite0 import SIDE, WeightsError, efficientnet_lite0, pooled_features

BATCH = 32


class TeacherError(RuntimeError):
    """The teacher cannot be asked; the message says why and what to do."""


def teach(images: NDArray[np.uint8], cache: Path) -> NDArray[np.float16]:
    """Return descriptors [N,1280] of length 1 by EfficientNet-Lite0, GeM pooled, of `images` [N,S,S,3] uint8 RGB.

    They are of the images as they are, so that what is learnt from them does not depend on a view's distortion. Those
    of the same images are taken from `cache`. Raises TeacherError.
    """
    key = np.frombuffer(hashlib.sha256(np.ascontiguousarray(images).data).digest(), np.float16)
    if cache.exists():
        try:
            known: NDArray[np.float16] = np.load(cache, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            known = np.empty((0, 0), np.float16)
        # The last row holds the checksum of the images.
        if len(known) == len(images) + 1 and known[-1, : len(key)].tobytes() == key.tobytes():
            return known[:-1]
    try:
        network = efficientnet_lite0(SIDE)
    except WeightsError as error:
        raise TeacherError(str(error)) from None
    taught = np.zeros((len(images) + 1, network.output_shape[-1]), np.float16)
    for start in tqdm(range(0, len(images), BATCH), desc="teacher", unit="batch", file=sys.stderr, leave=False):
        batch = np.stack([cv2.resize(image, (SIDE, SIDE)) for image in images[start : start + BATCH]])
        pooled = pooled_features(network, batch)
        taught[start : start + len(batch)] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    taught[-1, : len(key)] = key
    part = cache.with_suffix(".part.npy")
    np.save(part, taught)
    part.replace(cache)
    return taught[:-1]
