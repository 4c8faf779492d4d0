# SPDX-License-Identifier: Apache-2.0
"""The installed programs; what they lack, and Ctrl-C while their modules load, is said in a sentence."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from binvpr_ros.installation import how_to_install_module

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
        remedy = how_to_install_module(missing, extra)
        if missing.startswith(OF_ROS) or missing.endswith(OF_ROS):
            remedy = (
                "source the setup.bash of ROS 2, or, in a checkout, run `make demo` once and take .venv/bin; "
                "`python3 -m binvpr_ros.doctor` says what else this machine lacks"
            )
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


PROGRAMS = {
    "replay": ("publish recorded images", "binvpr_ros.ros.replay", "tools"),
    "evaluate": ("measure place recognition", "binvpr_ros.lab.evaluation.evaluate", "tools"),
    "watch": ("show what a running node recognises, live", "binvpr_ros.ros.watch", "tools"),
    "doctor": ("check this machine, and say how to fix problems", "binvpr_ros.doctor", "ros"),
    "param": ("read or change a parameter of a running node", "binvpr_ros.ros.param", "ros"),
    "map": ("inspect, check, merge and export map files", "binvpr_ros.maps.command", "tools"),
    "fleet": ("set up and manage the map that robots share", "binvpr_ros.maps.fleet.command", "fleet"),
    "benchmark": ("time the network, the search, or the node", "binvpr_ros.lab.benchmark", "tools"),
    "train": ("train a network, and write its model file", "binvpr_ros.lab.training.train", "training"),
    "demo": ("run the node end to end on a rendered building, or on your images", "binvpr_ros.lab.demo", "tools"),
}
"""What each command of `binvpr` does, the module whose `main` does it, and the extra that holds what it needs."""


def binvpr() -> int:
    """Run the program that the first argument names."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in PROGRAMS:
        del sys.argv[1]
        return _program(command)
    usage = "\n".join(
        ["usage: binvpr COMMAND ...", "", *(f"  {name:<10} {what}" for name, (what, _, _) in PROGRAMS.items()), "",
         "`binvpr COMMAND --help` describes its options."]
    )  # fmt: skip
    if command in ("-h", "--help"):
        print(usage)
        return 0
    print(f"binvpr: there is no command {command!r}; use one of {', '.join(PROGRAMS)}", file=sys.stderr)
    return 2


def binvpr_node() -> int:
    """Run the node."""
    return _run("binvpr_node", "binvpr_ros.ros.node", "ros")


def pose_graph() -> int:
    """Run the node that closes loops."""
    return _run("pose_graph", "binvpr_ros.ros.pose_graph", "slam")


def replay() -> int:
    """Publish recorded images."""
    return _program("replay")


def benchmark() -> int:
    """Time the network, the search, or the node."""
    return _program("benchmark")


def evaluate() -> int:
    """Measure place recognition."""
    return _program("evaluate")


def map_() -> int:
    """Look after map files."""
    return _program("map")


def train_offline() -> int:
    """Train a network."""
    return _program("train", "train_offline")


def _program(command: str, name: str = "") -> int:
    _, module, extra = PROGRAMS[command]
    return _run(name or command, module, extra)
