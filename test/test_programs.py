# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from binvpr_ros.installation import in_venv
from binvpr_ros.programs import PROGRAMS

PIP = shlex.quote(str(Path(sys.prefix, "bin", "pip")))
"""Of the virtual environment in which the tests run."""


@pytest.mark.skipif(not in_venv(), reason="outside a virtual environment apt is named")
@pytest.mark.parametrize(
    ("program", "missing", "remedy"),
    [
        ("binvpr_node", "rclpy", "source the setup.bash of ROS 2, or, in a checkout, run `make demo` once"),
        ("replay", "sensor_msgs", "source the setup.bash of ROS 2, or, in a checkout, run `make demo` once"),
        ("replay", "tqdm", f"run, in a checkout: {PIP} install -e '.[tools]'"),
        ("evaluate", "matplotlib", f"run, in a checkout: {PIP} install -e '.[tools]'"),
        ("train_offline", "keras", f"run, in a checkout: {PIP} install -e '.[training]'"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(program: str, missing: str, remedy: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from binvpr_ros import programs; sys.exit(programs.{program}())"
    )
    arguments = ["--smoke", "--output", "x.tflite"] if program == "train_offline" else []
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    said = result.stderr.splitlines()[-1]
    assert said.startswith(f"{program}: ")
    assert missing in said
    assert remedy in said
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("seconds", [0.05, 4.0])
def test_ctrl_c_ends_a_program_while_it_loads_and_while_it_works(seconds: float) -> None:
    code = "import sys; from binvpr_ros import programs; print(flush=True); sys.exit(programs.benchmark())"
    command = [sys.executable, "-c", code, "--repeat", "1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "benchmark: interrupted" in said
    assert "Traceback" not in said


def run_binvpr(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from binvpr_ros import programs; sys.exit(programs.binvpr())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_one_command_names_all_programs() -> None:
    for arguments in ((), ("--help",)):
        shown = run_binvpr(*arguments)
        assert shown.returncode == 0
        assert [line.split()[0] for line in shown.stdout.splitlines() if line.startswith("  ")] == list(PROGRAMS)
    refused = run_binvpr("evalute")
    assert refused.returncode == 2
    assert refused.stderr == f"binvpr: there is no command 'evalute'; use one of {', '.join(PROGRAMS)}\n"


@pytest.mark.parametrize("command", PROGRAMS)
def test_each_program_is_a_command(command: str) -> None:
    shown = run_binvpr(command, "--help")
    assert shown.returncode == 0, shown.stderr
    program = "train_offline" if command == "train" else command
    assert shown.stdout.startswith((f"usage: {program} ", f"usage: binvpr {command} "))


def test_a_command_takes_the_arguments_behind_it(tmp_path: Path) -> None:
    refused = run_binvpr("map", "info", str(tmp_path / "none.db"))
    assert refused.returncode == 1
    assert "none.db" in refused.stderr
