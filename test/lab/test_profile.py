# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from binvpr_ros import lce_delegate
from binvpr_ros.config import LOCAL_MODEL, Config, model_path, share_directory
from binvpr_ros.lab.benchmark import binary_layers
from binvpr_ros.lab.profile import BINARY, by_kind, profile, table
from binvpr_ros.lce_delegate import OperatorTimes


def test_the_operators_of_the_packaged_network_make_up_its_time() -> None:
    content = model_path(Config()).read_bytes()
    figures = profile(content, "auto", 5)
    layers = [one for one in figures["operators"] if one["name"].startswith(BINARY)]
    assert len(layers) == 16
    assert all(0 < one["of_limit"] < 1.1 for one in layers)
    work = sum(one["gmacs"] * one["ms"] for one in layers) * 1e6
    assert work == pytest.approx(binary_layers(content)[1], rel=0.02)
    for one in figures["operators"]:
        if "gmacs" in one:
            assert one["staging"] + one["counting"] + one["output"] == pytest.approx(one["ms"], abs=1e-3)
            assert one["counting"] > 0
    ours = sum(one["ms"] for one in figures["operators"])
    assert ours + figures["others_ms"] == pytest.approx(figures["total_ms"], rel=0.01)
    assert figures["others_ms"] > 0
    assert 0 < figures["least_ms"] <= figures["total_ms"]


def test_every_kernel_and_any_input_size_is_profiled() -> None:
    content = (share_directory() / "models" / LOCAL_MODEL).read_bytes()
    for kernel in lce_delegate.kernels():
        figures = profile(content, kernel, 1, (96, 128))
        assert figures["input"] == [1, 96, 128, 1]
        assert figures["kernel"] == kernel
        text = table("local", figures)
        assert f"local, 128x96, kernel {kernel} (" in text
        assert f"| {BINARY} (11) |" in text
        assert "| all |" in text


def test_what_nobody_asked_for_is_not_kept() -> None:
    profile(model_path(Config()).read_bytes(), "auto", 1)
    assert lce_delegate.take_profile() == []


def test_operators_of_one_name_are_added_up() -> None:
    found = by_kind([
        OperatorTimes("ADD", 0, 2, 1.0, 0.0, 0.0, 0.0),
        OperatorTimes(f"{BINARY} + ADD", 10, 2, 3.0, 0.5, 2.0, 0.5),
        OperatorTimes(f"{BINARY} + LceQuantize", 5, 2, 1.0, 0.0, 0.75, 0.25),
    ])  # fmt: skip
    assert found == [
        OperatorTimes(f"{BINARY} (2)", 15, 2, 4.0, 0.5, 2.75, 0.75),
        OperatorTimes("ADD (1)", 0, 2, 1.0, 0.0, 0.0, 0.0),
    ]
