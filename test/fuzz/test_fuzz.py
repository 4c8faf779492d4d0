# SPDX-License-Identifier: Apache-2.0
"""A while of rubbish for each target; for more than a test, `make fuzz SECONDS=600`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from fuzz.__main__ import NAMES, Outcome, feed

SECONDS = int(os.environ.get("FUZZ_SECONDS", "20"))

if importlib.util.find_spec("atheris") is None:
    pytest.skip("atheris is not installed: it has wheels for some systems only", allow_module_level=True)


def test_every_target_has_its_turn() -> None:
    from fuzz.targets import TARGETS

    assert tuple(TARGETS) == NAMES


@pytest.fixture(scope="module")
def fed() -> Iterator[dict[str, Future[Outcome]]]:
    """All targets, as many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(feed, name, SECONDS, seed=1) for name in NAMES}


@pytest.mark.timeout(120 + 4 * SECONDS)
@pytest.mark.parametrize("name", NAMES)
def test_rubbish_is_refused_or_read(fed: dict[str, Future[Outcome]], name: str) -> None:
    outcome = fed[name].result()
    assert not outcome.failure, outcome.failure
    assert outcome.executions > 0
