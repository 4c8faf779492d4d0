# SPDX-License-Identifier: Apache-2.0
"""What published data sets do not say of themselves, in a table: their cameras, and what counts as one place there."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from binvpr_ros.lab.evaluation.datasets.cameras import camera_of
from binvpr_ros.local_features.camera import Camera

TABLE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True)
class Published:
    """What is known of a data set by its name; nothing, of most."""

    place: str = ""  # drives with the same one were taken at one place
    radius: float | None = None  # metres
    angle: float | None = None  # degrees
    camera: Camera | None = None

    @classmethod
    def of(cls, name: str) -> Published:
        """Return what is known of the data set of this name."""
        for row in _rows():
            if fnmatchcase(name, row["name"]):
                radius, angle = (float(row[key]) if row[key] else None for key in ("radius", "angle"))
                return cls(row["place"], radius, angle, _camera(row))
        return cls()


def _camera(row: dict[str, str]) -> Camera | None:
    if not row["fx"]:
        return None
    intrinsics = [float(row[key]) for key in ("fx", "fy", "cx", "cy")]
    coefficients = [float(value) for value in row["coefficients"].split()]
    return camera_of((int(row["width"]), int(row["height"])), intrinsics, row["model"], coefficients)


@functools.cache
def _rows() -> list[dict[str, str]]:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))
