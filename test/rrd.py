# SPDX-License-Identifier: Apache-2.0
"""What is in a file that a View has written, by Rerun's own reader."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

chunk = pytest.importorskip("rerun.chunk", reason="Rerun is not installed (extra view)")

Rows = dict[str, list[tuple[int, Any]]]
"""Of each entity the stamps (nanoseconds), and what was logged there."""


def rows_of(file: Path, component: str) -> Rows:
    """Return the rows of all entities with a component, such as Scalars:scalars, in order of their stamps."""
    rows: Rows = defaultdict(list)
    for piece in chunk.RrdReader(file).stream():
        batch = piece.to_record_batch()
        if not piece.is_static and component in batch.schema.names:
            stamps = batch.column("stamp").cast("int64").to_pylist()
            rows[piece.entity_path.removeprefix("/")] += zip(stamps, batch.column(component).to_pylist(), strict=True)
    return {path: sorted(pairs, key=lambda pair: pair[0]) for path, pairs in rows.items()}


def texts_of(file: Path) -> list[str]:
    """Return all texts that were logged, in order."""
    return [text for pairs in rows_of(file, "TextDocument:text").values() for _, (text,) in pairs]
