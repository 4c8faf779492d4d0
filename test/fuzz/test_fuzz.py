# SPDX-License-Identifier: Apache-2.0
"""A while of rubbish for each target; for more than a test, `make fuzz SECONDS=600`."""

from __future__ import annotations

import importlib.util
import os

import pytest

from fuzz.__main__ import NAMES, feed

SECONDS = int(os.environ.get("FUZZ_SECONDS", "20"))

if importlib.util.find_spec("atheris") is None:
    pytest.skip("atheris is not installed: it has wheels for some systems only", allow_module_level=True)


def test_every_target_has_its_turn() -> None:
    from fuzz.targets import TARGETS

    assert tuple(TARGETS) == NAMES


@pytest.mark.timeout(120 + SECONDS)
@pytest.mark.parametrize("name", NAMES)
def test_rubbish_is_refused_or_read(name: str) -> None:
    outcome = feed(name, SECONDS, seed=1)
    assert not outcome.failure, outcome.failure
    assert outcome.executions > 0
