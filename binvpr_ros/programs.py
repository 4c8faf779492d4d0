# SPDX-License-Identifier: Apache-2.0
"""The installed programs; what they lack, and Ctrl-C while their modules load, is said in a sentence."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

OF_ROS = ("rclpy", "rpyutils", "ament_", "rosidl_", "builtin_interfaces", "rcl_interfaces", "_msgs", "_srvs")
"""How the names of modules begin, or end, that come with ROS alone."""


def _run(program: str, module: str, extra: str) -> int:
    """Run `main` of a module, whose dependencies are those of an extra; return the exit status."""
    try:
        status: int = _load(program, module).main()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", __package__):
            raise
        remedy = f"run, in a checkout: pip install '.[{extra}]'"
        if missing.startswith(OF_ROS) or missing.endswith(OF_ROS):
            remedy = "source the setup.bash of ROS 2, or, in a checkout, run `make demo` once and take .venv/bin"
        print(f"{program}: {missing} is not installed; {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 1
    return status


def _load(program: str, module: str) -> Any:
    """Import a module, in which Ctrl-C would be an exception that NumPy's own imports turn into another one."""

    def leave(*_: Any) -> None:
        print(f"{program}: interrupted", file=sys.stderr, flush=True)
        os._exit(1)  # nothing is there yet that must be cleaned up

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, leave)
    try:
        return importlib.import_module(module)
    finally:
        signal.signal(signal.SIGINT, before)


def binvpr_node() -> int:
    """Run the node."""
    return _run("binvpr_node", "binvpr_ros.node", "ros")


def replay() -> int:
    """Publish recorded images."""
    return _run("replay", "binvpr_ros.tools.replay", "tools")


def benchmark() -> int:
    """Time the network, the search, or the node."""
    return _run("benchmark", "binvpr_ros.tools.benchmark", "tools")


def evaluate() -> int:
    """Measure place recognition."""
    return _run("evaluate", "binvpr_ros.evaluation.evaluate", "tools")


def map_() -> int:
    """Look after map files."""
    return _run("map", "binvpr_ros.tools.maps", "tools")


def train_offline() -> int:
    """Train a network."""
    return _run("train_offline", "binvpr_ros.training.train", "training")
