# SPDX-License-Identifier: Apache-2.0
"""Whole networks give in the delegate what they give in the Larq Compute Engine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from binvpr_ros.lce_delegate import kernels, library
from lce_delegate.oracle import Interpreter, Lce, Litert

PEERS = ("binaryNet_places365", "floppyNet_places365", "shallowNet_places365")
ZOO_ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-zoo"
# Of larq-zoo 2.3, DoReFaNet has no operator of these, and the others cannot be built under the TensorFlow of today.
ZOO = ("QuickNetSmall", "QuickNet", "QuickNetLarge", "BinaryResNetE18", "BinaryDenseNet28", "MeliusNet22")


def images(model: bytes) -> list[NDArray[Any]]:
    """Return three random images of the shape and type that a model takes."""
    (graph,) = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs
    tensor = graph.tensors[graph.inputs[0]]
    rng = np.random.default_rng(20)
    if tensor.type == schema.TensorType.UINT8:
        return [rng.integers(0, 256, tensor.shape, np.uint8) for _ in range(3)]
    return [rng.random(tensor.shape, np.float32) for _ in range(3)]


def compare(lce: Interpreter, litert: Interpreter, model: bytes, tolerance: float) -> None:
    """Hold the delegate, with all its kernels, against the Larq Compute Engine; with a descriptor, bit by bit."""
    for image in images(model):
        (expected,) = lce.run(model, [image], Lce())
        for kernel in kernels():
            (actual,) = litert.run(model, [image], Litert(library(), kernel, threads=2))
            np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
            np.testing.assert_array_equal(actual >= 0, expected >= 0)


def test_the_packaged_model(lce: Interpreter, litert: Interpreter, model: Path) -> None:
    compare(lce, litert, model.read_bytes(), 1e-5)


@pytest.mark.parametrize("peer", PEERS)
def test_peers(lce: Interpreter, litert: Interpreter, shared_data: Path, peer: str) -> None:
    compare(lce, litert, (shared_data / "peers" / f"{peer}.tflite").read_bytes(), 1e-5)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("network", ZOO)
def test_networks_of_larq_zoo(lce: Interpreter, litert: Interpreter, network: str) -> None:
    python = ZOO_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        pytest.skip("larq-zoo is not here; zoo.py says how to install it")
    file = ZOO_ENVIRONMENT / f"{network}.tflite"
    if not file.exists():
        subprocess.run([python, Path(__file__).with_name("zoo.py"), network, file], check=True)
    compare(lce, litert, file.read_bytes(), 1e-5)
