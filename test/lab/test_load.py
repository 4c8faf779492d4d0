# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")


@pytest.mark.long
def test_what_is_counted_adds_up() -> None:
    command = [sys.executable, "-m", "binvpr_ros.lab.load", "--seconds", "3"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    lines = {line[:21].strip(): line for line in result.stdout.splitlines()}
    assert "rate processed" in lines, result.stderr
    dropped, left = map(int, re.findall(r"\d+", lines["dropped"]))
    assert dropped == left > 0
    for name in ("unusable", "services, failed"):
        assert "MISSED" not in lines[name]
    assert result.returncode == ("MISSED" in result.stdout)  # times are the machine's
