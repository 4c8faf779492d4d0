# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from binvpr_ros.config import Config
from binvpr_ros.evaluation import calibration, evaluate
from binvpr_ros.evaluation.closure_stage import ClosureStage


class Settings:
    """A drive of four revisits; in its first half a false closure has 35 inliers, and a true one the score 0.3."""

    config = Config()

    def through(self, config: Config) -> ClosureStage:
        closures = [([4, 1], False)] * (config.min_inliers <= 35) + [([5, 0], True)] * (config.min_score <= 0.3)
        closures.append(([6, 1], True))
        pairs, true = zip(*closures, strict=True)
        return ClosureStage(np.arange(8), np.array(pairs), np.array(true), np.array([4, 5, 6, 7]), {}, 0)


def test_the_strictest_setting_of_the_highest_recall_without_a_false_closure_is_taken() -> None:
    found = calibration.calibrate(Settings())  # type: ignore[arg-type]
    assert found is not None
    assert (found.min_score, found.min_inliers) == (0.3, 50)
    assert (found.first_half.precision, found.first_half.recall) == (1.0, 0.5)
    assert found.second_half.closures.tolist() == [[6, 1]]


def test_the_params_file_names_a_model_that_is_not_the_packaged_one(tmp_path: Path) -> None:
    found = calibration.calibrate(Settings())  # type: ignore[arg-type]
    assert found is not None
    model = tmp_path / "mine #2: night.tflite"
    found.write(tmp_path / "mine.yaml", ["evaluate"], model)
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    assert Config(**written) == Config(min_score=0.3, min_inliers=50, model=str(model))


def test_where_every_setting_has_a_false_closure_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MIN_INLIERS", [15, 20])
    assert calibration.calibrate(Settings()) is None  # type: ignore[arg-type]


def test_the_command_writes_a_params_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "MIN_SCORES", [0.15, 0.3])
    monkeypatch.setattr(calibration, "MIN_INLIERS", [30])
    file = tmp_path / "mine.yaml"
    options = ["--shift-cells", "0", "--sequence-keyframes", "2", "--exclude-seconds", "20"]
    monkeypatch.setattr(sys, "argv", ["evaluate", "--calibrate", str(file), "--baseline", "hog", *options])
    assert evaluate.main() == 0
    written = yaml.safe_load(file.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    Config(**written)
    assert written["min_inliers"] == 30
    assert (written["shift_cells"], written["sequence_keyframes"], written["exclusion_time"]) == (0, 2, 20)
    assert "model" not in written
    said = capsys.readouterr().out
    assert "rendered building, second half: " in said
    assert "hog: the highest recall without a false closure has " in said  # the packaged model comes first


def test_what_calibration_does_not_write_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.parse(["--calibrate", "mine.yaml", "--json", "figures.json"])
    assert "--calibrate writes a params file alone" in capsys.readouterr().err


def test_without_a_drive_there_is_nothing_to_calibrate_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", "--all", str(tmp_path), "--calibrate", str(tmp_path / "mine.yaml")])
    with pytest.raises(SystemExit):
        evaluate.main()
    assert "--calibrate takes one drive" in capsys.readouterr().err
