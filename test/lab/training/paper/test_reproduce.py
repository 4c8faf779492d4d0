# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.data import rendered_buildings
from binvpr_ros.lab.training.paper.experiments import EXPERIMENTS
from binvpr_ros.lab.training.paper.report import Report
from binvpr_ros.lab.training.paper.reproduce import parse, recipe_for
from binvpr_ros.lab.training.paper.results import Outcome, ReproduceError, Results, Run
from binvpr_ros.lab.training.paper.signals import read_signals
from binvpr_ros.lab.training.places365 import categories, stand_ins

ROOT = Path(__file__).resolve().parents[4]
BUDGET = ["--size", 32, "--epochs", 1, "--batch", 4, "--rates", "1e-3"]


def reproduce(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "binvpr_ros.lab.training.train", "reproduce", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)


def run(accuracy: float, rate: float = 1e-3, seed: int = 0, classes: int = 5, change: float = 0.5) -> Run:
    return Run("LR.", "Baseline-20", rate, seed, accuracy, 400, classes, change, 10, 1.5)


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views of five rendered buildings in the folders of what the paper calls Forest."""
    folder = tmp_path_factory.mktemp("forest")
    for part, images in (("train", 4), ("val", 2)):
        data = rendered_buildings(32, buildings=5, images=images)
        for number, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
            place = folder / part / categories("forest")[label]
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"{number:02}.png"), image)
    return folder


@pytest.mark.timeout(600)
@pytest.mark.long
def test_a_grid_goes_on_with_what_is_not_done(forest: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    arguments = ["table4", "--data", forest, *BUDGET, "--rows", "STE", "--work", work]
    result = reproduce(*arguments, "--columns", "STE")
    assert result.returncode == 0, result.stderr
    assert "run 1 of 1: STE, STE, rate 0.001, seed 0" in result.stderr
    assert "(69.50)" in result.stdout
    assert "- (67.50)" in result.stdout
    with (work / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["column"], row["images"], row["classes"], row["steps"]) for row in rows] == [
        ("STE", "STE", "10", "5", "5")
    ]
    assert 0 <= float(rows[0]["accuracy"]) <= 1
    assert "| STE | - (67.50) |" in (work / "table4.md").read_text(encoding="utf-8")
    picture = np.asarray(cv2.imread(str(work / "table4.png")))
    assert (picture.min(axis=2) < 200).mean() > 0.005
    folder = work / "runs" / "STE_STE_0.001_0"
    assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "log.csv", "signals.csv"]
    assert {step for step, _ in read_signals(folder / "signals.csv")} == {0, 5}
    picture = np.asarray(cv2.imread(str(work / "signals_STE.png")))
    assert (picture.min(axis=2) < 200).mean() > 0.005

    more = reproduce(*arguments, "--columns", "STE,leaky tanh")
    assert more.returncode == 0, more.stderr
    assert "run 1 of 2" not in more.stderr
    assert "run 2 of 2: STE, leaky tanh" in more.stderr
    with (work / "results.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file))[:1] == rows

    other = reproduce(*arguments, "--columns", "STE", "--size", 64)
    assert other.returncode == 1
    assert "holds results of other settings (size); name another --work, or remove it" in other.stderr


def test_a_training_that_is_killed_is_told_of(forest: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "binvpr_ros.lab.training.train", "reproduce", "table4", "--data", forest, *BUDGET]
    command += ["--rows", "STE", "--columns", "STE", "--work", tmp_path / "work"]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 60
        trained: list[str] = []
        while not trained and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            pids = children.read_text(encoding="ascii").split()
            trained = [pid for pid in pids if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")]
        os.kill(int(trained[0]), signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a training was killed, perhaps for want of memory; run the same command again to go on" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "/nowhere"], "/nowhere has no folder train; give one that holds train/<class>/ and val/<class>/"),
        (["--data", "{lacking}"], "train lacks 4 classes, desert-vegetation among them; add their folders"),
        (["--data", "{lacking}", "--stand-ins"], "has 1 classes of forest; two are needed"),
    ],
)
def test_data_that_will_not_do(forest: Path, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    lacking = tmp_path / "lacking"
    for part in ("train", "val"):
        (lacking / part).mkdir(parents=True)
        (lacking / part / "bamboo_forest").symlink_to(forest / part / "bamboo_forest")
    filled = [argument.format(lacking=lacking) for argument in arguments]
    result = reproduce("single", *filled, *BUDGET, "--work", tmp_path / "work")
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["table1", "--data", "x"],
        ["table4"],
        ["table4", "--data", "x", "--recipe", "paper-ste"],
        ["table6", "--data", "x", "--recipe", "deploy"],
        ["table4", "--data", "x", "--rows", "STE,Sign"],
        ["table4", "--data", "x", "--columns", "Forest"],
        ["table4", "--data", "x", "--rates", "fast"],
        ["table4", "--data", "x", "--seeds", "1.5"],
        ["table4", "--data", "x", "--seeds", "0,-1"],
        ["table4", "--data", "x", "--per-class", "-1"],
        ["table4", "--data", "x", "--epochs", "0"],
    ],
)
def test_a_command_line_that_makes_no_sense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)


def test_what_is_not_chosen_is_the_authors_preset() -> None:
    choices = parse(["table6", "--data", "x", "--rows", "FloppyNet"])
    recipe = recipe_for(choices.cells[0], None, choices)
    assert (recipe.batch, recipe.stages[0].size, recipe.stages[0].epochs, recipe.stages[0].start) == (
        24,
        224,
        150,
        5e-4,
    )
    choices = parse(["table6", "--data", "x", "--size", "64", "--epochs", "0.5", "--batch", "8"])
    recipe = recipe_for(choices.cells[0], 1e-3, choices)
    assert (recipe.batch, recipe.stages[0].size, recipe.stages[0].epochs, recipe.stages[0].end) == (8, 64, 0.5, 1e-3)
    choices = parse(["table6", "--data", "x", "--decay"])
    stage = recipe_for(choices.cells[0], 1e-3, choices).stages[0]
    assert (stage.start, stage.end) == (1e-3, 0.0)


def test_the_best_learning_rate_counts_over_its_seeds() -> None:
    assert Outcome.of([]) is None
    outcome = Outcome.of([run(0.5), run(0.7, seed=1), run(0.65, rate=1e-4)])
    assert outcome is not None
    assert outcome.accuracy == pytest.approx(65)
    assert outcome.standard_error == pytest.approx(100 * np.sqrt(0.65 * 0.35 / 400))
    assert str(Outcome.of([run(0.6)])) == "60.0 ± 2.4"


def test_one_that_answers_every_image_alike_is_called_blind() -> None:
    assert str(Outcome.of([run(0.2, change=0.0), run(0.2, seed=1, change=0.0)])) == "N/A [blind]"
    assert str(Outcome.of([run(0.2, change=0.0), run(0.2, seed=1, change=0.01)])) == "N/A [20.0 ± 2.0, 2 seeds]"


def test_one_whose_answer_is_no_number_is_told_apart_from_one_that_learns_nothing() -> None:
    assert str(Outcome.of([run(0.2, change=float("nan"))])) == "N/A [overflow]"
    assert str(Outcome.of([run(0.2, change=float("nan")), run(0.2, seed=1, change=0.5)])) == "N/A [20.0 ± 2.0, 2 seeds]"


@pytest.mark.parametrize(("accuracy", "classes", "vanished"), [(0.29, 5, True), (0.31, 5, False), (0.03, 48, True)])
def test_what_the_paper_calls_vanishing(accuracy: float, classes: int, vanished: bool) -> None:
    outcome = Outcome.of([run(accuracy, classes=classes)])
    assert outcome is not None
    assert outcome.vanished == vanished
    assert str(outcome).startswith("N/A") == vanished


def test_results_outlast_the_program(tmp_path: Path) -> None:
    results = Results(tmp_path, {"size": 64})
    results.add(run(0.5))
    results.add(run(0.25, seed=1))
    assert Results(tmp_path, {"size": 64}).runs == [run(0.5), run(0.25, seed=1)]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["results.csv", "settings.json"]


@pytest.mark.parametrize(("name", "content"), [("results.csv", "row,column\n1,2\n"), ("settings.json", "[1]")])
def test_results_that_are_damaged(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"size": 64}))
    (tmp_path / name).write_text(content)
    with pytest.raises(ReproduceError, match=r"cannot be read .*; name another --work, or remove it"):
        Results(tmp_path, {"size": 64})


def test_a_table_of_pairs_says_what_its_rows_and_columns_have_in_common(tmp_path: Path) -> None:
    results = Results(tmp_path, {"size": 64})
    for weights, inputs, accuracy in (("Approx", "STE", 0.4), ("Approx", "DoReFa", 0.52), ("STE", "STE", 0.42),
                                      ("STE", "Swish", 0.41), ("STE", "Magn", 0.2)):  # fmt: skip
        results.add(Run(weights, inputs, 1e-3, 0, accuracy, 400, 5, 0.5, 10, 1.5))
    experiment = EXPERIMENTS["table4"]
    Report("table4", experiment, "Few steps.", experiment.cells("paper")).write(results)
    headings, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (tmp_path / "table4.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and "---" not in line
    ]
    table = {line[0]: dict(zip(headings, line, strict=True)) for line in lines}
    assert table["Approx"]["mean"] == "46.0"
    assert table["STE"]["mean"] == "41.5"
    assert table["DoReFa"]["mean"] == "-"
    assert (table["mean"]["STE"], table["mean"]["Swish"], table["mean"]["Magn"]) == ("41.0", "41.0", "-")
    # Ours in the order 40, 41, 42, 52; the paper's of these 68.5, 68.75, 69.5, 75.5.
    said = (tmp_path / "table4.md").read_text(encoding="utf-8")
    assert "Rank correlation (Spearman's) with the paper, of the 4 that learn in both: 1.00." in said


def test_stand_ins_are_five_for_forest() -> None:
    assert len(stand_ins("forest")) == 5
    assert set(stand_ins("forest")) & set(categories("forest")) == {"bamboo_forest", "rainforest"}
    assert stand_ins("indoor") == categories("indoor")
