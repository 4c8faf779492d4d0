# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras

from binvpr_ros.lab.training.networks import build
from binvpr_ros.lab.training.state import StateError, TrainingState

SETTINGS = {"network": "tiny", "stages": (1, 2)}


def tiny(seed: int, width: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(width), keras.layers.BatchNormalization()])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def train(model: keras.Model, steps: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(steps):
        model.train_on_batch(rng.random((8, 4)), rng.random((8, 3)))


def values(model: keras.Model) -> list[NDArray[Any]]:
    return [keras.ops.convert_to_numpy(one) for one in [*model.variables, *model.optimizer.variables]]


def test_a_new_run_begins_at_the_start(tmp_path: Path) -> None:
    state = TrainingState(tmp_path, SETTINGS)
    assert (state.stage, state.step) == (0, 0)
    model = tiny(0)
    before = values(model)
    state.restore(model)
    for a, b in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    model = tiny(0)
    train(model, 5)
    TrainingState(tmp_path, SETTINGS).save(model, 1, 5)
    state = TrainingState(tmp_path, SETTINGS)
    assert (state.stage, state.step) == (1, 5)
    other = tiny(1)
    state.restore(other)
    for a, b in zip(values(model), values(other), strict=True):
        np.testing.assert_array_equal(a, b)
    train(model, 3)
    train(other, 3)
    for a, b in zip(values(model), values(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_new_stage_has_an_optimizer_of_its_own(tmp_path: Path) -> None:
    model = tiny(0)
    train(model, 5)
    state = TrainingState(tmp_path, SETTINGS)
    state.save(model, 1, 0)
    other = tiny(1)
    state.restore(other)
    np.testing.assert_array_equal(values(other)[0], values(model)[0])
    assert int(other.optimizer.iterations) == 0


def test_a_stage_of_larger_images_goes_on_with_the_same_weights(tmp_path: Path) -> None:
    models = []
    for seed, size in enumerate((64, 128)):
        keras.utils.set_random_seed(seed)
        models.append(build("binvpr20r", "deploy", size))
    small, large = models
    names = [[variable.path for variable in model.variables] for model in models]
    assert names[0] != names[1]  # in the order of Keras, which is that of the layers' depth
    small.compile(optimizer="sgd")
    TrainingState(tmp_path, SETTINGS).save(small, 1, 0)
    TrainingState(tmp_path, SETTINGS).restore(large)
    trained = {variable.path: keras.ops.convert_to_numpy(variable) for variable in small.variables}
    for variable in large.variables:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), trained[variable.path])


def test_a_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    TrainingState(tmp_path, SETTINGS).save(tiny(0), 0, 1)
    with pytest.raises(StateError, match=r"is of a run with other settings \(stages\); name another --work"):
        TrainingState(tmp_path, {**SETTINGS, "stages": (2, 2)})


@pytest.mark.parametrize(("stage", "step", "stages"), [(1, 0, (1, 3)), (1, 1, (1, 2, 3)), (2, 0, (1, 2, 3))])
def test_stages_to_come_may_be_others(tmp_path: Path, stage: int, step: int, stages: tuple[int, ...]) -> None:
    TrainingState(tmp_path, SETTINGS).save(tiny(0), stage, step)
    state = TrainingState(tmp_path, {**SETTINGS, "stages": stages})
    assert (state.stage, state.step) == (stage, step)


@pytest.mark.parametrize(("stage", "step", "stages"), [(1, 1, (1, 3)), (2, 0, (1, 3)), (2, 0, (1,))])
def test_stages_that_were_begun_may_not(tmp_path: Path, stage: int, step: int, stages: tuple[int, ...]) -> None:
    TrainingState(tmp_path, SETTINGS).save(tiny(0), stage, step)
    with pytest.raises(StateError, match=r"is of a run with other settings \(stages\)"):
        TrainingState(tmp_path, {**SETTINGS, "stages": stages})


def test_another_network_is_refused(tmp_path: Path) -> None:
    TrainingState(tmp_path, SETTINGS).save(tiny(0), 0, 1)
    with pytest.raises(StateError, match="is of another network"):
        TrainingState(tmp_path, SETTINGS).restore(tiny(0, width=5))


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_damaged_file_is_said_so(tmp_path: Path, keep: int) -> None:
    TrainingState(tmp_path, SETTINGS).save(tiny(0), 0, 1)
    content = (tmp_path / "state.npz").read_bytes()
    (tmp_path / "state.npz").write_bytes(content[:keep])
    with pytest.raises(StateError, match=r"cannot be read .*; remove it to start again"):
        TrainingState(tmp_path, SETTINGS)


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(0)
    state = TrainingState(tmp_path, SETTINGS)
    state.save(model, 0, 1)

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StateError, match=r"cannot be written \(No space left on device\); make room"):
        state.save(model, 0, 2)
    assert TrainingState(tmp_path, SETTINGS).step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
