# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from binvpr_ros.evaluation import report
from binvpr_ros.evaluation.closure_stage import ClosureStage
from binvpr_ros.evaluation.metrics import Retrieval
from binvpr_ros.evaluation.report import Result

TRUTH = np.eye(4, dtype=bool)
HALF_RIGHT = np.array([[0.9, 0, 0, 0], [0, 0.8, 0, 0], [0.7, 0, 0, 0], [0.6, 0, 0, 0]])
STAGE = ClosureStage(
    np.arange(4), np.array([[3, 0], [3, 1]]), np.array([True, False]), np.array([3]), {"low_score": 2}, 0
)


def result(dataset: str, method: str, similarities: np.ndarray, stage: ClosureStage | None = None) -> Result:
    retrieval = Retrieval.of_similarities(similarities, TRUTH, np.ones_like(TRUTH))
    return Result(dataset, "within 2 m", method, 4, 4, 2048, 1.26, retrieval, stage)


RESULTS = [
    result("hall", "ours", TRUTH.astype(float), STAGE),
    result("hall", "hog", HALF_RIGHT),
    result("yard", "ours", HALF_RIGHT),
]


def test_the_json_holds_the_contract_and_every_result() -> None:
    content = json.loads(json.dumps(report.as_json(RESULTS)))
    for name in ("recall_at_1", "recall_at_5", "recall_at_10", "auc_pr", "recall_at_100_precision"):
        assert content[name] == 1.0
    assert (content["queries"], content["references"], content["descriptor_bits"]) == (4, 4, 2048)
    assert [(entry["dataset"], entry["method"]) for entry in content["results"]] == [
        ("hall", "ours"),
        ("hall", "hog"),
        ("yard", "ours"),
    ]
    assert content["results"][1]["recall_at_1"] == 0.5
    assert content["results"][0]["closures"] == 2
    assert "closures" not in content["results"][1]


def test_the_markdown_is_one_table_of_methods_by_data_sets() -> None:
    lines = report.markdown(RESULTS, "evaluate --all data").splitlines()
    assert lines[0] == "| method | bits | hall | true closures | yard |"
    assert lines[2] == "| ours | 2,048 | 1.000 / 1.000 | 1 of 2 | 0.500 / 0.500 |"
    assert lines[3] == "| hog | 2,048 | 0.500 / 0.500 |  |  |"
    assert lines[-1].endswith("by `evaluate --all data`")


def test_the_tables_show_each_figure(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_tables(RESULTS)
    shown = capsys.readouterr().out
    assert "hall: 4 queries, 4 of them with a true reference, 4 references" in shown
    assert "within 2 m" in shown
    row = next(line for line in shown.splitlines() if "hog" in line).split()
    assert row[:4] == ["hog", "0.500", "1.000", "1.000"]
    assert row[-2:] == ["2048", "1.3"]
    assert "after the loop-closure stage" in shown
    assert "low_score 2" in shown


def test_no_figure_is_cut_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    report.print_tables([result("hall", "a method of a long name, sequences of 10", HALF_RIGHT)])
    shown = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for figure in ("0.500", "1.000", "2048", "1.3"):
        assert figure in shown


def test_what_cannot_be_measured_is_no_zero(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = np.zeros((4, 4), bool)
    retrieval = Retrieval.of_similarities(HALF_RIGHT, nothing, ~nothing)
    stage = ClosureStage(np.arange(4), np.empty((0, 2), np.int64), np.empty(0, bool), np.empty(0, np.int64), {}, 0)
    unmeasured = Result("hall", "", "hog", 4, 4, None, None, retrieval, stage)
    content = report.as_json([unmeasured])
    assert (
        content["recall_at_1"] is content["auc_pr"] is content["closure_precision"] is content["closure_recall"] is None
    )
    assert "| hog |  | - | 0 of 0 |" in report.markdown([unmeasured], "evaluate")
    report.print_tables([unmeasured])
    assert "0.000" not in capsys.readouterr().out


def test_names_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    named = [result("run[day]", "a|b[red]", HALF_RIGHT)]
    report.print_tables(named)
    shown = capsys.readouterr().out
    assert "run[day]" in shown
    assert "a|b[red]" in shown
    assert "| a\\|b[red] |" in report.markdown(named, "evaluate")
