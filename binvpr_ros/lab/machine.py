# SPDX-License-Identifier: Apache-2.0
"""Which machine figures were measured on, as far as Linux tells: board, processor, clock, temperature, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CORES_OF_ARM = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
}
"""Names of Arm's cores by "CPU part" in /proc/cpuinfo, which has no name on most boards."""
FEATURES = (
    "asimd", "asimddp", "i8mm", "sve", "popcnt", "avx2", "fma", "avx_vnni", "avx512bw", "avx512_vpopcntdq",
    "avx512_vnni", "avx512vbmi",
)  # fmt: skip
"""What the delegate's kernels, or XNNPACK's, ask of a processor."""
RUNTIMES = ("ai-edge-litert", "tflite-runtime")


def cpu_name(root: Path = Path("/")) -> str:
    """Return what the processor calls itself."""
    cpuinfo = _text(root / "proc/cpuinfo")
    name = re.search(r"^(?:model name|Model)\s*: *(.*)$", cpuinfo, re.MULTILINE)
    return name[1] if name else _cores(cpuinfo) or platform.processor() or platform.machine()


def machine(root: Path = Path("/")) -> dict[str, Any]:
    """Return what the machine is; anything that its kernel does not tell is left out.

    `root` is the folder that holds its /proc, /sys and /etc.
    """
    cpuinfo = _text(root / "proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    system = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text(root / "etc/os-release"), re.MULTILINE)
    governors = {_text(path) for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}
    facts = {
        "board": _text(root / "proc/device-tree/model"),
        "cpu": cpu_name(root),
        "cores": _cores(cpuinfo),
        "processors": os.cpu_count(),
        "features": " ".join(name for name in FEATURES if flags and name in flags[1].split()),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "system": system[1] if system else "",
        "kernel": f"{platform.release()} {platform.machine()}",
        "governor": ", ".join(sorted(governors)),
        "load": " ".join(_text(root / "proc/loadavg").split()[:3]),
    }
    return {name: value for name, value in facts.items() if value}


def disk(path: Path, root: Path = Path("/")) -> str:
    """Return the device and the file system that hold a file or folder; "" where that is not told."""
    mounts = [line.split()[:3] for line in _text(root / "proc/mounts").splitlines()]
    within = [mount for mount in mounts if path.resolve().is_relative_to(mount[1])]
    device, _, kind = max(within, key=lambda mount: len(mount[1]), default=("", "", ""))
    return f"{kind} on {device}" if device else ""


def heat(root: Path = Path("/")) -> dict[str, Any]:
    """Return what says whether the processor is slowed down just now; anything that is not told is left out.

    `celsius` is that of the hottest sensor, and `mhz` the clock of the fastest processor. `throttled` is what the
    firmware of a Raspberry Pi says since it was started: 0x0 for never, 0x4 for now, 0x40000 for earlier (bits 0, 1, 3
    and their like: too little voltage, a lower clock, a soft limit). `throttle_count` is that of x86-64.
    """
    sensors = [_number(path) for path in root.glob("sys/class/thermal/thermal_zone*/temp")]
    clocks = [_number(path) for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")]
    facts = {
        "celsius": max((value / 1000 for value in sensors if value is not None), default=None),
        "mhz": max((round(value / 1000) for value in clocks if value is not None), default=None),
        "throttled": _hexadecimal(root / "sys/devices/platform/soc/soc:firmware/get_throttled"),
        "throttle_count": _number(root / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of what it runs on, by name."""
    found = {
        "python": platform.python_version(),
        "binvpr_ros": _version("binvpr_ros"),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        **{name: _version(name) for name in RUNTIMES},
        "ros": os.environ.get("ROS_DISTRO", ""),
    }
    return {name: version for name, version in found.items() if version}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cores(cpuinfo: str) -> str:
    parts = dict.fromkeys(re.findall(r"^CPU part\s*:\s*(\S+)", cpuinfo, re.MULTILINE))
    return ", ".join(CORES_OF_ARM.get(part, f"CPU part {part}") for part in parts)


def _text(path: Path) -> str:
    """Return a file's text, "" where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _hexadecimal(path: Path) -> str | None:
    text = _text(path).removeprefix("0x")
    return f"0x{text}" if text else None
