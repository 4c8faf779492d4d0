# SPDX-License-Identifier: Apache-2.0
"""Numbers of things, in words."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return a number of things for people, such as 1 keyframe, or 2 keyframes."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
