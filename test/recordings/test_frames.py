# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from binvpr_ros.images import Stretch
from binvpr_ros.recordings.frames import EncodedImage, RawImage, convert, encode_jpeg, image_of
from recordings.frames_of import Picture


def thermal() -> Any:
    """A picture [32,48] of a camera that uses a small part of its 16 bits."""
    return np.tile(np.linspace(3000, 3500, 48), (32, 1)).astype(np.uint16)


def test_what_has_the_type_already_stays_as_it_is(pictures: list[Picture]) -> None:
    raw, encoded = RawImage.of_array(pictures[1], "rgb8"), EncodedImage("jpeg", encode_jpeg(pictures[1]))
    assert convert(raw, compressed=False, stretch=Stretch()) is raw
    assert convert(encoded, compressed=True, stretch=Stretch()) is encoded


def test_an_image_becomes_a_jpeg_file_and_comes_back(pictures: list[Picture]) -> None:
    encoded = convert(RawImage.of_array(pictures[1], "rgb8"), compressed=True)
    assert isinstance(encoded, EncodedImage)
    assert encoded.format == "jpeg"
    back = convert(encoded, compressed=False)
    assert isinstance(back, RawImage)
    assert (back.height, back.width, back.step, back.encoding) == (32, 48, 144, "rgb8")
    np.testing.assert_allclose(back.decode().astype(int), pictures[1], atol=4)


def test_a_16_bit_file_keeps_its_values_unless_it_is_stretched() -> None:
    encoded = EncodedImage("png", cv2.imencode(".png", thermal())[1].reshape(-1))
    assert encoded.is_deep_grey
    raw = convert(encoded, compressed=False)
    assert isinstance(raw, RawImage)
    assert raw.encoding == "mono16"
    assert raw.is_deep_grey
    np.testing.assert_array_equal(raw.data.view("<u2").reshape(32, 48), thermal())
    for image in (encoded, raw):
        stretched = convert(image, compressed=False, stretch=Stretch())
        assert isinstance(stretched, RawImage)
        assert stretched.encoding == "mono8"
        np.testing.assert_array_equal(stretched.decode(), Stretch().apply(thermal()))


@pytest.mark.parametrize(
    "lie", [{"height": -1}, {"width": 1 << 32}, {"step": "wide"}, {"height": None}, {"data": ["a", "b"]}]
)
def test_a_message_whose_fields_are_not_those_of_an_image_is_refused(lie: dict[str, Any]) -> None:
    fields = {"height": 1, "width": 2, "encoding": "mono8", "step": 2, "data": np.zeros(2, np.uint8), "is_bigendian": 0}
    assert isinstance(image_of(SimpleNamespace(**fields)), RawImage)
    with pytest.raises((TypeError, ValueError)):
        image_of(SimpleNamespace(**{**fields, **lie}))
