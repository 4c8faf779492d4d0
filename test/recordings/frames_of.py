# SPDX-License-Identifier: Apache-2.0
"""What a recording under test holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.recordings.frames import Frame, LeftOut, Recording

Picture = NDArray[np.uint8]


def frames_of(recording: Recording) -> list[Frame]:
    return [frame for frame in recording.read() if isinstance(frame, Frame)]


def left_out_of(recording: Recording) -> list[LeftOut]:
    return [left_out for left_out in recording.read() if isinstance(left_out, LeftOut)]


def intervals_of(recording: Recording) -> list[float]:
    return [frame.interval for frame in frames_of(recording)]


def colours(recording: Recording) -> list[int]:
    """Return the number of each plain-coloured picture."""
    return [round(float(frame.image.decode()[..., 0].mean()) / 60) for frame in frames_of(recording)]
