# SPDX-License-Identifier: Apache-2.0
"""What is compared: ways to describe images, and to tell how similar two descriptions are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.images import Image, as_rgb, resize
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Images
from binvpr_ros.lab.evaluation.datasets.object_array import load_objects
from binvpr_ros.lab.evaluation.similarities import MatrixSimilarities
from binvpr_ros.local_features import orb
from binvpr_ros.local_features.kinds import LocalFeatures
from binvpr_ros.network.backends import load_backend
from binvpr_ros.network.cells import shifted
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import nearest_view
from binvpr_ros.network.model_card import ModelCard

FLOAT_BITS = 32
VPR_BENCH_MATCHES = "precomputed_data_corrected.npy"


class MethodError(RuntimeError):
    """A method cannot be run here; the message says what to install or change."""


class Method(ABC):
    """A way to describe an image as a row of numbers."""

    name: str
    descriptor_bits: int
    """Size of the description of one image, as it is compared."""

    def fit(self, references: Images) -> None:  # noqa: B027 - most have nothing to do here
        """Learn from the references what has to be learnt (a vocabulary); most learn nothing."""

    @abstractmethod
    def describe(self, image: Image) -> NDArray[Any]:
        """Return the description [D] of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size."""

    def comparable(self, description: NDArray[Any]) -> NDArray[Any]:
        """Return a description [D] as `similarities` compares it: of length one, float32, unless a method has its own.

        A description of zeros stays one.
        """
        row = description.astype(np.float32)
        return row / max(np.linalg.norm(row), np.float32(1e-12))

    def similarities(self, queries: NDArray[Any], references: NDArray[Any]) -> NDArray[np.float32]:
        """Return how similar comparable descriptions [B,D] are to others [R,D], float32 [B,R]; more is more similar.

        It is the cosine, unless a method has its own.
        """
        return np.asarray(queries @ references.T, np.float32)


class BinaryNetwork(Method):
    """A model with its card, as the node runs it: packed bits, compared by Hamming distance.

    What verifies its matches is `local_features`.
    """

    def __init__(self, model: Path, config: Config, local_features: LocalFeatures) -> None:
        self.network = DescriptorNetwork(model, threads=config.threads)
        self.config = config
        self.local_features = local_features
        self.name = self.network.card.name
        self.descriptor_bits = self.network.card.descriptor_bits

    def describe(self, image: Image) -> NDArray[Any]:
        """Return the descriptor of an image, packed into words, uint64 [W]."""
        return self.network.describe(image).descriptor

    def comparable(self, description: NDArray[Any]) -> NDArray[Any]:
        """Return a descriptor, uint64 [W], as it is."""
        return description

    def similarities(self, queries: NDArray[Any], references: NDArray[Any]) -> NDArray[np.float32]:
        """Return 1 - 2 d / N for the Hamming distance d of N bits, which is the cosine of the signs.

        Queries are moved by some cells where that brings them nearer, as in the node.
        """
        views = (shifted(query, self.network.card.grids, self.config.shift_cells) for query in queries)
        distances = np.stack([nearest_view(references, some) for some in views])
        return 1 - np.float32(2 / self.descriptor_bits) * distances.astype(np.float32)


class FloatNetwork(Method):
    """Any other model: RGB between 0 and 1, its output flattened and compared by cosine."""

    def __init__(self, model: Path, threads: int = 1) -> None:
        self.name = model.stem
        self._backend = load_backend("auto", model.read_bytes(), threads)
        shape, kind = self._backend.input_shape, self._backend.input_dtype
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or kind not in (np.float32, np.uint8):
            raise MethodError(
                f"{model} takes an input of shape {shape} and type {kind}; name a model that takes one RGB image"
            )
        self._size = (shape[2], shape[1])
        self.descriptor_bits = self.describe(np.zeros((1, 1), np.uint8)).size * FLOAT_BITS

    def describe(self, image: Image) -> NDArray[Any]:
        """Return the output for an image, float32 [D]."""
        batch: NDArray[Any] = as_rgb(resize(image, self._size))[np.newaxis]
        if self._backend.input_dtype == np.float32:
            batch = batch.astype(np.float32) / np.float32(255)
        return self._backend.run(batch).astype(np.float32).reshape(-1)


def load_model(
    model: Path, config: Config | None = None, local_features: LocalFeatures = orb
) -> BinaryNetwork | FloatNetwork:
    """Return a model file as a method: by its card where it has one, and then with those parameters of the node.

    Raises MethodError, ModelCardError or DescriptorError where it cannot be run here.
    """
    config = config or Config()
    if not model.is_file():
        raise MethodError(f"there is no model file {model}; name another")
    if ModelCard.path_for(model).exists():
        return BinaryNetwork(model, config, local_features)
    return FloatNetwork(model, config.threads)


def read_similarities(path: Path) -> MatrixSimilarities:
    """Return similarities [Q,R] that another program wrote: a .npy file of numbers, or one of VPR-Bench's matches.

    VPR-Bench's file (VPR_BENCH_MATCHES) holds them as the fourth of its objects, a row for each query. Raises
    DatasetError where the file is neither.
    """
    objects = load_objects(path)
    if objects.dtype == object and len(objects) > 3:
        objects = np.stack(list(objects[3]))
    if objects.ndim != 2 or objects.dtype.kind not in "iuf":
        raise DatasetError(f"{path} holds no matrix of similarities; save one of queries by references with NumPy")
    similarities = MatrixSimilarities(objects)
    if not all(np.isfinite(rows).all() for _, rows in similarities.blocks()):
        raise DatasetError(f"{path} holds values that are not finite numbers; give every pair a similarity")
    return similarities
