# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.curves import draw_curves
from binvpr_ros.lab.training.trainer import COLUMNS


def test_a_log_of_two_stages_becomes_a_picture(tmp_path: Path) -> None:
    rows = [
        {"stage": stage, "step": step, "loss": 2 / (step + 1), "learning_rate": 1e-3, "flips_per_step": 1e-4 / step,
         "val_recall_at_1": 0.5 if step == 20 else ""}
        for stage in (0, 1) for step in (10, 20)
    ]  # fmt: skip
    lines = [",".join(str(row.get(name, "")) for name in COLUMNS) for row in rows]
    (tmp_path / "log.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    draw_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    picture = np.asarray(cv2.imread(str(tmp_path / "curves.png")))
    assert (picture.min(axis=2) < 200).mean() > 0.01


def test_an_empty_log_becomes_a_picture(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(",".join(COLUMNS) + "\n")
    draw_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()
