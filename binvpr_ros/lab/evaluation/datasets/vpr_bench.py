# SPDX-License-Identifier: Apache-2.0
"""The layout of VPR-Bench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, DatasetError, ImageFiles, Options
from binvpr_ros.lab.evaluation.datasets.object_array import load_objects
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth

GROUND_TRUTH = "ground_truth_new.npy"


class VprBench(Dataset):
    """Folders `query` and `ref`, images by number (2.jpg before 10.jpg), and an array of those of the same place.

    The array [Q,2] holds the index of a query and the indices of its references.
    """

    layout = "VPR-Bench (query/, ref/, ground_truth_new.npy)"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there is an array of this name."""
        return (path / GROUND_TRUTH).is_file()

    @classmethod
    def read(cls, path: Path, options: Options) -> VprBench:  # noqa: ARG003 - the files say it all
        """Read the folder; raises DatasetError."""
        queries, references = (ImageFiles.of_folder(path / folder) for folder in ("query", "ref"))
        table = load_objects(path / GROUND_TRUTH)
        truth = _truth(path / GROUND_TRUTH, table, len(queries), len(references))
        return cls(path.absolute().name, queries, references, truth)


def _truth(path: Path, table: NDArray[Any], queries: int, references: int) -> PairTruth:
    if table.ndim != 2 or table.shape[1] != 2:
        raise DatasetError(f"{path} has the shape {list(table.shape)} instead of [queries,2]; restore the file")
    true: list[list[int]] = [[] for _ in range(queries)]
    for line, (query, matches) in enumerate(table):
        index, places = _indices(query), _indices(matches)
        if index is None or places is None or index.size != 1:
            raise DatasetError(f"{path}, row {line}, is not an index and a list of indices; restore the file")
        if index[0] >= queries:
            raise DatasetError(f"{path}, row {line}, names query {index[0]} of {queries}; restore the files in query")
        # The published files count on past the end: Gardens Point names references 200 and 201 of 200.
        there = places[places < references]
        if places.size and not there.size:
            raise DatasetError(
                f"{path}, row {line}, names references {places.min()} and above of {references}; "
                "restore the files in ref"
            )
        true[index[0]] += there.tolist()
    return PairTruth(true, references)


def _indices(entry: Any) -> NDArray[np.int64] | None:
    """Return an index, or a list of them, as an array; None if it is neither."""
    try:
        indices = np.asarray(entry)
    except ValueError:
        return None
    if indices.size and (indices.dtype.kind not in "iu" or indices.min() < 0):
        return None
    return indices.ravel().astype(np.int64)
