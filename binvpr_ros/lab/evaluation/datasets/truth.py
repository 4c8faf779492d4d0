# SPDX-License-Identifier: Apache-2.0
"""Which images show one place: from tables of pairs, or from where the cameras stood and looked.

All pairs of 30,000 images would fill a gigabyte, so truth is asked for block by block of queries.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BLOCK_CELLS = 4_000_000
"""Pairs that are looked at together: 32 MB where each is a float64."""
ROUNDING = 1e-6  # metres
COSINE_ROUNDING = 1e-9
"""By which the bounds of a place may be missed: files round, and so do sums."""


def blocks(queries: int, references: int) -> Iterator[tuple[int, int]]:
    """Yield the first query, and the one after the last, of blocks that hold about BLOCK_CELLS pairs."""
    step = max(1, BLOCK_CELLS // max(references, 1))
    for start in range(0, queries, step):
        yield start, min(start + step, queries)


class Truth(ABC):
    """Which of R references show the place of which of Q queries."""

    shape: tuple[int, int]
    """Q and R."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return which references [B,R] are true for the queries from `start` to before `stop`."""

    @abstractmethod
    def take(self, queries: Sequence[int], references: Sequence[int]) -> Truth:
        """Return the truth about some queries and some references, in that order."""

    @abstractmethod
    def apart(self, query: int) -> NDArray[np.bool_]:
        """Return which references [R] surely show another place than a query: not what lies just beyond its place."""

    def of(self, query: int) -> NDArray[np.intp]:
        """Return the true references of one query, ascending."""
        return np.flatnonzero(self.rows(query, query + 1)[0])

    @cached_property
    def answerable(self) -> NDArray[np.bool_]:
        """Which queries [Q] have a true reference."""
        parts = [self.rows(start, stop).any(axis=1) for start, stop in blocks(*self.shape)]
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    def dense(self) -> NDArray[np.bool_]:
        """Return all pairs [Q,R]."""
        return self.rows(0, self.shape[0])


class PairTruth(Truth):
    """A list of the true references for each query."""

    def __init__(self, references: Sequence[Sequence[int] | NDArray[np.integer]], count: int) -> None:
        """Take for each query the indices of its true `references`, of which there are `count`."""
        self.shape = (len(references), count)
        self._of = [np.unique(np.asarray(some, np.intp)) for some in references]

    @classmethod
    def of_matrix(cls, matrix: NDArray[np.bool_]) -> PairTruth:
        """Make the truth of a table [Q,R]."""
        return cls([np.flatnonzero(row) for row in matrix], matrix.shape[1])

    @classmethod
    def of_pairs(cls, pairs: NDArray[np.integer], shape: tuple[int, int]) -> PairTruth:
        """Make the truth of pairs [P,2], each a query and a reference."""
        order = np.argsort(pairs[:, 0], kind="stable")
        ordered = pairs[order]
        borders = np.searchsorted(ordered[:, 0], np.arange(shape[0] + 1))
        return cls([ordered[a:b, 1] for a, b in itertools.pairwise(borders)], shape[1])

    def rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return which references [B,R] are true for the queries from `start` to before `stop`."""
        rows = np.zeros((stop - start, self.shape[1]), bool)
        for row, true in zip(rows, self._of[start:stop], strict=True):
            row[true] = True
        return rows

    def apart(self, query: int) -> NDArray[np.bool_]:
        """Return which references [R] are not true, nor as near to a run of true ones as that is long."""
        apart = np.ones(self.shape[1], bool)
        true = self._of[query]
        for run in np.split(true, np.flatnonzero(np.diff(true) > 1) + 1) if len(true) else []:
            margin = len(run) - 1
            apart[max(run[0] - margin, 0) : run[-1] + margin + 1] = False
        return apart

    def take(self, queries: Sequence[int], references: Sequence[int]) -> PairTruth:
        """Return the truth about some queries and some references, in that order."""
        chosen = np.asarray(references, np.intp)
        return PairTruth([np.flatnonzero(np.isin(chosen, self._of[query])) for query in queries], len(chosen))


@dataclass(frozen=True, eq=False)
class Views:
    """Where N cameras stood, and which way they looked."""

    positions: NDArray[np.float64]  # [N,D], metres
    axes: NDArray[np.float64] | None = None  # [N,3], unit vectors along the optical axes in the world; None: unknown
    rotations: NDArray[np.float64] | None = None  # [N,3,3], which count whole where the axes are not known

    def __len__(self) -> int:
        """Return the number N of cameras."""
        return len(self.positions)

    def take(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> Views:
        """Return some of them, in that order."""
        return Views(*(None if part is None else part[indices] for part in (self.positions, self.axes, self.rotations)))  # type: ignore[arg-type]

    def squares(self, others: Views) -> NDArray[np.float64]:
        """Return the squared distances [N,M] to other cameras, which rounding may make negative."""
        # Map coordinates are so large that their squares lose centimetres.
        origin = others.positions.mean(axis=0)
        ours, theirs = self.positions - origin, others.positions - origin
        squares: NDArray[np.float64] = -2 * ours @ theirs.T
        squares += (ours**2).sum(axis=1)[:, None]
        squares += (theirs**2).sum(axis=1)
        return squares

    def cosines(self, others: Views) -> NDArray[np.float64] | None:
        """Return the cosines [N,M] of the angles to other cameras' views; None where no view is known."""
        if self.axes is not None and others.axes is not None:
            return np.clip(self.axes @ others.axes.T, -1, 1)
        if self.rotations is None or others.rotations is None:
            return None
        # The trace of A^T B is the sum of the products of their entries, and 1 + 2 cos of the angle between them.
        flat, theirs = (some.reshape(len(some), 9) for some in (self.rotations, others.rotations))
        return np.clip((flat @ theirs.T - 1) / 2, -1, 1)

    def between(
        self, ours: NDArray[np.integer], theirs: NDArray[np.integer]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distances [C] (metres) of pairs of these cameras, and the cosines [C] between their views."""
        distances = np.linalg.norm(self.positions[ours] - self.positions[theirs], axis=1)
        if self.axes is not None:
            cosines = (self.axes[ours] * self.axes[theirs]).sum(axis=1)
        elif self.rotations is not None:
            cosines = ((self.rotations[ours] * self.rotations[theirs]).sum(axis=(1, 2)) - 1) / 2
        else:
            cosines = np.ones(len(ours))
        return distances, np.clip(cosines, -1, 1)


@dataclass(frozen=True, eq=False)
class ViewTruth(Truth):
    """Images whose cameras stood within `radius` metres of each other and looked the same way within `angle` degrees.

    Of the references only the first `candidates` [Q] may be matched, the past of a drive; None: all. Beyond
    `apart_radius` or `apart_angle` two images surely show different places.
    """

    queries: Views
    references: Views
    radius: float
    angle: float
    apart_radius: float
    apart_angle: float = 60.0
    candidates: NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """Q and R."""
        return len(self.queries), len(self.references)

    def rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return which references [B,R] are true for the queries from `start` to before `stop`."""
        rows = np.zeros((stop - start, len(self.references)), bool)
        last = len(self.references) if self.candidates is None else int(self.candidates[start:stop].max(initial=0))
        if not last:
            return rows
        some, others = self.queries.take(slice(start, stop)), self.references.take(slice(last))
        same = some.squares(others) <= (self.radius + ROUNDING) ** 2
        cosines = some.cosines(others)
        if cosines is not None:
            same &= cosines >= self._least_cosine
        if self.candidates is not None:
            same &= np.arange(last) < self.candidates[start:stop, None]
        rows[:, :last] = same
        return rows

    def of_pairs(
        self, ours: NDArray[np.integer], theirs: NDArray[np.integer]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which pairs [C] of queries show one place, and which [C] surely show different ones."""
        distances, cosines = self.queries.between(ours, theirs)
        same = (distances <= self.radius + ROUNDING) & (cosines >= self._least_cosine)
        return same, (distances > self.apart_radius) | (cosines < np.cos(np.deg2rad(min(self.apart_angle, 180))))

    @property
    def _least_cosine(self) -> float:
        return float(np.cos(np.deg2rad(min(self.angle, 180)))) - COSINE_ROUNDING

    def apart(self, query: int) -> NDArray[np.bool_]:
        """Return which references [R] lie beyond `apart_radius`, or look another way by more than `apart_angle`."""
        one = self.queries.take(slice(query, query + 1))
        apart: NDArray[np.bool_] = one.squares(self.references)[0] > self.apart_radius**2
        cosines = one.cosines(self.references)
        return apart if cosines is None else apart | (cosines[0] < np.cos(np.deg2rad(self.apart_angle)))

    def take(self, queries: Sequence[int], references: Sequence[int]) -> ViewTruth:
        """Return the truth about some queries and some references, which must ascend in a drive."""
        chosen = np.asarray(references, np.intp)
        candidates = self.candidates
        if candidates is not None:
            candidates = np.searchsorted(chosen, candidates[np.asarray(queries, np.intp)]).astype(np.int64)
        return replace(
            self, queries=self.queries.take(queries), references=self.references.take(references), candidates=candidates
        )
