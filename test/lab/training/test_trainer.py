# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

ROOT = Path(__file__).resolve().parents[3]

# A small BinVPR with shortcuts, on rendered images, in a process whose CPU stands for so many devices.
PROGRAM = """
import json, sys
from pathlib import Path

import keras, numpy as np

from binvpr_ros.lab.training.data import rendered_buildings
from binvpr_ros.lab.training.networks import binvpr, find
from binvpr_ros.lab.training.recipes import SMOKE
from binvpr_ros.lab.training.trainer import Trainer, use_all_devices

binvpr.WIDTHS, binvpr.BASIC_WIDTH = (32, 64, 96, 128), 32
use_all_devices()
images = rendered_buildings(64)
trainer = Trainer("small", find("binvpr20r", "deploy"), SMOKE, images, images, Path(sys.argv[1]))
model = trainer.run()
kernel = model.get_layer("block1_conv1").kernel
again = Trainer("small", find("binvpr20r", "deploy"), SMOKE, images, images, Path(sys.argv[1])).run()
print(json.dumps({
    "devices": len(kernel.value.sharding.device_set),
    "figures": trainer.validate(model, 64),
    "weights": np.asarray(kernel.value).ravel()[:100].tolist(),
    "restored": bool(np.array_equal(kernel.value, again.get_layer("block1_conv1").kernel.value)),
}))
"""


# The same with a teacher that says how light it is where.
TAUGHT = """
import csv, dataclasses, json, sys
from pathlib import Path

import cv2, numpy as np

from binvpr_ros.lab.training.data import rendered_buildings
from binvpr_ros.lab.training.networks import binvpr, find
from binvpr_ros.lab.training.recipes import SMOKE
from binvpr_ros.lab.training.trainer import Trainer

binvpr.WIDTHS, binvpr.BASIC_WIDTH = (32, 64, 96, 128), 32
images = rendered_buildings(64)
light = np.stack([cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA) for image in images.images])
taught = (light - light.mean(axis=0)).clip(-127, 127).astype(np.int8)
recipe = dataclasses.replace(SMOKE.with_stages("64:6"), teacher_weight=4.0)
work = Path(sys.argv[1])
Trainer("small", find("binvpr20r", "deploy"), recipe, images, images, work, taught=taught).run()
print(json.dumps([float(row["teacher_loss"]) for row in csv.DictReader((work / "log.csv").open())]))
"""


def run(program: str, work: Path, **environment: str) -> Any:
    """Return what a program in a process of its own prints in its last line."""
    work.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", program, str(work)], env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def train_on(devices: int, work: Path) -> dict[str, Any]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return dict(run(PROGRAM, work, KERAS_BACKEND="jax", XLA_FLAGS=flags))


@pytest.mark.timeout(600)
@pytest.mark.long
def test_the_bits_learn_what_the_teacher_sees(tmp_path: Path) -> None:
    losses = run(TAUGHT, tmp_path / "work", KERAS_BACKEND="tensorflow")
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.timeout(600)
@pytest.mark.long
def test_a_batch_spread_over_two_devices_trains_as_on_one(tmp_path: Path) -> None:
    """The loss compares all images of the batch, whichever device they are on."""
    pytest.importorskip("jax", reason="JAX is not installed")
    one, two = (train_on(devices, tmp_path / str(devices)) for devices in (1, 2))
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["restored"]
    assert two["restored"]
    # Sums are added up in another order; a sign that flips moves a weight by Adam's step, 2e-3 at most.
    assert two["weights"] == pytest.approx(one["weights"], abs=5e-3)
    assert two["figures"]["val_recall_at_1"] == pytest.approx(one["figures"]["val_recall_at_1"], abs=0.05)


@pytest.mark.parametrize(
    "rubbish", [b"", b"\xd1\xff\x00\n", b'"' + b"a" * 200_000 + b'"\n'], ids=["empty", "bytes", "long"]
)
def test_a_log_with_rubbish_in_it_keeps_its_good_lines(tmp_path: Path, rubbish: bytes) -> None:
    from binvpr_ros.lab.training.state import TrainingState
    from binvpr_ros.lab.training.trainer import Log

    state = TrainingState(tmp_path, {})
    state.stage, state.step = 1, 100
    path = tmp_path / "log.csv"
    Log(path, state).add({"stage": 1, "step": 50, "loss": 0.5})
    with path.open("ab") as file:
        file.write(rubbish)
    Log(path, state).add({"stage": 1, "step": 150, "loss": 0.25})
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    assert header.startswith("stage,size,epoch,step")
    assert [line.split(",")[3] for line in lines] == ["50", "150"]
