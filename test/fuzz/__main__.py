# SPDX-License-Identifier: Apache-2.0
"""`python -m fuzz [TARGET ...] [--seconds S]`: feed targets, all or those named, and print how often each was fed."""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

NAMES = ("image", "compressed", "camera_info", "config", "map", "features", "pose", "model_card", "model",
         "ground_truth", "array", "bag.bag", "bag.db3", "bag.mcap")  # fmt: skip
LONGEST = 20
"""Seconds that one execution may take."""


class Outcome(NamedTuple):
    """What became of one target."""

    executions: int
    seconds: int
    failure: str  # all that was written where it failed, with the input as base64; empty where it did not


def feed(name: str, seconds: int, seed: int) -> Outcome:
    """Feed one target in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={LONGEST}", "-rss_limit_mb=0"]
        command = [sys.executable, "-m", "fuzz.process", name, str(corpus), *options, f"-artifact_prefix={folder}/"]
        paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        result = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, text=True, errors="replace", check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
        done = re.search(r"^Done (\d+) runs in (\d+) second", result.stdout, re.MULTILINE)
        if result.returncode == 0 and done:
            return Outcome(int(done[1]), int(done[2]), "")
        # libFuzzer shows the shortest inputs alone.
        inputs = [f"\nBase64: {base64.b64encode(file.read_bytes()).decode()}" for file in Path(folder).glob("*-*")]
    counts = re.findall(r"^#(\d+)\t", result.stdout, re.MULTILINE)
    return Outcome(int(counts[-1]) if counts else 0, seconds, result.stdout[-4000:] + "".join(inputs))


@contextlib.contextmanager
def feeding(names: Sequence[str], seconds: int, seed: int) -> Iterator[dict[str, Future[Outcome]]]:
    """Feed targets, as many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(feed, name, seconds, seed) for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    """Feed what the command line names; the exit status is 1 where something failed."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="for other rubbish than last time (default %(default)s)")
    choices = parser.parse_args(arguments)
    names = choices.targets or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")
    total, failed = 0, 0
    with feeding(names, choices.seconds, choices.seed) as fed:
        for name, future in fed.items():
            outcome = future.result()
            total += outcome.executions
            failed += bool(outcome.failure)
            rate, sign = outcome.executions / max(outcome.seconds, 1), ", FAILED" * bool(outcome.failure)
            print(f"{name}: {outcome.executions} executions, {rate:.0f}/s{sign}", flush=True)
            if outcome.failure:
                print(outcome.failure, flush=True)
    print(f"fuzz: {total} executions of {len(names)} targets, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
