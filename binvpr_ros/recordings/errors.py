# SPDX-License-Identifier: Apache-2.0
"""What cannot be read of recordings."""

from __future__ import annotations


class RecordingError(ValueError):
    """A recording cannot be read; the message says what is wrong and what to do."""
