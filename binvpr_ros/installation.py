# SPDX-License-Identifier: Apache-2.0
"""How to install what is missing, said for the Python that is running; it needs nothing but the standard library.

Ubuntu 24.04 refuses pip outside a virtual environment (PEP 668), and where pip may install, it brings a NumPy 2 that
breaks apt's OpenCV. So what apt does not have goes into a virtual environment that sees the system's packages, and
PYTHONPATH names it.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys
from pathlib import Path

VENV = "~/binvpr_venv"
"""The virtual environment beside ROS from apt, as README calls it."""
OF_APT = {
    "cv2": "python3-opencv",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "rich": "python3-rich",
    "scipy": "python3-scipy",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}
"""Packages of Debian and Ubuntu, by the module that they bring."""
ALONE = {"ai-edge-litert": "'ai-edge-litert>=2.1,<2.4'", "gtsam": "gtsam"}
"""What is installed without its dependencies, since they would replace apt's NumPy, in the versions that are known."""
LEAST_NUMPY = (1, 23, 2)
"""Of ai-edge-litert; Ubuntu 22.04 has an earlier one."""


class InstallationError(ValueError):
    """Something is not installed where it is looked for; the message says what to do."""


def in_venv() -> bool:
    """Return whether this Python is that of a virtual environment."""
    return sys.prefix != sys.base_prefix


def site_packages(venv: Path) -> Path:
    """Return the folder of a virtual environment that holds its packages for this Python; raises InstallationError."""
    folder = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    if not folder.is_dir():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InstallationError(
            f"{venv} is no virtual environment of Python {version}; make it with: "
            f"{shlex.quote(sys.executable)} -m venv --system-site-packages {shlex.quote(str(venv))}"
        )
    return folder


def how_to_install(package: str) -> str:
    """Return what to run so that this Python has a package of apt or of PyPI, as part of a sentence."""
    if not in_venv() and package in OF_APT:
        return f"run: sudo apt install {OF_APT[package]}"
    options = "--no-deps " if package in ALONE else ""
    what = f"{options}{ALONE.get(package, package)}{_newer_numpy() if package in ALONE else ''}"
    if in_venv():
        return f"run: {shlex.quote(str(Path(sys.prefix, 'bin', 'pip')))} install {what}"
    venv = Path(VENV).expanduser()
    try:
        packages = site_packages(venv)
    except InstallationError:
        python = shlex.quote(sys.executable)
        make = f"{python} -m venv --system-site-packages {VENV} && {VENV}/bin/pip install {what}"
        return f"run: {make} && {_export(f'$(echo {VENV}/lib/python3.*/site-packages)')}"
    export = _export(shlex.quote(str(packages)))
    if (packages / package.replace("-", "_")).is_dir():
        return f"{VENV} holds it, so run in each shell: {export}"
    return f"run: {VENV}/bin/pip install {what} && {export}"


def how_to_install_module(module: str, extra: str) -> str:
    """Return what to run so that this Python has a module, one of an extra of this package."""
    if not in_venv() and (module in OF_APT or module == "rosbags"):
        return how_to_install(module)
    pip = shlex.quote(str(Path(sys.prefix, "bin", "pip"))) if in_venv() else "make demo && .venv/bin/pip"
    return f"run, in a checkout: {pip} install -e '.[{extra}]'"


def _export(path: str) -> str:
    return f"export PYTHONPATH={path}:$PYTHONPATH"


def _newer_numpy() -> str:
    try:
        version = importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        return ""
    return "" if numbers_of(version) >= LEAST_NUMPY else f" 'numpy>={'.'.join(map(str, LEAST_NUMPY))},<2'"


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers with which a version begins."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
