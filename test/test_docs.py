# SPDX-License-Identifier: Apache-2.0
"""What the pages in docs/ tell to type, and the files that they link to, are there. (`make docs` checks anchors.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from binvpr_ros.config import Config, PoseGraphConfig
from binvpr_ros.programs import PROGRAMS

ROOT = Path(__file__).resolve().parents[1]
OF_CAMERA_DRIVERS = {"enable", "depth_registration"}
"""Launch arguments of other packages that the pages name."""
PAGES = sorted((ROOT / "docs").glob("*.md"))


def known_launch_arguments() -> set[str]:
    """Return the arguments of all launch files: those that they list, and every parameter."""
    texts = (file.read_text(encoding="utf-8") for file in (ROOT / "launch").glob("*.py"))
    listed = re.findall(r'^    "(\w+)": \(', "".join(texts), re.MULTILINE)
    parameters = (*Config.parameters(), *PoseGraphConfig.parameters())
    return {*listed, *(parameter.name for parameter in parameters)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_launch_arguments_are_known(page: Path) -> None:
    text = re.sub(r"-[rp] \S+", "", page.read_text(encoding="utf-8"))  # remappings, and parameters of a bare node
    assert set(re.findall(r"\b([a-z]\w+):=", text)) <= known_launch_arguments() | OF_CAMERA_DRIVERS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_known(page: Path) -> None:
    typed = re.findall(r"(?:bin/|binvpr_ros )binvpr ([a-z]+)", page.read_text(encoding="utf-8"))
    assert set(typed) <= set(PROGRAMS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []
