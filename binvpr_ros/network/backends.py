# SPDX-License-Identifier: Apache-2.0
"""What runs a model: the TensorFlow Lite runtimes, with or without the delegate for Larq operators."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from binvpr_ros import lce_delegate
from binvpr_ros.installation import how_to_install


class DescriptorError(RuntimeError):
    """The model cannot be loaded or run here; the message says what to install or change."""


class Backend(Protocol):
    """What runs a model; another one is a class that has this, and a line in BACKENDS."""

    name: str
    """What `benchmark` and the log report."""
    input_shape: tuple[int, ...]
    input_dtype: np.dtype[Any]

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return the first output for `batch`."""


class LitertBackend(Backend):
    """ai-edge-litert, or tflite-runtime where that is what is installed; for models without Larq operators.

    `untried_runtime` admits versions of them in which the delegate was never tried.
    """

    name = "litert"
    MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")

    def __init__(self, model: bytes, threads: int, untried_runtime: bool = False) -> None:
        self._untried_runtime = untried_runtime
        if not _has_graph(model):
            raise DescriptorError("the model cannot be loaded (it has no graph); use one that train_offline wrote")
        runtime = self._import()
        delegates = self._delegates(runtime, threads)
        try:
            self.interpreter = runtime.Interpreter(
                model_content=model, num_threads=threads, experimental_delegates=delegates
            )
            self.interpreter.allocate_tensors()
            inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        except SystemError:  # how tflite-runtime reports that it was made for another NumPy
            raise DescriptorError(
                f"{runtime.__name__.partition('.')[0]} does not work with NumPy {np.__version__}; "
                f"{how_to_install('ai-edge-litert')}"
            ) from None
        except (RuntimeError, ValueError) as error:  # also that names in the model are no UTF-8
            # The first line is the cause; runtimes add what they tried after it.
            reason = str(error).strip().partition("\n")[0]
            if b"LceBconv2d" in model and not delegates:
                raise DescriptorError(
                    "the backend litert does not know the Larq operators of this model; use the backend delegate"
                ) from None
            raise DescriptorError(f"the model cannot be loaded ({reason}); use one that train_offline wrote") from None
        if not inputs or not outputs:
            raise DescriptorError("the model has no input or no output; use one that train_offline wrote")
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self.input_shape = tuple(int(side) for side in inputs[0]["shape"])
        self.input_dtype = np.dtype(inputs[0]["dtype"])

    @classmethod
    def _import(cls) -> Any:
        for name in cls.MODULES:
            try:
                return importlib.import_module(name)
            except ImportError:
                continue
        raise DescriptorError(f"Python finds no TensorFlow Lite runtime; {how_to_install('ai-edge-litert')}")

    def _delegates(self, _runtime: Any, _threads: int) -> list[Any]:
        return []

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return the first output for `batch`."""
        self.interpreter.set_tensor(self._input, batch)
        self.interpreter.invoke()
        return np.asarray(self.interpreter.get_tensor(self._output))


def _has_graph(model: bytes) -> bool:
    """Whether a flatbuffer has what the schema calls subgraphs: runtimes read them without asking."""
    subgraphs = 2  # their place in the table Model
    try:
        (root,) = struct.unpack_from("<I", model)
        (back,) = struct.unpack_from("<i", model, root)
        fields, _, *offsets = struct.unpack_from(f"<{2 + subgraphs + 1}H", model, root - back)
    except struct.error:
        return False
    return fields >= 2 * (2 + subgraphs + 1) and offsets[subgraphs] != 0


class DelegateBackend(LitertBackend):
    """The same runtimes, with this package's delegate for the Larq operators; `kernel` is one of its `kernels()`.

    With `profile` it keeps the times of operators, for `lce_delegate.take_profile`.
    """

    name = "delegate"

    def __init__(
        self, model: bytes, threads: int, untried_runtime: bool = False, kernel: str = "auto", profile: bool = False
    ) -> None:
        self.kernel = kernel
        self._options = {"threads": str(threads), "kernel": kernel} | ({"profile": "1"} if profile else {})
        super().__init__(model, threads, untried_runtime)

    def _delegates(self, runtime: Any, _threads: int) -> list[Any]:
        try:
            package = runtime.__name__.partition(".")[0]
            version = importlib.import_module(package).__version__
            lce_delegate.check_runtime(package, version, at_own_risk=self._untried_runtime)
            path = str(lce_delegate.library())
            return [runtime.load_delegate(path, self._options)]
        except (lce_delegate.DelegateError, OSError, ValueError) as error:
            # Before the delegate's own sentence runtimes put a line with its path.
            raise DescriptorError(str(error).strip().rpartition("\n")[2]) from None


BACKENDS: dict[str, Callable[[bytes, int, bool], Backend]] = {"delegate": DelegateBackend, "litert": LitertBackend}
"""What runs a model, in the order in which `auto` tries them."""


def load_backend(name: str, model: bytes, threads: int, untried_runtime: bool = False) -> Backend:
    """Load `model` into the backend of that name, for `auto` into the first that takes it."""
    if name != "auto":
        return BACKENDS[name](model, threads, untried_runtime)
    refusals = []
    for backend in BACKENDS.values():
        try:
            return backend(model, threads, untried_runtime)
        except DescriptorError as error:
            refusals.append(str(error))
    raise DescriptorError("no backend can run the model: " + "; ".join(dict.fromkeys(refusals)))
