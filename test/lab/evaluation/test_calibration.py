# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from binvpr_ros.config import Config
from binvpr_ros.lab.evaluation import calibration, evaluate
from binvpr_ros.lab.evaluation.calibration import MIN_INLIERS, MIN_SCORES, Setting
from binvpr_ros.lab.evaluation.closure_stage import ClosureStage, Trials
from binvpr_ros.lab.evaluation.datasets.sequences import Relation

from .stages import stage

SAME, APART = Relation.SAME, Relation.APART
STRICTEST = 30
"""The largest `min_inliers` that is tried."""


class Settings:
    """A drive of four revisits, which closes a false loop at few inliers and true ones at low scores."""

    config = Config()

    def __init__(
        self, name: str, place: str, false_up_to: int = 0, scores: tuple[float, ...] = (0.3, 0.6), elsewhere: int = 0
    ) -> None:
        self.sequence = SimpleNamespace(name=name, place=place)
        self._false_up_to, self._scores, self._elsewhere = false_up_to, scores, elsewhere

    def against(self, other: Settings, config: Config) -> Trials:
        closures = [(4, 1, 50)] * (config.min_inliers <= self._elsewhere)
        return Trials(self.sequence.name, other.sequence.name, 8, closures)

    def through(self, config: Config) -> ClosureStage:
        false = [(4, 1, APART)] * (config.min_inliers <= self._false_up_to)
        true = [(5 + place, 0, SAME) for place, score in enumerate(self._scores) if config.min_score <= score]
        return stage([*false, *true], revisits=[4, 5, 6, 7])


def calibrate(*drives: Settings) -> calibration.Calibration | None:
    return calibration.calibrate(list(drives))  # type: ignore[arg-type]


def test_the_strictest_setting_of_the_highest_recall_without_a_false_closure_is_taken() -> None:
    found = calibrate(Settings("a", "a", false_up_to=15), Settings("b", "b", scores=(0.45, 0.2)))
    assert found is not None
    assert found.setting == Setting(min_inliers=STRICTEST, min_score=0.2)


def test_what_a_place_is_scored_with_was_chosen_on_the_others() -> None:
    drives = [
        Settings("a", "a", scores=(0.3, 0.3)), Settings("b", "b", scores=(0.5, 0.5)),
        Settings("b again", "b", scores=(0.1, 0.5)),
    ]  # fmt: skip
    found = calibrate(*drives)
    assert found is not None
    # Both drives of b are left out together: the setting for them is the best one on a.
    assert [setting and setting.min_score for setting in found.held_out] == [0.1, 0.3, 0.3]
    assert found.setting.min_score == 0.1
    held_out = [
        part.stages[setting].recall for part, setting in zip(found.parts, found.held_out, strict=True) if setting
    ]
    assert held_out == [0.5, 0.5, 0.25]


def test_a_setting_that_closes_a_drive_in_the_map_of_another_place_is_not_taken() -> None:
    found = calibrate(Settings("a", "a", elsewhere=STRICTEST - 1), Settings("b", "b"), Settings("c", "c"))
    assert found is not None
    assert found.setting.min_inliers == STRICTEST
    assert calibrate(Settings("a", "a", elsewhere=STRICTEST), Settings("b", "b")) is None
    # Drives of one place may close loops in each other's maps.
    assert calibrate(Settings("a", "hall", elsewhere=STRICTEST), Settings("b", "hall")) is not None


def test_of_one_place_each_half_is_scored_with_what_the_other_gave() -> None:
    found = calibrate(Settings("a", "a", false_up_to=20, scores=(0.2, 0.4)))
    assert found is not None
    assert [part.name for part in found.parts] == ["a, first half", "a, second half"]
    # The first half has the false closure and the revisits 4 and 5, the second one 6 and 7.
    assert found.held_out == [Setting(STRICTEST, 0.4), Setting(STRICTEST, 0.2)]
    assert found.setting == Setting(STRICTEST, 0.2)


def test_held_out_figures_stand_before_those_of_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    found = calibrate(Settings("a", "a", scores=(0.3, 0.6)), Settings("b", "b", scores=(0.5, 0.5)))
    assert found is not None
    Console(width=80).print(found.table("ours"))
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("a "))
    assert row.split() == ["a", "0.5", str(STRICTEST), "1", "(2)", "0", "(0)", "0", "(0)", "0.250", "(0.500)"]
    assert found.sentences()[0] == (
        "a, held out: min_score 0.5, min_inliers 30, closures 1 same, 0 near, 0 apart; recall 0.250 of 4 revisits"
    )


def test_the_params_file_names_a_model_that_is_not_the_packaged_one(tmp_path: Path) -> None:
    found = calibrate(Settings("a", "a"))
    assert found is not None
    model = tmp_path / "mine #2: night.tflite"
    found.write(tmp_path / "mine.yaml", ["evaluate"], model)
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    assert Config(**written) == Config(min_score=0.3, min_inliers=STRICTEST, model=str(model))


@pytest.mark.parametrize(("kind", "written_as"), [("learned", "learned"), ("mine.tflite", "{folder}/mine.tflite")])
def test_the_params_file_names_the_local_features_that_were_measured(
    kind: str, written_as: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = calibrate(Settings("a", "a"))
    assert found is not None
    found = dataclasses.replace(found, config=found.config.replace(local_features=kind))
    found.write(tmp_path / "mine.yaml", ["evaluate"])
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    assert written["local_features"] == written_as.format(folder=tmp_path)


def test_where_every_setting_has_a_false_closure_there_is_none() -> None:
    assert calibrate(Settings("a", "a", false_up_to=STRICTEST), Settings("b", "b")) is None


def test_the_values_that_are_tried_lie_on_both_sides_of_the_default() -> None:
    low, high = Config.bounds("min_inliers")
    assert sorted(set(MIN_INLIERS)) == MIN_INLIERS
    assert low <= MIN_INLIERS[0] < MIN_INLIERS[1] < Config.min_inliers < MIN_INLIERS[-2] < MIN_INLIERS[-1] <= high
    assert Config.min_inliers in MIN_INLIERS
    assert Config.min_score in MIN_SCORES


def test_a_place_whose_others_allow_no_setting_is_not_scored() -> None:
    found = calibrate(Settings("a", "a"), Settings("b", "b", scores=()))
    assert found is not None
    assert found.held_out == [None, found.setting]
    assert found.sentences()[0] == "a, held out: no setting"
    Console().print(found.table("ours"))


def test_the_command_writes_a_params_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "MIN_SCORES", [0.15, 0.3])
    monkeypatch.setattr(calibration, "MIN_INLIERS", [30])
    file = tmp_path / "mine.yaml"
    options = ["--shift-cells", "0", "--sequence-keyframes", "2", "--exclude-seconds", "20"]
    monkeypatch.setattr(sys, "argv", ["evaluate", "--calibrate", str(file), "--baseline", "hog", *options])
    assert evaluate.main() == 0
    text = file.read_text(encoding="utf-8")
    written = yaml.safe_load(text)["/**"]["ros__parameters"]
    Config(**written)
    assert (written["min_inliers"], written["local_features"]) == (30, "learned")
    assert (written["shift_cells"], written["sequence_keyframes"], written["exclusion_time"]) == (0, 2, 20)
    assert "model" not in written
    assert "# rendered building, second half, held out: " in text
    said = capsys.readouterr().out
    assert said.index("binvpr20r: leave one place out") < said.index("hog: leave one place out")


def test_what_calibration_does_not_write_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.parse(["--calibrate", "mine.yaml", "--json", "figures.json"])
    assert "--calibrate writes a params file alone" in capsys.readouterr().err


def test_without_a_drive_there_is_nothing_to_calibrate_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", "--all", str(tmp_path), "--calibrate", str(tmp_path / "mine.yaml")])
    assert evaluate.main() == 1
    assert "holds no data set" in capsys.readouterr().err
