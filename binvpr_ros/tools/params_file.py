# SPDX-License-Identifier: Apache-2.0
"""What a params file of ROS says of a node, for launch files, whose topics depend on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def parameters_of(params_file: Path, node: str) -> dict[str, Any]:
    """Return the parameters of `node` (/namespace/name) in a params file, by name.

    Of several entries that fit the node, by its name or by wildcards, the last one holds, as in rcl.
    """
    found: dict[str, Any] = {}
    for pattern, parameters in _entries(yaml.safe_load(params_file.read_text(encoding="utf-8")), ""):
        if _fits(pattern, node):
            found |= parameters
    return found


def _entries(tree: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the parameters of each node of a params file, whose namespaces may be nested, with the node's pattern."""
    for key, below in tree.items() if isinstance(tree, dict) else ():
        if not isinstance(below, dict):
            continue
        if key == "ros__parameters":
            yield path, below
        else:
            yield from _entries(below, f"{path}/{str(key).strip('/')}")


def _fits(pattern: str, node: str) -> bool:
    """Return whether a name fits a pattern, in which * stands for one part of it, and ** for any number of parts."""
    parts = re.escape(pattern).replace(r"/\*\*", "(/[^/]+)*").replace(r"/\*", "/[^/]+")
    return re.fullmatch(parts, node) is not None
