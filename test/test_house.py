# SPDX-License-Identifier: Apache-2.0
"""The rules of the house: which rooms may import which, and where a test is found."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "binvpr_ros"
FILES = sorted(PACKAGE.rglob("*.py"))
ROS = ("ament_", "builtin_interfaces", "cv_bridge", "rcl_interfaces", "rclpy", "rosgraph_msgs")
ROS_SUFFIXES = ("_msgs", "_srvs")
GUEST = "binvpr_ros.ros.live"
"""The module of ros/ through which lab/ drives a live node."""


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # What `from binvpr_ros.maps import file` imports is a module too.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if _is_module(name) else node.module for name in names)


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return name.startswith("binvpr_ros.") and (path.is_dir() or path.with_suffix(".py").is_file())


def room(name: str) -> str:
    """Return the room of a module: the package, or the file, directly below binvpr_ros."""
    return name.split(".")[1] if name.startswith("binvpr_ros.") else ""


def module_of(path: Path) -> str:
    """Return the full name of the module in a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_what_its_room_may(path: Path) -> None:
    own = room(module_of(path))
    for name in imports(path):
        first = name.partition(".")[0]
        if own != "ros":
            assert not first.startswith(ROS), f"only ros/ imports ROS, not {path.name}: {name}"
            assert not first.endswith(ROS_SUFFIXES), f"only ros/ imports ROS, not {path.name}: {name}"
        if own == "lab":
            assert room(name) != "ros" or name == GUEST, f"lab/ drives a live node through ros/live.py, not {name}"
        else:
            assert room(name) != "lab", f"nothing outside lab/ imports lab/: {name}"


def test_no_rooms_import_each_other_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        own = room(module_of(path))
        arrows.setdefault(own, set()).update({room(name) for name in imports(path)} - {own, ""})
    while arrows:
        free = {own for own, others in arrows.items() if not others & arrows.keys()}
        assert free, f"these import each other in a circle: {', '.join(sorted(arrows))}"
        arrows = {own: others for own, others in arrows.items() if own not in free}


def test_tests_are_where_what_they_test_is() -> None:
    for path in sorted((ROOT / "test").rglob("test_*.py")):
        folder = path.relative_to(ROOT / "test").parent
        assert (PACKAGE / folder).is_dir() or folder.name == "fuzz", path
