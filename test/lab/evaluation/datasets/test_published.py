# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv

import pytest

from binvpr_ros.lab.evaluation.datasets.published import TABLE, Published

ROWS = list(csv.DictReader(line for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#")))


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_every_row_says_something(row: dict[str, str]) -> None:
    assert None not in row.values()
    published = Published.of(row["name"].replace("*", "x"))
    assert published != Published()
    if row["fx"]:
        assert published.camera is not None
        assert published.camera.size == (int(row["width"]), int(row["height"]))


def test_a_data_set_is_known_by_its_name() -> None:
    camera = Published.of("rgbd_dataset_freiburg1_rpy").camera
    assert camera is not None
    assert camera.matrix[0, 0] == 517.3
    assert Published.of("somewhere") == Published()
