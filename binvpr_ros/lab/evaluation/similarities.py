# SPDX-License-Identifier: Apache-2.0
"""How similar each query is to each reference, read in blocks: all pairs of 30,000 images would take 3.6 GB."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.truth import blocks

MOST_KEPT = 64_000_000
"""Pairs up to which a matrix is kept once it has been computed: 256 MB."""


class Similarities(ABC):
    """Similarities of Q queries to R references, float32; more is more similar."""

    shape: tuple[int, int]
    """Q and R."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the similarities [B,R] of the queries from `start` to before `stop`."""

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield all rows in order, some at a time, each time with the first of their queries."""
        for start, stop in blocks(*self.shape):
            yield start, self.rows(start, stop)


class MatrixSimilarities(Similarities):
    """A matrix [Q,R] of numbers."""

    def __init__(self, matrix: NDArray[Any]) -> None:
        self.shape = (matrix.shape[0], matrix.shape[1])
        self._matrix = matrix

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the similarities [B,R] of the queries from `start` to before `stop`."""
        return self._matrix[start:stop].astype(np.float32, copy=False)


class ComputedSimilarities(Similarities):
    """Similarities that are computed block by block, by `compute` from the first query to before another."""

    def __init__(self, shape: tuple[int, int], compute: Callable[[int, int], NDArray[np.float32]]) -> None:
        self.shape = shape
        self._compute = compute

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the similarities [B,R] of the queries from `start` to before `stop`."""
        return self._compute(start, stop)


def kept(similarities: Similarities) -> Similarities:
    """Return `similarities` as a matrix where that fits into the memory, so that nothing is computed twice."""
    queries, references = similarities.shape
    if queries * references > MOST_KEPT:
        return similarities
    matrix = np.empty(similarities.shape, np.float32)
    for start, rows in similarities.blocks():
        matrix[start : start + len(rows)] = rows
    return MatrixSimilarities(matrix)
