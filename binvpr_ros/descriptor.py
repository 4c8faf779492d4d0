# SPDX-License-Identifier: Apache-2.0
"""Image -> binary descriptor: preprocessing, the model's interpreter, bit packing, Hamming distance."""

from __future__ import annotations

import contextlib
import importlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binvpr_ros import lce_delegate
from binvpr_ros.images import Image, as_rgb, resize
from binvpr_ros.model_card import ModelCard

Descriptor = NDArray[np.uint64]
"""uint64, [W]: the packed bits, filled up with zeros to whole words."""

WORD_BITS = 64


class DescriptorError(RuntimeError):
    """The model cannot be loaded or run here; the message says what to install or change."""


class Description(NamedTuple):
    """What the network says of one image."""

    descriptor: Descriptor
    contrast: float  # standard deviation of the grey values, 0 to 127.5


class LitertBackend:
    """ai-edge-litert, or tflite-runtime where that is what is installed; for models without Larq operators.

    `name` is what `benchmark` and the log report.
    """

    name = "litert"
    MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")

    def __init__(self, model: bytes, threads: int) -> None:
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
                "run: pip install ai-edge-litert 'numpy>=1.23.2'"
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
        raise DescriptorError("no TensorFlow Lite runtime is installed; run: pip install ai-edge-litert")

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
    """The same runtimes, with this package's delegate for the Larq operators; `kernel` is one of its `kernels()`."""

    name = "delegate"

    def __init__(self, model: bytes, threads: int, kernel: str = "auto") -> None:
        self.kernel = kernel
        super().__init__(model, threads)

    def _delegates(self, runtime: Any, threads: int) -> list[Any]:
        try:
            path = str(lce_delegate.library())
            return [runtime.load_delegate(path, {"threads": str(threads), "kernel": self.kernel})]
        except (lce_delegate.DelegateError, OSError, ValueError) as error:
            # Before the delegate's own sentence runtimes put a line with its path.
            raise DescriptorError(str(error).strip().rpartition("\n")[2]) from None


BACKENDS: dict[str, Callable[[bytes, int], LitertBackend]] = {"delegate": DelegateBackend, "litert": LitertBackend}
"""What runs a model, in the order in which `auto` tries them."""


def load_backend(name: str, model: bytes, threads: int) -> LitertBackend:
    """Load `model` into the backend of that name, for `auto` into the first that takes it."""
    if name != "auto":
        return BACKENDS[name](model, threads)
    refusals = []
    for backend in BACKENDS.values():
        try:
            return backend(model, threads)
        except DescriptorError as error:
            refusals.append(str(error))
    raise DescriptorError("no backend can run the model: " + "; ".join(dict.fromkeys(refusals)))


class DescriptorNetwork:
    """A model file as a function from images to binary descriptors.

    Raises ModelCardError where the model's card does not fit it, and DescriptorError where it cannot be run here.
    """

    def __init__(self, model: Path, backend: str = "auto", threads: int = 1) -> None:
        self.card = ModelCard.read(model)
        self.backend = load_backend(backend, model.read_bytes(), threads)
        height, width = self.card.input_size
        if self.backend.input_shape != (1, height, width, 3):
            raise DescriptorError(
                f"{model} takes an input of shape {self.backend.input_shape}, its card says {height}x{width} RGB; "
                "use the pair of files that train_offline wrote"
            )
        self._size = (width, height)
        try:
            self.words = self.describe(np.zeros((height, width, 3), np.uint8)).descriptor.size
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise DescriptorError(f"{model} cannot be run ({reason}); use one that train_offline wrote") from None
        if self.words != -(-self.card.descriptor_bits // WORD_BITS):
            raise DescriptorError(
                f"{model} gives {self.words * WORD_BITS} bits, its card says {self.card.descriptor_bits}; "
                "use the pair of files that train_offline wrote"
            )

    def describe(self, image: Image) -> Description:
        """Return the descriptor and the contrast of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size."""
        small = resize(image, self._size)
        grey = small if small.ndim == 2 else small[..., 1]
        contrast = float(grey.std())
        batch: NDArray[Any] = as_rgb(small)[np.newaxis]
        if self.backend.input_dtype == np.float32:
            batch = batch.astype(np.float32) * np.float32(1 / 255)
        return Description(pack(self.backend.run(batch)), contrast)


def pack(output: NDArray[Any]) -> Descriptor:
    """Pack a network's output into words: real values to bits by x >= 0, integers taken as packed bits already."""
    flat = output.reshape(-1)
    packed = np.packbits(flat >= 0) if np.issubdtype(flat.dtype, np.floating) else flat.view(np.uint8)
    missing = -packed.size % (WORD_BITS // 8)
    return np.pad(packed, (0, missing)).view(np.uint64)


def _look_up_bit_count(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return _BITS_OF_UINT16[words.view(np.uint16)]


_BITS_OF_UINT16 = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(1, np.uint8)
# NumPy has a popcount of its own from 2.0 on.
_bit_count: Callable[[NDArray[np.uint64]], NDArray[np.uint8]] = getattr(np, "bitwise_count", _look_up_bit_count)


def hamming(
    descriptors: NDArray[np.uint64], descriptor: NDArray[np.uint64], out: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    """Return the Hamming distances [K] of `descriptors` [K,W] to one `descriptor` [W], in `out` [K] where it is given.

    Other shapes [...,W] are broadcast.
    """
    if descriptors.ndim == 2 and descriptor.ndim == 1:
        return nearest_view(descriptors, descriptor, out)
    return hamming_numpy(descriptors, descriptor, out)


def nearest_view(
    descriptors: NDArray[np.uint64], views: NDArray[np.uint64], out: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    """Return the Hamming distance [K] of each of `descriptors` [K,W] to the nearest of `views` [V,W], or to one [W].

    In `out` [K] where it is given.
    """
    with contextlib.suppress(lce_delegate.DelegateError):  # where it was not compiled
        return lce_delegate.hamming(descriptors, views, out)
    first, *others = np.atleast_2d(views)
    nearest = hamming_numpy(descriptors, first, out)
    for view in others:
        np.minimum(nearest, hamming_numpy(descriptors, view), out=nearest)
    return nearest


def hamming_numpy(
    descriptors: NDArray[np.uint64], descriptor: NDArray[np.uint64], out: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    """Return what `hamming` does, by NumPy alone."""
    differing = _bit_count(np.bitwise_xor(descriptors, descriptor))
    counts: NDArray[np.uint32] = differing.sum(axis=-1, dtype=np.uint32, out=out)
    return counts
