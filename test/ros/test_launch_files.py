# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from binvpr_ros.installation import InstallationError, site_packages
from binvpr_ros.ros.launch_files import misspelt, parameters_of, python_path

OTHERS = "/front/driver:\n  ros__parameters: {compressed: true}\n"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("", None),
        ("- a list\n", None),
        ("/**:\n  ros__parameters: {min_score: 0.5}\n", None),
        ("/**:\n  ros__parameters: {compressed: true}\n", True),
        ("/*/binvpr:\n  ros__parameters: {compressed: true}\n", True),
        ("/front/binvpr:\n  ros__parameters: {compressed: true}\n", True),
        ("/front/**:\n  ros__parameters: {compressed: true}\n", True),
        ("/**/binvpr:\n  ros__parameters: {compressed: true}\n", True),
        ("front:\n  binvpr:\n    ros__parameters: {compressed: true}\n", True),
        (
            "/**:\n  ros__parameters: {compressed: true}\n/front/binvpr:\n  ros__parameters: {compressed: false}\n",
            False,
        ),
        ("binvpr:\n  ros__parameters: {compressed: true}\n", None),  # in no namespace
        ("/*:\n  ros__parameters: {compressed: true}\n", None),
        ("/rear/binvpr:\n  ros__parameters: {compressed: true}\n", None),
        (OTHERS, None),
        ("/**:\n  ros__parameters: {min_score: 0.5}\n" + OTHERS, None),
    ],
)
def test_what_a_params_file_says_of_a_node(tmp_path: Path, content: str, value: object) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    assert parameters_of(file, "/front/binvpr").get("compressed") is value


@pytest.mark.parametrize("content", ["\t: {", "\xff"])
def test_what_is_no_params_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"mine\.yaml is not a ROS params file \(.*\); name another one, or correct it"
    ):
        parameters_of(file, "/front/binvpr")


KNOWN = {"image_topic": "/camera/image_raw", "database": "", "maps": "", "min_score": ""}


@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        ({"minscore": "3"}, ["minscore:=3 is not a launch argument and is ignored; did you mean min_score?"]),
        (
            {"imagetopic": "/front", **KNOWN},
            ["imagetopic:=/front is not a launch argument and is ignored; did you mean image_topic?"],
        ),
        ({"databases": "maps"}, ["databases:=maps is not a launch argument and is ignored; did you mean database?"]),
        ({"databases": "maps", "database": "maps/front.db"}, []),
        ({"map": "/maps/nav2.yaml", "use_composition": "true"}, []),  # of a launch file around this one
    ],
)
def test_arguments_that_are_misspelt(given: dict[str, str], sentences: list[str]) -> None:
    assert list(misspelt(given, KNOWN)) == sentences


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="the tests do not run in a virtual environment")
def test_the_environment_in_which_a_node_has_a_venv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages = site_packages(Path(sys.prefix))
    monkeypatch.setenv("PYTHONPATH", "/opt/ros/packages")
    assert python_path("") == {}
    assert python_path(sys.prefix) == {"PYTHONPATH": f"{packages}:/opt/ros/packages"}
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setenv("HOME", str(Path(sys.prefix).parent))
    assert python_path(f"~/{Path(sys.prefix).name}") == {"PYTHONPATH": str(packages)}
    with pytest.raises(InstallationError, match="is no virtual environment of Python"):
        python_path(str(tmp_path))
