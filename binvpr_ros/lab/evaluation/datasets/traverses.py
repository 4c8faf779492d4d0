# SPDX-License-Identifier: Apache-2.0
"""Drives along one route, aligned frame by frame."""

from __future__ import annotations

from pathlib import Path

from binvpr_ros.images import image_paths, in_order
from binvpr_ros.lab.evaluation.datasets.coordinate_names import position
from binvpr_ros.lab.evaluation.datasets.dataset import Dataset, DatasetError, ImageFiles, Options
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth

USUAL_PAIRS = (("night_right", "day_left"), ("winter", "summer"))
"""Queries and references that most papers take from Gardens Point and from Nordland."""
TABLES = (".csv", ".txt", ".npy", ".mat")


class Traverses(Dataset):
    """Sub-folders of equally many images; images of one index show one place, whatever the season or the time of day.

    Truth is an index within `tolerance` frames of the query's.
    """

    layout = "two or more folders of equally many images, aligned frame by frame"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether there are two or more such sub-folders, and neither tables nor names that say otherwise."""
        if not path.is_dir():
            return False
        tables = [
            file for file in path.iterdir()
            if file.suffix.lower() in TABLES and not file.name.lower().startswith("readme")
        ]  # fmt: skip
        folders = _folders(path).values()
        if tables or len(folders) < 2 or len({len(files) for files in folders}) > 1:
            return False
        return not any(position(file) for files in folders for file in files)

    @classmethod
    def read(cls, path: Path, options: Options) -> Traverses:
        """Read the sub-folders that `options` name, or the usual ones, or the only two; raises DatasetError.

        Of two with unknown names, the first has the references and the second the queries.
        """
        folders = _folders(path)
        names = list(folders)
        pairs = [*USUAL_PAIRS, (options.queries, options.references)]
        if len(names) == 2:
            pairs += [(names[1], names[0]), (names[0], names[1])]
        for queries, references in pairs:
            asked = options.queries in ("", queries) and options.references in ("", references)
            if asked and queries != references and queries in folders and references in folders:
                break
        else:
            raise DatasetError(
                f"{path} has the traverses {', '.join(names)}; name one for the queries and one for the references"
            )
        counts = len(folders[queries]), len(folders[references])
        if counts[0] != counts[1]:
            raise DatasetError(
                f"{path / queries} has {counts[0]} images and {path / references} {counts[1]}; "
                "give both the same number, aligned frame by frame"
            )
        frames, off = range(counts[0]), options.tolerance
        truth = PairTruth([frames[max(frame - off, 0) : frame + off + 1] for frame in frames], counts[1])
        return cls(
            path.absolute().name, ImageFiles(in_order(folders[queries])), ImageFiles(in_order(folders[references])),
            truth, conditions=f"{queries} on {references}, aligned frame by frame, within {off} frames",
        )  # fmt: skip


def _folders(path: Path) -> dict[str, list[Path]]:
    """Return the images of each sub-folder that has any, by the name of the sub-folder."""
    folders = {folder.name: image_paths(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    return {name: files for name, files in folders.items() if files}
