# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.paper.experiments import PARAMETERS, SYSTEMS
from binvpr_ros.lab.training.paper.sizes import MIB, published_mib

ROOT = Path(__file__).resolve().parents[4]


def sizes(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "binvpr_ros.lab.training.train", "sizes", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)


@pytest.mark.timeout(300)
def test_the_files_hold_what_the_paper_counts(tmp_path: Path) -> None:
    pytest.importorskip("larq_compute_engine", reason="the converter is not installed")
    result = sizes(tmp_path, "--size", 64, "--rows", "FloppyNet,ResNet-18", "--repeat", 1)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "sizes.csv").open(encoding="utf-8") as file:
        floppynet, resnet = csv.DictReader(file)
    for row, network, bits in ((floppynet, "floppynet", 1), (resnet, "resnet18", 32)):
        content = (tmp_path / f"{network}.tflite").stat().st_size
        assert float(row["file_mib"]) == pytest.approx(content / MIB)
        assert content > int(row["parameters"]) * bits / 8 * 0.95  # padding and batch norms are folded away
        assert float(row["median_ms"]) > 0
    assert float(resnet["times_faster"]) == 1
    assert "11.21 (11.28)" in result.stdout
    assert "(0.44)" in result.stdout
    picture = cv2.imread(str(tmp_path / "sizes.png"))
    assert picture is not None
    assert picture.shape[1] > 500


def test_the_papers_sizes_are_its_parameters_at_one_bit_or_at_32() -> None:
    assert set(PARAMETERS) == set(SYSTEMS)
    names = ("BinVPR-Leaky-20", "BinVPR-Leaky-36", "ResNet-34", "AlexNet")
    assert [f"{published_mib(name):.2f}" for name in names] == ["1.98", "4.14", "81.33", "223.16"]


def test_wrong_choices_are_said_in_a_sentence(tmp_path: Path) -> None:
    assert "table 6 has no row VGG, only BinaryNet, XNOR-Net" in sizes(tmp_path, "--rows", "VGG").stderr
    assert "--repeat must be at least 1, not 0" in sizes(tmp_path, "--repeat", 0).stderr
    result = sizes(tmp_path, "--rows", "AlexNet", "--size", 8)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("train_offline sizes: ")
