# SPDX-License-Identifier: Apache-2.0
"""Ways of feature restoration (paper, section 3.4), as data: which features are added to which inputs.

The paper compares them on networks of 20 and 36 layers: a basic block of three convolutions, four blocks of the main
part, and a dense layer. Every function here gives the ways of one table or figure, named as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

CONVOLUTIONS = {20: (4, 4, 4, 4), 36: (6, 8, 12, 6)}
"""Convolutions in each block of the main part, by the number of layers (section 3.1)."""


class Place(NamedTuple):
    """A convolution, by its number in its block of 1 to 4 (0 is the basic block), or the ReLU behind it.

    As a source it is the convolution's output, before its batch norm; as a target, the input of either.
    """

    block: int
    convolution: int
    relu: bool = False


BASIC = Place(0, 3)
"""The basic features."""


@dataclass(frozen=True)
class Restoration:
    """One way: a name and pairs of a source and the target to whose input it is added."""

    name: str
    pairs: frozenset[tuple[Place, Place]] = field(default_factory=frozenset)

    @property
    def all_sources(self) -> frozenset[Place]:
        """Return what is added anywhere."""
        return frozenset(source for source, _ in self.pairs)

    def sources(self, target: Place) -> list[Place]:
        """Return what is added to the input of `target`."""
        return sorted(source for source, to in self.pairs if to == target)


def places(depth: int) -> list[Place]:
    """Return the convolutions of the main part of a network of `depth` layers, in order."""
    return [
        Place(block, convolution)
        for block, count in enumerate(CONVOLUTIONS[depth], 1)
        for convolution in range(1, count + 1)
    ]


def last_relu(depth: int) -> Place:
    """Return the paper's "LR."."""
    return places(depth)[-1]._replace(relu=True)


def basic_single(depth: int) -> list[Restoration]:
    """Restore basic features in one place: a convolution but the first, or the last ReLU; 16 ways with 20 layers."""
    ways = [_way(f"conv{number}", BASIC, [place]) for number, place in enumerate(places(depth)[1:], 2)]
    return [*ways, _way("LR.", BASIC, [last_relu(depth)])]


def basic_multiple(depth: int) -> list[Restoration]:
    """Restore basic features from the top down (figure 6): nowhere, the last ReLU, with it 1 to 15 convolutions."""
    ways = [Restoration("Zero"), _way("LR.", BASIC, [last_relu(depth)])]
    return ways + [
        _way(f"{_ordinal(count)}-LC", BASIC, [*places(depth)[-count:], last_relu(depth)]) for count in range(1, 16)
    ]


def best(depth: int) -> Restoration:
    """Return the way of BinVPR itself (section 3.5): 1st-LC with 20 layers, 7th-LC with 36.

    The authors' newest code differs: it feeds the last convolution but one, and with 36 layers the last eight.
    """
    return basic_multiple(depth)[2 if depth == 20 else 8]


_ONE = ((2,), (3,), (4,))
_SEVERAL = ((2, 3), (3, 4), (2, 3, 4))


def inter_block() -> list[Restoration]:
    """Add an earlier block's first convolution to convolutions 2 to 4 of blocks 2 to 4 (table 2): 18 + 12 + 12 ways."""
    return [
        _way(
            f"B{source}-{_numbers('Block', blocks)}-{_numbers('Layer', convolutions)}",
            Place(source, 1),
            [Place(*place) for place in product(blocks, convolutions)],
        )
        for block_sets, convolution_sets in ((_ONE, _ONE), (_SEVERAL, _ONE), (_SEVERAL, _SEVERAL))
        for blocks in block_sets
        for source in range(1, blocks[0])
        for convolutions in convolution_sets
    ]


def intra_block() -> list[Restoration]:
    """Add a block's first convolution to its 2nd, its 2nd and 3rd, its 2nd to 4th (table 3): 21 ways."""
    return [
        Restoration(
            f"{_numbers('Block', blocks)}-{_numbers('Layer', convolutions)}",
            frozenset((Place(block, 1), Place(block, number)) for block, number in product(blocks, convolutions)),
        )
        for blocks in ((1,), (2,), (3,), (4,), (1, 2), (1, 2, 3), (1, 2, 3, 4))
        for convolutions in ((2,), (2, 3), (2, 3, 4))
    ]


def basic_and_inter(depth: int) -> list[Restoration]:
    """Add to the best basic way a block's first convolution into the next block's first (figure 7): 4 ways.

    "full-skip" has all three and the last block's into the last ReLU.
    """
    skips = [(Place(block, 1), Place(block + 1, 1)) for block in (1, 2, 3)]
    ways = {f"{_ordinal(number)}-skip": [skip] for number, skip in enumerate(skips, 1)}
    ways["full-skip"] = [*skips, (Place(4, 1), last_relu(depth))]
    return [Restoration(name, best(depth).pairs | frozenset(pairs)) for name, pairs in ways.items()]


def basic_and_intra(depth: int) -> list[Restoration]:
    """Add to the best basic way a block's first convolution into its 2nd, to its 3rd, ... to its last (figure 8).

    Blocks 1 to 4 with 20 layers, 1 to 3 with 36: 12 and 23 ways.
    """
    blocks = (1, 2, 3, 4) if depth == 20 else (1, 2, 3)
    return [
        Restoration(
            f"Block{block}-{_numbers('Layer', range(2, last + 1))}",
            best(depth).pairs | {(Place(block, 1), Place(block, number)) for number in range(2, last + 1)},
        )
        for block in blocks
        for last in range(2, CONVOLUTIONS[depth][block - 1] + 1)
    ]


def _way(name: str, source: Place, targets: Iterable[Place]) -> Restoration:
    return Restoration(name, frozenset((source, target) for target in targets))


def _numbers(what: str, numbers: Sequence[int]) -> str:
    return what + "+".join(map(str, numbers))


def _ordinal(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
