# SPDX-License-Identifier: Apache-2.0
"""A map as a table, and its thumbnails as files."""

from __future__ import annotations

import contextlib
import csv
import sys
from pathlib import Path

import numpy as np

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.maps.command.rows import whole_rows
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.reading import motions_of


def export(path: Path, output: Path | None, thumbnails: Path | None = None) -> None:
    """Write a map's keyframes as CSV: id, session, stamp in seconds, the packed bits as hexadecimal digits, and motion.

    That is the homography to the keyframe before, 9 numbers row by row, or nothing where it is not known.

    Their thumbnails go into the folder `thumbnails`, which is made, as <id>.jpg.
    """
    with opened(path) as (connection, facts), contextlib.ExitStack() as stack:
        # So that what cannot be exported as a whole leaves nothing behind.
        pictures = sum(row.get("thumbnail") is not None for row in whole_rows(path, connection, facts))
        if thumbnails is not None and not pictures:
            raise DatabaseError(f"{path} keeps no thumbnails; leave out --thumbnails (the node's thumbnails:=true)")
        if thumbnails is not None and thumbnails.exists():
            raise DatabaseError(f"{thumbnails} exists; name a new folder")
        file = sys.stdout if output is None else stack.enter_context(output.open("x", encoding="utf-8", newline=""))
        if thumbnails is not None:
            thumbnails.mkdir()
        writer = csv.writer(file)
        writer.writerow(["id", "session", "stamp", "descriptor", "motion"])
        for row in whole_rows(path, connection, facts):
            seconds, nanoseconds = divmod(row["stamp"], NANOSECONDS)
            stamp, (motion,) = f"{seconds}.{nanoseconds:09}", motions_of([row.get("motion")])
            numbers = "" if np.isnan(motion).any() else " ".join(f"{number:.9g}" for number in motion)
            writer.writerow([row["id"], row["session"], stamp, row["descriptor"].hex(), numbers])
            if thumbnails is not None and row.get("thumbnail") is not None:
                (thumbnails / f"{row['id']:06}.jpg").write_bytes(row["thumbnail"])
