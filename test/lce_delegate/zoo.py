# SPDX-License-Identifier: Apache-2.0
"""Writes a network of larq-zoo, with random weights, as a .tflite file: zoo.py <network> <file>.

It is a script for an environment of its own, because larq-zoo needs Keras 2 and much else of its time:

    python3.11 -m venv .venv-zoo
    .venv-zoo/bin/pip install larq-zoo larq tf_keras tensorflow-cpu larq-compute-engine

Building and converting takes one to four minutes; test_models.py keeps the files in that folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

INPUT = (64, 64, 3)


def main(network: str, output: Path) -> None:
    """Build, convert, write."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import larq_compute_engine as lce
    import larq_zoo
    import numpy as np
    import tensorflow as tf

    tf.keras.utils.set_random_seed(20)
    family = larq_zoo.sota if hasattr(larq_zoo.sota, network) else larq_zoo.literature
    model = getattr(family, network)(input_shape=INPUT, weights=None, include_top=False)
    # Batch norms begin as the identity, which is not what a trained network's thresholds and scales look like.
    rng = np.random.default_rng(20)
    for weight in model.weights:
        kind = weight.name.split("/")[-1].partition(":")[0]
        if kind in {"beta", "moving_mean"}:
            weight.assign(rng.normal(0, 0.5, weight.shape))
        elif kind in {"gamma", "moving_variance"}:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    output.write_bytes(lce.convert_keras_model(model))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
