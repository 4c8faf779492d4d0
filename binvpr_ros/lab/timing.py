# SPDX-License-Identifier: Apache-2.0
"""Times of things that are run in turns, so that a change of the machine's speed meets all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

WARM_UP = 5
TURN = 5

Timer = Callable[[int], list[float]]
"""Runs something so many times, one after the other, and returns the times in milliseconds."""


def timer(work: Callable[[], Any]) -> Timer:
    """Return a timer of `work`."""

    def run(count: int) -> list[float]:
        times = []
        for _ in range(count):
            start = time.perf_counter()
            work()
            times.append((time.perf_counter() - start) * 1e3)
        return times

    return run


def measure(timers: dict[str, Timer], repeat: int) -> dict[str, list[float]]:
    """Run all in turns, so that a change of the machine's speed meets all; return the times [repeat] of each."""
    times: dict[str, list[float]] = {name: [] for name in timers}
    for run in timers.values():
        run(WARM_UP)
    for start in tqdm(range(0, repeat, TURN), desc="benchmark", file=sys.stderr):
        for name, run in timers.items():
            times[name] += run(min(TURN, repeat - start))
    return times


def figures_of(times: list[float]) -> dict[str, Any]:
    """Return what is reported of a series of times. The least says most where other processes run meanwhile."""
    return {
        "least_ms": round(min(times), 3),
        "median_ms": round(float(np.median(times)), 3),
        "p95_ms": round(float(np.percentile(times, 95)), 3),
    }
