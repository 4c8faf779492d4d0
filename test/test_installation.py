# SPDX-License-Identifier: Apache-2.0
"""What a message tells a reader to run is run here, by the Python outside the virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from binvpr_ros.installation import InstallationError, how_to_install, how_to_install_module, in_venv, site_packages

ROOT = Path(__file__).resolve().parents[1]
PYTHON = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
RUNTIME = "ai-edge-litert"

pytestmark = pytest.mark.skipif(not in_venv(), reason="the tests do not run in a virtual environment")


def outside(home: Path, expression: str) -> str:
    """Return what the Python outside prints of this module, without packages, for a user with this home."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from binvpr_ros import installation; print({expression})"
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    command = [str(PYTHON), "-S", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_in_a_venv_its_own_pip_is_named() -> None:
    assert how_to_install(RUNTIME) == f"run: {sys.prefix}/bin/pip install --no-deps '{RUNTIME}>=2.1,<2.4'"
    assert how_to_install("rosbags") == f"run: {sys.prefix}/bin/pip install rosbags"
    assert how_to_install_module("tqdm", "tools") == f"run, in a checkout: {sys.prefix}/bin/pip install -e '.[tools]'"


def test_outside_a_venv_pip_is_never_told_to_install_there(tmp_path: Path) -> None:
    asked = f"installation.how_to_install({RUNTIME!r})"
    said = outside(tmp_path, asked)
    assert said.startswith("run: ")
    assert said.endswith(
        " -m venv --system-site-packages ~/binvpr_venv && ~/binvpr_venv/bin/pip install --no-deps "
        "'ai-edge-litert>=2.1,<2.4' && export PYTHONPATH=$(echo ~/binvpr_venv/lib/python3.*/site-packages):$PYTHONPATH"
    )
    said = outside(tmp_path, "installation.how_to_install_module('cv2', 'tools')")
    assert said == "run: sudo apt install python3-opencv"
    assert outside(tmp_path, "installation.how_to_install_module('keras', 'training')") == (
        "run, in a checkout: make demo && .venv/bin/pip install -e '.[training]'"
    )


def test_a_venv_that_pythonpath_does_not_name_is_found(tmp_path: Path) -> None:
    asked = f"installation.how_to_install({RUNTIME!r})"
    venv.create(tmp_path / "binvpr_venv", system_site_packages=True, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "binvpr_venv" / "lib" / version / "site-packages"
    export = f"export PYTHONPATH={packages}:$PYTHONPATH"
    assert outside(tmp_path, asked) == f"run: ~/binvpr_venv/bin/pip install --no-deps '{RUNTIME}>=2.1,<2.4' && {export}"
    (packages / "ai_edge_litert").mkdir()
    (packages / "ai_edge_litert" / "__init__.py").write_text("print('found')\n")
    said = outside(tmp_path, asked)
    assert said == f"~/binvpr_venv holds it, so run in each shell: {export}"
    shell = f"{said.partition(': ')[2]}; exec {PYTHON} -c 'import ai_edge_litert'"
    assert subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout == "found\n"


def test_what_is_no_venv_is_said_so(tmp_path: Path) -> None:
    assert site_packages(Path(sys.prefix)).joinpath("pytest").is_dir()
    with pytest.raises(InstallationError, match=r"is no virtual environment of Python 3\.\d+; make it with: "):
        site_packages(tmp_path)
