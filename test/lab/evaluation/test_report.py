# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from binvpr_ros.lab.evaluation import report
from binvpr_ros.lab.evaluation.closure_stage import OUTCOMES, ClosureStage, EarlierMaps, Trials
from binvpr_ros.lab.evaluation.datasets.sequences import Relation
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth
from binvpr_ros.lab.evaluation.local_verification import LocalVerification
from binvpr_ros.lab.evaluation.metrics import Retrieval
from binvpr_ros.lab.evaluation.negatives import Negatives
from binvpr_ros.lab.evaluation.report import Result
from binvpr_ros.lab.evaluation.similarities import MatrixSimilarities
from binvpr_ros.loop_constraint import LoopConstraint, RelativePose

from .stages import stage

TRUTH = np.eye(4, dtype=bool)
HALF_RIGHT = np.array([[0.9, 0, 0, 0], [0, 0.8, 0, 0], [0.7, 0, 0, 0], [0.6, 0, 0, 0]])
STAGE = stage(
    [(3, 0, Relation.SAME), (3, 1, Relation.APART), (2, 1, Relation.NEAR)], revisits=[2, 3], keyframes=4,
    refusals={"low_score": 2},
)  # fmt: skip


def result(
    dataset: str, method: str, similarities: np.ndarray, stage: ClosureStage | None = None, truth: np.ndarray = TRUTH
) -> Result:
    every = np.full(4, 4)
    retrieval = Retrieval.of_similarities(MatrixSimilarities(similarities), PairTruth.of_matrix(truth), every)
    return Result(dataset, "within 2 m", method, 4, 4, 2048, 1.26, retrieval, stage)


RESULTS = [
    result("hall", "ours", TRUTH.astype(float), STAGE),
    result("hall", "hog", HALF_RIGHT),
    result("yard", "ours", HALF_RIGHT),
    Result("hall", "within 2 m", "dbow2", 4, 4, 16000, 20.5, None, STAGE),
]
NEGATIVES = Negatives("ours", [Trials("hall", "yard", 100, []), Trials("yard", "hall", 200, [(7, 1, 46), (7, 2, 50)])])


def test_the_json_holds_the_contract_and_every_result() -> None:
    content = json.loads(json.dumps(report.as_json(RESULTS, [NEGATIVES])))
    for name in ("recall_at_1", "recall_at_5", "recall_at_10", "auc_pr", "recall_at_100_precision"):
        assert content[name] == 1.0
    assert (content["queries"], content["references"], content["descriptor_bits"]) == (4, 4, 2048)
    assert [(entry["dataset"], entry["method"]) for entry in content["results"]] == [
        ("hall", "ours"),
        ("hall", "hog"),
        ("yard", "ours"),
        ("hall", "dbow2"),
    ]
    assert content["results"][1]["recall_at_1"] == 0.5
    assert "closures" not in content["results"][1]
    assert content["results"][3]["recall_at_1"] is None
    driven = content["results"][0]
    for name, value in {
        "closures": 3, "closures_same": 1, "closures_near": 1, "closures_apart": 1, "closure_precision": 0.5,
        "revisits": 2, "closure_recall": 0.5, "keyframe_revisits": 2, "keyframe_closure_recall": 0.5,
    }.items():  # fmt: skip
        assert driven[name] == value
    assert driven["revisit_outcomes"] == dict.fromkeys(OUTCOMES, 0) | {"closed": 1, "not_retrieved": 1}
    assert content["negatives"][0]["keyframes"] == 300
    assert content["negatives"][0]["false_keyframes"] == 1
    assert content["negatives"][0]["false_rate_upper_bound"] == pytest.approx(0.01572, abs=1e-5)
    assert content["negatives"][0]["trials"][1] == {"drive": "yard", "map": "hall", "keyframes": 200, "closures": 2}


def test_the_markdown_has_tables_of_retrieval_of_drives_and_of_negatives() -> None:
    lines = report.markdown(RESULTS, "evaluate --all data", [NEGATIVES]).splitlines()
    assert lines[0] == "| method | bits | hall | yard |"
    assert lines[2] == "| ours | 2,048 | 1.000 / 1.000 | 0.500 / 0.500 |"
    assert lines[3] == "| hog | 2,048 | 0.500 / 0.500 |  |"
    assert "| hall | ours | 1.000 | 2 | 1 | 1 | 1 | 0.500 | 0.500 | - | 1.3 |" in lines
    assert "| hall | dbow2 | - | 2 | 1 | 1 | 1 | 0.500 | 0.500 | - | 20.5 |" in lines
    assert "| drive | method | closed | not retrieved |" in lines
    assert "| hall | ours | 1 | 1 |" in lines
    assert "| yard | 2 / 200 |  |" in lines
    assert "1 of 300 have one" in "\n".join(lines)
    assert lines[-1] == "By `evaluate --all data`."


def test_the_tables_show_each_figure(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_tables(RESULTS, [NEGATIVES])
    shown = capsys.readouterr().out
    assert "hall: 4 queries, 4 of them with a true reference, 4 references" in shown
    assert "within 2 m" in shown
    row = next(line for line in shown.splitlines() if "hog" in line).split()
    assert row[:4] == ["hog", "0.500", "1.000", "1.000"]
    assert row[-2:] == ["2048", "1.3"]
    assert "hall: loop closures, 2 revisits" in shown
    row = next(line for line in shown.splitlines() if "dbow2" in line).split()
    assert row == ["dbow2", "4", "1", "1", "1", "0.500", "0.500", "-", "20.5"]
    assert "what became of the 2 revisits" in shown
    assert "1 of 300 keyframes have a false closure" in " ".join(shown.split())


@pytest.mark.parametrize("method", ["a method of a long name, sequences of 10", "efficientnet-lite0"])
def test_no_figure_is_cut_in_a_narrow_terminal_and_no_word_is_broken(
    method: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    fates = stage(revisits=range(9), outcomes=np.arange(9, dtype=np.int8), keyframes=1000)
    report.print_tables([result("hall", method, HALF_RIGHT, fates)])
    shown = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for figure in ("0.500", "1.000", "2048", "1.3", "1000"):
        assert figure in shown
    for name in OUTCOMES:
        assert name.replace("_", " ") in shown


def test_a_drive_that_comes_back_to_nothing_shows_its_closures(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = np.zeros((4, 4), bool)
    report.print_tables([result("street", "ours", HALF_RIGHT, stage([(3, 0, Relation.APART)], keyframes=4), nothing)])
    shown = capsys.readouterr().out
    assert "street: loop closures, 0 revisits" in shown
    assert "never revisits a place" in " ".join(shown.split())
    assert next(line for line in shown.splitlines() if "ours" in line).split()[:5] == ["ours", "4", "0", "0", "1"]
    assert "R@1" not in shown


def test_what_cannot_be_measured_is_no_zero(capsys: pytest.CaptureFixture[str]) -> None:
    unmeasured = result("hall", "hog", HALF_RIGHT, stage(keyframes=4), np.zeros((4, 4), bool))
    content = report.as_json([unmeasured])
    assert (
        content["recall_at_1"] is content["auc_pr"] is content["closure_precision"] is content["closure_recall"] is None
    )
    assert "| hall | hog | - | 0 | 0 | 0 | 0 | - | - | - | 1.3 |" in report.markdown([unmeasured], "evaluate")
    report.print_tables([unmeasured])
    assert "0.000" not in capsys.readouterr().out


def test_two_earlier_maps_are_beside_either_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    some = result("hall", "ours", HALF_RIGHT, stage(keyframes=4, earlier=EarlierMaps(38, 46, 60, 57)))
    assert report.as_json([some])["earlier_maps"] == {"one": 38, "other": 46, "either": 60, "both": 57}
    assert " | 57/60 | " in report.markdown([some], "evaluate")
    report.print_tables([some])
    assert "57/60" in capsys.readouterr().out


def test_names_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    named = [result("run[day]", "a|b[red]", HALF_RIGHT)]
    report.print_tables(named)
    shown = capsys.readouterr().out
    assert "run[day]" in shown
    assert "a|b[red]" in shown
    assert "| a\\|b[red] |" in report.markdown(named, "evaluate")


def test_the_share_of_verified_pairs_has_a_table_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    verified = replace(result("hall", "ours", HALF_RIGHT), verified=LocalVerification(0.25, 0.5, 0.125))
    figures = report.as_json([verified])
    names = ("verified_above_apart", "reranked_recall_at_1", "reranked_recall_at_100_precision")
    assert [figures[name] for name in names] == [0.25, 0.5, 0.125]
    report.print_tables([verified])
    shown = next(line for line in capsys.readouterr().out.splitlines() if "0.250" in line)
    assert shown.split() == ["ours", "0.250", "0.500", "0.125"]
    assert "| ours | hall | 0.250 | 0.500 | 0.125 |" in report.markdown([verified], "evaluate")
    nothing = replace(verified, verified=LocalVerification(None, 0.5, 0.125))
    assert "verified_above_apart" not in report.as_json([nothing])


def test_the_constraints_of_drives_are_a_table() -> None:
    translation = np.array([1.0, -2.0, 0.5])
    pose = RelativePose(np.eye(3), translation, np.diag(np.arange(1.0, 7.0)), True, 60)
    of_a_drive = stage(constraints=[LoopConstraint(9, 3, 0, 0, 1_790_000_000_000_000_003, 7, pose)])
    results = [result("hall", "ours", HALF_RIGHT, of_a_drive), result("hall", "hog", HALF_RIGHT)]
    (row,) = csv.DictReader(io.StringIO(report.constraints_csv(results)))
    assert (row["dataset"], row["method"]) == ("hall", "ours")
    assert (row["query_stamp"], row["match_stamp"]) == ("1790000000000000003", "7")
    assert [float(row[name]) for name in ("x", "y", "z", "qx", "qy", "qz", "qw")] == [1, -2, 0.5, 0, 0, 0, 1]
    assert [float(row[f"c{number}{number}"]) for number in range(6)] == [1, 2, 3, 4, 5, 6]
