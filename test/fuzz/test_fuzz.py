# SPDX-License-Identifier: Apache-2.0
"""A while of rubbish for each target; for more than a test, `make fuzz SECONDS=600`."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from fuzz.__main__ import NAMES, Outcome, feeding, main

pytestmark = pytest.mark.long

SECONDS = int(os.environ.get("FUZZ_SECONDS", "20"))

if importlib.util.find_spec("atheris") is None:
    pytest.skip("atheris is not installed: it has wheels for some systems only", allow_module_level=True)


def test_every_target_has_its_turn() -> None:
    from fuzz.targets import TARGETS

    assert tuple(TARGETS) == NAMES


@pytest.fixture(scope="module")
def fed() -> Iterator[dict[str, Future[Outcome]]]:
    with feeding(NAMES, SECONDS, seed=1) as futures:
        yield futures


@pytest.mark.timeout(120 + 4 * SECONDS)
@pytest.mark.parametrize("name", NAMES)
def test_rubbish_is_refused_or_read(fed: dict[str, Future[Outcome]], name: str) -> None:
    outcome = fed[name].result()
    assert not outcome.failure, outcome.failure
    assert outcome.executions > 0


def test_the_command_counts_what_it_feeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "model_card", "--seconds", "1"]) == 0
    *each, total = capsys.readouterr().out.splitlines()
    counts = [int(number) for line in each for number in re.findall(r": (\d+) executions, \d+/s$", line)]
    assert len(counts) == 2
    assert total == f"fuzz: {sum(counts)} executions of 2 targets, 0 failed"
    with pytest.raises(SystemExit):
        main(["no_such_target"])
    assert "there is no target no_such_target; choose from image, " in capsys.readouterr().err
