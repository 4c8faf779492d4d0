# SPDX-License-Identifier: Apache-2.0
"""For launch files: what a params file says of a node, which arguments are misspelt, where a node's packages are."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from binvpr_ros.config import with_home
from binvpr_ros.installation import site_packages


def parameters_of(params_file: Path, node: str) -> dict[str, Any]:
    """Return the parameters of `node` (/namespace/name) in a params file, by name.

    Of several entries that fit the node, by its name or by wildcards, the last one holds, as in rcl. Raises ValueError.
    """
    try:
        tree = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{params_file} is not a ROS params file ({reason}); name another one, or correct it"
        ) from None
    found: dict[str, Any] = {}
    for pattern, parameters in _entries(tree, ""):
        if _fits(pattern, node):
            found |= parameters
    return found


def misspelt(given: Mapping[str, str], known: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each argument that is given and unknown, and near to a known one that has its default.

    What is near to none may be of a launch file around this one.
    """
    for name in sorted(given.keys() - known.keys()):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.87)
        if near and given[name] and given.get(near[0]) in (None, known[near[0]]):
            yield f"{name}:={given[name]} is not a launch argument and is ignored; did you mean {near[0]}?"


def python_path(venv: str) -> dict[str, str]:
    """Return the environment in which a node has the packages of a virtual environment too; "" for none.

    Raises InstallationError where it is none for this Python, which runs the node too.
    """
    if not venv:
        return {}
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(site_packages(Path(with_home(venv)).absolute())), before]))}


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
