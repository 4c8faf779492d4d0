# SPDX-License-Identifier: Apache-2.0
"""What is written for people: links and commands lead somewhere, README stays one page, versions agree."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from binvpr_ros.config import Config, PoseGraphConfig
from binvpr_ros.programs import PROGRAMS

ROOT = Path(__file__).resolve().parents[1]
OF_CAMERA_DRIVERS = {"enable", "depth_registration"}
"""Launch arguments of other packages that the pages name."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(page: Path) -> str:
    """Return a page without its blocks of code, in which brackets are no links and # is no heading."""
    return re.sub(r"^```.*?^```|^    .*?$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        file, _, part = target.partition("#")
        if file.startswith(("https:", "http:")):
            continue
        to = (page.parent / file).resolve() if file else page
        assert to.exists(), target
        if part:
            assert part in anchors(to), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_nothing_that_users_do_not_have(page: Path) -> None:
    if page.name != "CONTRIBUTING.md":
        assert "../shared" not in page.read_text(encoding="utf-8")


def known_launch_arguments() -> set[str]:
    """Return the arguments of all launch files: those that they list, and every parameter."""
    texts = (file.read_text(encoding="utf-8") for file in (ROOT / "launch").glob("*.py"))
    listed = re.findall(r'^    "(\w+)": \(', "".join(texts), re.MULTILINE)
    parameters = (*Config.parameters(), *PoseGraphConfig.parameters())
    return {*listed, *(parameter.name for parameter in parameters)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_launch_arguments_are_known(page: Path) -> None:
    text = re.sub(r"-[rp] \S+", "", page.read_text(encoding="utf-8"))  # remappings, and parameters of a bare node
    assert set(re.findall(r"\b([a-z]\w+):=", text)) <= known_launch_arguments() | OF_CAMERA_DRIVERS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_known(page: Path) -> None:
    typed = re.findall(r"(?:bin/|binvpr_ros )binvpr ([a-z]+)", page.read_text(encoding="utf-8"))
    assert set(typed) <= set(PROGRAMS)


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^(?:[^<\n]*<)?([a-z_]+)>?$", "".join(re.findall(r"```{toctree}.*?```", index, re.DOTALL)), re.MULTILINE
    )
    assert sorted(listed) == sorted(page.stem for page in (ROOT / "docs").glob("*.md") if page.stem != "index")


def test_readme_is_one_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = readme.splitlines()
    assert len(readme.split()) <= 1200
    assert len(lines) <= 150
    assert all(len(line) <= 120 for line in lines)


def test_versions_agree() -> None:
    packages = [ROOT / "package.xml", ROOT / "examples" / "cpp" / "package.xml"]
    version, *others = [ET.parse(package).getroot().findtext("version") for package in packages]  # noqa: S314 - our own
    assert version is not None
    assert others == [version]
    assert f'version="{version}"' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert re.search(
        rf"^{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE
    )
