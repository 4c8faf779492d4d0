# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.model_card import ModelCard


@pytest.fixture(scope="module")
def network(model: Path) -> DescriptorNetwork:
    return DescriptorNetwork(model)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A copy of the packaged model with its card."""
    target = tmp_path / "copy.tflite"
    shutil.copy(model, target)
    shutil.copy(ModelCard.path_for(model), ModelCard.path_for(target))
    return target
