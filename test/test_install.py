# SPDX-License-Identifier: Apache-2.0
"""What docs/install.md tells to type, the Dockerfile and the systemd unit agree with the package."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from binvpr_ros.config import Config
from binvpr_ros.lab import benchmark

ROOT = Path(__file__).resolve().parents[1]
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
DOCKERFILE = ROOT / "Dockerfile"
UNIT = ROOT / "config" / "binvpr@.service"
RUNTIME = re.findall(r'"(ai-edge-litert[^"]*)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
ROSDEP_KEYS = {
    "g++-static",
    "python3-hypothesis",
    "python3-matplotlib",
    "python3-numpy",
    "python3-opencv",
    "python3-pytest",
    "python3-pytest-timeout",
    "python3-rich",
    "python3-scipy",
    "python3-tqdm",
    "python3-yaml",
}
"""Looked up in rosdep/base.yaml and python.yaml of ros/rosdistro; an unknown key makes `rosdep install` fail."""
ROS_PACKAGES = {
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "nav_msgs",
    "rcl_interfaces",
    "rclpy",
    "ros2launch",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
    "visualization_msgs",
}
"""In the distributions of Humble, Jazzy and Kilted."""


def sections() -> dict[str, str]:
    """Return the text of each section of docs/install.md by its heading."""
    parts = re.split(r"^## (.*)\n", INSTALL, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def launch_arguments(text: str) -> set[str]:
    """Return the names before := in what is typed."""
    return set(re.findall(r"(\w+):=", text))


def known_launch_arguments() -> set[str]:
    launch_file = (ROOT / "launch" / "binvpr.launch.py").read_text(encoding="utf-8")
    arguments = re.findall(r'^    "(\w+)": \(', launch_file, re.MULTILINE)
    return {parameter.name for parameter in Config.parameters()} | set(arguments)


def anchor(heading: str) -> str:
    """Return a heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("distribution", ["humble", "jazzy", "kilted"])
def test_the_commands_of_a_distribution_are_whole(distribution: str) -> None:
    text = sections()[distribution.capitalize()]
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert [command.split()[0] for command in commands] == [
        "sudo", "git", "source", "cd", "python3", "~/binvpr_venv/bin/pip", "source", "ros2",
    ]  # fmt: skip
    assert f"ros-{distribution}-ros-base" in commands[0]
    assert commands[2] == f"source /opt/ros/{distribution}/setup.bash"
    assert f"'{RUNTIME[0]}'" in commands[5]
    assert "--no-deps" in commands[5]
    others = {"humble", "jazzy", "kilted"} - {distribution}
    assert not any(other in command for other in others for command in commands)


def test_launch_knows_all_arguments_that_are_typed() -> None:
    typed = launch_arguments(INSTALL) | launch_arguments(UNIT.read_text(encoding="utf-8"))
    assert {"venv", "image_topic", "database"} <= typed
    assert typed <= known_launch_arguments()


def test_benchmark_knows_the_options_that_are_named() -> None:
    named = re.findall(r"--[a-z]+", sections()["Figures of your board"])
    assert {"--report", "--json", "--threads"} == set(named)
    choices = benchmark.parse(["--report", "--json", "report.json", "--threads", "4"])
    assert choices.report
    assert choices.threads == 4


def test_links_lead_somewhere() -> None:
    anchors = {anchor(heading) for heading in sections()}
    for target in re.findall(r"\]\(([^)]+)\)", INSTALL):
        file, _, part = target.partition("#")
        if file.startswith("https:"):
            continue
        page = ROOT / "docs" / file
        assert page.exists(), target
        if part:
            headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE) if file else []
            assert part in (anchors if not file else {anchor(heading) for heading in headings}), target


def test_readme_leads_here() -> None:
    assert "(docs/install.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_rosdep_knows_every_dependency() -> None:
    package = ET.parse(ROOT / "package.xml").getroot()  # noqa: S314 - our own file
    named = {element.text for element in package if element.tag.endswith("depend")}
    assert named <= ROSDEP_KEYS | ROS_PACKAGES


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with what follows them, lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_has_the_runtime_of_the_package_and_is_stopped_as_launch_has_to_be() -> None:
    found = dict(instructions())
    assert f"'{RUNTIME[0]}'" in DOCKERFILE.read_text(encoding="utf-8")
    assert found["STOPSIGNAL"] == "SIGINT"
    assert found["USER"] != "root"
    entry, command = json.loads(found["ENTRYPOINT"]), json.loads(found["CMD"])
    assert entry[:2] == ["/bin/bash", "-c"]
    assert command == ["ros2", "launch", "binvpr_ros", "binvpr.launch.py"]
    # What is sourced is what colcon installs, and the command gets through to it word by word.
    assert "--install-base /opt/binvpr" in DOCKERFILE.read_text(encoding="utf-8")
    script = entry[2].replace("/opt/binvpr/setup.bash", "/dev/null")
    assert script != entry[2]
    result = subprocess.run(
        [*entry[:2], script, *entry[3:], "printf", "%s|", "a b", "c"], capture_output=True, text=True, check=True
    )
    assert result.stdout == "a b|c|"


def test_the_image_is_built_from_all_that_setup_py_reads() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line.startswith("!")}
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    read = set(re.findall(r'files\("([\w]+)', setup)) | {
        "binvpr_ros",
        "resource",
        "package.xml",
        "setup.py",
        "setup.cfg",
    }
    assert read <= kept
    assert all((ROOT / name).exists() for name in kept)


def test_stages_of_the_image_are_copied_from_by_their_names() -> None:
    stages = {rest.partition(" AS ")[2] for name, rest in instructions() if name == "FROM"} - {""}
    sources = re.findall(r"--from=(\w+)", DOCKERFILE.read_text(encoding="utf-8"))
    assert sources
    assert set(sources) <= stages


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed (the extra `test` brings it)")
    result = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert result.stdout == ""


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=["="], comment_prefixes=["#"])
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT, encoding="utf-8")
    return parser


def test_the_unit_restarts_the_node_and_stops_it_cleanly() -> None:
    service = unit()["Service"]
    assert service["User"] == "%i"
    assert service["Restart"] == "always"
    assert service["KillSignal"] == "SIGINT"
    assert service["KillMode"] == "mixed"
    assert unit()["Install"]["WantedBy"] == "multi-user.target"


def test_the_unit_starts_the_launch_file_with_the_arguments_of_its_environment() -> None:
    command = unit()["Service"]["ExecStart"]
    script = re.fullmatch(r"/bin/bash -c '([^']*)'", command)
    assert script is not None
    # Bash splits the arguments; echo instead of a ROS that is not there.
    shown = script[1].replace("source ws/install/setup.bash", "true").replace("exec ros2", "printf '%s|'")
    result = subprocess.run(
        ["/bin/bash", "-c", shown], env={"BINVPR_ARGUMENTS": "image_topic:=/a database:=~/b.db"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.split("|") == [
        "launch", "binvpr_ros", "binvpr.launch.py", "venv:=~/binvpr_venv", "image_topic:=/a", "database:=~/b.db", "",
    ]  # fmt: skip


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("systemd-analyze is not installed")
    started = tmp_path / "binvpr@robot.service"
    shutil.copy(UNIT, started)
    result = subprocess.run([systemd, "verify", str(started)], capture_output=True, text=True, check=False)
    complaints = [line for line in result.stderr.splitlines() if "binvpr@" in line]
    assert result.returncode == 0, result.stderr
    assert complaints == []
