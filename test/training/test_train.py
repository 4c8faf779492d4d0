# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.descriptor import DescriptorNetwork
from binvpr_ros.model_card import ModelCard
from binvpr_ros.training.train import WarmUp, parse


def train_offline(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "binvpr_ros.training.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def test_a_smoke_run_goes_from_nothing_to_a_model_that_the_node_loads(tmp_path: Path) -> None:
    output = tmp_path / "smoke.tflite"
    result = train_offline("--smoke", "--output", str(output))
    assert result.returncode == 0, result.stderr
    card = ModelCard.read(output)
    assert card.training_data == "rendered buildings: 96 images of 4 classes"
    assert card.command == "train_offline --smoke --network binvpr20 --recipe deploy --seed 0 --output smoke.tflite"
    assert (tmp_path / "smoke" / "log.csv").read_text().startswith("epoch,")
    assert DescriptorNetwork(output).describe(np.zeros((240, 320), np.uint8)).descriptor.shape == (32,)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = train_offline("/nowhere", "--output", str(tmp_path / "x.tflite"))
    assert result.returncode == 1
    assert "train_offline: /nowhere/train is no folder" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--output", "x.tflite"], ["data", "--smoke", "--output", "x.tflite"], ["data", "--output", "x.onnx"],
     ["data", "--output", "x.tflite", "--network", "vgg"]],
)  # fmt: skip
def test_a_command_line_that_makes_no_sense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)


def test_the_learning_rate_warms_up_and_falls() -> None:
    rate = WarmUp(1e-3, 1e-4, steps=100, warm_up=10)
    values = [float(rate(step)) for step in range(101)]
    assert values[0] == 0
    assert np.argmax(values) in (9, 10)
    assert values[100] == pytest.approx(1e-4)
