# SPDX-License-Identifier: Apache-2.0
"""`benchmark --profile`: what each operator of a network takes, and how near the binary ones come to the limit."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from binvpr_ros import lce_delegate
from binvpr_ros.lab.timing import WARM_UP
from binvpr_ros.lce_delegate import OperatorTimes
from binvpr_ros.network.backends import DelegateBackend

BINARY = "LceBconv2d"
HEADINGS = ("operator", "ms", "staging", "counting", "output", "GMAC/s", "of limit")


def profile(model: bytes, kernel: str, repeat: int, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Run a network `repeat` times with one thread; return what its operators took.

    `size` is the height and width of its input, where that is not the file's own. Times are medians, in milliseconds,
    since another process may run meanwhile: `others_ms` is what the runtime and its own operators take beside those of
    the delegate, and `total_ms` the sum of all these medians; `least_ms` is that of what each took at least.
    """
    backend = DelegateBackend(model, 1, kernel=kernel, profile=True)
    interpreter, details = backend.interpreter, backend.interpreter.get_input_details()[0]
    shape = list(details["shape"])
    if size is not None:
        shape[1:3] = size
        interpreter.resize_tensor_input(details["index"], shape)
        interpreter.allocate_tensors()
    image = np.random.default_rng(0).integers(0, 256, shape).astype(details["dtype"])
    interpreter.set_tensor(details["index"], image)
    for _ in range(WARM_UP):
        interpreter.invoke()
    lce_delegate.take_profile()
    others, runs = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        interpreter.invoke()
        total = (time.perf_counter() - start) * 1e3
        runs.append(lce_delegate.take_profile())
        others.append(total - sum(one.total for one in runs[-1]))
    # Of each operator the run that took as long as half of the others did not: its parts make up its time.
    operators = [sorted(ones, key=lambda one: one.total)[repeat // 2] for ones in zip(*runs, strict=True)]
    rest = float(np.median(others))
    least = min(others) + sum(min(one.total for one in ones) for ones in zip(*runs, strict=True))
    kernel = lce_delegate.kernels()[0] if kernel == "auto" else kernel
    limit = lce_delegate.peak(kernel)
    return {
        "input": [int(side) for side in shape],
        "kernel": kernel,
        "limit_gmacs": round(limit, 1),
        "total_ms": round(rest + sum(one.total for one in operators), 3),
        "least_ms": round(least, 3),
        "others_ms": round(rest, 3),
        "operators": [_figures(one, limit) for one in operators],
        "by_kind": [_figures(one, limit) for one in by_kind(operators)],
    }


def by_kind(operators: Iterable[OperatorTimes]) -> list[OperatorTimes]:
    """Return operators with those of one name added up, the longest first."""
    kinds: dict[str, list[OperatorTimes]] = {}
    for one in operators:
        kinds.setdefault(one.name.partition(" + ")[0], []).append(one)
    sums = [
        OperatorTimes(
            f"{name} ({len(ones)})",
            sum(one.work for one in ones),
            ones[0].runs,
            sum(one.total for one in ones),
            sum(one.staging for one in ones),
            sum(one.counting for one in ones),
            sum(one.output for one in ones),
        )
        for name, ones in kinds.items()
    ]
    return sorted(sums, key=lambda one: -one.total)


def _figures(one: OperatorTimes, limit: float) -> dict[str, Any]:
    """Return the figures of a run; `of_limit` is known of binary layers alone."""
    figures: dict[str, Any] = {"name": one.name, "ms": round(one.total / one.runs, 4)}
    if one.work:
        parts = {"staging": one.staging, "counting": one.counting, "output": one.output}
        figures |= {name: round(taken / one.runs, 4) for name, taken in parts.items()}
        gmacs = one.work * one.runs / one.total * 1e-6
        figures["gmacs"] = round(gmacs, 1)
        if one.name.startswith(BINARY):
            figures["of_limit"] = round(gmacs / limit, 3)
    return figures


def table(name: str, figures: dict[str, Any], all_of_them: bool = False) -> str:
    """Return what `profile` has found of the network of this name, by kind or operator by operator, as Markdown."""
    height, width = figures["input"][1:3]
    lines = [
        f"{name}, {width}x{height}, kernel {figures['kernel']} ({figures['limit_gmacs']:.0f} GMAC/s at most)",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"| --- |{' ---: |' * (len(HEADINGS) - 1)}",
    ]
    for one in figures["operators" if all_of_them else "by_kind"]:
        cells = [one["name"], f"{one['ms']:.3f}"]
        cells += [f"{one[part]:.3f}" if part in one else "" for part in ("staging", "counting", "output")]
        cells += [
            f"{one[part]:{form}}" if part in one else "" for part, form in (("gmacs", ".0f"), ("of_limit", ".0%"))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| the runtime and its operators | {figures['others_ms']:.3f} |{' |' * (len(HEADINGS) - 2)}")
    lines.append(f"| all | {figures['total_ms']:.3f} |{' |' * (len(HEADINGS) - 2)}")
    lines.append(f"| all, each at its fastest | {figures['least_ms']:.3f} |{' |' * (len(HEADINGS) - 2)}")
    return "\n".join(lines)
