# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg", reason="the extra `fleet` is not installed")

from maps.small_maps import MODEL, WORDS

if TYPE_CHECKING:
    from fleet_server import Site

    from binvpr_ros.lab.embedded_postgres import EmbeddedPostgres


@pytest.fixture
def site(fleet_server: EmbeddedPostgres) -> Site:
    """A site of the fleet's map for the small maps."""
    from fleet_server import Site

    return Site(fleet_server, MODEL, WORDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "map.db"
