# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras

from binvpr_ros.lab.training.data import rendered_buildings
from binvpr_ros.lab.training.local import trainer
from binvpr_ros.lab.training.local.network import build
from binvpr_ros.lab.training.local.targets import SIDE, Chosen, Taught, stand_in
from binvpr_ros.lab.training.local.trainer import Budget, LocalTrainer, Recipe, load_weights, save_weights
from binvpr_ros.lab.training.state import StateError

RECIPE = Recipe(batch=4, warm_up=2)
Photographs = tuple[Taught, Chosen, Chosen]


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    taught = stand_in(rendered_buildings(SIDE, buildings=2, images=8).images)
    return taught, *taught.split(4)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "STEPS_AT_ONCE", 2)
    monkeypatch.setattr(trainer, "VALIDATE_EVERY", 2)
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)


@pytest.fixture(scope="module")
def done(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of two steps."""
    work = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "STEPS_AT_ONCE", 2)
        run(photographs, work, Budget(steps=2))
    return work


def run(photographs: Photographs, work: Path, budget: Budget, **more: Any) -> keras.Model:
    work.mkdir(exist_ok=True)
    return LocalTrainer(*photographs, RECIPE, budget, work, **more).run()


def stop(_trainer: LocalTrainer) -> dict[str, float]:
    os.kill(os.getpid(), signal.SIGTERM)
    return {}


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(photographs, tmp_path / "whole", Budget(steps=4)).get_weights()
    with monkeypatch.context() as patch:
        # It comes after two steps, from within the loop, while the figures are taken.
        patch.setattr(LocalTrainer, "validate", stop)
        model = run(photographs, tmp_path / "work", Budget(steps=4))
    assert int(model.optimizer.iterations) == 2
    state = (tmp_path / "work" / "state.npz").read_bytes()
    rest = run(photographs, tmp_path / "work", Budget(steps=4)).get_weights()
    for ours, theirs in zip(rest, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with (tmp_path / "work" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert float(rows[1]["val_cosine"]) < 1
    assert (tmp_path / "work" / "curves.png").stat().st_size > 1000
    # Killed after the last step, before the state was written.
    (tmp_path / "work" / "state.npz").write_bytes(state)
    assert LocalTrainer(*photographs, RECIPE, Budget(steps=4), tmp_path / "work").state.step == 2


def test_a_run_whose_minutes_are_over_is_not_trained(photographs: Photographs, done: Path) -> None:
    before = (done / "state.npz").read_bytes()
    ended = LocalTrainer(*photographs, RECIPE, Budget(minutes=0.01), done)
    model = ended.run()
    assert ended.state.step == int(model.optimizer.iterations) == 2
    assert (done / "state.npz").read_bytes() == before


def test_budgets_are_spent() -> None:
    assert Budget(steps=10).share(5, 1e9) == 0.5
    assert Budget(minutes=2).share(10**9, 60) == 0.5
    assert Budget(minutes=0).share(0, 1) == Budget(steps=0).share(0, 0) == 1


def test_a_state_of_other_settings_is_refused(photographs: Photographs, done: Path) -> None:
    with pytest.raises(StateError, match=r"other settings \(seed\)"):
        LocalTrainer(*photographs, RECIPE, Budget(steps=2), done, seed=1)


def test_a_run_may_start_from_the_weights_of_another(photographs: Photographs, done: Path, tmp_path: Path) -> None:
    model = LocalTrainer(*photographs, RECIPE, Budget(steps=2), done).run()
    save_weights(model, tmp_path / "weights.npz")
    again = build(SIDE, SIDE, taught=64)
    load_weights(again, tmp_path / "weights.npz")
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    (tmp_path / "other").mkdir()
    other = LocalTrainer(*photographs, RECIPE, Budget(steps=2), tmp_path / "other", start_from=tmp_path / "weights.npz")
    np.testing.assert_array_equal(other.model.get_weights()[0], again.get_weights()[0])
    with pytest.raises(StateError, match="of another network"):
        load_weights(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), tmp_path / "weights.npz")
    (tmp_path / "weights.npz").write_bytes(b"nothing")
    with pytest.raises(StateError, match="cannot be read"):
        load_weights(again, tmp_path / "weights.npz")
