# SPDX-License-Identifier: Apache-2.0
"""`benchmark --search`: how long a map of random keyframes takes to be loaded and searched, and its memory."""

from __future__ import annotations

import importlib
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.loop_closure import LoopCloser
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.hamming import WORD_BITS, hamming_numpy

MODEL = "0" * 64
KEYFRAMES_A_SECOND = 10
BEST = 20
"""Matches that other libraries are asked for; ours gives all distances."""


def search_figures(keyframes: int, bits: int, repeat: int) -> dict[str, Any]:
    """Measure a map of so many keyframes of so many bits, on one core, by `repeat` searches in turns.

    `load_s` is the time to read the map's file. `memory` is the most that the map takes while it is loaded and
    searched, as a multiple of its bits. Median and least times: `search_ms` and `search_least_ms` for the distances to
    all keyframes, `shifted_...` for those of an image that may be shifted, as in the node, `decide_...` for the verdict
    over them, search included, `numpy_...` for the search by NumPy alone, and `faiss_...` and `usearch_...` for what is
    installed of faiss-cpu and usearch.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "map.db", Path(folder) / "small.db"
        for file, count in ((path, keyframes), (small, 1)):
            write_map(file, count, bits, MODEL)
        # A process of its own, whose memory is that of this map.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_measure, (path, small, bits, repeat))


def write_map(path: Path, keyframes: int, bits: int, model_sha256: str) -> None:
    """Make a map of so many random keyframes of so many bits, without features."""
    KeyframeDatabase(path, model_sha256, bits // WORD_BITS).close()
    rng = np.random.default_rng(0)
    rows = ((i, 0, i * NANOSECONDS // KEYFRAMES_A_SECOND, rng.bytes(bits // 8)) for i in range(keyframes))
    connection = sqlite3.connect(path)
    with connection:
        connection.executemany("INSERT INTO keyframes (id, session, stamp, descriptor) VALUES (?, ?, ?, ?)", rows)
    connection.close()


def _measure(path: Path, small: Path, bits: int, repeat: int) -> dict[str, Any]:
    words = bits // WORD_BITS
    decide(KeyframeDatabase(small, MODEL, words))()  # so that what the programs take is not counted
    before = _kilobytes("VmRSS")
    start = time.perf_counter()
    database = KeyframeDatabase(path, MODEL, words, grids=((8, words),))
    loaded = time.perf_counter() - start
    query = database.keyframe(len(database) // 2).descriptor
    views = database.views(query, Config.shift_cells)
    searches = {
        "search": lambda: database.distances(query),
        "shifted": lambda: database.distances(views),
        "decide": decide(database),
    }
    for search in searches.values():
        search()
    memory = (_kilobytes("VmHWM") - before) * 8192 / (len(database) * bits)

    descriptors = np.stack([database.keyframe(index).descriptor for index in range(len(database))])
    searches["numpy"] = lambda: hamming_numpy(descriptors, query)
    searches |= _libraries(descriptors, query)
    times: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(repeat):
        for name, search in searches.items():
            start = time.perf_counter()
            search()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {
        "keyframes": len(database),
        "bits": bits,
        "load_s": round(loaded, 2),
        "memory": round(memory, 3),
        **{f"{name}_ms": round(float(np.median(taken)), 3) for name, taken in times.items()},
        **{f"{name}_least_ms": round(min(taken), 3) for name, taken in times.items()},
    }


def decide(database: KeyframeDatabase) -> Callable[[], Any]:
    """Return a search that judges a keyframe like an old one, a minute after the last."""
    descriptor = database.keyframe(len(database) // 2).descriptor
    query = database.next_keyframe(int(database.stamps[-1]) + 60 * NANOSECONDS, descriptor)
    closer, config = LoopCloser(), Config()
    return lambda: closer.decide(query, database, config)


def _libraries(descriptors: NDArray[np.uint64], query: NDArray[np.uint64]) -> dict[str, Callable[[], Any]]:
    """Return exact searches by the libraries that are installed."""
    rows, row = descriptors.view(np.uint8), query.view(np.uint8)[np.newaxis]
    best = min(BEST, len(rows))
    searches: dict[str, Callable[[], Any]] = {}
    try:
        faiss = importlib.import_module("faiss")
        faiss.omp_set_num_threads(1)
        index = faiss.IndexBinaryFlat(rows.shape[1] * 8)
        index.add(rows)
        searches["faiss"] = lambda: index.search(row, best)
    except ImportError:
        pass
    try:
        usearch = importlib.import_module("usearch.index")
        hamming = usearch.MetricKind.Hamming
        searches["usearch"] = lambda: usearch.search(rows, row, best, hamming, exact=True, threads=1)
    except ImportError:
        pass
    return searches


def _kilobytes(name: str) -> int:
    """Return a size of this process, as Linux tells it: VmRSS (now) or VmHWM (at most)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
