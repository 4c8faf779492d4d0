# SPDX-License-Identifier: Apache-2.0
"""The Larq Compute Engine's own interpreter, in a process and an environment of its own: it needs NumPy < 2.

`make oracle` makes the environment. Run as a script, this file is that process: it needs NumPy and larq-compute-engine.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

ENVIRONMENT = ".venv-lce"
MODES = ("default", "indirect")


class LceError(RuntimeError):
    """The Larq Compute Engine cannot be run here; the message says what to do."""


def find_python() -> Path:
    """Return the Python of the environment, beside this checkout or in the current folder."""
    for folder in (Path(__file__).resolve().parents[2], Path.cwd()):
        python = folder / ENVIRONMENT / "bin" / "python"
        if python.exists():
            return python
    raise LceError(f"there is no {ENVIRONMENT} with the Larq Compute Engine; run: make oracle (x86-64)")


class LceProcess:
    """A model in the Larq Compute Engine's default and indirect mode, both with XNNPACK, ready to be timed."""

    def __init__(self, model: Path, threads: int) -> None:
        command = [str(find_python()), __file__, str(model), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> LceProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def times(self, mode: str, count: int) -> list[float]:
        """Return the times [count] in milliseconds of as many runs, one after the other. Raises LceError."""
        stdin, stdout = self._process.stdin, self._process.stdout
        answer = ""
        if stdin is not None and stdout is not None and self._process.poll() is None:
            stdin.write(f"{mode} {count}\n")
            stdin.flush()
            answer = stdout.readline()
        if not answer:
            raise LceError(
                "the Larq Compute Engine cannot run this model, or its environment is broken; run: make oracle"
            )
        times: list[float] = json.loads(answer)
        return times


def load_interpreter() -> Any:
    """Return the interpreter's extension module alone: its package would import all of TensorFlow."""
    package = importlib.util.find_spec("larq_compute_engine")
    roots = package.submodule_search_locations or () if package else ()
    folders = [str(Path(root) / "tflite" / "python") for root in roots]
    spec = importlib.machinery.PathFinder.find_spec("interpreter_wrapper_lite", folders)
    if spec is None or spec.loader is None:
        raise ImportError("larq-compute-engine is not installed")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_input(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return an input for a model, or for the packed bits in the middle of one."""
    rng = np.random.default_rng(0)
    if dtype == np.float32:
        return rng.standard_normal(shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def _serve(model: Path, threads: int) -> None:
    module, content = load_interpreter(), model.read_bytes()
    reference, xnnpack = False, True
    interpreters = {
        mode: module.LiteInterpreter(content, threads, reference, mode == "indirect", xnnpack) for mode in MODES
    }
    for line in sys.stdin:
        mode, count = line.split()
        interpreter, times = interpreters[mode], []
        inputs = [
            random_input(tuple(shape), np.dtype(dtype))
            for shape, dtype in zip(interpreter.input_shapes, interpreter.input_types, strict=False)
        ]
        for _ in range(int(count)):
            start = time.perf_counter()
            interpreter.predict(inputs)
            times.append((time.perf_counter() - start) * 1e3)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
