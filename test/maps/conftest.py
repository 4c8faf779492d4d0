# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.maps.database import KeyframeDatabase
from maps.small_maps import MODEL, WORDS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "map.db"


@pytest.fixture(params=["memory", "file"])
def database(request: pytest.FixtureRequest, path: Path) -> KeyframeDatabase:
    return KeyframeDatabase(None if request.param == "memory" else path, MODEL, WORDS)
