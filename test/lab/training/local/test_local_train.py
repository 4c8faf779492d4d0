# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.data import rendered_buildings
from binvpr_ros.lab.training.local.train import parse
from binvpr_ros.local_features.learned import LearnedFeatures
from binvpr_ros.network.model_card import ModelCard

ROOT = Path(__file__).resolve().parents[4]


def test_a_smoke_run_goes_from_nothing_to_a_model(tmp_path: Path) -> None:
    """First without the converter: what was learnt is kept, and the second command has but to export it."""
    pytest.importorskip("larq_compute_engine", reason="the converter is not installed")
    output = tmp_path / "smoke.tflite"
    without = "import sys; sys.modules['larq_compute_engine'] = None; " + (
        "from binvpr_ros.lab.training.train import main; sys.exit(main())"
    )
    arguments = ["local", "--smoke", "--output", str(output)]
    result = subprocess.run(
        [sys.executable, "-c", without, *arguments], capture_output=True, text=True, timeout=280, check=False, cwd=ROOT
    )
    assert result.returncode == 1, result.stderr
    assert f"the training is kept; finish with: train_offline local --smoke --output {output}\n" in result.stderr
    assert not output.exists()
    result = subprocess.run(
        [sys.executable, "-m", "binvpr_ros.lab.training.train", *arguments],
        capture_output=True, text=True, timeout=280, check=False, cwd=ROOT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "step" not in result.stderr  # nothing was trained
    card = ModelCard.read(output)
    assert (card.network, card.input_size, card.descriptor_bits) == ("local", [368, 480], 256)
    assert card.command == "train_offline local --smoke --steps 4 --output smoke.tflite"
    features = LearnedFeatures(output).extract(rendered_buildings(320, buildings=1, images=2).images[0])
    assert features.descriptors.shape == (len(features.positions), 32)
    for name in ("state.npz", "weights.npz", "log.csv", "curves.png"):
        assert (tmp_path / "smoke" / name).exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--smoke", "--output", "model.onnx"], "--output must end in .tflite"),
        (["--output", "model.tflite"], "give the folder of photographs, or --smoke"),
        (["photographs", "--output", "model.tflite"], "give the --teacher, or --smoke"),
        (["--smoke", "--steps", "1", "--minutes", "1", "--output", "m.tflite"], "give --minutes or --steps, not both"),
        (["--smoke", "--batch", "3", "--output", "model.tflite"], "--batch must be a multiple of 4"),
        (["--smoke", "--scale", "0.5", "--output", "model.tflite"], "--scale must be 1 or more"),
        (["--smoke", "--between-views", "-1", "--output", "model.tflite"], "--between-views must be a number of 0 or"),
        (["--smoke", "--between-views", "nan", "--output", "model.tflite"], "--between-views must be a number of 0 or"),
        (["--smoke", "--output", "nowhere/model.tflite"], "make the folder nowhere first"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert sentence in capsys.readouterr().err
