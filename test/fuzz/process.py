# SPDX-License-Identifier: Apache-2.0
"""The process in which one target is fed: `python -m fuzz.process TARGET CORPUS [libFuzzer's options]`."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import atheris

MOST_MEMORY = 1 << 30
"""Bytes that reading rubbish may take, beyond what the program takes."""


def main() -> None:
    """Feed the target; libFuzzer ends the process, with a status other than 0 where it found something."""
    name, corpus, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["binvpr_ros", "rosbags"]):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    for number, example in enumerate(target.examples()):
        (Path(corpus) / f"example_{number}").write_bytes(example)
        target.read(example)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    atheris.Setup([sys.argv[0], corpus, *options], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
