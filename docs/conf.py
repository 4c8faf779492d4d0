# SPDX-License-Identifier: Apache-2.0
"""Sphinx builds the documentation from the Markdown files of this folder: make docs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "binvpr_ros"
author = "binvpr_ros maintainers"
copyright = "binvpr_ros maintainers, Apache-2.0"  # noqa: A001 - Sphinx's name
release = version = ET.parse(ROOT / "package.xml").getroot().findtext("version", "")  # noqa: S314 - our own

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
suppress_warnings = ["toc.not_included"]  # the tables in reproduction/, to which reproduction.md leads
autodoc_mock_imports = ["rclpy", "sensor_msgs", "std_msgs", "builtin_interfaces"]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}

html_theme = "furo"
html_title = f"binvpr_ros {version}"
html_copy_source = False


def link_to_pages(_: Sphinx, _page: str, source: list[str]) -> None:
    """Lead links to files beside this folder, which suit a reader of the repository, to their pages."""
    source[0] = source[0].replace("](../README.md", "](index.md").replace("](../CONTRIBUTING.md", "](contributing.md")


def setup(app: Sphinx) -> None:
    """Register what Sphinx calls."""
    app.connect("source-read", link_to_pages)
