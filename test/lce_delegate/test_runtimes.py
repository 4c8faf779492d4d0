# SPDX-License-Identifier: Apache-2.0
"""The delegate is loaded into runtimes that it was tried in, and into others at the user's own risk."""

from __future__ import annotations

import re

import pytest

from binvpr_ros.lce_delegate import TRIED_RUNTIMES, DelegateError, check_runtime


@pytest.mark.parametrize("name", TRIED_RUNTIMES)
def test_the_runtime_of_this_environment_was_tried(name: str) -> None:
    runtime = pytest.importorskip(name, reason=f"{name} is not installed")
    check_runtime(name, runtime.__version__)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("ai_edge_litert", "1.4.0"),
        ("ai_edge_litert", "2.1.0"),
        ("ai_edge_litert", "2.3.0"),
        ("ai_edge_litert", "2.3.7"),  # mends 2.3
        ("ai_edge_litert", "2.3"),
        ("tflite_runtime", "2.13.0"),
        ("tflite_runtime", "2.14.0"),
    ],
)
def test_tried_versions(name: str, version: str) -> None:
    check_runtime(name, version)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("ai_edge_litert", "2.4.0"),
        ("ai_edge_litert", "2.30.0"),
        ("ai_edge_litert", "3.0.0"),
        ("ai_edge_litert", "1.0.1"),
        ("ai_edge_litert", "2.14.0"),  # of the other runtime
        ("ai_edge_litert", "2.3.0.dev20260101"),
        ("ai_edge_litert", ""),
        ("tflite_runtime", "2.12.0"),
        ("tflite_runtime", "2.1.0"),
    ],
)
def test_other_versions_are_refused_in_a_sentence_and_taken_at_own_risk(name: str, version: str) -> None:
    with pytest.raises(DelegateError, match=re.escape(f"was not tried in {name} {version} ")) as caught:
        check_runtime(name, version)
    message = str(caught.value)
    assert all(release in message for release in TRIED_RUNTIMES[name])
    assert re.fullmatch(r"[^;]+; [^;]*untried_runtime[^;]*own risk", message)
    check_runtime(name, version, at_own_risk=True)


@pytest.mark.parametrize("at_own_risk", [False, True])
def test_another_runtime_has_other_structs(at_own_risk: bool) -> None:
    with pytest.raises(DelegateError, match="does not know the runtime tensorflow; use ai_edge_litert or"):
        check_runtime("tensorflow", "2.21.0", at_own_risk=at_own_risk)
