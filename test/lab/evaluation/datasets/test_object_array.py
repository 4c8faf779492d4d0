# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binvpr_ros.lab.evaluation.datasets import DatasetError
from binvpr_ros.lab.evaluation.datasets.object_array import load_objects

HEADER = {"descr": "|O", "fortran_order": False, "shape": (2,)}


def write(path: Path, data: bytes, shape: tuple[int, ...] = (2,)) -> Path:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, HEADER | {"shape": shape})
        file.write(data)
    return path


def objects(*items: Any) -> Any:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        if type(a) is not type(b) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        return all(map(same, a.ravel(), b.ravel())) if a.dtype.hasobject else bool(np.array_equal(a, b))
    return type(a) is type(b) and bool(a == b)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_what_numpy_writes_comes_back(tmp_path: Path, protocol: int) -> None:
    array = objects(
        3, [1, 2, np.int64(5)], "text", b"\x00\xff", np.float32(2.5), None, {"a": (1.5, True)}, np.arange(6.0),
        np.arange(6, dtype=">i4").reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(["a", "bc"]),
        np.zeros((0, 3)), np.array(7),
    )  # fmt: skip
    path = write(tmp_path / "a.npy", pickle.dumps(array, protocol), array.shape)
    assert same(load_objects(path), np.load(path, allow_pickle=True))


@pytest.mark.parametrize("core", ["core", "_core"])
def test_both_names_of_numpys_core(tmp_path: Path, core: str) -> None:
    array = objects([0, 1], np.array([2.0]))
    written = pickle.dumps(array, 2)
    other = {"core": b"_core", "_core": b"core"}[core]
    data = written.replace(b"numpy." + other + b".", b"numpy." + core.encode() + b".")
    assert b"numpy." + core.encode() + b".multiarray" in data
    assert same(load_objects(write(tmp_path / "a.npy", data)), array)


def test_a_python_2_pickle_keeps_bytes_as_latin1_text(tmp_path: Path) -> None:
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    dtype = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'%s'\nNNNI-1\nI-1\nI0\ntb"
    numbers = array + b"(I1\n(I1\nt" + dtype % (b"u2", b"<") + b"I00\nU\x02\xff\x01tb"
    data = array + b"(I1\n(I2\nt" + dtype % (b"O8", b"|") + b"I00\n(lp0\nI7\na" + numbers + b"atb."
    loaded = load_objects(write(tmp_path / "a.npy", data))
    assert same(loaded, objects(7, np.array([511], "<u2")))


def test_plain_arrays_come_back_too(tmp_path: Path) -> None:
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3)), np.array(["a", "bc"])):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(load_objects(tmp_path / "a.npy"), array)


class Run:
    """Makes a pickle that calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [Path.touch, eval, np.load, np.memmap, getattr])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, function: Any, protocol: int) -> None:
    mark = tmp_path / "mark"
    arguments = {Path.touch: (mark,), eval: (f"open({str(mark)!r}, 'w')",), getattr: (mark, "touch")}
    array = objects(1, [Run(function, *arguments.get(function, (str(mark),)))])
    path = write(tmp_path / "a.npy", pickle.dumps(array, protocol))
    with pytest.raises(DatasetError, match=r"a.npy cannot be read \(it asks for .*, which no array needs\)"):
        load_objects(path)
    assert not mark.exists()
    if function is eval:
        np.load(path, allow_pickle=True)  # the same file, trusted
        assert mark.exists()


def array_with(state: tuple[Any, ...], descr: tuple[Any, ...] = ("O8", False, True)) -> bytes:
    """Return a pickle of an array with a state that NumPy would believe."""
    made: Any = np.zeros(0).__reduce__()
    rebuild, arguments, _ = made

    class Dtype:
        def __reduce__(self) -> Any:
            return (np.dtype, descr, (3, "|", None, None, None, -1, -1, 0))

    class Array:
        def __reduce__(self) -> Any:
            return (rebuild, arguments, (1, state[0], Dtype(), False, state[1]))

    return pickle.dumps(Array(), 2)


@pytest.mark.parametrize(
    "data",
    [
        array_with(((2,), b"\x41" * 16)),  # bytes for pointers
        array_with(((1000,), [1, 2])),  # a list that is too short
        array_with(((1000,), b"1234"), ("u1", False, True)),
        array_with(((-1, -2), [1, 2])),
        array_with(((2**70,), [1, 2])),
        array_with(((2,), b"\x41" * 16), ("V8", False, True)),
        array_with(((2,), b"\x41\x41"), ("u1", False, True)),  # whole, but no objects
        array_with((("x", 2**40), [1, 2])),
        pickle.dumps(objects(1, 2), 2)[:-1] + b"r\xff\xff\xff\x7f.",  # room for two thousand million objects
        pickle.dumps([1, 2]),
        pickle.dumps(objects(1, 2, 3)),
        pickle.dumps(objects(1, 2))[:-5],
        b"",
        b"rubbish",
    ],
)
def test_a_state_that_cannot_be_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"a.npy (cannot be read|is damaged)") as refused:
        load_objects(write(tmp_path / "a.npy", data))
    assert "\n" not in str(refused.value)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    good = bytearray(pickle.dumps(objects([1, 2, 3], np.arange(4)), 2))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = write(tmp_path_factory.getbasetemp() / "damaged.npy", bytes(good))
    with contextlib.suppress(DatasetError):
        assert load_objects(path).shape == (2,)


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("rubbish")
    with pytest.raises(DatasetError, match=r"text.npy is damaged, or not a .npy file"):
        load_objects(tmp_path / "text.npy")
    with pytest.raises(DatasetError, match=r"away.npy cannot be read \(No such file or directory\)"):
        load_objects(tmp_path / "away.npy")
