# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from binvpr_ros.config import share_directory
from binvpr_ros.network.model_card import AS_PIXELS, ModelCard, ModelCardError, checksum
from network.cards import edit


@pytest.mark.parametrize("network", ["binvpr20", "binvpr20r"])
def test_packaged_cards_fit_and_say_how_the_models_were_made(network: str) -> None:
    card = ModelCard.read(share_directory() / "models" / f"{network}.tflite")
    assert card.network == network
    assert card.recipe == "deploy"
    assert card.command.startswith("train_offline ")
    assert card.descriptor_bits == 2048


def test_card_is_written_as_it_is_read(copy: Path) -> None:
    card = ModelCard.read(copy)
    card.write(copy)
    assert ModelCard.read(copy) == card


def test_packaged_cards_state_that_the_models_take_pixels_as_they_are(copy: Path) -> None:
    assert ModelCard.read(copy).preprocessing == AS_PIXELS
    assert ModelCard.read(copy).input_range == (0, 255)


def test_card_of_an_earlier_version_states_no_preprocessing(copy: Path) -> None:
    path = ModelCard.path_for(copy)
    content = json.loads(path.read_text())
    del content["preprocessing"]
    path.write_text(json.dumps(content))
    assert ModelCard.read(copy).input_range is None


@pytest.mark.parametrize(
    "stated",
    [
        "RGB",
        None,
        [],
        {"colour": "RGB"},
        {"colour": "BGR", "range": [0, 1]},
        {"colour": "RGB", "range": [0, 1], "mean": [0.4, 0.4, 0.4]},
        {"colour": "RGB", "range": [0]},
        {"colour": "RGB", "range": "0 to 1"},
        {"colour": "RGB", "range": ["0", "1"]},
        {"colour": "RGB", "range": [False, True]},
        {"colour": "RGB", "range": [1, 1]},
        {"colour": "RGB", "range": [1, 0]},
        {"colour": "RGB", "range": [0, float("nan")]},
        {"colour": "RGB", "range": [float("-inf"), 1]},
        {"colour": "RGB", "range": [0, 10**400]},
    ],
)
def test_preprocessing_that_is_not_known_is_refused(copy: Path, stated: Any) -> None:
    edit(copy, preprocessing=stated)
    sentence = (
        r'copy\.json has preprocessing .* instead of \{"colour": "RGB", "range": \[low, high\]\}; upgrade binvpr_ros'
    )
    with pytest.raises(ModelCardError, match=sentence):
        ModelCard.read(copy)


def test_missing_card(copy: Path) -> None:
    ModelCard.path_for(copy).unlink()
    with pytest.raises(ModelCardError, match=r"copy\.json, the card of the model, is missing; use the pair"):
        ModelCard.read(copy)


def test_card_of_another_model(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes() + b"\0")
    with pytest.raises(ModelCardError, match="checksums differ"):
        ModelCard.read(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"card"', "{}", '{"name": "x"}', "\x00\xff", "[" * 100_000])
def test_unreadable_card(copy: Path, text: str) -> None:
    ModelCard.path_for(copy).write_text(text, encoding="utf-8")
    with pytest.raises(ModelCardError, match=r"copy\.json"):
        ModelCard.read(copy)


@pytest.mark.parametrize(
    "changes",
    [{"input_size": [0, 64]}, {"input_size": "64x64"}, {"input_size": [64]}, {"descriptor_bits": "many"},
     {"descriptor_bits": True}, {"sha256": None}, {"name": 3}, {"cells": 8}, {"cells": [8, 24]}, {"cells": [[8]]},
     {"cells": [[8, 24]]}, {"cells": [[8, 24.0], [1, 512]]}, {"cells": [[0, 1], [1, 2048]]},
     {"cells": [[1, 1]] * 2048}],
)  # fmt: skip
def test_card_with_a_wrong_entry(copy: Path, changes: dict[str, Any]) -> None:
    edit(copy, **changes)
    with pytest.raises(ModelCardError):
        ModelCard.read(copy)


def test_later_versions_may_add_entries(copy: Path) -> None:
    before = ModelCard.read(copy)
    edit(copy, colour="green")
    assert ModelCard.read(copy) == before


def test_missing_model(copy: Path) -> None:
    copy.unlink()
    with pytest.raises(ModelCardError, match=r"there is no model file .*; check the parameter model"):
        ModelCard.read(copy)


def test_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert checksum(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
