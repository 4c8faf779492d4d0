# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.evaluation.datasets.dataset import Dataset
from binvpr_ros.lab.evaluation.datasets.truth import PairTruth
from binvpr_ros.lab.training.data import rendered_buildings
from binvpr_ros.lab.training.local.ablations import BASE, VARIATIONS, Ablations, main, markdown
from binvpr_ros.lab.training.local.network import SHAPE
from binvpr_ros.lab.training.local.targets import SIDE, stand_in
from binvpr_ros.lab.training.state import StateError
from binvpr_ros.network.model_card import ModelCard

from .test_report import Shown

OTHER = "bits-512"


def test_variations_differ_from_the_base_in_one_thing() -> None:
    base = VARIATIONS[BASE]
    for name, variation in VARIATIONS.items():
        changed = [part for part in ("shape", "recipe", "squares", "seed")
                   if getattr(variation, part) != getattr(base, part)]  # fmt: skip
        # What is learnt instead of the bits has no two views.
        assert len(changed) == {BASE: 0, "signs-not-trained": 2}.get(name, 1)


@pytest.mark.long
def test_variations_are_trained_measured_and_put_into_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("larq_compute_engine", reason="the converter is not installed")
    images = rendered_buildings(SIDE, buildings=3, images=8).images
    taught = stand_in(images)
    places = Dataset("places", Shown(list(images[:4])), Shown(list(images[:4])), PairTruth([[0], [1], [2], [3]], 4))
    train, held_out = taught.split(8)
    ablations = Ablations(tmp_path, steps=1)
    for name in (BASE, OTHER):
        assert ablations.done(name) is None
        ablations.run(name, taught, train, held_out, [places])
    assert ModelCard.read(tmp_path / f"{OTHER}.tflite").descriptor_bits == 2 * SHAPE.bits
    # They are not trained again, so the photographs and the teacher are not asked for.
    command = ["nowhere", "--teacher", "none.onnx", "--output", str(tmp_path), "--steps", "1", BASE, OTHER]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in shown.splitlines()] == ["| ", "| ---", f"| {BASE}", f"| {OTHER}"]
    done = json.loads((tmp_path / "ablations.json").read_text())
    assert shown == (tmp_path / "ablations.md").read_text() == markdown(done)
    assert done[BASE]["time"] == 1
    assert done[OTHER]["time"] > 0
    assert done[BASE]["kilobytes"] < done[OTHER]["kilobytes"]
    assert 0 < done[OTHER]["above"]["places"] <= 1
    with pytest.raises(StateError, match="is of a run with --steps 1; name another --output"):
        Ablations(tmp_path, steps=2).done(BASE)


def test_a_name_that_is_no_variation_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["photographs", "--teacher", "t.onnx", "--output", "out", "--steps", "1", "wider"])
    assert "no variation is called wider; see --help" in capsys.readouterr().err
