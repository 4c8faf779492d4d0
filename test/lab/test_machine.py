# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.lab.machine import cpu_name, disk, heat, machine, versions

CPUINFO = {
    "Raspberry Pi 4": """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid
CPU part\t: 0xd08

Revision\t: c03112
Model\t\t: Raspberry Pi 4 Model B Rev 1.2
""",
    "Jetson": """processor\t: 0
Features\t: fp asimd evtstrm aes asimddp
CPU part\t: 0xd42
""",
    "unknown": "Features\t: asimd\nCPU part\t: 0xabc\n",
    "PC": """processor\t: 0
model\t\t: 1
model name\t: AMD EPYC 7R13 Processor
flags\t\t: fpu sse popcnt avx2 fma
""",
}


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("board", "name", "cores", "features"),
    [
        ("Raspberry Pi 4", "Raspberry Pi 4 Model B Rev 1.2", "Cortex-A72", "asimd"),
        ("Jetson", "Cortex-A78AE", "Cortex-A78AE", "asimd asimddp"),
        ("unknown", "CPU part 0xabc", "CPU part 0xabc", "asimd"),
        ("PC", "AMD EPYC 7R13 Processor", None, "popcnt avx2 fma"),
    ],
)
def test_the_processor_is_told_as_its_kernel_tells_it(
    board: str, name: str, cores: str | None, features: str, tmp_path: Path
) -> None:
    root = written(tmp_path, {"proc/cpuinfo": CPUINFO[board]})
    assert cpu_name(root) == name
    facts = machine(root)
    assert facts["cpu"] == name
    assert facts.get("cores") == cores
    assert facts["features"] == features


def test_a_board_tells_its_name_system_memory_and_governor(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/meminfo": "MemTotal:        3884348 kB\nMemFree: 1 kB\n",
            "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
        },
    )
    facts = machine(root)
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts["memory_gib"] == 3.7
    assert facts["system"] == "Ubuntu 24.04.1 LTS"
    assert facts["governor"] == "ondemand"


def test_heat_is_that_of_the_hottest_sensor_and_the_fastest_processor(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "48312\n",
            "sys/class/thermal/thermal_zone1/temp": "61500\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
        },
    )
    assert heat(root) == {"celsius": 61.5, "mhz": 1500, "throttled": "0x50000", "throttle_count": 3}


def test_what_the_kernel_does_not_tell_is_left_out(tmp_path: Path) -> None:
    assert heat(tmp_path) == {}
    assert {"board", "features", "governor", "memory_gib", "system"}.isdisjoint(machine(tmp_path))


def test_this_machine_and_its_versions() -> None:
    facts = machine()
    assert facts["kernel"].endswith(platform.machine())
    assert facts["processors"] >= 1
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert {"opencv", "ai-edge-litert"} <= set(found)


def test_the_disk_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    inner = tmp_path / "maps"
    mounts = f"/dev/a / ext4 rw 0 0\ntmpfs {inner} tmpfs rw 0 0\n"
    root = written(tmp_path / "root", {"proc/mounts": mounts})
    assert disk(inner / "a.db", root) == "tmpfs on tmpfs"
    assert disk(tmp_path / "a.db", root) == "ext4 on /dev/a"
    assert disk(tmp_path, tmp_path / "nothing") == ""
