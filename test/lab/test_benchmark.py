# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from binvpr_ros import lce_delegate
from binvpr_ros.lab import lce_process
from binvpr_ros.lab.lce_process import LceError, LceProcess, find_python


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "binvpr_ros.lab.benchmark", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_figures_are_written_with_what_they_were_measured_on(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    result = benchmark("--repeat", "3", "--threads", "2", "--json", str(output))
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert set(figures) == {"model", "least_ms", "median_ms", "p95_ms", "measured", "threads", "backend", "cpu"}
    assert 0 < figures["least_ms"] <= figures["median_ms"] <= figures["p95_ms"]
    assert (figures["threads"], figures["backend"]) == (2, "delegate")
    assert figures["cpu"]


def figures_of(*arguments: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "figures.json"
        result = benchmark("--repeat", "4", *arguments, "--json", str(output))
        assert result.returncode == 0, result.stderr
        figures: dict[str, Any] = json.loads(output.read_text())
        return figures


@pytest.fixture
def oracle() -> None:
    try:
        find_python()
    except LceError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.mark.usefixtures("oracle")
def test_the_larq_compute_engine_takes_turns_with_ours() -> None:
    figures = figures_of("--versus", "lce")
    assert figures["measured"] == "network"
    fastest = min(figures["lce"][mode]["median_ms"] for mode in ("default", "indirect"))
    assert figures["ratio"] == pytest.approx(fastest / figures["median_ms"], abs=0.02)
    fastest = min(figures["lce"][mode]["least_ms"] for mode in ("default", "indirect"))
    assert figures["least_ratio"] == pytest.approx(fastest / figures["least_ms"], abs=0.02)


@pytest.mark.usefixtures("oracle")
def test_the_binary_layers_alone() -> None:
    figures = figures_of("--versus", "lce", "--binary", "--threads", "2")
    assert figures["measured"] == "binary layers"
    assert figures["kernel"] == lce_delegate.kernels()[0]
    assert figures["gmacs"] == pytest.approx(0.396 / figures["median_ms"] * 1e3, rel=0.01)
    assert figures["peak_gmacs"] > 0


def test_another_model_takes_turns_with_ours(model: Path, tmp_path: Path) -> None:
    without_card = tmp_path / "copy.tflite"
    shutil.copy(model, without_card)
    figures = figures_of("--model", str(without_card), "--versus", str(model), "--kernel", "portable")
    assert figures["versus"]["model"] == str(model)
    assert figures["ratio"] > 0


def test_no_oracle_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lce_process, "ENVIRONMENT", "no-such-environment")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        LceError, match="there is no no-such-environment with the Larq Compute Engine; run: make oracle"
    ):
        find_python()


@pytest.mark.usefixtures("oracle")
def test_a_model_that_larq_cannot_run(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model")
    with LceProcess(broken, 1) as process, pytest.raises(LceError, match="cannot run this model"):
        process.times("default", 1)


def test_a_model_that_is_not_there() -> None:
    result = benchmark("--model", "/nowhere/x.tflite")
    assert result.returncode == 1
    assert result.stderr.startswith("benchmark: there is no model file /nowhere/x.tflite; name another")


def test_a_folder_that_is_not_there_is_said_before_anything_is_measured() -> None:
    result = benchmark("--json", "/nowhere/figures.json")
    assert result.returncode == 2
    assert "--json: /nowhere/figures.json is a folder, or in none; name a file" in result.stderr


def test_a_report_tells_the_machine_and_all_that_a_keyframe_costs(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    result = benchmark("--report", "--repeat", "2", "--json", str(output))
    assert result.returncode == 0, result.stderr
    report = json.loads(output.read_text())
    assert report["kernel"].startswith(f"{lce_delegate.kernels()[0]}, ")
    assert {"python", "numpy", "opencv"} <= set(report["versions"])
    assert {"network binvpr20r", "network binvpr_local", "learned features of an image"} <= set(report["figures"])
    assert all(0 < times["median_ms"] <= times["p95_ms"] for times in report["figures"].values())
    # What is printed is the same, to be pasted.
    assert result.stdout.startswith("### binvpr benchmark\n")
    assert f"cpu {report['machine']['cpu']}" in result.stdout
    for name, times in report["figures"].items():
        assert f"| {name} | {times['median_ms']:.2f} | {times['p95_ms']:.2f} |\n" in result.stdout


def test_search_is_measured_for_each_size_of_a_map(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    result = benchmark("--search", "--keyframes", "1", "300", "--bits", "192", "--repeat", "2", "--json", str(output))
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert figures["kernel"] == lce_delegate.kernels()[0]
    assert [row["keyframes"] for row in figures["maps"]] == [1, 300]
    for row in figures["maps"]:
        assert row["bits"] == 192
        assert all(row[f"{name}_ms"] > 0 for name in ("search", "decide", "numpy"))
        assert row["load_s"] >= 0
        assert row["memory"] >= 0


def test_a_map_of_broken_words_is_refused() -> None:
    result = benchmark("--search", "--bits", "100")
    assert result.returncode == 2
    assert "--bits a multiple of 64" in result.stderr


def test_the_node_is_measured_part_by_part_and_end_to_end() -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    figures = figures_of("--node")
    assert [size["size"] for size in figures["sizes"]] == ["640x480", "1280x720"]
    for size in figures["sizes"]:
        parts = {name: times["median_ms"] for name, times in size["parts"].items()}
        assert all(0 < times["median_ms"] <= times["p95_ms"] for times in size["parts"].values())
        every_image = parts["conversion"] + parts["resize"] + parts["search"] + parts["publication"]
        assert size["outside"] == pytest.approx(every_image / parts["network"], abs=0.02)
        keyframe = every_image + sum(parts[name] for name in ("features", "motion", "verification", "saving"))
        assert size["outside_keyframe"] == pytest.approx(keyframe / parts["network"], abs=0.02)
        for name in ("processing", "latency"):
            assert 0 < size["node"][f"{name}_ms_median"] <= size["node"][f"{name}_ms_p99"]
