# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

from binvpr_ros.lab.training.networks.restoration import (
    BASIC,
    Place,
    Restoration,
    basic_and_inter,
    basic_and_intra,
    basic_multiple,
    basic_single,
    best,
    inter_block,
    intra_block,
    last_relu,
    places,
)


@pytest.mark.parametrize(("depth", "convolutions"), [(20, 16), (36, 32)])
def test_layers_add_up(depth: int, convolutions: int) -> None:
    assert len(places(depth)) == convolutions == depth - 3 - 1


@pytest.mark.parametrize(
    ("ways", "count"),
    [
        (lambda: basic_single(20), 16),
        (lambda: basic_single(36), 32),
        (lambda: basic_multiple(20), 1 + 16),
        (lambda: basic_multiple(36), 1 + 16),
        (inter_block, 18 + 12 + 12),
        (intra_block, 21),
        (lambda: basic_and_inter(20), 4),
        (lambda: basic_and_inter(36), 4),
        (lambda: basic_and_intra(20), 4 * 3),
        (lambda: basic_and_intra(36), 5 + 7 + 11),
    ],
)
def test_the_papers_number_of_ways_no_two_alike(ways: Callable[[], list[Restoration]], count: int) -> None:
    found = ways()
    assert len(found) == len({way.name for way in found}) == len({way.pairs for way in found}) == count


@pytest.mark.parametrize("depth", [20, 36])
def test_sources_come_before_their_targets(depth: int) -> None:
    order = [BASIC, *places(depth)]
    ways = [*basic_single(depth), *basic_multiple(depth), *basic_and_inter(depth), *basic_and_intra(depth)]
    for way in [*ways, *inter_block(), *intra_block()]:
        for source, target in way.pairs:
            assert order.index(source) < order.index(target._replace(relu=False)) + target.relu


def test_ways_are_named_from_the_top_down() -> None:
    ways = basic_multiple(20)
    assert [way.name for way in ways[:5]] == ["Zero", "LR.", "1st-LC", "2nd-LC", "3rd-LC"]
    assert ways[-1].name == "15th-LC"
    assert ways[0].pairs == frozenset()
    assert ways[-1].pairs == frozenset().union(*(way.pairs for way in basic_single(20)))


def test_binvpr_itself() -> None:
    assert best(20).pairs == {(BASIC, Place(4, 4)), (BASIC, last_relu(20))}
    assert best(36).name == "7th-LC"
    assert best(36).sources(Place(3, 12)) == best(36).sources(Place(4, 1)) == [BASIC]
    assert best(36).sources(Place(3, 11)) == []


def test_inter_and_intra_block_by_example() -> None:
    inter = {way.name: way.pairs for way in inter_block()}
    assert inter["B2-Block3+4-Layer2+3"] == {
        (Place(2, 1), Place(block, number)) for block in (3, 4) for number in (2, 3)
    }
    intra = {way.name: way.pairs for way in intra_block()}
    assert intra["Block1+2-Layer2"] == {(Place(1, 1), Place(1, 2)), (Place(2, 1), Place(2, 2))}
    full = basic_and_inter(20)[-1]
    assert full.name == "full-skip"
    assert full.sources(last_relu(20)) == [BASIC, Place(4, 1)]
