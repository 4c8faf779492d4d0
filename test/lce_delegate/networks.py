# SPDX-License-Identifier: Apache-2.0
"""Writes the binary layers of BinVPR-20 with random weights, to be timed: networks.py plain|shortcuts <file>.

.venv/bin/python test/lce_delegate/networks.py plain plain.tflite
.venv/bin/python test/lce_delegate/networks.py shortcuts shortcuts.tflite
.venv/bin/benchmark --model plain.tflite --versus shortcuts.tflite
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lce_delegate.models import Graph
from lce_delegate.reference import Convolution

WIDTHS = (128, 256, 384, 512)
CONVOLUTIONS_PER_BLOCK = 4


def binvpr20(shortcuts: bool, size: int = 32, bits: int = 128) -> bytes:
    """Return the model: an input [1, size, size, 128] float32, 16 binary convolutions, their last result.

    With `shortcuts` an identity stands around each convolution; where the image halves and the width grows, it is
    pooled and filled up with zero channels.
    """
    rng = np.random.default_rng(20)
    graph = Graph()
    x = graph.input((1, size, size, bits))
    packed = None if shortcuts else graph.quantize(x)
    channels = bits
    for width in WIDTHS:
        for number in range(CONVOLUTIONS_PER_BLOCK):
            stride = 2 if number == 0 else 1
            last = width == WIDTHS[-1] and number == CONVOLUTIONS_PER_BLOCK - 1
            scale = np.full(width, (9 * channels) ** -0.5, np.float32)
            convolution = Convolution(
                rng.random((width, 3, 3, channels)) < 0.5,
                padding="SAME",
                stride=(stride, stride),
                pad_value=1,
                **(
                    {"multiplier": scale, "bias": np.zeros(width, np.float32)}
                    if shortcuts or last
                    else {"dtype": np.int32, "thresholds": np.full(width, 9 * channels // 2, np.int32)}
                ),
            )
            if packed is None:
                branch = graph.bconv2d(graph.quantize(x), convolution)
                if stride == 2:
                    x = graph.average_pool(x, (2, 2))
                    x = graph.pad_channels(x, width) if width > channels else x
                x = graph.add(branch, x)
            else:
                packed = graph.bconv2d(packed, convolution)
            channels = width
    return graph.serialize(x if packed is None else packed)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(binvpr20(sys.argv[1] == "shortcuts"))
