# SPDX-License-Identifier: Apache-2.0
"""`param` with nodes that run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from binvpr_ros.ros.live import Listener, NodeProcess


def param(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "binvpr_ros.ros.param", *arguments]
    return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False)


def wait_for(listener: Listener) -> None:
    """Wait until the node of a listener is there."""
    deadline = time.monotonic() + 30
    while not listener.diagnostics and time.monotonic() < deadline:
        time.sleep(0.05)
    assert listener.diagnostics


@pytest.mark.usefixtures("ros")
def test_a_parameter_of_a_running_node_is_read_and_changed() -> None:
    with NodeProcess(), Listener() as listener:
        wait_for(listener)
        for arguments, sentence in (
            (("get", "min_score"), "/binvpr: min_score is 0.0\n"),
            (("set", "min_score", "0.5"), "/binvpr: min_score is 0.5\n"),
            (("get", "min_score", "--node", "/binvpr"), "/binvpr: min_score is 0.5\n"),
            (("get", "min_score", "--node", "binvpr"), "/binvpr: min_score is 0.5\n"),
            (("set", "verify", "false"), "/binvpr: verify is False\n"),
            (("get", "maps"), "/binvpr: maps is ['']\n"),
        ):
            done = param(*arguments)
            assert (done.returncode, done.stdout, done.stderr) == (0, sentence, "")
        for arguments, sentence in (
            (("set", "min_score", "5"), "binvpr param: min_score was not changed: "),
            (
                ("set", "min_inliers", "9" * 23),
                "binvpr param: min_inliers must be a 64-bit integer, not 999",
            ),
            (("set", "min_score", "high"), "binvpr param: min_score must be of type float, not 'high'\n"),
            (
                ("set", "database", "a.db"),
                "binvpr param: database cannot change while the node runs; start it again ",
            ),
            (("get", "min_score", "--node", "/nowhere"), "binvpr param: no node /nowhere runs in this ROS domain; "),
            (("get", "min_score", "--node", "/listener"), "binvpr param: /listener has no parameter min_score; "),
        ):
            done = param(*arguments)
            assert done.returncode == 1
            assert done.stderr.startswith(sentence)
            assert done.stderr.count("\n") == 1
        with NodeProcess("-r", "__ns:=/front"), Listener("front") as front:
            wait_for(front)
            deadline = time.monotonic() + 30
            done = param("get", "min_score")
            while done.returncode == 0 and time.monotonic() < deadline:  # the other one was discovered too late
                done = param("get", "min_score")
            assert done.stderr == (
                "binvpr param: several nodes run, /binvpr, /front/binvpr; name one of them: --node /binvpr\n"
            )
            assert param("get", "min_score", "--node", "/front/binvpr").stdout == "/front/binvpr: min_score is 0.0\n"


@pytest.mark.usefixtures("ros")
def test_ctrl_c_ends_it_without_a_traceback() -> None:
    code = "from binvpr_ros.ros import param; print('ready', flush=True); raise SystemExit(param.main())"
    for after in (0.1, 0.3, 1.0):  # seconds: while rclpy starts, and while a node is looked for
        running = subprocess.Popen(
            [sys.executable, "-c", code, "get", "min_score", "--node", "/nowhere"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        time.sleep(after)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
        assert running.returncode == 1
        assert "Traceback" not in errors


def test_a_name_that_is_no_parameter() -> None:
    done = param("get", "minscore")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("there is no parameter 'minscore'; did you mean 'min_score'?")
