# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_features import random_features

from binvpr_ros.config import LOCAL_MODEL, share_directory
from binvpr_ros.images import Image
from binvpr_ros.local_features import kinds, learned
from binvpr_ros.local_features.features import NO_PAIRS, ORB, POSITION_STEPS, Features, Pairs
from binvpr_ros.local_features.geometry import Verification, verify
from binvpr_ros.local_features.kinds import MATCHERS, matches, open_local_features
from binvpr_ros.network.backends import DelegateBackend, DescriptorError
from binvpr_ros.network.model_card import ModelCard, ModelCardError, checksum

from .views import seen

OTHER = (7, 0)
"""The tag of a kind that there is not."""


def in_order(query: Features, match: Features) -> Pairs:
    """Match features of the same number."""
    both = np.arange(min(len(query.positions), len(match.positions)))
    return both, both


@pytest.mark.parametrize("name", ["orb", "learned"])
def test_a_kind_finds_features_of_its_own_tag_which_match_themselves(scene: Image, name: str) -> None:
    kind, image = open_local_features(name), seen(scene, 640, 480)
    features = kind.extract(image)
    assert features.tag == kind.tag
    ours, theirs = matches(features, Features.from_bytes(features.to_bytes()))
    assert len(ours) > 0.9 * len(features.positions)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["orb", "learned"])
def test_a_kind_finds_nothing_where_nothing_is_visible(scene: Image, name: str) -> None:
    kind, image = open_local_features(name), seen(scene, 640, 480)
    visible = np.zeros((18, 24), np.uint8)
    assert len(kind.extract(image, visible).positions) == 0
    visible[:, :12] = 255
    left = kind.extract(image, visible).positions[:, 0]
    assert len(left) > 50
    assert left.max() <= 0.5 * POSITION_STEPS


def test_each_kind_is_matched_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "MATCHERS", {**MATCHERS, OTHER[0]: in_order})
    query, match = (random_features(seed, count) for seed, count in ((1, 9), (2, 5)))
    assert [len(some) for some in matches(query, match)] == [0, 0]  # by chance none are near
    ours, theirs = matches(query._replace(tag=OTHER), match._replace(tag=OTHER))
    assert ours.tolist() == theirs.tolist() == list(range(5))


@pytest.mark.parametrize(
    "changes",
    [{"tag": OTHER}, {"tag": (ORB[0], 1)}, {"descriptors": np.zeros((20, 64), np.uint8)}],
    ids=["kind", "model", "width"],
)
def test_features_of_different_kinds_do_not_match(changes: dict[str, object]) -> None:
    features = random_features(1, 20)
    other = features._replace(**changes)  # type: ignore[arg-type]
    for pair in ((features, other), (other, features)):
        assert matches(*pair) is NO_PAIRS
        assert verify(*pair) == Verification()


def test_features_of_a_kind_that_is_not_known_do_not_match() -> None:
    """A later version may have written them: the map stays of use, and they are not compared as what they are not."""
    features = random_features(1, 20)._replace(tag=OTHER)
    assert OTHER[0] not in MATCHERS
    assert matches(features, features) is NO_PAIRS


def test_orb_is_what_maps_without_tags_hold() -> None:
    assert open_local_features("orb").tag == ORB


def test_two_models_have_two_tags(tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    packaged = share_directory() / "models" / LOCAL_MODEL
    other.write_bytes(packaged.read_bytes() + b"\0")
    dataclasses.replace(ModelCard.read(packaged), sha256=checksum(other)).write(other)
    assert open_local_features(str(other)).tag != open_local_features("learned").tag


@pytest.mark.parametrize(
    "changes",
    [
        {"input_dtype": np.dtype(np.float32)},
        {"input_shape": (1, 360, 480, 1)},
        {"input_shape": (2, 368, 480, 1)},
        {"input_shape": (1, 368, 480)},
    ],
)
def test_a_network_with_another_input_is_refused(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(DelegateBackend):
        def __init__(self, model: bytes, threads: int, untried_runtime: bool) -> None:
            super().__init__(model, threads, untried_runtime)
            for name, value in changes.items():
                setattr(self, name, value)

    monkeypatch.setattr(learned, "DelegateBackend", Other)
    with pytest.raises(DescriptorError, match="train_offline local"):
        open_local_features("learned")


def test_a_model_that_has_no_local_features_is_refused(model: Path) -> None:
    with pytest.raises(DescriptorError, match="train_offline local"):
        open_local_features(str(model))
    with pytest.raises(ModelCardError, match="local_features is 'sift'"):
        open_local_features("sift")
