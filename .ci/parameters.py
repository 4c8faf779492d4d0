# SPDX-License-Identifier: Apache-2.0
"""Write config/*.yaml and docs/parameters.md from the parameters in binvpr_ros/config.py."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from binvpr_ros.config import Config, Parameters, PoseGraphConfig

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = (
    ("Basic", True, "What most robots set."),
    ("Advanced", False, "The defaults suit most robots."),
)
HEAD = """\
# The parameters of binvpr_ros with their defaults. Copy this file, change what you need, and start the node with
#     ros2 launch binvpr_ros binvpr.launch.py params_file:=/path/to/your.yaml
# Parameters marked (live) can be changed while the node runs: ros2 param set /binvpr/binvpr <name> <value>, with the
# node's full name. `binvpr param set <name> <value>` does the same without a ROS installation.
/**:
  ros__parameters:
"""
GRAPH_HEAD = """\
# The parameters of the node pose_graph with their defaults; `/**/pose_graph:` is any node of that name.
/**/pose_graph:
  ros__parameters:
"""
GRAPH_PAGE = """\

## pose_graph

The [second node](loop_closing.md). Its params file is [pose_graph.yaml](../config/pose_graph.yaml).
"""
PAGE = """\
# Parameters

Every parameter is a launch argument too. Those marked *live* can change while the node runs:

    binvpr param set min_score 0.5                    # finds the node, and needs no ROS installation
    ros2 param set /binvpr/binvpr min_score 0.5       # the node's name under launch; /binvpr without launch

## binvpr_node

Its params file is [binvpr.yaml](../config/binvpr.yaml).
"""


def yaml(node: type[Parameters] = Config, head: str = HEAD) -> str:
    """Return the params file of a node with all defaults."""
    lines = []
    for title, basic, sentence in SECTIONS:
        lines += [f"    # {title}: {sentence[0].lower()}{sentence[1:]}", ""]
        for parameter in _of(node, basic):
            facts = parameter.metadata
            notes = f" ({'; '.join(_notes(facts))})" if _notes(facts) else ""
            lines += [f"    # {facts['sentence']}{notes}", f"    {parameter.name}: {_value(parameter)}"]
        lines.append("")
    return head + "\n".join(lines).rstrip() + "\n"


def graph_yaml() -> str:
    """Return the params file of pose_graph with all defaults."""
    return yaml(PoseGraphConfig, GRAPH_HEAD)


def page() -> str:
    """Return the page of the documentation, in Markdown."""
    return _chapter(Config, PAGE) + _chapter(PoseGraphConfig, GRAPH_PAGE)


def _chapter(node: type[Parameters], head: str) -> str:
    lines = [head]
    for title, basic, sentence in SECTIONS:
        lines += [f"### {title}", "", sentence, "", "| parameter | default | |", "| --- | --- | --- |"]
        for parameter in _of(node, basic):
            facts = parameter.metadata
            notes = f" ({'; '.join(_notes(facts))})" if _notes(facts) else ""
            lines.append(f"| `{parameter.name}` | `{_value(parameter)}` | {facts['sentence']}{notes} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _of(node: type[Parameters], basic: bool) -> list[dataclasses.Field[Any]]:
    return [parameter for parameter in node.parameters() if parameter.metadata["basic"] == basic]


def _notes(facts: Any) -> list[str]:
    notes = [", ".join(facts["choices"])] if facts["choices"] else []
    if facts["low"] is not None:
        notes.append(f"{facts['low']} to {facts['high']} {facts['unit']}".rstrip())
    return [*notes, "live"] if facts["live"] else notes


def _value(parameter: dataclasses.Field[Any]) -> str:
    default = parameter.default
    return json.dumps(list(default) if isinstance(default, tuple) else default)


FILES = {
    ROOT / "config" / "binvpr.yaml": yaml,
    ROOT / "config" / "pose_graph.yaml": graph_yaml,
    ROOT / "docs" / "parameters.md": page,
}

if __name__ == "__main__":
    for file, text in FILES.items():
        file.write_text(text(), encoding="utf-8")
