# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation import evaluate
from binvpr_ros.lab.evaluation.baselines.hog import Hog

EVALUATE = Path(sys.executable).with_name("evaluate")


@pytest.fixture(scope="module")
def traverses(world_images: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty views of the building, and the same twenty darker: query n shows reference n + 10."""
    folder = tmp_path_factory.mktemp("data") / "hall"
    for part, images in (("references", world_images[:40]), ("queries", world_images[10:30])):
        (folder / part).mkdir(parents=True)
        for number, image in enumerate(images):
            shown = image if part == "references" else (image * 0.7).astype(np.uint8)
            cv2.imwrite(str(folder / part / f"{number:03}.png"), shown[..., ::-1])
    with (folder / "ground_truth.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("query", "references"), *((n, f"{n + 9} {n + 10} {n + 11}") for n in range(20))])
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    return evaluate.main()


def test_the_contract_of_the_command(traverses: Path, model: Path, tmp_path: Path) -> None:
    parts = ["--queries", traverses / "queries", "--references", traverses / "references"]
    command = [EVALUATE, "--model", model, *parts, "--ground-truth", traverses / "ground_truth.csv"]
    subprocess.run([*map(str, command), "--json", tmp_path / "out.json"], check=True, timeout=120, cwd=tmp_path, env={})
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["recall_at_1"] >= 0.9
    assert figures["recall_at_1"] <= figures["recall_at_5"] <= figures["recall_at_10"] <= 1
    assert 0 < figures["auc_pr"] <= figures["recall_at_1"]
    assert 0 <= figures["recall_at_100_precision"] <= figures["recall_at_1"]
    assert (figures["queries"], figures["references"], figures["descriptor_bits"]) == (20, 40, 2048)


def test_several_methods_in_one_run_with_pictures(
    traverses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    similarities = np.eye(20, 40, 10)
    np.save(tmp_path / "oracle.npy", similarities)
    status = run(
        monkeypatch, "--dataset", traverses, "--baseline", "hog", "--similarities", tmp_path / "oracle.npy",
        "--seqslam", 3, "--sequence-keyframes", 4, "--plots", tmp_path / "plots", "--json", tmp_path / "out.json",
        "--markdown", tmp_path / "out.md",
    )  # fmt: skip
    assert status == 0
    assert "oracle" in capsys.readouterr().out
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    forms = ("{}", "{}, sequence_keyframes 4", "{}, sequences of 3")
    names = [form.format(method) for method in ("hog", "oracle") for form in forms]
    assert [entry["method"] for entry in results] == names
    assert results[3]["recall_at_100_precision"] == 1.0
    assert "| oracle |" in (tmp_path / "out.md").read_text()
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == sorted(
        ["hall_precision_recall.png", "recall_over_time.png"]
        + [f"hall_{name.replace(', ', '_').replace(' ', '_')}_{picture}.png"
           for name in names for picture in ("matches", "similarity")]
    )  # fmt: skip


def test_pictures_of_a_data_set_without_any_true_reference(
    traverses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "nothing.csv"
    truth.write_text("query,references\n" + "".join(f"{number},\n" for number in range(20)), encoding="utf-8")
    parts = ["--queries", traverses / "queries", "--references", traverses / "references", "--ground-truth", truth]
    assert run(monkeypatch, *parts, "--baseline", "hog", "--plots", tmp_path / "plots") == 1
    assert "left out recall on hall: no query has a true reference" in capsys.readouterr().err
    assert not (tmp_path / "plots" / "recall_over_time.png").exists()
    assert len(list((tmp_path / "plots").glob("*_matches.png"))) == 1


def test_a_drive_is_measured_before_and_after_the_loop_closure_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    room = shared_data / "loops" / "redkitchen"
    options = ["--radius", 0.6, "--angle", 40, "--exclude-seconds", 10]
    status = run(
        monkeypatch, "--sequence", room, *options, "--json", tmp_path / "out.json", "--plots", tmp_path / "plots"
    )
    assert status == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["answerable_queries"] < figures["queries"] == 500
    assert figures["closures"] >= 8
    assert figures["closures_same"] + figures["closures_near"] + figures["closures_apart"] == figures["closures"]
    assert sum(figures["revisit_outcomes"].values()) == figures["revisits"] == figures["answerable_queries"]
    assert (tmp_path / "plots" / "redkitchen_revisits.png").is_file()
    assert (tmp_path / "plots" / "redkitchen_binvpr20r_closures.png").is_file()
    assert (tmp_path / "plots" / "redkitchen_binvpr20r_trajectory.png").is_file()


@pytest.mark.long
def test_a_drive_is_measured_with_and_without_shifts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for cells in (0, 1):
        assert run(monkeypatch, "--shift-cells", cells, "--json", tmp_path / "out.json") == 0
        figures = json.loads((tmp_path / "out.json").read_text())
        found.append((figures["recall_at_10"], figures["refusals"]))
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]
    with pytest.raises(SystemExit):
        run(monkeypatch, "--shift-cells", 3)
    assert "--shift-cells must be between 0 and 2, not 3" in capsys.readouterr().err


def test_the_packaged_card_reports_what_evaluate_measures(
    model: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = json.loads(model.with_suffix(".json").read_text())["evaluation"]["recall_at_1"]
    for name, recall in reported.items():
        run(monkeypatch, "--dataset", shared_data / "eval" / name, "--json", tmp_path / "out.json")
        assert json.loads((tmp_path / "out.json").read_text())["recall_at_1"] == pytest.approx(recall, abs=0.01)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("floppyNet", {"corridor": 0.748, "grief_michigan": 0.945}),
        ("binaryNet", {"corridor": 0.847, "grief_michigan": 0.982}),
    ],
)
def test_published_networks_have_their_known_recall(
    peer: str, expected: dict[str, float], shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shared_data / "peers" / f"{peer}_places365.tflite"
    for name, recall in expected.items():
        run(monkeypatch, "--model", file, "--dataset", shared_data / "eval" / name, "--json", tmp_path / "out.json")
        assert json.loads((tmp_path / "out.json").read_text())["recall_at_1"] == pytest.approx(recall, abs=0.02)


def test_all_finds_data_sets_and_models(
    traverses: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    peer = traverses.parent / "peer.tflite"
    peer.write_bytes(model.read_bytes())
    monkeypatch.setattr(evaluate, "BASELINES", {"hog": Hog})
    monkeypatch.setattr(evaluate, "DETECTORS", {})
    assert run(monkeypatch, "--all", traverses.parent) == 0
    table = (tmp_path / "evaluation.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[2:8]] == [
        "| binvpr20r", "| binvpr20r, sequences of 10", "| peer", "| peer, sequences of 10", "| hog",
        "| hog, sequences of 10",
    ]  # fmt: skip


def test_what_cannot_be_measured_does_not_keep_the_rest_from_it(
    traverses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(traverses, data / "whole")
    shutil.copytree(traverses, data / "broken")
    for file in (data / "broken" / "queries").iterdir():
        file.write_bytes(b"rubbish")
    shutil.copytree(traverses, data / "mistaken")
    (data / "mistaken" / "ground_truth.csv").write_text("query,references\n0,1,2\n")
    (data / "rubbish.tflite").write_bytes(b"rubbish")
    monkeypatch.setattr(evaluate, "BASELINES", {"hog": Hog})
    monkeypatch.setattr(evaluate, "DETECTORS", {})
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "--all", data, "--seqslam", 0, "--json", "out.json") == 1
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [(entry["dataset"], entry["method"]) for entry in results] == [("whole", "binvpr20r"), ("whole", "hog")]
    error = capsys.readouterr().err
    assert "broken: no image of broken can be read: " in error
    assert "it has 3 fields, the first line has 2" in error
    assert "rubbish.tflite: " in error


def test_a_bad_image_costs_only_itself(
    traverses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "hall"
    shutil.copytree(traverses, data)
    (data / "queries" / "003.png").write_bytes(b"rubbish")
    cut = (data / "references" / "039.png").read_bytes()
    (data / "references" / "039.png").write_bytes(cut[: len(cut) // 2])
    assert run(monkeypatch, "--dataset", data, "--baseline", "hog", "--json", tmp_path / "out.json") == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert (figures["queries"], figures["answerable_queries"], figures["references"]) == (19, 19, 39)
    assert figures["left_out"] == {"unreadable": 2}
    assert figures["recall_at_1"] > 0.9
    error = capsys.readouterr().err
    assert "003.png cannot be used" in error
    assert "left out of hall: 2 unreadable" in error


def test_images_of_ten_bits_are_stretched_on_request(
    traverses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "hall"
    shutil.copytree(traverses, data)
    for file in data.rglob("*.png"):
        grey = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2GRAY)
        cv2.imwrite(str(file), grey.astype(np.uint16) * 4)  # 10 bits of 16
    contrasts = []
    for options in ([], ["--stretch-16-bit"]):
        choices = evaluate.parse(["--dataset", str(data), *options])
        (dataset,) = evaluate.Evaluation(choices)._datasets()
        contrasts.append(np.mean([image.std() for image in dataset.queries]))
        assert run(monkeypatch, "--dataset", data, *options, "--json", tmp_path / "out.json") == 0
        assert ("hall is dark, its values reach 2 of 255" in capsys.readouterr().err) == (not options)
    assert contrasts[1] > 10 * contrasts[0]
    assert json.loads((tmp_path / "out.json").read_text())["recall_at_1"] > 0.9


@pytest.fixture(scope="module")
def drives(world_images: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive that comes back after 40 images, one that does not, and one of loops that are listed."""
    root = tmp_path_factory.mktemp("drives")
    for name, images in (("lap", [*world_images[:40], *world_images[:20]]), ("street", world_images[:40])):
        folder = root / name
        (folder / "images").mkdir(parents=True)
        rows = [["frame", "stamp_s", *(f"T{row}{column}" for row in range(4) for column in range(4))]]
        for number, image in enumerate(images):
            cv2.imwrite(str(folder / "images" / f"{number:03}.png"), image[..., ::-1])
            pose = np.eye(4)
            pose[0, 3] = 5.0 * (number % 40) + (1000 if name == "street" else 0)
            rows.append([str(number), str(number), *map(str, pose.ravel())])
        with (folder / "poses.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    return root


def test_a_drive_without_revisits_is_a_negative_test(
    drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--radius", 2, "--json", tmp_path / "out.json"]
    assert run(monkeypatch, "--sequence", drives / "street", *options) == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert (figures["revisits"], figures["closure_recall"], figures["recall_at_1"]) == (0, None, None)
    assert figures["closures"] == figures["closures_apart"] == 0
    out, error = capsys.readouterr()
    assert "street never revisits a place, so it serves as a negative test" in error
    assert "street: loop closures, 0 revisits" in out
    assert run(monkeypatch, "--sequence", drives / "street", *options, "--exclude-seconds", 100) == 1
    assert "the drive is shorter than --exclude-seconds" in capsys.readouterr().err


def test_drives_are_held_against_maps_of_each_other(
    drives: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--radius", 2, "--json", tmp_path / "out.json", "--baseline", "dbow2", "--plots", tmp_path / "plots"]
    paths = ["--sequence", drives / "lap", "--sequence", drives / "street", "--model", model]
    assert run(monkeypatch, *paths, *options) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    results = {(entry["dataset"], entry["method"]): entry for entry in content["results"]}
    assert set(results) == {(drive, method) for drive in ("lap", "street") for method in ("binvpr20r", "dbow2")}
    assert results["lap", "binvpr20r"]["revisits"] == 20
    (negatives,) = content["negatives"]
    pairs = {(trial["drive"], trial["map"]): trial for trial in negatives["trials"]}
    assert set(pairs) == {("lap", "street"), ("street", "lap"), ("street", "street")}
    # The two show the same images, so that the map of the other is recognised, and it counts as false.
    assert pairs["street", "lap"]["closures"] > 0
    assert negatives["false_keyframes"] > 0
    assert (tmp_path / "plots" / "binvpr20r_false_closures.png").is_file()
    # Said to be of one place, neither is a test of the other.
    assert run(monkeypatch, *paths, *options, "--one-place") == 0
    (negatives,) = json.loads((tmp_path / "out.json").read_text())["negatives"]
    assert [(trial["drive"], trial["map"]) for trial in negatives["trials"]] == [("street", "street")]


def test_a_model_is_measured_beside_the_packaged_one(
    traverses: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".tflite", ".json"):
        shutil.copy(model.with_name("binvpr20").with_suffix(suffix), tmp_path / f"mine{suffix}")
    for given, shown in ((tmp_path / "mine.tflite", ["mine", "binvpr20r"]), (model, ["binvpr20r"])):
        assert run(monkeypatch, "--dataset", traverses, "--model", given, "--json", tmp_path / "out.json") == 0
        figures = json.loads((tmp_path / "out.json").read_text())
        assert [entry["method"] for entry in figures["results"]] == shown
        assert figures["method"] == shown[0]


def test_what_has_one_name_is_told_apart(
    traverses: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    for day in ("monday", "tuesday"):
        shutil.copytree(traverses, data / day / "hall")
        (tmp_path / day).mkdir()
        shutil.copy(model, tmp_path / day / "net.tflite")
    models = [argument for day in ("monday", "tuesday") for argument in ("--model", tmp_path / day / "net.tflite")]
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "--all", data, *models, "--seqslam", 0) == 0
    table = (tmp_path / "evaluation.md").read_text().splitlines()
    assert table[0] == "| method | bits | monday/hall | tuesday/hall |"
    assert [line.split(" | ")[0] for line in table[2:4]] == ["| monday/net", "| tuesday/net"]


def test_names_are_distinct() -> None:
    paths = [Path(path) for path in ("/a/x", "/b/x", "/c/a/x", "/d/y")]
    assert evaluate.distinct([path.name for path in paths], paths) == ["a/x (1)", "b/x", "a/x (2)", "y"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--dataset", "{tmp}/none"], "none does not exist"),
        (["--dataset", "{tmp}/empty"], "is not a data set of a known layout: "),
        (["--all", "{tmp}/empty"], "holds no data set; name a folder that does"),
        (["--model", "{tmp}/none.tflite"], "none.tflite; name another"),
        (["--dataset", "{data}", "--similarities", "{tmp}/small.npy"], "name the matrix of this data set"),
        (["--dataset", "{tmp}/several"], "is not a data set but contains several; name one: one, two"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_in_a_sentence(
    arguments: list[str],
    sentence: str,
    traverses: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "small.npy", np.eye(3))
    (tmp_path / "empty").mkdir()
    for name in ("one", "two"):
        shutil.copytree(traverses, tmp_path / "several" / name)
    filled = [argument.format(tmp=tmp_path, data=traverses) for argument in arguments]
    assert run(monkeypatch, *filled) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("evaluate: ")
    assert sentence in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["--all", "a", "--dataset", "b"],
        ["--queries", "a", "--ground-truth", "b"],
        ["--queries", "a", "--references", "b"],
        ["--dataset", "a", "--ground-truth", "b"],
        ["--radius", "nan"],
        ["--seqslam", "-1"],
        ["--threads", "0"],
        ["--baseline", "netvlad"],
        ["--json", "none/out.json"],
        ["--json", "."],
        ["--threads", "100000"],
        ["--exclude-seconds", "1e9"],
        ["--all", "a", "--similarities", "b.npy"],
        ["--all", "a", "--camera-axis", "x"],
        ["--camera-axis", "y"],
        ["--apart-radii", "0.5"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.parse(arguments)


def test_a_drive_is_recorded(
    world_images: list[NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rerun", reason="Rerun is not installed (extra view)")
    from rrd import rows_of

    folder, file = tmp_path / "listed", tmp_path / "drive.rrd"
    folder.mkdir()
    for number, image in enumerate(world_images):
        cv2.imwrite(str(folder / f"{number:03}.png"), image[..., ::-1])
    (folder / "loops.csv").write_text("query,match\n55,2\n", encoding="utf-8")
    options = ["--sequence", folder, "--rate", 1, "--record", file, "--json", tmp_path / "out.json"]
    assert run(monkeypatch, *options) == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    rows = rows_of(file, "Scalars:scalars")
    assert len(rows_of(file, "EncodedImage:blob")["camera"]) == len(world_images)
    closures = sum(len(scores) for path, scores in rows.items() if path.startswith("score/closed"))
    assert closures == figures["closures"]
    assert (
        sum(counts[-1][1][0] for path, counts in rows.items() if path.startswith("outcomes/")) == figures["keyframes"]
    )


def test_what_cannot_be_recorded_is_said(
    traverses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun", reason="Rerun is not installed (extra view)")
    record = ["--record", tmp_path / "drive.rrd"]
    assert run(monkeypatch, "--dataset", traverses, *record) == 1
    assert (
        "evaluate: hall is no drive, which --view and --record show; name one by --sequence" in capsys.readouterr().err
    )
    for options in (["--sequence", "one", "--sequence", "other"], ["--all", traverses], ["--baseline", "hog"]):
        with pytest.raises(SystemExit):
            run(monkeypatch, *options, *record)
        assert "--view and --record show " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, "--record", tmp_path / "nowhere" / "drive.rrd")
    assert "drive.rrd is a folder, or in none" in capsys.readouterr().err
