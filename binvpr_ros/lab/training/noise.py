# SPDX-License-Identifier: Apache-2.0
"""How much of a model's descriptor changes though nothing does: the noise of the camera alone.

A node makes a keyframe of what has changed by more; otherwise a robot at rest would fill its map.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import hamming
from binvpr_ros.recordings.world import World, drive

VIEWS = 50
SIGMA = 4.0
"""Standard deviation of the sensor's noise, in grey values: that of a small camera in a room."""


def measure_noise(network: DescriptorNetwork, seed: int = 0) -> float:
    """Return the share of bits that differ, at most, between two images of one view of the rendered building."""
    rng = np.random.default_rng(seed)
    world = World()

    def descriptor(view: NDArray[np.uint8]) -> NDArray[np.uint64]:
        noisy = np.rint(view + rng.normal(0, SIGMA, view.shape))
        return network.describe(np.clip(noisy, 0, 255).astype(np.uint8)).descriptor

    views = [world.render(*place) for place in drive(VIEWS)]
    changes = [int(hamming(descriptor(view), descriptor(view))) / network.card.descriptor_bits for view in views]
    return round(max(changes), 4)
