# SPDX-License-Identifier: Apache-2.0
"""What a pretrained network sees in the training images, computed once and kept."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.lab.training.data import TAUGHT_LEVELS
from binvpr_ros.lab.training.efficientnet_lite0 import WeightsError, efficientnet_lite0

SIDE = 128
"""Pixels of the images that the teacher is shown."""
STAGE = 5
"""The stage of EfficientNet-Lite0, at a sixteenth of the image's size, whose maps tell places apart best."""
BATCH = 64


class TeacherError(RuntimeError):
    """The teacher cannot be asked; the message says why and what to do."""


def teach(images: NDArray[np.uint8], cache: Path) -> NDArray[np.int8]:
    """Return feature maps [N,8,8,112] by EfficientNet-Lite0 of `images` [N,S,S,3] uint8 RGB.

    They are of the images as they are, so that what is learnt from them does not depend on a view's light and weather.
    Each cell is less its mean over the images; a channel's standard deviation is TAUGHT_LEVELS. Those of the same
    images are taken from `cache`. Raises TeacherError.
    """
    key = np.frombuffer(hashlib.sha256(np.ascontiguousarray(images).data).digest(), np.int8)
    if cache.exists():
        try:
            known: NDArray[np.int8] = np.load(cache, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            known = np.empty((0, 0), np.int8)
        # The last map begins with the checksum of the images.
        if len(known) == len(images) + 1 and known[-1].tobytes().startswith(key.tobytes()):
            return known[:-1]
    try:
        network = efficientnet_lite0(SIDE, stages=STAGE)
    except WeightsError as error:
        raise TeacherError(str(error)) from None
    maps = np.empty((len(images), *network.output_shape[1:]), np.float16)
    for start in tqdm(range(0, len(images), BATCH), desc="teacher", unit="batch", file=sys.stderr, leave=False):
        batch = np.stack([cv2.resize(image, (SIDE, SIDE)) for image in images[start : start + BATCH]])
        maps[start : start + len(batch)] = network.predict_on_batch(batch.astype(np.float32))
    taught = np.zeros((len(images) + 1, *maps.shape[1:]), np.int8)
    taught[:-1] = _levels(maps)
    taught[-1].reshape(-1)[: len(key)] = key
    part = cache.with_suffix(".part.npy")
    np.save(part, taught)
    part.replace(cache)
    return taught[:-1]


def _levels(maps: NDArray[np.float16]) -> NDArray[np.int8]:
    """Return `maps` [N,S,S,C] less their mean map, a channel's standard deviation as TAUGHT_LEVELS."""
    means = maps.mean(axis=0, dtype=np.float64).astype(np.float32)
    squares = np.zeros(maps.shape[-1])
    for one in maps:
        squares += np.square(one - means).mean(axis=(0, 1))
    deviations = np.sqrt(squares / len(maps)).astype(np.float32)
    levels = np.empty(maps.shape, np.int8)
    for one, out in zip(maps, levels, strict=True):
        out[:] = np.clip(np.rint((one - means) / (deviations + 1e-6) * TAUGHT_LEVELS), -127, 127)
    return levels
