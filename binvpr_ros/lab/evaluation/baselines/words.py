# SPDX-License-Identifier: Apache-2.0
"""Words of the packaged network's local features, by themselves and beside the packaged network's own bits."""

from __future__ import annotations

import sys

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.config import Config, model_path
from binvpr_ros.images import Image
from binvpr_ros.lab.evaluation.datasets.dataset import Images
from binvpr_ros.lab.evaluation.methods import FLOAT_BITS, Method, MethodError
from binvpr_ros.local_features.kinds import open_local_features
from binvpr_ros.network.descriptor import DescriptorNetwork

BITS = 256
"""Of a local feature."""
WORDS = 64
ROUNDS = 20  # of k-means, at most
TRAINING_IMAGES = 300  # at most, spread evenly over those given
SEED = 0


class Words(Method):
    """VLAD over the signs of learned local features (Jegou et al., CVPR 2010; intra-normalised as Arandjelovic, 2013).

    The words are 64 centres by k-means over the features of the references, which favours it.
    """

    name = "words"
    descriptor_bits = WORDS * BITS * FLOAT_BITS

    def __init__(self) -> None:
        self._local_features = open_local_features("learned")
        self._centres: NDArray[np.float32] | None = None

    def fit(self, references: Images) -> None:
        """Make the words of the references; raises MethodError where they have too few features."""
        count = min(len(references), TRAINING_IMAGES)
        chosen = np.unique(np.linspace(0, len(references) - 1, count).round().astype(int))
        progress = tqdm(chosen.tolist(), desc="words", unit="image", file=sys.stderr, leave=False)
        signs = np.concatenate([self._signs(references[index]) for index in progress])
        if len(signs) < WORDS:
            raise MethodError(f"{WORDS} words cannot be made of {len(signs)} features; use images with more detail")
        cv2.setRNGSeed(SEED)
        ends = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, ROUNDS, 1e-3)
        self._centres = cv2.kmeans(signs, WORDS, None, ends, 1, cv2.KMEANS_PP_CENTERS)[2]

    def describe(self, image: Image) -> NDArray[np.float32]:
        """Return how features differ from their words, float32 [WORDS x BITS], of length one, or 0 without features.

        The image is uint8, [H,W,3] RGB or [H,W] grey. Raises MethodError before `fit`.
        """
        if self._centres is None:
            raise MethodError(f"{self.name} has no words yet; call fit with the references first")
        signs = self._signs(image)
        nearest = (signs @ self._centres.T - np.square(self._centres).sum(axis=1) / 2).argmax(axis=1)
        differences = np.zeros_like(self._centres)
        np.add.at(differences, nearest, signs - self._centres[nearest])
        return unit(unit(differences).ravel())

    def _signs(self, image: Image) -> NDArray[np.float32]:
        bits = np.unpackbits(self._local_features.extract(image).descriptors, axis=1)
        return 2 * bits.astype(np.float32).reshape(-1, BITS) - 1


class WordsAndBits(Words):
    """Words beside the bits of the packaged network: the mean of the two cosines."""

    name = "words+binvpr20r"

    def __init__(self) -> None:
        super().__init__()
        self._network = DescriptorNetwork(model_path(Config()))
        self.descriptor_bits = Words.descriptor_bits + self._network.card.descriptor_bits

    def describe(self, image: Image) -> NDArray[np.float32]:
        """Return both, float32 [WORDS x BITS + N bits], each as long as the other; as `Words.describe`."""
        words = super().describe(image)
        packed = self._network.describe(image).descriptor.view(np.uint8)
        bits = np.unpackbits(packed)[: self._network.card.descriptor_bits].astype(np.float32)
        return np.sqrt(np.float32(0.5)) * np.concatenate([words, unit(2 * bits - 1)])

    def comparable(self, description: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a description as it is: of an image without features half the cosine is none."""
        return description


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows [...,D] of length one; those of zeros stay."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.float32(1e-12)), np.float32)
