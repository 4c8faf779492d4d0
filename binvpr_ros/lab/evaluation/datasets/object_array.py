# SPDX-License-Identifier: Apache-2.0
"""Read .npy files of Python objects without trusting them.

NumPy keeps arrays of objects as a pickle, which may run any code when it is loaded the usual way. Here a pickle may
only use the parts of arrays, in versions that check the state a file gives, as NumPy's own do not.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError

PLAIN_KINDS = "biufcSUO"
HEADER_READERS: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


def load_objects(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file, of any shape, of numbers or of objects; raises DatasetError.

    Objects may be numbers, texts, lists, tuples, dictionaries and arrays of plain types.
    """
    try:
        with path.open("rb") as file:
            shape, _, dtype = HEADER_READERS[npy.read_magic(file)](file)
            if dtype.hasobject:
                return _load_pickle(file.read()).reshape(shape)
        return np.asarray(np.load(path, allow_pickle=False))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); restore the file") from None
    except pickle.UnpicklingError as error:
        raise DatasetError(f"{path} cannot be read ({error}); restore the file, or do not trust it") from None
    except Exception:  # noqa: BLE001 - a damaged or hostile pickle may raise anything
        raise DatasetError(f"{path} is damaged, or not a .npy file; restore the file") from None


class _Dtype:
    """Stands in for numpy.dtype: accepts plain types only, and of their state only the byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.plain = np.dtype(code)
        if self.plain.kind not in PLAIN_KINDS:
            raise pickle.UnpicklingError(f"it holds an array of the type {self.plain}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.plain = self.plain.newbyteorder(state[1])


class _Array(np.ndarray):
    """Stands in for numpy.ndarray; accepts its state only if data and shape agree."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, data = state
        plain: np.dtype[Any] = dtype.plain
        if isinstance(data, str):  # from Python 2
            data = data.encode("latin1")
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise pickle.UnpicklingError("it holds an array without a shape")
        count = math.prod(shape)
        expected = (list, count) if plain.hasobject else (bytes, count * plain.itemsize)
        if (type(data), len(data)) != expected:
            raise pickle.UnpicklingError("it holds an array whose data do not have its shape")
        super().__setstate__((1, shape, plain, bool(fortran_order), data))  # type: ignore[arg-type]


def _empty_array(*_: object) -> _Array:
    return _Array((0,), np.uint8)


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.plain, count=1)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,  # so older protocols write b""
    # NumPy 2 renamed its core.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs") from None


def _load_pickle(data: bytes) -> NDArray[Any]:
    for code, argument, _ in pickletools.genops(data):
        # The unpickler makes room for as many objects as the highest number says: a few bytes could fill the memory.
        if code.name in ("PUT", "LONG_BINPUT") and (argument or 0) > len(data):
            raise pickle.UnpicklingError(f"it numbers an object {argument}")
    array = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    if not isinstance(array, _Array) or not array.dtype.hasobject:
        raise pickle.UnpicklingError("it has no array of objects")
    for index, item in np.ndenumerate(array):
        if isinstance(item, _Array):
            array[index] = item.view(np.ndarray)
    return array.view(np.ndarray)
