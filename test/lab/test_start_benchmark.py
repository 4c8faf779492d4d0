# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_start_is_measured_above_a_node_that_does_nothing(tmp_path: Path) -> None:
    output = tmp_path / "start.json"
    command = [sys.executable, "-m", "binvpr_ros.lab.benchmark", "--start", "--repeat", "1", "--json", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert figures["bare"]["seconds"] > 0
    assert figures["node"]["megabytes"] > figures["bare"]["megabytes"] > 10
    assert figures["above"]["megabytes"] == round(figures["node"]["megabytes"] - figures["bare"]["megabytes"], 2)
    assert "10000 keyframes" in result.stderr
