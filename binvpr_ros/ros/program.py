# SPDX-License-Identifier: Apache-2.0
"""A node as a program: it starts, spins until it is told to stop, and closes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

STOP_SECONDS = 0.1
"""Longest time until a node notices that it is told to stop."""


def run_node(
    make: Callable[[], Any], name: str, parser: argparse.ArgumentParser, start_errors: tuple[type[Exception], ...]
) -> int:
    """Run the node that `make` returns, which has a `close`; the exit status is 1 where it cannot start.

    `name` is its logger's. `parser` takes what is left of the command line without ROS arguments; `start_errors` are
    what `make` raises for what the user can mend.
    """
    try:
        return _run(make, name, parser, start_errors)
    except KeyboardInterrupt:  # before `_run` begins
        return 0


def _run(
    make: Callable[[], Any], name: str, parser: argparse.ArgumentParser, start_errors: tuple[type[Exception], ...]
) -> int:
    """Start, spin, stop; return the exit status."""
    node, executor, told_to_stop = None, None, False

    def stop(*_: Any) -> None:
        # No threading.Event, whose lock a second signal would wait for in vain.
        nonlocal told_to_stop
        told_to_stop = True

    # rclpy's own handlers would end the context, and Python's raise KeyboardInterrupt, wherever rclpy is: an error.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # a params file, a name or a log level that ROS cannot read
        print(f"{parser.prog}: cannot start: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    try:
        # For --help, and since what stands before --ros-args would be ignored.
        parser.parse_args(remove_ros_args(sys.argv)[1:])
        node = make()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not told_to_stop:
            executor.spin_once(timeout_sec=STOP_SECONDS)
    except start_errors as error:
        rclpy.logging.get_logger(name).fatal(f"cannot start: {error}")
        return 1
    finally:
        # Ctrl-C reaches the node twice, from the terminal and from ros2 launch; the second must not break Python's end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if executor is not None:
            executor.shutdown()
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
