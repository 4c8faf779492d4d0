# SPDX-License-Identifier: Apache-2.0
"""How a network is trained: stages, batches and losses, by the name of the recipe."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

RECIPES = ("deploy", "paper")
SAVE_EVERY = 60.0
"""Seconds between two times that a run is saved."""

_NO_STAGES = (
    "{!r} is not a list of stages; write SIZE:EPOCHS,SIZE:EPOCHS, as in 64:8,128:0.5, or 128:0.5:2e-3 with a rate"
)


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one image size; the learning rate falls linearly from `start` to `end`."""

    size: int  # pixels
    epochs: float
    start: float
    end: float


@dataclass(frozen=True)
class Recipe:
    """What is minimised, on what batches; a weight of 0 leaves a loss out."""

    stages: tuple[Stage, ...]
    batch: int  # places
    views: int  # of each place in a batch; one view is the image itself, two are distorted
    descriptor_weight: float  # of the multi-similarity loss between views
    class_weight: float  # of the cross-entropy of the classes
    teacher_weight: float  # of the distance to the teacher's maps, where there is a teacher
    warm_up: int  # steps
    clip_norm: float | None  # of the gradient

    def with_stages(self, text: str) -> Recipe:
        """Return the recipe with stages given as SIZE:EPOCHS or SIZE:EPOCHS:RATE, apart by commas.

        A stage without RATE begins with the recipe's, the first one with that of its first stage, all others with that
        of its last. The first falls to where the second begins, every other one as the recipe's last does: a run that
        is done can so be given a stage more. Raises ValueError where the text is no such list.
        """
        number = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
        stages: list[Stage] = []
        for part in text.split(","):
            match = re.fullmatch(rf"(\d+):({number})(?::({number}))?", part)
            if not match:
                raise ValueError(_NO_STAGES.format(text))
            preset = self.stages[-1] if stages else self.stages[0]
            start = float(match[3]) if match[3] else preset.start
            stages.append(Stage(int(match[1]), float(match[2]), start, self.stages[-1].end))
        if not all(stage.size and stage.epochs and stage.start for stage in stages):
            raise ValueError(_NO_STAGES.format(text))
        if len(stages) > 1:
            stages[0] = dataclasses.replace(stages[0], end=stages[1].start)
        return dataclasses.replace(self, stages=tuple(stages))


DEPLOY = Recipe(
    stages=(Stage(64, 8, 5e-3, 1e-3), Stage(128, 3, 1e-3, 0.0)), batch=64, views=2, descriptor_weight=1.0,
    class_weight=0.1, teacher_weight=4.0, warm_up=200, clip_norm=5.0,
)  # fmt: skip
"""For descriptors: two distorted views of each place, pulled together by the multi-similarity loss."""

SMOKE = Recipe(
    stages=(Stage(64, 1, 2e-3, 0.0),), batch=8, views=2, descriptor_weight=1.0, class_weight=0.1, teacher_weight=0.0,
    warm_up=200, clip_norm=5.0,
)  # fmt: skip
"""A minute, to see that all works; nothing is learnt."""

PRESETS = {
    # network: learning rate, batch, epochs; from the authors' code, the paper states none
    "binvpr20": (1e-5, 16, 400),
    "binvpr36": (3e-5, 16, 150),
    "baseline20": (1e-5, 16, 400),
    "baseline36": (3e-5, 16, 150),
    "resnet18": (8e-5, 8, 100),
    "resnet34": (1e-4, 16, 100),
    "biresnet18": (5e-5, 16, 100),
    "biresnet34": (1e-4, 16, 100),
    "birealnet34": (2e-4, 64, 100),
    "realtobinnet34": (8e-4, 12, 200),
    "dorefanet": (1e-4, 24, 100),
    "xnornet": (5e-4, 24, 150),
    "floppynet": (5e-4, 24, 150),
    "shallownet": (5e-4, 24, 150),
    "binarynet": (1e-4, 32, 100),
    "alexnet": (5e-4, 24, 100),
}


def recipe_of(name: str, network: str) -> Recipe:
    """Return a recipe for a network: `deploy`, or `paper` with the authors' presets; raises ValueError."""
    if name == "deploy":
        return DEPLOY
    preset = PRESETS.get(network.removesuffix("ste"))  # which quantizers a network has is not in its preset
    if name == "paper" and preset:
        rate, batch, epochs = preset
        return Recipe(
            stages=(Stage(224, epochs, rate, rate),), batch=batch, views=1, descriptor_weight=0.0, class_weight=1.0,
            teacher_weight=0.0, warm_up=0, clip_norm=None,
        )  # fmt: skip
    raise ValueError(f"there is no recipe {name} for {network}; use deploy")
