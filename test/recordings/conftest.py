# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recordings.frames_of import Picture


@pytest.fixture
def pictures() -> list[Picture]:
    """Four plain-coloured RGB pictures [32,48,3] that can be told apart."""
    return [np.full((32, 48, 3), (60 * number, 100, 200), np.uint8) for number in range(4)]


@pytest.fixture(params=["ros1", "sqlite3", "mcap"])
def bag(request: pytest.FixtureRequest, tmp_path: Path, pictures: list[Picture]) -> Path:
    """A bag of each kind with one image topic and another topic."""
    pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")
    from recorder import SECOND, Recorder

    with Recorder(request.param, tmp_path / "drive") as recorder:
        for number, picture in enumerate(pictures):
            recorder.image("/front/image_raw", number * SECOND // 2, (100 + number) * SECOND + 7, picture)
            recorder.write("/chatter", number * SECOND // 2, recorder.new("std_msgs/msg/String", data="hello"))
    return recorder.path
