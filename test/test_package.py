# SPDX-License-Identifier: Apache-2.0
"""What colcon, bloom and pip read of the package agrees with itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
XML = ET.parse(ROOT / "package.xml").getroot()  # noqa: S314 - our own file
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")
SOURCES = sorted(path for path in (ROOT / "binvpr_ros").rglob("*.py"))
ROS_MODULES = {"builtin_interfaces", "cv_bridge", "diagnostic_msgs", "geometry_msgs", "nav_msgs", "rcl_interfaces",
               "rclpy", "sensor_msgs", "std_msgs", "std_srvs", "tf2_msgs", "visualization_msgs"}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Return the packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_versions_agree() -> None:
    assert f'version="{XML.findtext("version")}"' in SETUP


def test_it_is_an_ament_python_package_under_apache_2() -> None:
    assert XML.get("format") == "3"
    assert XML.findtext("export/build_type") == "ament_python"
    assert XML.findtext("license") == "Apache-2.0"
    assert (ROOT / "resource" / "binvpr_ros").is_file()


def test_every_ros_package_that_is_imported_is_declared() -> None:
    declared = {element.text for element in XML.findall("exec_depend")}
    imported = set().union(*map(imports, SOURCES)) & ROS_MODULES
    assert imported <= declared


def test_the_node_needs_nothing_of_the_trainer() -> None:
    code = "import binvpr_ros.ros.node, sys; print(sorted({'keras', 'tensorflow', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("entry", re.findall(r'"(\w+) = binvpr_ros', SETUP))
def test_every_entry_is_installed_and_runs_from_any_folder(entry: str, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / entry
    if not program.is_file():
        pytest.skip("the package is not installed with pip here (colcon puts the entries elsewhere)")
    arguments = ["--ros-args", "-p", "threads:=0"] if entry == "binvpr_node" else ["--help"]
    command = [str(program), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in result.stderr
    output = result.stdout + result.stderr
    assert any(text in output for text in (f"usage: {entry}", "cannot start", "run, in a checkout: "))


def test_the_fast_dds_profile_gives_images_room_and_leaves_udp_alone() -> None:
    space = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"
    profile = ET.parse(ROOT / "config" / "fastdds_large_images.xml").getroot()  # noqa: S314 - our own file
    transports = {item.findtext(f"{space}type"): item for item in profile.iter(f"{space}transport_descriptor")}
    assert set(transports) == {"SHM", "UDPv4"}
    assert transports["SHM"].findtext(f"{space}segment_size") == str(32 * 2**20)
    assert transports["SHM"].findtext(f"{space}maxMessageSize") == str(8 * 2**20)
    assert len(transports["UDPv4"]) == 2


def test_every_file_says_its_licence() -> None:
    for path in [*SOURCES, *(ROOT / "test").rglob("*.py"), *(ROOT / "launch").glob("*.py"), ROOT / "setup.py"]:
        if path.read_text(encoding="utf-8").strip():
            assert path.read_text(encoding="utf-8").startswith("# SPDX-License-Identifier: Apache-2.0\n"), path
