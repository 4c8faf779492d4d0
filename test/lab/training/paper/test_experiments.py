# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv

import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras

from binvpr_ros.lab.training.networks import NETWORKS
from binvpr_ros.lab.training.networks.layers import PairConv2D
from binvpr_ros.lab.training.paper.experiments import EXPERIMENTS, PUBLISHED, VANISHED, published
from binvpr_ros.lab.training.quantizers import BINARY_ACTIVATIONS, BINARY_WEIGHTS
from binvpr_ros.lab.training.recipes import recipe_of

COUNTS = {
    "single": 16,
    "figure6": 17 + 17,
    "table2": 42,
    "table3": 21,
    "figure7": 5 + 5,
    "figure8": 13 + 24,
    "table4": 48,
    "table5": 48,
    "table6": 16 * 4,
}
TRULY_BINARY_PAIRS = 5 * 4


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_the_papers_number_of_cells(name: str) -> None:
    for recipe in EXPERIMENTS[name].recipes:
        cells = EXPERIMENTS[name].cells(recipe)
        count = TRULY_BINARY_PAIRS if (name, recipe) in {("table4", "deploy"), ("table5", "deploy")} else COUNTS[name]
        assert len({(cell.row, cell.column) for cell in cells}) == len(cells) == count
        for cell in cells:
            assert recipe_of("paper", cell.preset).stages[0].size == 224
            assert not {"/", ","} & set(cell.row + cell.column)


def test_every_published_figure_has_its_cell() -> None:
    cells = {
        (name, cell.row, cell.column) for name, experiment in EXPERIMENTS.items() for cell in experiment.cells("paper")
    }
    with PUBLISHED.open(encoding="utf-8") as file:
        rows = [(row["experiment"], row["row"], row["column"]) for row in csv.DictReader(file)]
    assert len(rows) == len(set(rows))
    assert set(rows) <= cells


def test_published_figures_by_example() -> None:
    assert published("table4", "DoReFa", "leaky tanh") == published("table4", "Approx", "leaky tanh") == 77.0
    assert published("table5", "Approx", "STE-tern") == 76.25
    assert published("table6", "BinVPR-Leaky-20", "Forest") == 78.25
    assert published("table6", "XNOR-Net", "Indoor") == VANISHED
    assert published("table2", "B1-Block2-Layer2", "Baseline-20") == VANISHED
    assert published("figure7", "1st-skip", "Baseline-20") is None


@pytest.mark.parametrize(
    ("table", "weights", "mean"), [("table4", "DoReFa", 63.41), ("table5", "DoReFa", 54.25), ("table5", "Magn", 36.59)]
)
def test_means_of_rows_are_the_papers(table: str, weights: str, mean: float) -> None:
    columns = dict.fromkeys(cell.column for cell in EXPERIMENTS[table].cells("paper"))
    figures = [published(table, weights, column) for column in columns]
    assert sum(figure for figure in figures if isinstance(figure, float)) / 8 == pytest.approx(mean, abs=0.01)


@pytest.mark.usefixtures("shapes_alone")
def test_cells_are_the_networks_that_they_say() -> None:
    pair = next(
        cell for cell in EXPERIMENTS["table4"].cells("paper") if (cell.row, cell.column) == ("DoReFa", "leaky tanh")
    )
    layer = pair.network(64, classes=5).get_layer("stage1_block1_conv1")
    assert (layer.activation_quantizer, layer.weight_quantizer) == ("leaky_tanh", "dorefa")
    best = EXPERIMENTS["figure7"].cells("paper")[0]
    assert best.network(64, classes=5).count_params() == NETWORKS["binvpr20"]["paper"](64, classes=5).count_params()
    truly_binary = EXPERIMENTS["single"].cells("deploy")[-1]
    assert truly_binary.network(64, classes=5).output["descriptor"].shape == (None, 2048)


@pytest.mark.usefixtures("shapes_alone")
def test_pairs_of_signs_are_those_that_they_say_without_a_relu_before_one() -> None:
    found = {}
    for cell in EXPERIMENTS["table4"].cells("deploy"):
        model = cell.network(64, classes=5)
        assert not [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
        convolutions = [layer for layer in model.layers if isinstance(layer, PairConv2D)]
        assert len(convolutions) == 16
        (pair,) = {(layer.activation_quantizer, layer.weight_quantizer) for layer in convolutions}
        assert pair[0] in BINARY_ACTIVATIONS
        assert pair[1] in BINARY_WEIGHTS
        found[cell.row, cell.column] = pair
    assert found["DoReFa", "leaky tanh"] == ("leaky_tanh_sign", "dorefa_sign")
    assert found["Magn", "STE"] == ("ste_sign", "magnitude_aware_sign")
