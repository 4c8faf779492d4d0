# SPDX-License-Identifier: Apache-2.0
"""No model and no input makes the delegate misbehave where the sanitizers watch its memory, arithmetic and threads.

For more than a test: SANITIZER_SECONDS=600 and, for other cases than last time, SANITIZER_SEED=<number>.
"""

from __future__ import annotations

import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from binvpr_ros import lce_delegate

pytestmark = pytest.mark.long

SOURCES = Path(lce_delegate.__file__).with_name("src")
DRIVER = Path(__file__).with_name("sanitizers")
SECONDS = float(os.environ.get("SANITIZER_SECONDS", "24"))
SEED = os.environ.get("SANITIZER_SEED", "1")
REQUIRED = os.environ.get("CI") == "true" and platform.machine() == "x86_64"

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
COMMON = ("-std=c++17", "-O1", "-g1", "-pthread", "-ffp-contract=off", "-D_GLIBCXX_ASSERTIONS", *WARNINGS)
SANITIZERS = {
    "memory": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "threads": ("-fsanitize=thread",),
}
SHARES = {
    "memory": {
        "options": 0.1, "whole": 0.25, "damaged": 0.35, "starved": 0.05, "hamming": 0.05, "matching": 0.05,
        "decoding": 0.05, "shrinking": 0.05,
    },
    "threads": {"pool": 0.1, "shared": 0.1},
}  # fmt: skip
"""The checks of fuzz.cc for each sanitizer, and how much of the time each gets."""


def compiles_and_runs(folder: Path, sanitizer: tuple[str, ...]) -> bool:
    """Whether there are a compiler and the sanitizer's library, and the system lets it lay out its memory."""
    program = folder / "empty.cc"
    program.write_text("int main() {}\n")
    try:
        subprocess.run(["g++", *sanitizer, program, "-o", folder / "empty"], capture_output=True, check=True)
        subprocess.run([folder / "empty"], capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def compile_fuzz(folder: Path, sanitizer: tuple[str, ...]) -> Path:
    """Compile the delegate's sources and the driver for a sanitizer."""

    def compile_one(source: Path) -> Path:
        output = folder / f"{source.stem}.o"
        subprocess.run(["g++", *COMMON, *sanitizer, f"-I{SOURCES}", "-c", source, "-o", output], check=True)
        return output

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [DRIVER / "fuzz.cc", *sorted(SOURCES.glob("*.cc"))]))
    subprocess.run(["g++", *sanitizer, "-pthread", *objects, "-o", folder / "fuzz"], check=True)
    return folder / "fuzz"


@pytest.mark.timeout(300 + SECONDS)
@pytest.mark.parametrize("name", SANITIZERS)
def test_cases_drawn_at_random(name: str, tmp_path: Path) -> None:
    sanitizer = SANITIZERS[name]
    if not REQUIRED and not compiles_and_runs(tmp_path, sanitizer):
        pytest.skip(f"no program runs that g++ compiled with {sanitizer[0]}")
    fuzz = compile_fuzz(tmp_path, sanitizer)
    for check, share in SHARES[name].items():
        command = [str(fuzz), check, str(share * SECONDS), SEED]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(result.stdout)
        assert result.returncode == 0, result.stdout
