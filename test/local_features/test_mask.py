# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import ConfigError
from binvpr_ros.images import Image
from binvpr_ros.local_features.colours import colours
from binvpr_ros.local_features.features import POSITION_STEPS, Features
from binvpr_ros.local_features.geometry import colours_agree
from binvpr_ros.local_features.mask import LOOKED_AT_AGAIN, Mask, read_mask
from binvpr_ros.local_features.orb import extract

from .views import seen

DECK = 0.75
"""From which share of the height on there is a deck."""


def views(scene: Image, count: int) -> Iterator[Image]:
    """Yield what a camera sees that goes to and fro over a scene."""
    for number in range(count):
        yield seen(scene, 500 + 200 * np.sin(number), 450 + 100 * np.cos(1.7 * number))


def with_deck(image: Image) -> Image:
    deck = cv2.resize(np.random.default_rng(5).integers(0, 255, (60, 80), np.uint8), image.shape[1::-1])
    shown = image.copy()
    top = round(DECK * image.shape[0])
    shown[top:] = deck[top:]
    return shown


def share_hidden(mask: Mask, top: float, bottom: float) -> float:
    hidden = mask.hidden
    if hidden is None:
        return 0.0
    rows = len(hidden)
    return float(hidden[round(top * rows) : round(bottom * rows)].mean())


def test_a_deck_is_learnt_within_seconds_and_nothing_else(scene: Image) -> None:
    mask = Mask()
    for image in views(scene, 14):
        features = mask.features(partial(extract, with_deck(image)))
    assert share_hidden(mask, 0.8, 0.9) > 0.8
    assert share_hidden(mask, 0.0, 0.65) == 0
    on_deck = features.positions[:, 1] > 0.8 * POSITION_STEPS
    assert np.mean(on_deck) < 0.05
    assert len(features.positions) > 100


def test_the_colours_of_the_robot_say_nothing_of_the_place() -> None:
    mask = Mask(read_mask("0 0.4 1 1"))
    one, other = (np.random.default_rng(seed).integers(40, 160, (6, 8, 3), np.uint8) for seed in range(2))
    other[2:] = one[2:]  # the robot

    def extract_colours(shown: Image, _: object) -> Features:
        image = shown.repeat(60, axis=0).repeat(60, axis=1)
        return extract(image)._replace(colours=colours(image))

    unmasked = [extract_colours(shown, None) for shown in (one, other)]
    masked = [mask.features(partial(extract_colours, shown)) for shown in (one, other)]
    assert colours_agree(unmasked[0], unmasked[1], np.eye(3))
    assert not colours_agree(masked[0], masked[1], np.eye(3))
    assert colours_agree(masked[0], masked[0], np.eye(3))


def test_of_a_camera_that_sees_no_robot_nothing_is_learnt(scene: Image) -> None:
    mask = Mask()
    for image in views(scene, 40):
        mask.features(partial(extract, image))
    assert mask.hidden is None


def test_nor_of_a_camera_at_rest(scene: Image) -> None:
    mask = Mask()
    rng = np.random.default_rng(0)
    image = seen(scene, 500, 450)
    for _ in range(20):
        mask.features(partial(extract, np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)))
    assert mask.hidden is None


def test_what_is_there_no_more_is_found_out(scene: Image) -> None:
    mask = Mask()
    images = list(views(scene, 4 * LOOKED_AT_AGAIN))
    for image in images[:14]:
        mask.features(partial(extract, with_deck(image)))
    assert share_hidden(mask, 0.8, 0.9) > 0.8
    for image in images[14:]:
        mask.features(partial(extract, image))
    assert share_hidden(mask, 0.8, 0.9) < 0.5


def test_what_the_user_hides_stays_hidden(scene: Image) -> None:
    mask = Mask(read_mask("0 0 1 0.25; 0.9 0 1 1"))
    for image in views(scene, LOOKED_AT_AGAIN + 3):
        x, y = (mask.features(partial(extract, image)).positions / POSITION_STEPS).T
        assert y.min() >= 0.24
        assert x.max() <= 0.91


def test_a_mask_is_an_image_that_is_black_where_the_robot_is(tmp_path: Path) -> None:
    drawn = np.full((20, 40), 255, np.uint8)
    drawn[15:, :10] = 0
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), drawn)
    hidden: NDArray[np.bool_] | None = read_mask(str(path))
    assert hidden is not None
    np.testing.assert_array_equal(hidden, drawn == 0)


def test_no_mask_hides_nothing() -> None:
    assert read_mask("") is None
    assert Mask(read_mask(" ")).hidden is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nowhere.png", "is neither an image file nor rectangles; name an image"),
        ("0 0 1", "has the rectangle"),
        ("0 0.5 1 0.25", "has the rectangle"),
        ("0 0 1 1.5", "as shares from 0 to 1"),
        ("nan 0 1 1", "has the rectangle"),
    ],
)
def test_a_mask_that_cannot_be_read_is_said_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_mask(text)


def test_a_mask_that_hides_everything_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "black.png"
    cv2.imwrite(str(path), np.zeros((20, 40), np.uint8))
    for text in (str(path), "0 0 1 1"):
        with pytest.raises(ConfigError, match="hides the whole image"):
            read_mask(text)
