# SPDX-License-Identifier: Apache-2.0
"""Cards under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from binvpr_ros.network.model_card import ModelCard


def edit(model: Path, **changes: Any) -> None:
    """Change entries of the card of a model."""
    path = ModelCard.path_for(model)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
