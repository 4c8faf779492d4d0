# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from collections import Counter

import pytest

from binvpr_ros.lab.training.places365 import GROUPS, TABLE, categories

with TABLE.open(newline="", encoding="utf-8") as table:
    ROWS = list(csv.DictReader(table))


def test_the_groups_are_as_large_as_the_papers() -> None:
    assert [len(categories(group)) for group in GROUPS] == [5, 48, 156, 156]


def test_every_category_is_in_one_group() -> None:
    names = [name for group in GROUPS for name in categories(group)]
    assert len(names) == len(set(names)) == 365
    assert not any("/" in name for name in names)
    assert {row["group"] for row in ROWS} == set(GROUPS)
    assert [row["category"] for row in ROWS] == sorted({row["category"] for row in ROWS})


def test_forest_is_what_the_paper_names() -> None:
    assert categories("forest") == ["bamboo_forest", "desert-vegetation", "forest-broadleaf", "rainforest", "tree_farm"]
    assert {row["category"] for row in ROWS if row["source"] == "paper"} == {
        "bamboo_forest",
        "desert/vegetation",
        "forest/broadleaf",
        "rainforest",
        "tree_farm",
    }


def test_every_row_has_a_source_that_suits_its_group() -> None:
    for row in ROWS:
        source, _, reason = row["source"].partition(": ")
        assert bool(reason) == (source == "ours"), row
    sources = Counter((row["group"], row["source"].partition(":")[0]) for row in ROWS)
    assert sources == {
        ("forest", "paper"): 5,
        ("natural", "ours"): 48,
        ("indoor", "IO_places365"): 154,
        ("indoor", "ours"): 2,
        ("outdoor", "IO_places365"): 151,
        ("outdoor", "ours"): 5,
    }


def test_only_these_leave_their_label_indoor_or_outdoor() -> None:
    # IO_places365.txt has 160 labels indoor and 205 outdoor.
    moved = {row["category"]: row["group"] for row in ROWS if "label" in row["source"]}
    assert moved == {
        "archaelogical_excavation": "outdoor",
        "arena/rodeo": "outdoor",
        "balcony/interior": "indoor",
        "bus_station/indoor": "indoor",
        "subway_station/platform": "outdoor",
        "swimming_hole": "natural",
        "ticket_booth": "outdoor",
        "train_station/platform": "outdoor",
    }
    assert len(categories("indoor")) - 2 + 6 == 160


@pytest.mark.parametrize(
    ("endings", "group"), [(("/indoor", "/interior"), "indoor"), (("/outdoor", "/exterior"), "outdoor")]
)
def test_a_name_that_says_where_it_is(endings: tuple[str, ...], group: str) -> None:
    assert {row["group"] for row in ROWS if row["category"].endswith(endings)} == {group}


def test_a_group_that_is_none() -> None:
    with pytest.raises(ValueError, match="there is no group urban of Places365; use forest, natural, indoor, outdoor"):
        categories("urban")
