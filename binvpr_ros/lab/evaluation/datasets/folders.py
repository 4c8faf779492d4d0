# SPDX-License-Identifier: Apache-2.0
"""Two folders of images, and a table of those that show the same place."""

from __future__ import annotations

from pathlib import Path

from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, ImageFiles, Options
from binvpr_ros.lab.evaluation.datasets.tables import read_columns
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth


class FolderPair(Dataset):
    """Queries and references in a folder each, in file-name order, and a table of those that show the same place.

    The table has the columns `query` (an index) and `references` (the indices of all that show its place, separated by
    spaces). A query that is missing there, or has no references, has no true reference.
    """

    layout = "queries/, references/, ground_truth.csv"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there is a table of this name."""
        return (path / "ground_truth.csv").is_file()

    @classmethod
    def read(cls, path: Path, options: Options) -> FolderPair:  # noqa: ARG003 - the files say it all
        """Read the folder; raises DatasetError."""
        return cls.from_parts(path / "queries", path / "references", path / "ground_truth.csv", path.absolute().name)

    @classmethod
    def from_parts(cls, queries: Path, references: Path, ground_truth: Path, name: str = "") -> FolderPair:
        """Read two folders of images and the table about them; raises DatasetError."""
        query_files, reference_files = (ImageFiles.of_folder(folder, by_name=True) for folder in (queries, references))
        rows, (query_column, references_column) = read_columns(ground_truth, ("query", "references"))
        true: dict[int, list[int]] = {}
        for row in rows:
            query = row.index(query_column, len(query_files))
            if query in true:
                raise row.wrong(f"query {query} is listed twice")
            true[query] = row.integers(references_column, len(reference_files))
        truth = PairTruth([true.get(query, []) for query in range(len(query_files))], len(reference_files))
        return cls(name or queries.absolute().parent.name, query_files, reference_files, truth)
