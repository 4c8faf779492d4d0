# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def shapes_alone() -> Iterator[None]:
    """Networks built in this test have shapes, but no memory for their weights: some have 70 million."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()  # or the next network built would have the weights of these made up for
