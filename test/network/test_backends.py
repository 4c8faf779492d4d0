# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from lce_delegate.models import Graph

from binvpr_ros import lce_delegate
from binvpr_ros.network.backends import DelegateBackend, DescriptorError, LitertBackend, load_backend
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import WORD_BITS


def test_auto_picks_a_backend_that_runs_the_packaged_model(network: DescriptorNetwork) -> None:
    assert network.backend.name == "delegate"
    assert network.words * WORD_BITS == network.card.descriptor_bits


def test_litert_says_that_it_does_not_know_larq_operators(model: Path) -> None:
    with pytest.raises(
        DescriptorError, match="does not know the Larq operators of this model; use the backend delegate"
    ):
        load_backend("litert", model.read_bytes(), 1)


@pytest.mark.parametrize("backend", ["delegate", "litert", "auto"])
def test_a_file_that_is_no_model(backend: str) -> None:
    with pytest.raises(DescriptorError, match="cannot be loaded") as refusal:
        load_backend(backend, b"no model at all", 1)
    assert "\n" not in str(refusal.value)


def test_names_in_a_model_that_are_no_utf8(model: Path) -> None:
    data = model.read_bytes()
    name = DelegateBackend(data, 1).interpreter.get_input_details()[0]["name"].encode()
    with pytest.raises(DescriptorError, match="cannot be loaded") as refusal:
        load_backend("auto", data.replace(name, b"\xff" * len(name)), 1)
    assert "\n" not in str(refusal.value)


def test_a_model_without_a_graph_does_not_reach_the_runtime() -> None:
    """ai-edge-litert 2.3 reads the number of subgraphs where there are none, and the process ends."""
    builder = flatbuffers.Builder()
    builder.Finish(schema.ModelT(version=3, buffers=[schema.BufferT()]).Pack(builder), file_identifier=b"TFL3")
    with pytest.raises(DescriptorError, match=r"cannot be loaded \(it has no graph\); use one"):
        load_backend("litert", bytes(builder.Output()), 1)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_model_without_input_or_output(side: str) -> None:
    graph = Graph()
    tensor = graph.input((1, 4, 4, 3)) if side == "output" else graph.constant(np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(DescriptorError, match="the model has no input or no output; use one"):
        load_backend("litert", graph.serialize(*[tensor] * (side == "input")), 1)


def test_a_kernel_that_this_processor_lacks(model: Path) -> None:
    with pytest.raises(DescriptorError, match="this processor has no kernel abacus; choose one of auto, ") as refusal:
        DelegateBackend(model.read_bytes(), 1, kernel="abacus")
    assert "\n" not in str(refusal.value)


def test_a_missing_runtime_is_one_sentence_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setattr(LitertBackend, "MODULES", ("no_such_runtime",))
    for backend in ("delegate", "litert", "auto"):
        with pytest.raises(DescriptorError, match=r"run: .*/pip install --no-deps 'ai-edge-litert") as refusal:
            load_backend(backend, model.read_bytes(), 1)
        assert "\n" not in str(refusal.value)


def test_a_delegate_that_was_not_compiled(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(lce_delegate, "LIBRARY", "not_compiled.so")
    with pytest.raises(DescriptorError, match="no backend can run the model: the Larq delegate was not compiled"):
        load_backend("auto", model.read_bytes(), 1)


def test_a_runtime_in_which_the_delegate_was_never_tried_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = importlib.import_module(LitertBackend._import().__name__.partition(".")[0])
    monkeypatch.setattr(package, "__version__", "99.0.0")
    with pytest.raises(
        DescriptorError, match=r"was not tried in \w+ 99\.0\.0 and may crash there .* set untried_runtime"
    ):
        DescriptorNetwork(model, "delegate")
    image = np.zeros((48, 64), np.uint8)
    assert DescriptorNetwork(model, "delegate", untried_runtime=True).describe(image).descriptor.shape == (32,)
