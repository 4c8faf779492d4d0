# SPDX-License-Identifier: Apache-2.0
"""Parameters of a node, declared as config.py describes them."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from binvpr_ros.config import Parameters

Kind = TypeVar("Kind", bound=Parameters)


def declared(node: Node, kind: type[Kind]) -> Kind:
    """Declare all parameters of a kind, and return those that the user asked for; raises ConfigError.

    Warns of overrides that are none of them: a misspelt one would have no effect.
    """
    for parameter in kind.parameters():
        node.declare_parameter(parameter.name, parameter.default, descriptor_of(parameter))
    known = ["use_sim_time", *(parameter.name for parameter in kind.parameters())]
    # rclpy has no other way to them: it can declare all overrides, but not those of an empty list.
    for name in sorted(getattr(node, "_parameter_overrides", ())):
        if not node.has_parameter(name):
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            node.get_logger().warning(f"{name} is not a parameter of this node and is ignored{meant}")
    return kind(**{parameter.name: node.get_parameter(parameter.name).value for parameter in kind.parameters()})


def descriptor_of(parameter: Any) -> ParameterDescriptor:
    """Return the ROS description of one parameter of config.py."""
    facts = parameter.metadata
    unit = f" [{facts['unit']}]" if facts["unit"] else ""
    descriptor = ParameterDescriptor(
        name=parameter.name,
        description=facts["sentence"] + unit,
        additional_constraints=f"one of {', '.join(facts['choices'])}" if facts["choices"] else "",
        read_only=not facts["live"],
        dynamic_typing=True,  # so that 10 is as good as 10.0; config.py checks the type
    )
    if facts["low"] is not None:
        if isinstance(parameter.default, int):
            descriptor.integer_range = [IntegerRange(from_value=facts["low"], to_value=facts["high"], step=1)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=facts["low"], to_value=facts["high"])]
    return descriptor
