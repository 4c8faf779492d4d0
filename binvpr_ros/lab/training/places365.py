# SPDX-License-Identifier: Apache-2.0
"""Places365's categories in the four groups of the BinVPR paper (Sensors 2024, 24, 4130).

The paper names the five categories of Forest and only counts the others: the split of the other 360 is ours. It starts
from the labels indoor and outdoor of IO_places365.txt (CSAILVision/places365, MIT licence); `places365.csv` gives the
reason of each choice.
"""

from __future__ import annotations

import csv
from pathlib import Path

GROUPS = ("forest", "natural", "indoor", "outdoor")  # outdoor is what the paper calls outdoor human-made
TABLE = Path(__file__).with_suffix(".csv")


def categories(group: str) -> list[str]:
    """Return the names of a group's categories, sorted, as the folders of Places365's easyformat archive have them."""
    if group not in GROUPS:
        raise ValueError(f"there is no group {group} of Places365; use {', '.join(GROUPS)}")
    with TABLE.open(newline="", encoding="utf-8") as table:
        return sorted(row["category"].replace("/", "-") for row in csv.DictReader(table) if row["group"] == group)


FOREST_STAND_INS = ("bamboo_forest", "botanical_garden", "corn_field", "rainforest", "swamp")
"""For Forest where only MiniPlaces's hundred classes are at hand, of which two are the paper's."""


def stand_ins(group: str) -> list[str]:
    """Return the names that stand for a group's categories in a folder that has not all of them."""
    return list(FOREST_STAND_INS) if group == "forest" else categories(group)
