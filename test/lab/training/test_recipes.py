# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from binvpr_ros.lab.training.recipes import DEPLOY, Stage, recipe_of


def test_stages_of_the_user_share_the_recipes_learning_rates() -> None:
    recipe = DEPLOY.with_stages("64:4,96:2,128:.5")
    assert recipe.stages == (Stage(64, 4, 5e-3, 1e-3), Stage(96, 2, 1e-3, 0.0), Stage(128, 0.5, 1e-3, 0.0))
    assert recipe.batch == DEPLOY.batch
    assert DEPLOY.with_stages("64:1").stages == (Stage(64, 1, 5e-3, 0.0),)


def test_stages_with_learning_rates_of_the_user() -> None:
    assert DEPLOY.with_stages("64:4:1e-2,128:1:.002").stages == (Stage(64, 4, 1e-2, 2e-3), Stage(128, 1, 2e-3, 0.0))
    before, after = DEPLOY.with_stages("64:4,128:1"), DEPLOY.with_stages("64:4,128:1,128:2:2e-3")
    assert after.stages == (*before.stages, Stage(128, 2, 2e-3, 0.0))


@pytest.mark.parametrize(
    "text",
    ["", "64", "64:0", "64:1,", "64:-1", "64:1;128:1", "a:b", "64:1:0", "64:1:", "64:1:2:3", "64:1:-1", "64:nan"],
)
def test_stages_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a list of stages; write SIZE:EPOCHS"):
        DEPLOY.with_stages(text)


def test_the_paper_recipe_has_the_authors_presets() -> None:
    recipe = recipe_of("paper", "binvpr20")
    assert recipe.stages == (Stage(224, 400, 1e-5, 1e-5),)
    assert (recipe.batch, recipe.views, recipe.descriptor_weight, recipe.class_weight) == (16, 1, 0.0, 1.0)


def test_a_recipe_that_a_network_does_not_have() -> None:
    with pytest.raises(ValueError, match="there is no recipe paper for binvpr20r; use deploy"):
        recipe_of("paper", "binvpr20r")
