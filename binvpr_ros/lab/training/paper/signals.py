# SPDX-License-Identifier: Apache-2.0
"""What reaches each layer of a network, forwards and backwards: where "gradient vanishing" really comes from.

A layer whose quantized input is the same for every image tells nothing apart, whatever its gradient is.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from binvpr_ros.lab.training.networks.layers import LatentConv2D
from binvpr_ros.lab.training.state import replace_table

PANELS = {
    "positive": "share of the inputs that are 0 or more",
    "change": "change of the quantized inputs from image to image",
    "gradient": "norm of the gradient at the kernel",
}
"""What is drawn of a Signal."""


@dataclass(frozen=True)
class Signal:
    """What a layer gets."""

    layer: str
    positive: float  # share of its inputs that are 0 or more, which is what a sign makes +1 of
    change: float  # of its quantized inputs from image to image: mean difference over mean size
    gradient: float  # norm of the loss's gradient at its kernel


class Signals:
    """signals.csv in a folder: a line for each layer each time that `take` is called.

    `images` [N,S,S,3] from 0 to 255 are of the classes `labels` [N]; N is even, and an image and the one N/2 further on
    are compared.
    """

    FILE = "signals.csv"
    COLUMNS = ("step", *(field.name for field in fields(Signal)))

    def __init__(self, folder: Path, images: NDArray[np.float32], labels: NDArray[np.int32]) -> None:
        self.path = folder / self.FILE
        self._images, self._labels = images, labels
        self._probe: _Probe | None = None

    def take(self, model: keras.Model, step: int) -> None:
        """Append the signals of `model` after `step` steps; lines from that step on, of a killed run, are replaced."""
        if self._probe is None or self._probe.model is not model:
            self._probe = _Probe(model)
        lines = [(before, signal) for before, signal in read_signals(self.path) if before < step]
        lines += [(step, signal) for signal in self._probe.signals(self._images, self._labels)]
        rows = ([at, signal.layer, *(f"{value:.6g}" for value in astuple(signal)[1:])] for at, signal in lines)
        replace_table(self.path, self.COLUMNS, rows)


def read_signals(path: Path) -> list[tuple[int, Signal]]:
    """Return the lines of a signals.csv, each with its step; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (int(row["step"]), Signal(row["layer"], *(float(row[field.name]) for field in fields(Signal)[1:])))
            for row in csv.DictReader(file)
        ]


class _Gradients(keras.optimizers.Optimizer):
    """Keeps the gradients, and leaves the weights as they are."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.0, name="gradients")
        self.kept: list[Any] = []

    def build(self, variables: Sequence[Any]) -> None:
        """Make a place for the gradient of each variable."""
        if not self.built:
            super().build(variables)
            self.kept = [self.add_variable_from_reference(variable, "gradient") for variable in variables]

    def update_step(self, gradient: Any, variable: Any, _learning_rate: Any) -> None:
        """Keep the gradient of a variable."""
        self.assign(self.kept[self._get_variable_index(variable)], gradient)


class _Probe:
    """A model with logits, seen from inside: its convolutions, and the layer behind them. It is left as it is."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._layers = [layer for layer in model.layers if _is_seen(layer)]
        self._inputs = keras.Model(model.input, [layer.input for layer in self._layers])
        self._loss = keras.Model(model.input, model.output["logits"])
        self._optimizer = _Gradients()
        self._loss.compile(self._optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def signals(self, images: NDArray[np.float32], labels: NDArray[np.int32]) -> list[Signal]:
        """Return the signals of the layers, in their order, for images as `Signals` takes them."""
        inputs = self._inputs.predict_on_batch(images)
        gradients = self._gradients(images, labels)
        signals = []
        for layer, values in zip(self._layers, inputs, strict=True):
            quantized = values
            if isinstance(layer, LatentConv2D):
                quantized = keras.ops.convert_to_numpy(layer.quantized(keras.ops.convert_to_tensor(values)))
            one, other = np.split(quantized.astype(np.float64), 2)
            size = np.abs(quantized).mean(dtype=np.float64)
            change = float(np.abs(one - other).mean() / size) if size else 0.0
            gradient = float(np.linalg.norm(gradients[layer.kernel.path]))
            signals.append(Signal(layer.name, float((values >= 0).mean()), change, gradient))
        return signals

    def _gradients(self, images: NDArray[np.float32], labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Return the gradient of the cross-entropy at each weight, by its path."""
        model = self._loss
        before = [keras.ops.convert_to_numpy(variable) for variable in model.non_trainable_variables]
        model.train_on_batch(images, labels)
        for variable, value in zip(model.non_trainable_variables, before, strict=True):  # of the batch norms
            variable.assign(value)
        kept = [keras.ops.convert_to_numpy(gradient) for gradient in self._optimizer.kept]
        return dict(zip((variable.path for variable in model.trainable_variables), kept, strict=True))


def _is_seen(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is a convolution on the main path, or the dense one that ends it."""
    if isinstance(layer, keras.layers.Conv2D):
        return bool(layer.kernel_size != (1, 1))
    return isinstance(layer, LatentConv2D) or layer.name == "logits"


def draw_signals(runs: dict[str, Path], title: str, picture: Path) -> None:
    """Draw what reached each layer at the end of several runs, given as their signals.csv by name, a line a run.

    Lines of networks with other layers each go from the first layer to the last.
    """
    figure = Figure(figsize=(12, 9), layout="constrained")
    panels = figure.subplots(len(PANELS), 1, sharex=True)
    colours = colormaps["viridis"](np.linspace(0, 0.95, len(runs)))
    layers: set[tuple[str, ...]] = set()
    gradients: list[float] = []
    for (name, path), colour in zip(runs.items(), colours, strict=True):
        lines = read_signals(path)
        last = [signal for step, signal in lines if step == lines[-1][0]] if lines else []
        layers.add(tuple(signal.layer for signal in last))
        gradients += [signal.gradient for signal in last]
        depth = np.linspace(0, 1, len(last))
        for axes, quantity in zip(panels, PANELS, strict=True):
            values = [getattr(signal, quantity) for signal in last]
            axes.plot(depth, values, ".-", label=name, color=colour, linewidth=1)
    for axes, panel_title in zip(panels, PANELS.values(), strict=True):
        axes.set_title(panel_title, fontsize=9)
        axes.grid(alpha=0.3)
    panels[0].set_ylim(-0.05, 1.05)
    panels[-1].set_yscale("symlog", linthresh=1e-8)
    if gradients and min(gradients) > 0:  # at least a decade, so that it has two labels
        panels[-1].set_ylim(10 ** np.floor(np.log10(min(gradients))), 10 ** np.ceil(np.log10(max(gradients))))
    if len(layers) == 1:
        names = layers.pop()
        panels[-1].set_xticks(np.linspace(0, 1, len(names)), names, rotation=60, ha="right", fontsize=7)
    else:
        panels[-1].set_xticks([0, 1], ["first layer", "classifier"], fontsize=7)
    # Beside the panels: a table has up to 48 networks.
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.savefig(picture, dpi=110)
