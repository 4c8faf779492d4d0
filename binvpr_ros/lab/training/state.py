# SPDX-License-Identifier: Apache-2.0
"""Where a run of training stands, on disk: a run that is killed at any moment goes on as if it had not been."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


class StateError(RuntimeError):
    """The state cannot be read, written or used; the message says why and what to do."""


class TrainingState:
    """The file `state.npz` of a run: its settings, how far it is, and all variables of the model and its optimizer.

    The file is replaced as a whole, so there is always one that is complete. `settings` are whatever the result depends
    on, `stages` among them; a file of other settings is refused, but stages that it has not come to may be others: so a
    run that is done can be made longer. Raises StateError.
    """

    def __init__(self, work: Path, settings: dict[str, Any]) -> None:
        self.path = work / "state.npz"
        self.stage, self.step = 0, 0
        self._settings = json.loads(json.dumps(settings))
        self._values: list[NDArray[Any]] = []
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                facts = json.loads(file["facts"].tobytes())
                self.stage, self.step = int(facts["stage"]), int(facts["step"])
                self._values = [file[f"variable{number}"] for number in range(len(file.files) - 1)]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise StateError(f"{self.path} cannot be read ({error}); remove it to start again") from None
        begun = self.stage + bool(self.step)
        before, now = ({**one, "stages": one.get("stages", [])[:begun]} for one in (facts["settings"], self._settings))
        if before != now:
            changed = [name for name, value in now.items() if before.get(name) != value]
            raise StateError(
                f"{self.path} is of a run with other settings ({', '.join(changed)}); name another --work, or remove it"
            )

    def restore(self, model: keras.Model) -> None:
        """Give a compiled `model` the variables of the file, where it has some; of the optimizer within a stage alone.

        The model of a stage may take images of another size than that of the stage before.
        """
        if not self._values:
            return
        variables = _variables(model, with_optimizer=self.step > 0)
        values = self._values[: len(variables)]
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            raise StateError(f"{self.path} is of another network; name another --work, or remove it")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def save(self, model: keras.Model, stage: int, step: int) -> None:
        """Keep the model and its optimizer after `step` steps of `stage`."""
        self.stage, self.step = stage, step
        self._values = [keras.ops.convert_to_numpy(variable) for variable in _variables(model, with_optimizer=True)]
        facts = json.dumps({"stage": stage, "step": step, "settings": self._settings}).encode()
        arrays = {f"variable{number}": value for number, value in enumerate(self._values)}
        temporary = self.path.with_suffix(".part")
        try:
            with temporary.open("wb") as file:
                np.savez(file, facts=np.frombuffer(facts, np.uint8), **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StateError(
                f"{self.path} cannot be written ({error.strerror}); make room, and run the same command to go on"
            ) from None


def replace_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file. It is replaced as a whole, so there is always one that is complete."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    part.replace(path)


def _variables(model: keras.Model, with_optimizer: bool) -> Sequence[Any]:
    # Keras sorts layers by their depth, which may be another one for images of another size.
    variables = sorted(model.variables, key=lambda variable: str(variable.path))
    return variables + list(model.optimizer.variables) if with_optimizer else variables
