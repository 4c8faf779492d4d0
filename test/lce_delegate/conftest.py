# SPDX-License-Identifier: Apache-2.0
"""The interpreters that the delegate is tested in, and the one that it is held against."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lce_delegate.oracle import Interpreter, Runtime

# The Larq Compute Engine and tflite-runtime want NumPy 1 and therefore an environment of their own.
NUMPY1_PYTHON = Path(__file__).resolve().parents[2] / ".venv-lce" / "bin" / "python"

# Under an emulator, which is about twenty times slower: pytest --hypothesis-profile=emulated
settings.register_profile("emulated", max_examples=5, deadline=None)


@pytest.fixture(scope="session")
def lce() -> Iterator[Interpreter]:
    """The Larq Compute Engine's own interpreter."""
    required = os.environ.get("CI") == "true" and platform.machine() != "aarch64"
    if not NUMPY1_PYTHON.exists() and not required:
        pytest.skip("the Larq Compute Engine is not here; on x86-64 run: make oracle")
    interpreter = Interpreter("lce", NUMPY1_PYTHON)
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="session", params=["ai_edge_litert", "tflite_runtime"])
def litert(request: pytest.FixtureRequest) -> Iterator[Interpreter]:
    """An interpreter that the delegate is for."""
    runtime: Runtime = request.param
    apart = runtime == "tflite_runtime" and NUMPY1_PYTHON.exists() and platform.machine() != "aarch64"
    python = NUMPY1_PYTHON if apart else Path(sys.executable)
    if subprocess.run(
        [python, "-c", f"import {runtime}.interpreter"], stderr=subprocess.DEVNULL, check=False
    ).returncode:
        pytest.skip(f"{runtime} is not installed")
    interpreter = Interpreter(runtime, python)
    yield interpreter
    interpreter.close()
