# SPDX-License-Identifier: Apache-2.0
"""Every system that the paper compares, by its name, and the networks that are deployed.

`build` makes each for training (any backend of Keras) and for export (TensorFlow). A network has one or more recipes:
`deploy` is truly binary; `paper` is what was published, of which not everything is binary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras

from binvpr_ros.lab.training.networks import binvpr, comparison
from binvpr_ros.lab.training.networks.binvpr import DESCRIPTOR_BITS
from binvpr_ros.lab.training.networks.layers import BinaryConv2D, PairConv2D, QuantizedConv2D
from binvpr_ros.lab.training.recipes import RECIPES

__all__ = [
    "DESCRIPTOR_BITS",
    "NETWORKS",
    "RECIPES",
    "BinaryConv2D",
    "Network",
    "PairConv2D",
    "QuantizedConv2D",
    "binvpr20",
    "build",
    "find",
]

Network = Callable[..., keras.Model]
"""What makes a network: a function of (input_size, classes, for_export)."""

NETWORKS: dict[str, dict[str, Network]] = {**binvpr.NETWORKS, **comparison.NETWORKS}
"""Every network by its name, and in it by its recipe."""


def find(network: str, recipe: str) -> Network:
    """Return what makes `network` after `recipe`; raises ValueError where either is not known."""
    if network not in NETWORKS:
        raise ValueError(f"no network is called {network!r}; known are {', '.join(sorted(NETWORKS))}")
    recipes = NETWORKS[network]
    if recipe not in recipes:
        raise ValueError(f"{network} has no recipe {recipe!r}; known are {', '.join(sorted(recipes))}")
    return recipes[recipe]


def build(
    network: str, recipe: str, input_size: int, classes: int | None = None, for_export: bool = False
) -> keras.Model:
    """Build `network` after `recipe` for RGB images [N, input_size, input_size, 3] float32 from 0 to 255.

    Outputs: `descriptor` float32 [N,D], D <= 2048, whose signs are the bits; with `classes` also `logits` [N,classes].
    With `for_export` the input is scaled to `layers.IMAGE_RANGE` already, as the converter's uint8 input will be.
    Raises ValueError for what is not known, or an input size that does not fit.
    """
    return find(network, recipe)(input_size, classes, for_export)


binvpr20 = partial(build, "binvpr20", "deploy")
"""The paper's layout, truly binary."""
