# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from maps.command.written_maps import write_map


@pytest.fixture
def office(tmp_path: Path) -> Path:
    return write_map(tmp_path / "office.db", 1000)
