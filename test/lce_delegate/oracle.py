# SPDX-License-Identifier: Apache-2.0
"""Interpreters in processes of their own: the Larq Compute Engine's, and the two that the delegate is for.

Each of the three brings its own TensorFlow Lite, and some want another NumPy than these tests; in one process they
clash. Run as a script, this file is such a process: requests come on its standard input, answers leave on its standard
output. It needs nothing but NumPy and the interpreter.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

# Not every interpreter's environment has this package.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

Arrays = Sequence[NDArray[Any]]
"""The inputs or the outputs of one invocation."""

Runtime = Literal["lce", "ai_edge_litert", "tflite_runtime"]
LceKernel = Literal["reference", "default", "indirect"]


class InterpreterError(RuntimeError):
    """An interpreter refused a model; the message is all that it wrote."""


class InterpreterDiedError(RuntimeError):
    """An interpreter took its process with it; the message is all that it wrote."""


@dataclass(frozen=True)
class Lce:
    """How the Larq Compute Engine is to run a model."""

    kernel: LceKernel = "reference"
    xnnpack: bool = False
    threads: int = 1


@dataclass(frozen=True)
class Litert:
    """How ai-edge-litert or tflite-runtime is to run a model: with the delegate at `library`, and its options."""

    library: Path | None
    """The delegate's; None for the interpreter alone."""
    kernel: str = "auto"
    threads: int = 1
    xnnpack: bool = False


class Part(NamedTuple):
    """A node of the delegate: the tensors that it reads, constants among them, and those that others read of it."""

    inputs: list[int]
    outputs: list[int]


class Job(NamedTuple):
    """A model and the inputs to run it on, one invocation after the other in the same interpreter.

    An input's shape may differ from that before it, or from the file's, where the interpreter can resize.
    """

    model: bytes
    feeds: Sequence[Arrays]


class Interpreter:
    """An interpreter in a process of its own, started when first needed and again after it died."""

    def __init__(self, runtime: Runtime, python: Path = Path(sys.executable)) -> None:
        self._command = [str(python), "-u", __file__, runtime]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115

    def run(self, model: bytes, inputs: Arrays, how: Lce | Litert) -> Arrays:
        """Return the outputs of `model`; raises as `run_jobs` does."""
        return self.run_jobs([Job(model, [inputs])], how)[0][0]

    def run_jobs(self, jobs: Sequence[Job], how: Lce | Litert) -> list[list[Arrays]]:
        """Return the outputs of each invocation of each job. Several jobs run at once, each in a thread of its own.

        Raises InterpreterError where a model is refused, and InterpreterDiedError where the process ends.
        """
        request = [(job.model, [_flatten(inputs) for inputs in job.feeds]) for job in jobs]
        answer = self._ask("run", request, how)
        return [[_unflatten(outputs) for outputs in invocations] for invocations in answer]

    def parts(self, model: bytes, how: Litert) -> list[Part]:
        """Return what the delegate takes over of `model`; raises as `run_jobs` does."""
        return [Part(*part) for part in self._ask("parts", model, how)]

    def _ask(self, question: str, request: Any, how: Lce | Litert) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=ENVIRONMENT
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        start = self._log.seek(0, os.SEEK_END)
        try:
            _send(process.stdin, (question, request, vars(how)))
            answer, error = pickle.load(process.stdout)  # noqa: S301
        except (EOFError, BrokenPipeError):
            self._process = None
            raise InterpreterDiedError(f"status {process.wait()}\n{self._written(start)}") from None
        if error is not None:
            raise InterpreterError(f"{error}\n{self._written(start)}")
        return answer

    def _written(self, start: int) -> str:
        self._log.seek(start)
        return self._log.read().decode(errors="replace").strip()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
        self._log.close()


# Arrays travel as type, shape and bytes: not every version of NumPy reads what another one pickled.
_Flat = list[tuple[str, tuple[int, ...], bytes]]


def _flatten(arrays: Arrays) -> _Flat:
    return [(array.dtype.str, array.shape, array.tobytes()) for array in arrays]


def _unflatten(flat: _Flat) -> Arrays:
    return [np.frombuffer(octets, dtype).reshape(shape) for dtype, shape, octets in flat]


def _send(stream: IO[bytes], message: Any) -> None:
    pickle.dump(message, stream, protocol=4)
    stream.flush()


def _run_lce(module: Any, job: Job, how: dict[str, Any]) -> list[Arrays]:
    kernel = how["kernel"]
    interpreter = module.LiteInterpreter(
        job.model, how["threads"], kernel == "reference", kernel == "indirect", how["xnnpack"]
    )
    # What `predict` returns are views of the tensors.
    return [[np.array(output) for output in interpreter.predict(list(inputs))] for inputs in job.feeds]


def _load_litert(module: Any, model: bytes, how: dict[str, Any]) -> Any:
    delegates = []
    if how["library"] is not None:
        options = {"threads": str(how["threads"]), "kernel": how["kernel"]}
        delegates.append(module.load_delegate(str(how["library"]), options))
    resolver = module.OpResolverType
    interpreter = module.Interpreter(
        model_content=model,
        # With more, the builtin operators add up floats in another order, and now and then a sign turns.
        num_threads=1,
        experimental_delegates=delegates,
        experimental_op_resolver_type=resolver.AUTO if how["xnnpack"] else resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return interpreter


def _run_litert(module: Any, job: Job, how: dict[str, Any]) -> list[Arrays]:
    interpreter = _load_litert(module, job.model, how)
    outputs: list[Arrays] = []
    for inputs in job.feeds:
        details = interpreter.get_input_details()
        for detail, values in zip(details, inputs, strict=True):
            if tuple(detail["shape"]) != values.shape:
                interpreter.resize_tensor_input(detail["index"], values.shape)
                interpreter.allocate_tensors()
        for detail, values in zip(details, inputs, strict=True):
            interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
        outputs.append([interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()])
    return outputs


def _parts(module: Any, model: bytes, how: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    nodes = _load_litert(module, model, how)._get_ops_details()
    ours = [node for node in nodes if node["op_name"] == "DELEGATE"]
    return [(node["inputs"].tolist(), node["outputs"].tolist()) for node in ours]


def serve(runtime: Runtime) -> None:
    """Answer requests until the standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    # What an interpreter prints must not get between the answers.
    os.dup2(2, 1)
    if runtime == "lce":
        from binvpr_ros.lab.lce_process import load_interpreter

        module = load_interpreter()
        run: Any = _run_lce
    else:
        module = importlib.import_module(f"{runtime}.interpreter")
        run = _run_litert
    while True:
        try:
            question, request, how = pickle.load(sys.stdin.buffer)  # noqa: S301
        except EOFError:
            return
        try:
            if question == "parts":
                answer: Any = _parts(module, request, how)
            else:
                jobs = [Job(model, [_unflatten(inputs) for inputs in feeds]) for model, feeds in request]
                with ThreadPoolExecutor(len(jobs)) as threads:
                    results = list(threads.map(partial(run, module, how=how), jobs))
                answer = [[_flatten(outputs) for outputs in invocations] for invocations in results]
        except (RuntimeError, ValueError) as error:
            _send(answers, (None, str(error)))
        else:
            _send(answers, (answer, None))


if __name__ == "__main__":
    serve(cast(Runtime, sys.argv[1]))
