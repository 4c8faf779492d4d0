# SPDX-License-Identifier: Apache-2.0
"""The Larq Compute Engine's operators for the ordinary TensorFlow Lite interpreters, as an external delegate.

`load_delegate(str(library()), {"threads": "2"})` of ai-edge-litert or tflite-runtime gives what their `Interpreter`
takes as one of its `experimental_delegates`. Options: `threads` (1 to 64) and `kernel` (a name from `kernels()`).
The kernels that count bits for the operators compare descriptors too (`hamming`), match local features
(`nearest_two`), and find these in what a network says of an image (`decode_features`).
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LIBRARY = "liblce_delegate.so"

TRIED_RUNTIMES = {
    "ai_edge_litert": ("1.4", "2.0", "2.1", "2.2", "2.3"),
    "tflite_runtime": ("2.13", "2.14"),
}
"""Releases of each runtime that the delegate's tests passed in. The delegate reads the structs of TensorFlow Lite as
they lie in memory (src/tflite_abi.h), and no wheel says when they change."""

MATCH_BYTES = range(8, 65, 8)
"""Sizes of the rows that `nearest_two` compares."""
NO_DISTANCE = 65535
NO_ROW = -1
CELL = 8
"""Pixels a side of the cells that `decode_features` decodes."""
LOGITS = CELL**2 + 1
MOST_CELLS = 1 << 12
"""Rows and columns of cells."""
MOST_DESCRIPTOR_BITS = 1 << 16
MOST_FEATURES = 1 << 30


class DelegateError(RuntimeError):
    """The delegate's library cannot be used here; the message says what to do."""


class NearestTwo(NamedTuple):
    """For N rows their nearest two of M others, and for each of these the nearest of the N.

    Where there is no such row, its index is NO_ROW and its distance NO_DISTANCE.
    """

    nearest: NDArray[np.int32]
    """[N]: the index of the nearest; of several as near, the lowest."""
    distance: NDArray[np.uint16]
    """[N], in bits, to the nearest."""
    second: NDArray[np.uint16]
    """[N], in bits, to the second nearest, which may be as near."""
    back: NDArray[np.int32]
    """[M]: the index of the nearest of the N; of several as near, the lowest."""


class DecodedFeatures(NamedTuple):
    """N local features, the best one first."""

    points: NDArray[np.float32]
    """[N,2]: x and y of the pixels' centres."""
    scores: NDArray[np.float32]
    """[N]."""
    descriptors: NDArray[np.uint8]
    """[N,B/8], the first bit in the highest place."""


class OperatorTimes(NamedTuple):
    """What an operator of a model took in `runs` runs, in milliseconds in all; of layers by part, else 0."""

    name: str
    """With those of the operators that are done in the same pass."""
    work: int
    """Multiply-accumulates of a run."""
    runs: int
    total: float
    staging: float
    """Of the input, into the form that a kernel counts in."""
    counting: float
    output: float


def library() -> Path:
    """Return the path of the compiled library."""
    path = Path(__file__).with_name(LIBRARY)
    if not path.exists():
        if platform.architecture()[0] != "64bit":
            raise DelegateError("the Larq delegate needs a 64-bit system; install the 64-bit version of your system")
        raise DelegateError("the Larq delegate was not compiled; install a C++ compiler, then this package again")
    return path


def check_runtime(name: str, version: str, *, at_own_risk: bool = False) -> None:
    """Raise DelegateError where the delegate was never tried in a runtime, and may crash there.

    `name` is its package, ai_edge_litert or tflite_runtime, and `version` its `__version__`; a bug-fix release counts
    as the release that it mends. `at_own_risk` admits every version of these two.
    """
    tried = TRIED_RUNTIMES.get(name)
    if tried is None:
        raise DelegateError(f"the Larq delegate does not know the runtime {name}; use {' or '.join(TRIED_RUNTIMES)}")
    release = re.match(r"(\d+\.\d+)(\.\d+)*$", version)
    if not at_own_risk and (release is None or release[1] not in tried):
        raise DelegateError(
            f"the Larq delegate was not tried in {name} {version} and may crash there (tried: {', '.join(tried)}); "
            "install one of these, or set untried_runtime to go on at your own risk"
        )


@functools.cache
def _functions() -> ctypes.CDLL:
    try:
        functions = ctypes.CDLL(str(library()))
    except OSError as error:
        raise DelegateError(f"the Larq delegate cannot be loaded ({error}); install this package again") from None
    functions.binvpr_lce_kernels.restype = ctypes.c_char_p
    functions.binvpr_lce_profile.restype = ctypes.c_char_p
    functions.binvpr_lce_hamming.restype = ctypes.c_bool
    words = np.ctypeslib.ndpointer(np.uint64, flags="C_CONTIGUOUS")
    distances = np.ctypeslib.ndpointer(np.uint32, flags=("C_CONTIGUOUS", "WRITEABLE"))
    functions.binvpr_lce_hamming.argtypes = [
        ctypes.c_char_p, words, ctypes.c_size_t, ctypes.c_size_t, words, ctypes.c_size_t, distances,
    ]  # fmt: skip
    functions.binvpr_lce_nearest_two.restype = ctypes.c_bool
    size, address = ctypes.c_size_t, ctypes.c_void_p
    functions.binvpr_lce_nearest_two.argtypes = [
        ctypes.c_char_p, address, size, address, size, size, address, address, address, address,
    ]  # fmt: skip
    functions.binvpr_lce_decode_features.restype = ctypes.c_int64
    functions.binvpr_lce_decode_features.argtypes = [
        ctypes.c_char_p, size, size, size, address, address, address, size, size, size, address, address, address,
    ]  # fmt: skip
    functions.binvpr_lce_epipolar_inliers.restype = ctypes.c_int64
    functions.binvpr_lce_epipolar_inliers.argtypes = [address, address, size, ctypes.c_float, address]
    functions.binvpr_lce_shrink.restype = ctypes.c_bool
    functions.binvpr_lce_shrink.argtypes = [address, *[size] * 5, address]
    functions.binvpr_lce_peak.restype = ctypes.c_double
    functions.binvpr_lce_peak.argtypes = [ctypes.c_char_p, ctypes.c_long]
    return functions


def kernels() -> tuple[str, ...]:
    """Return the names of the kernels that this processor can run, best first."""
    names: bytes = _functions().binvpr_lce_kernels()
    return tuple(names.decode().split())


def take_profile() -> list[OperatorTimes]:
    """Return what each operator took since the last call, of all models whose delegates have the option `profile`.

    They come in the order in which they run, those that are the delegate's; parts are known where one thread runs. No
    model may run meanwhile.
    """
    lines: bytes = _functions().binvpr_lce_profile()
    operators = []
    for line in lines.decode().splitlines():
        name, *values = line.split("\t")
        work, runs, total, staging, counting, output = map(int, values)
        # Counting and output were sampled: they share what staging leaves.
        rest, sampled = total - staging, counting + output
        parts = [rest * part / sampled if sampled else 0 for part in (counting, output)]
        operators.append(OperatorTimes(name, work, runs, *(value * 1e-6 for value in (total, staging, *parts))))
    return operators


def hamming(
    descriptors: NDArray[np.uint64],
    views: NDArray[np.uint64],
    out: NDArray[np.uint32] | None = None,
    kernel: str = "auto",
) -> NDArray[np.uint32]:
    """Return the Hamming distances [K] of `descriptors` [K,W] to another one [W], in `out` [K] where it is given.

    With some `views` [V,W] of it each distance is that of the nearest.

    Raises DelegateError where the library or its kernel cannot be used here.
    """
    count, words = descriptors.shape
    distances = np.empty(count, np.uint32) if out is None else out
    if views.ndim not in (1, 2) or views.shape[-1] != words or not len(views) or distances.shape != (count,):
        raise ValueError(f"shapes {descriptors.shape}, {views.shape}, {distances.shape} do not go together")
    rows, queries = np.ascontiguousarray(descriptors), np.ascontiguousarray(np.atleast_2d(views))
    if not _functions().binvpr_lce_hamming(kernel.encode(), rows, count, words, queries, len(queries), distances):
        raise _no_kernel(kernel)
    return distances


def nearest_two(these: NDArray[np.uint8], those: NDArray[np.uint8], kernel: str = "auto") -> NearestTwo:
    """Return the nearest two of `those` [M,B] to each of `these` [N,B], and the nearest of `these` to each of `those`.

    B is one of MATCH_BYTES. Raises DelegateError where the library or its kernel cannot be used here.
    """
    if these.ndim != 2 or those.ndim != 2 or these.shape[1] != those.shape[1] or these.shape[1] not in MATCH_BYTES:
        raise ValueError(
            f"rows of the shapes {these.shape} and {those.shape} cannot be matched; "
            f"give two arrays of rows of {MATCH_BYTES[0]} to {MATCH_BYTES[-1]} bytes, a multiple of {MATCH_BYTES.step}"
        )
    if these.dtype != np.uint8 or those.dtype != np.uint8:
        raise ValueError(f"rows of {these.dtype} and {those.dtype} cannot be matched; give rows of uint8")
    rows, others = np.ascontiguousarray(these), np.ascontiguousarray(those)
    count, other_count = len(rows), len(others)
    distance, second = np.empty((2, count), np.uint16)
    found = NearestTwo(np.empty(count, np.int32), distance, second, np.empty(other_count, np.int32))
    if not _functions().binvpr_lce_nearest_two(
        kernel.encode(), rows.ctypes.data, count, others.ctypes.data, other_count, rows.shape[1] // 8,
        *(values.ctypes.data for values in found),
    ):  # fmt: skip
        if kernel not in ("auto", *kernels()):
            raise _no_kernel(kernel)
        raise MemoryError(f"{count} and {other_count} rows cannot be matched in memory; match fewer at a time")
    return found


def decode_features(
    descriptors: NDArray[np.int8],
    keypoints: NDArray[np.int8],
    reliability: NDArray[np.int8],
    size: tuple[int, int],
    most: int,
    kernel: str = "auto",
) -> DecodedFeatures:
    """Return the `most` best local features of an image of `size` (width, height), at the most.

    The image is the top left part of H x W cells, of which a network said `descriptors` [H,W,B], B a multiple of 8;
    `keypoints` [H,W,LOGITS]; and `reliability` [H,W]. `local_features.decoding.decode_numpy` says what is done with
    them. Raises DelegateError where the library or its kernel cannot be used here.
    """
    rows, columns, bits = descriptors.shape if descriptors.ndim == 3 else (0, 0, 0)
    if (
        keypoints.shape != (rows, columns, LOGITS)
        or reliability.shape != (rows, columns)
        or not 1 <= rows <= MOST_CELLS
        or not 1 <= columns <= MOST_CELLS
        or bits not in range(8, MOST_DESCRIPTOR_BITS + 1, 8)
    ):
        raise ValueError(
            f"maps of the shapes {descriptors.shape}, {keypoints.shape} and {reliability.shape} cannot be decoded; "
            f"give [H,W,B], [H,W,{LOGITS}] and [H,W], with B a multiple of 8"
        )
    if any(values.dtype != np.int8 for values in (descriptors, keypoints, reliability)):
        raise ValueError(
            f"maps of {descriptors.dtype}, {keypoints.dtype} and {reliability.dtype} cannot be decoded; "
            "give maps of int8"
        )
    width, height = size
    if not 1 <= width <= CELL * columns or not 1 <= height <= CELL * rows:
        raise ValueError(
            f"{rows} x {columns} cells do not fit an image of {width}x{height} pixels; give a size that fits"
        )
    if not 1 <= most <= MOST_FEATURES:
        raise ValueError(f"{most} features cannot be found; ask for 1 to {MOST_FEATURES}")
    maps = [np.ascontiguousarray(values) for values in (descriptors, keypoints, reliability)]
    room = min(most, width * height)
    found = DecodedFeatures(
        np.empty((room, 2), np.float32), np.empty(room, np.float32), np.empty((room, bits // 8), np.uint8)
    )
    count: int = _functions().binvpr_lce_decode_features(
        kernel.encode(), rows, columns, bits, *(values.ctypes.data for values in maps), width, height, most,
        *(values.ctypes.data for values in found),
    )  # fmt: skip
    if count < 0:
        if kernel not in ("auto", *kernels()):
            raise _no_kernel(kernel)
        raise MemoryError(f"{rows} x {columns} cells cannot be decoded in memory; use a smaller image")
    return DecodedFeatures(found.points[:count], found.scores[:count], found.descriptors[:count])


def epipolar_inliers(here: NDArray[np.float32], there: NDArray[np.float32], tolerance: float) -> NDArray[np.bool_]:
    """Tell which matches [N] obey the one epipolar geometry that most obey: none where there are fewer than eight.

    They are at `here` [N,2] in one image and `there` [N,2] in the other, finite; their Sampson distance is at most
    `tolerance`, in the same unit (src/epipolar.h names the methods). The same on every processor. Raises DelegateError
    where the library cannot be used here.
    """
    if here.shape != there.shape or here.ndim != 2 or here.shape[1] != 2:
        raise ValueError(f"positions of the shapes {here.shape} and {there.shape} are not matches; give [N,2] twice")
    ours, theirs = (np.ascontiguousarray(some, np.float32) for some in (here, there))
    inliers = np.empty(len(ours), np.bool_)
    found: int = _functions().binvpr_lce_epipolar_inliers(
        ours.ctypes.data, theirs.ctypes.data, len(ours), tolerance, inliers.ctypes.data
    )
    if found < 0:
        raise MemoryError(f"{len(ours)} matches cannot be verified in memory; give fewer")
    return inliers


def shrink(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an RGB image [H,W,3] in a `size` (width, height) that is no larger, as OpenCV's INTER_AREA makes it.

    Rows may be any number of bytes apart. The same on every processor, in a fifth of OpenCV's time where that has no
    short cut, which is for whole factors. Raises DelegateError where the library cannot be used here.
    """
    height, width = image.shape[:2]
    if (
        image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3
        or not (1 < width >= size[0] >= 1) or not height >= size[1] >= 1
    ):  # fmt: skip
        raise ValueError(
            f"an image of shape {image.shape} and {image.dtype} cannot be made smaller to {size[0]}x{size[1]}; "
            "give a larger RGB image of uint8"
        )
    if image.strides[1:] != (3, 1) or image.strides[0] < 3 * width:
        image = np.ascontiguousarray(image)
    smaller = np.empty((size[1], size[0], 3), np.uint8)
    if not _functions().binvpr_lce_shrink(
        image.ctypes.data, height, width, image.strides[0], size[1], size[0], smaller.ctypes.data
    ):
        raise MemoryError(f"an image of {width}x{height} pixels cannot be made smaller in memory; use a smaller one")
    return smaller


def peak(kernel: str, seconds: float = 0.2) -> float:
    """Return the binary multiply-accumulates a second [GMAC/s] of the kernel's counting instructions alone.

    Nothing is loaded from memory, so this is the limit of one core for that kernel. Measured for `seconds`.
    """
    if kernel not in kernels():
        raise _no_kernel(kernel)
    rounds, best, end = 100_000, 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work: float = _functions().binvpr_lce_peak(kernel.encode(), rounds)
        best = max(best, work / (time.perf_counter() - start) * 1e-9)
    return best


def _no_kernel(kernel: str) -> DelegateError:
    return DelegateError(f"this processor has no kernel {kernel}; choose one of {', '.join(kernels())}")
