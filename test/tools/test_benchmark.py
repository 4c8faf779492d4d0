# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "binvpr_ros.tools.benchmark", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_figures_are_written_with_what_they_were_measured_on(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    result = benchmark("--repeat", "3", "--threads", "2", "--json", str(output))
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert set(figures) == {"model", "median_ms", "p95_ms", "threads", "backend", "cpu"}
    assert 0 < figures["median_ms"] <= figures["p95_ms"]
    assert (figures["threads"], figures["backend"]) == (2, "delegate")
    assert figures["cpu"]


def test_a_model_that_is_not_there() -> None:
    result = benchmark("--model", "/nowhere/x.tflite")
    assert result.returncode == 1
    assert result.stderr.startswith("benchmark: the model file /nowhere/x.tflite does not exist")
