# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from random_features import random_features

from binvpr_ros.config import Config
from binvpr_ros.images import from_thumbnail, thumbnail
from binvpr_ros.keyframes import Keyframe
from binvpr_ros.local_features.features import Features
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.orb import extract
from binvpr_ros.loop_closure import LoopClosure, Refusal, Refused
from binvpr_ros.pictures import (
    ACCEPTED,
    GAP,
    GREY,
    LABEL_HEIGHT,
    OUTLIER,
    PANEL,
    REFUSED,
    TITLE_HEIGHT,
    Side,
    match_picture,
)

Image = NDArray[np.uint8]
CONFIG = Config()
QUERY, MATCH = (Keyframe(number, 0, number * 10**9, np.zeros(1, np.uint64)) for number in (7, 3))
CLOSURE = LoopClosure(QUERY, MATCH, 100, 0.8, 50)
REFUSAL = Refused(Refusal.FEW_INLIERS, MATCH, 0.8)


@pytest.fixture(scope="module")
def view() -> Image:
    """A picture [300,400,3] of grey boxes, as large as a panel, so that nothing is resized."""
    rng = np.random.default_rng(5)
    picture = np.full((300, 400, 3), 128, np.uint8)
    for _ in range(150):
        x, y, width, height = (int(value) for value in rng.integers((0, 0, 8, 8), (400, 300, 50, 50)))
        cv2.rectangle(picture, (x, y), (x + width, y + height), [int(rng.integers(0, 256))] * 3, -1)
    return picture


def panels(picture: Image) -> tuple[Image, Image]:
    """Return the parts of a picture that show the query and the match."""
    rows = picture[TITLE_HEIGHT:-LABEL_HEIGHT]
    return rows[:, : PANEL[0]], rows[:, PANEL[0] + GAP :]


def coloured(picture: Image) -> int:
    """Return how many pixels are clearly no grey."""
    return int(np.count_nonzero(np.ptp(picture.astype(int), axis=2) > 40))


def has(picture: Image, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=2).any())


@pytest.mark.parametrize(
    ("shape", "small"),
    [
        ((480, 640, 3), (90, 120, 3)),
        ((640, 480), (120, 90)),
        ((90, 100, 3), (90, 100, 3)),
        ((1, 1), (1, 1)),
        ((2, 2000, 3), (1, 120, 3)),
    ],
)
def test_a_thumbnail_is_small_and_nothing_is_enlarged(shape: tuple[int, ...], small: tuple[int, ...]) -> None:
    image = from_thumbnail(thumbnail(np.full(shape, 200, np.uint8)))
    assert image is not None
    assert image.shape == small
    assert np.abs(image.astype(int) - 200).max() < 4


def test_a_thumbnail_keeps_the_order_of_the_colours() -> None:
    image = from_thumbnail(thumbnail(np.full((60, 80, 3), (250, 120, 10), np.uint8)))
    assert image is not None
    assert np.abs(image.mean(axis=(0, 1)) - (250, 120, 10)).max() < 5


@pytest.mark.parametrize("data", [None, b"", b"\xff\xd8\xff no picture"])
def test_what_is_no_thumbnail_is_no_image(data: bytes | None) -> None:
    assert from_thumbnail(data) is None


def test_inliers_are_joined_by_lines(view: Image) -> None:
    features = extract(view)
    ours, theirs = verify(features, features).pairs
    assert len(ours) > 100
    picture = match_picture(Side(QUERY, view, features), Side(MATCH, view, features), CLOSURE, CONFIG)
    assert picture.shape == (TITLE_HEIGHT + 300 + LABEL_HEIGHT, 2 * 400 + GAP, 3)
    for panel, chosen in zip(panels(picture), (ours, theirs), strict=True):
        at = np.round(features.points(chosen, (400, 300))).astype(int)
        ends = panel[at[:, 1], at[:, 0]].astype(int)
        assert (np.ptp(ends, axis=1) > 40).all()
    between = picture[TITLE_HEIGHT:-LABEL_HEIGHT, PANEL[0] : PANEL[0] + GAP]
    assert coloured(between) > 100
    assert has(picture[:TITLE_HEIGHT], ACCEPTED)
    assert not has(picture[:TITLE_HEIGHT], REFUSED)


def test_where_there_are_no_features_the_images_are_shown_as_they_are(view: Image) -> None:
    picture = match_picture(Side(QUERY, view, None), Side(MATCH, view[..., 0], None), CLOSURE, CONFIG)
    for panel in panels(picture):
        np.testing.assert_array_equal(panel, view)


def test_a_thumbnail_is_brought_to_the_size_of_the_query(view: Image) -> None:
    small = from_thumbnail(thumbnail(view))
    picture = match_picture(Side(QUERY, view, None), Side(MATCH, small, None), CLOSURE, CONFIG)
    query, match = panels(picture)
    assert query.shape == match.shape
    assert np.abs(cv2.blur(query, (9, 9)).astype(int) - cv2.blur(match, (9, 9))).mean() < 6


def test_a_match_without_an_image_is_its_features(view: Image) -> None:
    features = extract(view)
    nothing_alike = features._replace(descriptors=np.zeros_like(features.descriptors))
    picture = match_picture(Side(QUERY, view, nothing_alike), Side(MATCH, None, features), CLOSURE, CONFIG)
    _, match = panels(picture)
    at = np.round(features.points(np.arange(len(features.positions)), (400, 300))).astype(int)
    assert (match[at[:, 1], at[:, 0]] == GREY).all()
    assert 0 < np.count_nonzero(match.max(axis=2) > 100) < 0.3 * match[..., 0].size


def test_a_refusal_says_why_and_shows_the_matches_that_did_not_count(view: Image) -> None:
    features = extract(view)
    shuffled = features._replace(positions=np.random.default_rng(1).permutation(features.positions))
    sides = Side(QUERY, view, features), Side(MATCH, None, shuffled)
    refused = match_picture(*sides, REFUSAL, CONFIG)
    assert has(refused[:TITLE_HEIGHT], REFUSED)
    assert not has(refused[:TITLE_HEIGHT], ACCEPTED)
    assert all(has(panel, OUTLIER) for panel in panels(refused))
    closed = match_picture(*sides, CLOSURE, CONFIG)
    assert not any(has(panel, OUTLIER) for panel in panels(closed))
    other = match_picture(*sides, Refused(Refusal.AMBIGUOUS, MATCH, 0.8), CONFIG)
    assert (other[:TITLE_HEIGHT] != refused[:TITLE_HEIGHT]).any()
    np.testing.assert_array_equal(other[TITLE_HEIGHT:], refused[TITLE_HEIGHT:])


@pytest.mark.parametrize("shape", [(600, 400, 3), (1, 1), (2, 2000), (2000, 2, 3), (1080, 1920, 3)])
@pytest.mark.parametrize("kept", ["image", "features", "nothing"])
def test_an_image_of_any_size_can_be_drawn(shape: tuple[int, ...], kept: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    features = None if kept == "nothing" else extract(image)
    match = Side(MATCH, image if kept == "image" else None, features)
    picture = match_picture(Side(QUERY, image, extract(image)), match, REFUSAL, CONFIG)
    assert picture.shape[1:] == (2 * PANEL[0] + GAP, 3)
    assert picture.shape[0] <= TITLE_HEIGHT + PANEL[1] + LABEL_HEIGHT


def test_features_of_a_damaged_map_can_be_drawn() -> None:
    narrow = random_features(1, 40)._replace(size=(1, 65535))
    features = Features.from_bytes(narrow.to_bytes())
    picture = match_picture(Side(QUERY, None, features), Side(MATCH, None, features), REFUSAL, CONFIG)
    assert picture.shape == (TITLE_HEIGHT + PANEL[1] + LABEL_HEIGHT, 2 * PANEL[0] + GAP, 3)
