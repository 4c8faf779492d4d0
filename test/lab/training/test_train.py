# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.data import TrainingDataError, rendered_buildings
from binvpr_ros.lab.training.networks import NETWORKS
from binvpr_ros.lab.training.offline import read_images
from binvpr_ros.lab.training.train import NETWORKS as NAMES
from binvpr_ros.lab.training.train import parse
from binvpr_ros.lab.training.trainer import WarmUp
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.model_card import ModelCard

ROOT = Path(__file__).resolve().parents[3]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "binvpr_ros.lab.training.train", *map(str, arguments)]


def train_offline(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)


def write_folder(folder: Path, images: int = 24) -> None:
    """Write views of two rendered buildings as folders of classes."""
    data = rendered_buildings(64, buildings=2, images=images)
    for name in data.classes:
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        cv2.imwrite(str(folder / data.classes[label] / f"{number:03}.png"), image[..., ::-1])


def test_a_smoke_run_goes_from_nothing_to_a_model_that_the_node_loads(tmp_path: Path) -> None:
    """First without the converter: what was learnt is kept, and the second command has but to export it."""
    output = tmp_path / "smoke.tflite"
    without = "import sys; sys.modules['larq_compute_engine'] = None; " + (
        "from binvpr_ros.lab.training.train import main; sys.exit(main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", without, "--smoke", "--output", str(output)],
        capture_output=True, text=True, timeout=280, check=False, cwd=ROOT,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    sentence = "the converter is missing; run: pip install larq-compute-engine (x86-64); the training is kept"
    assert f"{sentence}; finish with: train_offline --smoke --output {output}\n" in result.stderr
    assert not output.exists()
    result = train_offline("--smoke", "--output", output)
    assert result.returncode == 0, result.stderr
    assert "px:" not in result.stderr  # nothing was trained
    card = ModelCard.read(output)
    assert card.training_data == "rendered buildings: 96 images of 4 classes"
    assert card.command == "train_offline --smoke --network binvpr20r --recipe deploy --seed 0 --output smoke.tflite"
    assert "recall_at_1_on_validation_views" in card.evaluation
    with (tmp_path / "smoke" / "log.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["step"] == "12"
    assert np.isfinite(float(rows[-1]["loss"]))
    assert (tmp_path / "smoke" / "curves.png").is_file()
    assert DescriptorNetwork(output).describe(np.zeros((240, 320), np.uint8)).descriptor.shape == (32,)


@pytest.mark.timeout(900)
@pytest.mark.long
def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """The kill comes in the second epoch; the log has each step once."""
    write_folder(tmp_path / "data")
    arguments = [tmp_path / "data", "--stages", "64:2", "--batch", 8, "--save-every", 0, "--network", "binvpr20"]
    states = {}
    for name in ("whole", "killed"):
        output = [*arguments, "--output", tmp_path / f"{name}.tflite"]
        state = tmp_path / name / "state.npz"
        if name == "killed":
            with subprocess.Popen(command(*output), cwd=ROOT, stderr=subprocess.DEVNULL) as process:
                deadline = time.monotonic() + 240
                while not state.exists() and time.monotonic() < deadline:
                    time.sleep(0.2)
                process.send_signal(signal.SIGKILL)
        assert state.exists() == (name == "killed")
        result = train_offline(*output)
        assert result.returncode == 0, result.stderr
        with np.load(state) as file:
            states[name] = {key: file[key] for key in file.files if key != "facts"}
        with (tmp_path / name / "log.csv").open(encoding="utf-8") as log:
            assert [row["epoch"] for row in csv.DictReader(log)] == ["1", "2"]
    assert states["whole"].keys() == states["killed"].keys()
    for key, value in states["whole"].items():
        np.testing.assert_array_equal(value, states["killed"][key])
    assert (tmp_path / "whole.tflite").read_bytes() == (tmp_path / "killed.tflite").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere"], "/nowhere is no folder"),
        (["{data}", "--batch", "64"], "there are 3 places, a batch needs 64; add images, or use a smaller --batch"),
        (["{data}", "--places", "--batch", "2"], "there are 1 places, a batch needs 2"),
        (
            ["{data}", "--batch", "2", "--stages", "50:1"],
            "binvpr20r, recipe deploy does not take 50 pixels: input_size is 50; give a",
        ),
        (
            ["{data}", "--batch", "64", "--stages", "128:1,64:2"],
            "train_offline: the model will take images of 64x64 pixels, as the last of the --stages\n",
        ),
    ],
)
def test_images_that_cannot_be_trained_on(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    write_folder(tmp_path / "data", images=2)
    filled = [argument.format(data=tmp_path / "data") for argument in arguments]
    result = train_offline(*filled, "--output", tmp_path / "x.tflite")
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--output", "x.tflite"], ["data", "--smoke", "--output", "x.tflite"], ["data", "--output", "x.onnx"],
     ["data", "--output", "x.tflite", "--network", "vgg"], ["data", "--output", "x.tflite", "--stages", "64"],
     ["data", "--output", "x.tflite", "--batch", "1"],
     ["data", "--output", "x.tflite", "--seed", "-1"], ["data", "--output", "x.tflite", "--seed", "4294967296"],
     ["data", "--output", "x.tflite", "--per-class", "-1"],
     ["data", "--output", "x.tflite", "--network", "alexnet", "--recipe", "deploy"],
     ["data", "--output", "x.tflite", "--network", "alexnet", "--places"],
     ["data", "--output", "x.tflite", "--network", "alexnet", "--distill"],
     ["data", "--output", "x.tflite", "--places", "--group", "forest"],
     ["data", "--output", "x.tflite", "--network", "binvpr20r", "--recipe", "paper"]],
)  # fmt: skip
def test_a_command_line_that_makes_no_sense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)


@pytest.mark.parametrize(("recipe", "network"), [([], "binvpr20r"), (["--recipe", "paper"], "binvpr20")])
def test_the_network_that_is_trained_where_none_is_named(recipe: list[str], network: str) -> None:
    assert parse(["data", "--output", "x.tflite", *recipe]).network == network


def test_help_names_all_networks_without_loading_keras() -> None:
    code = "import sys; sys.modules['keras'] = sys.modules['tensorflow'] = None; "
    code += "from binvpr_ros.lab.training.train import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("usage: train_offline ")
    assert sorted(NETWORKS) == list(NAMES)


@pytest.mark.parametrize("split", [[], ["train"]], ids=["no train/", "no val/"])
@pytest.mark.parametrize(("arguments", "kind"), [([], "images"), (["--places"], "places")])
def test_a_folder_that_is_not_split_says_how_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: list[str], arguments: list[str], kind: str
) -> None:
    data = Path(tmp_path, "office", *split)
    write_folder(data, images=12)
    folder = str(data if arguments else tmp_path / "office")
    train, validation, name = read_images(parse([folder, "--output", "x.tflite", *arguments]), 64)
    counts = f"{len(train.images)} images for training, {len(validation.images)} for validation"
    sentence = (
        f"train_offline: {name} is not split into train/ and val/, so every 10th of its {kind} is held out: {counts}"
    )
    assert sentence in capsys.readouterr().err
    assert len(train.images) + len(validation.images) == 24
    assert len(validation.images) == (12 if arguments else 2)


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_every_network_has_a_recipe_without_being_asked(network: str) -> None:
    choices = parse(["data", "--output", "x.tflite", "--network", network])
    assert choices.recipe == ("deploy" if "deploy" in NETWORKS[network] else "paper")
    assert choices.plan.stages


def test_the_learning_rate_warms_up_and_falls() -> None:
    rate = WarmUp(1e-3, 1e-4, steps=100, warm_up=10)
    values = [float(rate(step)) for step in range(101)]
    assert values[0] == 0
    assert np.argmax(values) in (9, 10)
    assert values[100] == pytest.approx(1e-4)
    assert float(WarmUp(1e-3, 1e-3, steps=100, warm_up=0)(0)) == pytest.approx(1e-3)


def test_a_folder_is_no_model_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "x.tflite"
    output.mkdir()
    with pytest.raises(SystemExit):
        parse(["data", "--output", str(output)])
    assert "x.tflite; give the path of a file" in capsys.readouterr().err


def test_classes_of_validation_go_by_name(tmp_path: Path) -> None:
    for part, names in (("train", "ab"), ("val", "ac")):
        for name in names:
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / "1.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(TrainingDataError, match="val lacks 1 classes, b among them; add their folders"):
        read_images(parse([str(tmp_path), "--output", "x.tflite"]), 64)
