# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.network.descriptor import DescriptorNetwork


@pytest.fixture(scope="module")
def network(model: Path) -> DescriptorNetwork:
    return DescriptorNetwork(model)
