# SPDX-License-Identifier: Apache-2.0
"""`binvpr param`: read or change a parameter of a running node, with rclpy alone: its wheels bring no `ros2`."""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from typing import Any

import rclpy
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter as TypedParameter
from rclpy.parameter import parameter_value_to_python
from rclpy.signals import SignalHandlerOptions

from binvpr_ros.config import Config, ConfigError

NODE = "binvpr"
"""What the node is called, in whatever namespace."""
LOOKED_FOR = 10.0
"""Seconds in which a node is discovered, and answers."""
SETTLED = 1.0
"""Seconds after the first node in which further ones are discovered."""
SPIN_SECONDS = 0.1
"""For which a wait inside ROS keeps Ctrl-C waiting."""
LEAST_INTEGER, LARGEST_INTEGER = -(1 << 63), (1 << 63) - 1
"""Of a parameter in ROS."""


class ParamError(RuntimeError):
    """A parameter cannot be read or changed; the message says why and what to do."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(
        prog="binvpr param", description="Read or change a parameter of a running node.",
        epilog="docs/parameters.md describes the parameters and says which can be changed while the node runs.",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    for name, sentence in (
        ("get", "print the value of a parameter"),
        ("set", "change a parameter of the running node"),
    ):
        command = commands.add_parser(name, help=sentence)
        command.add_argument("name", metavar="NAME")
        if name == "set":
            command.add_argument("value", metavar="VALUE")
        command.add_argument("--node", default="", help="full name of the node, such as /binvpr/binvpr, if several run")
    choices = parser.parse_args(arguments)
    if choices.node:
        choices.node = "/" + choices.node.strip("/")
    names = [parameter.name for parameter in Config.parameters()]
    if choices.name not in names:
        near = difflib.get_close_matches(choices.name, names, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(names)}"
        parser.error(f"there is no parameter {choices.name!r}; {meant}")
    return choices


def find(node: Node, wanted: str = "") -> str:
    """Return the full name of the running node, of several the one that is `wanted`; raises ParamError."""
    end = time.monotonic() + LOOKED_FOR
    found: set[str] = set()
    while time.monotonic() < end:
        names = node.get_node_names_and_namespaces()
        new = {f"{namespace.rstrip('/')}/{name}" for name, namespace in names if wanted or name == NODE}
        if wanted in new:
            return wanted
        if new - found and not wanted:
            found, end = found | new, min(end, time.monotonic() + SETTLED)
        time.sleep(0.05)
    if wanted or not found:
        raise ParamError(f"no node {wanted or NODE} runs in this ROS domain; start it, with the same ROS_DOMAIN_ID")
    if len(found) > 1:
        raise ParamError(f"several nodes run, {', '.join(sorted(found))}; name one of them: --node {min(found)}")
    return found.pop()


def get(node: Node, of: str, name: str) -> Any:
    """Return the value of a parameter of the node that is called `of`; raises ParamError."""
    response = _call(node, GetParameters, f"{of}/get_parameters", GetParameters.Request(names=[name]))
    value = parameter_value_to_python(response.values[0]) if response.values else None
    if value is None:
        raise ParamError(f"{of} has no parameter {name}; name a node of binvpr_ros: --node")
    return value


def change(node: Node, of: str, name: str, text: str) -> None:
    """Change a parameter of the node that is called `of`; raises ParamError and ConfigError."""
    live = [parameter.name for parameter in Config.parameters() if parameter.metadata["live"]]
    if name not in live:
        raise ParamError(
            f"{name} cannot change while the node runs; start it again with {name}:={text} (behind -p where it is not "
            "launch that starts it)"
        )
    typed = Config.value_of(name, text)
    if isinstance(typed, int) and not LEAST_INTEGER <= typed <= LARGEST_INTEGER:
        raise ParamError(f"{name} must be a 64-bit integer, not {text}")
    value: ParameterValue = TypedParameter(name, value=typed).get_parameter_value()
    request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
    (result,) = _call(node, SetParameters, f"{of}/set_parameters", request).results
    if not result.successful:
        raise ParamError(f"{name} was not changed: {result.reason}")


def _call(node: Node, kind: Any, service: str, request: Any) -> Any:
    """Return the answer of a service; raises ParamError where none comes."""
    client = node.create_client(kind, service)
    try:
        if client.wait_for_service(LOOKED_FOR):
            future = client.call_async(request)
            end = time.monotonic() + LOOKED_FOR
            while not future.done() and time.monotonic() < end:
                rclpy.spin_until_future_complete(node, future, timeout_sec=SPIN_SECONDS)
            if future.done():
                return future.result()
    finally:
        node.destroy_client(client)
    raise ParamError(f"{service} does not answer; check whether that node is running")


def main() -> int:
    """Do what the command line says; the exit status is 1 where it cannot be done."""
    choices = parse(sys.argv[1:])
    try:
        # rclpy's own handler would end the context while it is being used, which is an error.
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("param")
        of = find(node, choices.node)
        if choices.command == "set":
            change(node, of, choices.name, choices.value)
        value = get(node, of, choices.name)
        print(f"{of}: {choices.name} is {list(value) if isinstance(value, list | tuple) else value}")
    except (ParamError, ConfigError) as error:
        print(f"binvpr param: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
