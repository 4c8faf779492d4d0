# SPDX-License-Identifier: Apache-2.0
"""`benchmark`: how long the descriptor of one image takes on this machine."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.config import BACKENDS, Config, ConfigError, model_path
from binvpr_ros.descriptor import DescriptorError, DescriptorNetwork
from binvpr_ros.model_card import ModelCardError

WARM_UP = 5
FRAME = (480, 640, 3)


def cpu_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()


def measure(network: DescriptorNetwork, repeat: int) -> NDArray[np.float64]:
    """Return the times [repeat] in milliseconds from a 640x480 image to its packed descriptor."""
    frame = np.random.default_rng(0).integers(0, 256, FRAME, np.uint8)
    times = []
    for number in tqdm(range(WARM_UP + repeat), desc="benchmark", file=sys.stderr):
        start = time.perf_counter()
        network.describe(frame)
        if number >= WARM_UP:
            times.append((time.perf_counter() - start) * 1e3)
    return np.array(times)


def main() -> int:
    """Measure what the command line names; the exit status is 1 where the model cannot be run."""
    parser = argparse.ArgumentParser(prog="benchmark", description=__doc__)
    parser.add_argument("--model", default="", help="model file (default: the packaged one)")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--repeat", type=int, default=100, help="images to measure (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    choices = parser.parse_args()
    if choices.repeat < 1:
        parser.error(f"--repeat must be at least 1, not {choices.repeat}")
    try:
        config = Config(model=choices.model, backend=choices.backend, threads=choices.threads)
        network = DescriptorNetwork(model_path(config), config.backend, config.threads)
    except (ConfigError, DescriptorError, ModelCardError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    times = measure(network, choices.repeat)
    figures = {
        "model": network.card.name,
        "median_ms": round(float(np.median(times)), 3),
        "p95_ms": round(float(np.percentile(times, 95)), 3),
        "threads": config.threads,
        "backend": network.backend.name,
        "cpu": cpu_name(),
    }
    for name, value in figures.items():
        print(f"{name:10} {value}")
    if choices.json:
        choices.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
