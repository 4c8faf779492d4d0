# SPDX-License-Identifier: Apache-2.0
"""Image -> binary descriptor: preprocessing, the model, bit packing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image, as_rgb, resize
from binvpr_ros.network.backends import DescriptorError, load_backend
from binvpr_ros.network.hamming import WORD_BITS, Descriptor
from binvpr_ros.network.model_card import ModelCard


class Description(NamedTuple):
    """What the network says of one image."""

    descriptor: Descriptor
    contrast: float  # standard deviation of the grey values, 0 to 127.5


class DescriptorNetwork:
    """A model file as a function from images to binary descriptors.

    Raises ModelCardError where the model's card does not fit it, and DescriptorError where it cannot be run here.
    """

    def __init__(self, model: Path, backend: str = "auto", threads: int = 1, untried_runtime: bool = False) -> None:
        self.card = ModelCard.read(model)
        self.backend = load_backend(backend, model.read_bytes(), threads, untried_runtime)
        height, width = self.card.input_size
        if self.backend.input_shape != (1, height, width, 3):
            raise DescriptorError(
                f"{model} takes an input of shape {self.backend.input_shape}, its card says {height}x{width} RGB; "
                "use the pair of files that train_offline wrote"
            )
        self._size = (width, height)
        self._range = self._input_range(model)
        try:
            self.words = self.describe(np.zeros((height, width, 3), np.uint8)).descriptor.size
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise DescriptorError(f"{model} cannot be run ({reason}); use one that train_offline wrote") from None
        if self.words != -(-self.card.descriptor_bits // WORD_BITS):
            raise DescriptorError(
                f"{model} gives {self.words * WORD_BITS} bits, its card says {self.card.descriptor_bits}; "
                "use the pair of files that train_offline wrote"
            )

    def _input_range(self, model: Path) -> tuple[float, float] | None:
        """Return the values of the pixels 0 and 255 that the model takes; None where it takes them as they are."""
        stated = self.card.input_range
        if self.backend.input_dtype == np.float32:
            return stated or (0.0, 1.0)
        if stated is not None and stated != (0, 255):
            raise DescriptorError(
                f"{model} takes pixels of type {self.backend.input_dtype}, its card says that they range from "
                f"{stated[0]} to {stated[1]}; use the pair of files that train_offline wrote"
            )
        return None

    def describe(self, image: Image) -> Description:
        """Return the descriptor and the contrast of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size."""
        small = resize(image, self._size)
        deviations = cv2.meanStdDev(small)[1].ravel()
        contrast = float(deviations[len(deviations) // 2])  # green stands for grey
        batch: NDArray[Any] = as_rgb(small)[np.newaxis]
        if self._range is not None:
            low, high = self._range
            batch = batch.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
        return Description(pack(self.backend.run(batch)), contrast)


def pack(output: NDArray[Any]) -> Descriptor:
    """Pack a network's output into words: real values to bits by x >= 0, integers taken as packed bits already."""
    flat = output.reshape(-1)
    packed = np.packbits(flat >= 0) if np.issubdtype(flat.dtype, np.floating) else flat.view(np.uint8)
    missing = -packed.size % (WORD_BITS // 8)
    return (np.pad(packed, (0, missing)) if missing else packed).view(np.uint64)
