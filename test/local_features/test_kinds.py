# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from random_features import random_features

from binvpr_ros.images import Image
from binvpr_ros.local_features import kinds, orb
from binvpr_ros.local_features.features import NO_PAIRS, ORB, Features, Pairs
from binvpr_ros.local_features.geometry import Verification, verify
from binvpr_ros.local_features.kinds import KINDS, LocalFeatures, matches

from .views import seen

OTHER = 7
"""A kind that there is not."""


class InOrder:
    """Local features that match those of the same number in the other image."""

    def extract(self, image: Image, visible: NDArray[np.uint8] | None = None) -> Features:
        assert visible is None
        return orb.extract(image)._replace(kind=OTHER)

    def matches(self, query: Features, match: Features) -> Pairs:
        both = np.arange(min(len(query.positions), len(match.positions)))
        return both, both


def test_a_kind_finds_features_of_its_own_tag_which_match_themselves(scene: Image) -> None:
    image = seen(scene, 640, 480)
    for tag, kind in KINDS.items():
        features = kind.extract(image)
        assert features.kind == tag
        ours, theirs = matches(features, Features.from_bytes(features.to_bytes()))
        assert len(ours) > 0.9 * len(features.positions)
        np.testing.assert_array_equal(ours, theirs)


def test_each_kind_is_matched_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    in_order: LocalFeatures = InOrder()
    monkeypatch.setattr(kinds, "KINDS", {**KINDS, OTHER: in_order})
    query, match = (random_features(seed, count) for seed, count in ((1, 9), (2, 5)))
    assert [len(some) for some in matches(query, match)] == [0, 0]  # by chance none are near
    ours, theirs = matches(query._replace(kind=OTHER), match._replace(kind=OTHER))
    assert ours.tolist() == theirs.tolist() == list(range(5))


@pytest.mark.parametrize(
    "changes", [{"kind": OTHER}, {"descriptors": np.zeros((20, 64), np.uint8)}], ids=["kind", "width"]
)
def test_features_of_different_kinds_do_not_match(changes: dict[str, object]) -> None:
    features = random_features(1, 20)
    other = features._replace(**changes)  # type: ignore[arg-type]
    for pair in ((features, other), (other, features)):
        assert matches(*pair) is NO_PAIRS
        assert verify(*pair) == Verification()


def test_features_of_a_kind_that_is_not_known_do_not_match() -> None:
    """A later version may have written them: the map stays of use, and they are not compared as what they are not."""
    features = random_features(1, 20)._replace(kind=OTHER)
    assert OTHER not in KINDS
    assert matches(features, features) is NO_PAIRS


def test_orb_is_what_maps_without_tags_hold() -> None:
    assert KINDS[ORB] is orb
