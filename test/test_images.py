# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import array
import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from encodings_of_cameras import assert_shows, encode, grey, mosaic, scene
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.images import (
    ENCODINGS,
    IMAGE_SUFFIXES,
    Image,
    ImageError,
    Stretch,
    decode_compressed,
    decode_file,
    decode_pixels,
    image_paths,
    in_order,
    resize,
)
from binvpr_ros.network.descriptor import DescriptorNetwork

PLAIN = ("mono8", "8UC1", "rgb8")
SIXTEEN = [name for name, layout in ENCODINGS.items() if layout.depth == 2]


@pytest.mark.parametrize("padding", [0, 1, 2, 13])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_with_any_padding(encoding: str, padding: int) -> None:
    assert_shows(decode_pixels(*encode(scene(), encoding, padding)), scene(), encoding)


@pytest.mark.parametrize("padding", [0, 1, 2, 13])
@pytest.mark.parametrize("encoding", SIXTEEN)
def test_every_encoding_of_16_bits_in_the_other_byte_order(encoding: str, padding: int) -> None:
    assert_shows(decode_pixels(*encode(scene(), encoding, padding, is_bigendian=True)), scene(), encoding)


@pytest.mark.parametrize(
    "encoding", [name for name in ENCODINGS if name.startswith(("bayer", "rgb", "bgr", "yuv", "mono"))]
)
def test_rosbags_decodes_the_same(encoding: str) -> None:
    image = pytest.importorskip("rosbags.image", reason="rosbags-image is not installed")
    typesys = pytest.importorskip("rosbags.typesys")
    types = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE).types
    header = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](sec=0, nanosec=0), frame_id="")
    encoded = encode(scene(), encoding)
    data = np.frombuffer(encoded.data, np.uint8)
    message = types["sensor_msgs/msg/Image"](header, *encoded[:3], int(encoded.is_bigendian), encoded.step, data)
    expected = image.image_to_cvimage(message, "mono8" if encoding.startswith("mono") else "rgb8")
    difference = decode_pixels(*encoded).astype(int) - expected
    assert np.abs(difference[1:-1, 1:-1]).max() <= 2  # it interpolates in 16 bits, and rounds


@pytest.mark.parametrize("encoding", PLAIN)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array.array("B", data)])
def test_plain_images_are_views_of_any_buffer(encoding: str, kind: Any) -> None:
    encoded = encode(scene(), encoding, padding=13)
    data = kind(encoded.data)
    image = decode_pixels(*encoded[:4], data)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))
    assert resize(image, (32, 24)).shape[:2] == (24, 32)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"encoding": "rgb10"}, "its encoding 'rgb10' is not one of mono8, "),
        ({"encoding": "32FC1"}, "its encoding '32FC1' is not one of"),
        ({"encoding": ""}, "its encoding '' is not one of"),
        ({"step": 63}, "its step of 63 bytes is less than the 64 of a row of 64 mono8 pixels"),
        ({"step": 0}, "its step of 0 bytes"),
        ({"height": 0}, "its size is 64x0"),
        ({"width": 0}, "its size is 0x48"),
        ({"height": 49}, "it has 3072 bytes of data instead of 3136"),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1}, "it has 3072 bytes of data instead of"),
        ({"data": b"short"}, "it has 5 bytes of data"),
        ({"data": b""}, "it has 0 bytes of data"),
        ({"encoding": "nv12", "height": 47}, "its size 64x47 is odd, which nv12 cannot have"),
        ({"encoding": "yuyv", "width": 31}, "its size 31x48 is odd, which yuyv cannot have"),
        ({"encoding": "bayer_rggb16"}, "its step of 64 bytes is less than the 128 of a row"),
    ],
)
def test_unusable_pixels_are_refused_with_the_cause(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ImageError) as refused:
        decode_pixels(**(encode(scene(), "mono8")._asdict() | changes))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@given(
    st.sampled_from([*ENCODINGS, "unknown"]), st.integers(0, 9), st.integers(0, 9), st.integers(0, 80),
    st.binary(max_size=800), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_pixels_give_an_image_or_an_error(
    encoding: str, height: int, width: int, step: int, data: bytes, bigendian: bool, stretched: bool
) -> None:
    rows = height * 3 // 2 if encoding.startswith("nv") else height
    for buffer in (data, (data * (1 + step * rows))[: step * rows]):
        try:
            image = decode_pixels(height, width, encoding, step, buffer, bigendian, Stretch() if stretched else None)
        except ImageError:
            continue
        assert image.dtype == np.uint8
        assert image.shape in ((height, width), (height, width, 3))


# Image files.


def photograph() -> NDArray[np.uint8]:
    """Return a picture [96,128,3] with detail and noise, in OpenCV's order of colours."""
    picture = resize(scene(), (128, 96)).astype(int)
    picture[20:60, 30:90] = 255 - picture[20:60, 30:90]
    picture += np.random.default_rng(0).integers(-20, 21, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def file_of(image: NDArray[Any], suffix: str, *flags: int) -> bytes:
    return bytes(cv2.imencode(suffix, image, flags)[1].tobytes())


def with_exif(jpeg: bytes, thumbnail: bytes = b"", orientation: int = 1) -> bytes:
    """Return a JPEG file with what cameras write before the image: a viewer's rotation, and a small JPEG."""
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 26)
    tiff += struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0) + thumbnail
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + jpeg[2:]


def png(rows: list[bytes], width: int, depth: int, colour_type: int, palette: bytes = b"") -> bytes:
    """Return a PNG file of any kind; OpenCV writes a few of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    image = zlib.compress(b"".join(b"\0" + row for row in rows))
    colours = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colours + chunk(b"IDAT", image) + chunk(b"IEND", b"")


JPEGS = {
    "baseline": file_of(photograph(), ".jpg"),
    "grey": file_of(grey(photograph()), ".jpg"),
    "restarts": file_of(photograph(), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "progressive": file_of(photograph(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "thumbnail": with_exif(file_of(photograph(), ".jpg"), file_of(photograph()[::4, ::4], ".jpg")),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_is_cut_anywhere_is_refused(kind: str) -> None:
    jpeg = JPEGS[kind]
    assert decode_file(jpeg).shape[:2] == (96, 128)
    for size in range(3, len(jpeg)):
        with pytest.raises(ImageError, match="its end is missing"):
            decode_file(jpeg[:size])
    with pytest.raises(ImageError, match="its end is missing"):
        decode_file(jpeg[: len(jpeg) // 2] + bytes(4096))  # of a file system that had promised the space


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("size", [1, 2, 511, 4096])
def test_a_jpeg_may_be_padded(kind: str, size: int) -> None:
    rubbish = np.random.default_rng(0).bytes(size)
    for padding in (bytes(size), b"\xff" * size, rubbish):
        np.testing.assert_array_equal(decode_file(JPEGS[kind] + padding), decode_file(JPEGS[kind]))


def test_of_several_jpegs_in_one_file_the_first_is_taken() -> None:
    """As stereo cameras write them, and phones beside a smaller one."""
    first, second = JPEGS["baseline"], JPEGS["grey"]
    np.testing.assert_array_equal(decode_file(first + second), decode_file(first))
    with pytest.raises(ImageError, match="its end is missing"):
        decode_file(first[: len(first) // 2] + second)


@pytest.mark.parametrize("suffix", [suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpg", ".jpeg")])
def test_another_file_that_is_cut_is_refused(suffix: str) -> None:
    whole = file_of(grey(photograph()) if suffix == ".pgm" else photograph(), suffix)
    assert decode_file(whole).shape[:2] == (96, 128)
    for size in [*range(0, len(whole), len(whole) // 50), *range(len(whole) - 10, len(whole))]:
        with pytest.raises(ImageError, match="cannot be decoded as an image"):
            decode_file(whole[:size])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm"])
def test_colours_are_in_order(suffix: str) -> None:
    image = decode_file(file_of(scene()[..., ::-1], suffix))
    lossy = suffix in (".jpg", ".webp")
    np.testing.assert_allclose(image.astype(int), scene().astype(int), atol=16 if lossy else 0)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".pgm"])
def test_grey_stays_grey(suffix: str) -> None:
    image = decode_file(file_of(grey(scene()), suffix))
    assert image.shape == (48, 64)
    np.testing.assert_allclose(image.astype(int), grey(scene()).astype(int), atol=6 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm", ".ppm"])
def test_of_16_bits_the_higher_byte_is_taken(suffix: str) -> None:
    pixels = scene() if suffix == ".ppm" else grey(scene())
    deep = pixels.astype(np.uint16) * 256 + 200
    np.testing.assert_array_equal(decode_file(file_of(deep[..., ::-1] if deep.ndim == 3 else deep, suffix)), pixels)


@pytest.mark.parametrize("bits", [8, 16])
def test_transparency_is_dropped(bits: int) -> None:
    pixels = np.dstack([scene()[..., ::-1], np.arange(64 * 48).reshape(48, 64) % 256]).astype(f"u{bits // 8}")
    np.testing.assert_array_equal(decode_file(file_of(pixels << (bits - 8), ".png")), scene())


def test_transparency_of_grey_is_dropped() -> None:
    values = grey(scene())
    rows = [np.dstack([row, row // 2]).tobytes() for row in values[:, np.newaxis]]
    image = decode_file(png(rows, 64, depth=8, colour_type=4))
    np.testing.assert_array_equal(image, values if image.ndim == 2 else np.dstack([values] * 3))


def test_a_palette_is_looked_up() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    numbers = grey(scene())
    image = decode_file(png([row.tobytes() for row in numbers], 64, depth=8, colour_type=3, palette=colours.tobytes()))
    np.testing.assert_array_equal(image, colours[numbers])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_for_viewers_is_ignored(orientation: int) -> None:
    jpeg = JPEGS["baseline"]
    np.testing.assert_array_equal(decode_file(with_exif(jpeg, orientation=orientation)), decode_file(jpeg))


def huge(suffix: str, side: int) -> bytes:
    """Return a small image file that says that it is of a size."""
    data = bytearray(file_of(np.zeros((8, 8), np.uint8), suffix))
    if suffix == ".bmp":
        data[18:26] = struct.pack("<ii", side, side)
    elif suffix == ".png":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        frame = data.index(b"\xff\xc0") + 5
        data[frame : frame + 4] = struct.pack(">HH", side, side)
    return bytes(data)


@pytest.mark.parametrize(
    ("suffix", "side"),
    [(".bmp", 0), (".bmp", 40_000), (".bmp", 2**30), (".png", 0), (".png", 40_000), (".png", 2**30), (".jpg", 0),
     (".jpg", 65_500)],
)  # fmt: skip
def test_a_file_of_no_size_or_an_absurd_one_is_refused(suffix: str, side: int) -> None:
    with pytest.raises(ImageError, match=r"its \d+ bytes cannot be decoded as an image"):
        decode_file(huge(suffix, side))


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"no image", b"\x89PNG\r\n\x1a\n", b"BM"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=rf"its {len(data)} bytes cannot be decoded as an image"):
        decode_file(data)


def test_pixels_that_are_real_numbers_are_refused() -> None:
    with pytest.raises(ImageError, match="its pixels are of type float32; use 8 or 16 bits"):
        decode_file(file_of(np.zeros((8, 8), np.float32), ".tiff"))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_a_file_in_any_buffer(kind: Any) -> None:
    assert decode_file(kind(JPEGS["baseline"])).shape == (96, 128, 3)


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(
    "kind", ["bayer_{}8; jpeg compressed ", "bayer_{}8; jpeg compressed bayer_{}8", "bayer_{}16; png compressed "]
)
def test_a_mosaic_that_was_compressed_is_made_colour(order: str, kind: str) -> None:
    seen = mosaic(scene(), order)
    values, suffix = (seen.astype(np.uint16) * 256, ".png") if "png" in kind else (seen, ".jpg")
    data = cv2.imencode(suffix, values, (cv2.IMWRITE_JPEG_QUALITY, 100))[1].tobytes()
    image = decode_compressed(data, kind.format(order, order))
    assert_shows(image, scene(), f"bayer_{order}8")


def test_what_is_no_mosaic_stays_as_it_is() -> None:
    data = file_of(grey(scene()), ".png")
    for kind in ("bayer_rggb8; png compressed mono8", "mono8; png compressed ", "bayer_rgbw8; png compressed ", ""):
        np.testing.assert_array_equal(decode_compressed(data, kind), grey(scene()))
    colour = decode_compressed(file_of(scene()[..., ::-1], ".png"), "bayer_rggb8; png compressed ")
    np.testing.assert_array_equal(colour, scene())


# Cameras of 10 to 14 bits.


def twelve_bits(image: Image, exposure: float = 1.0, seed: int = 0) -> NDArray[np.uint16]:
    """Return what a camera of 12 bits makes of an image [H,W], with the noise of its sensor."""
    values = image * (16 * exposure) + np.random.default_rng(seed).normal(0, 10, image.shape)
    return np.clip(values, 0, 4095).astype(np.uint16)


def sent(values: NDArray[np.uint16], stretch: Stretch | None, encoding: str = "mono16") -> Image:
    height, width = values.shape
    return decode_pixels(height, width, encoding, 2 * width, values.tobytes(), False, stretch)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_twelve_bits_have_contrast_where_they_are_stretched(
    world_images: list[Image], model: Path, encoding: str
) -> None:
    network, image = DescriptorNetwork(model), grey(world_images[0])
    values = twelve_bits(image)
    before, after = (network.describe(sent(values, stretch, encoding)) for stretch in (None, Stretch()))
    assert before.contrast < Config().min_contrast
    assert after.contrast > 0.9 * network.describe(image).contrast


@pytest.mark.parametrize("bigendian", [False, True])
def test_pixels_and_files_are_stretched_alike(world_images: list[Image], bigendian: bool) -> None:
    values = twelve_bits(grey(world_images[0]))
    height, width = values.shape
    padded = np.zeros((height, width + 3), ">u2" if bigendian else "<u2")
    padded[:, :width] = values
    pixels = decode_pixels(height, width, "mono16", 2 * width + 6, padded.tobytes(), bigendian, Stretch())
    np.testing.assert_array_equal(pixels, decode_file(file_of(values, ".png"), Stretch()))
    low, high = np.percentile(values, Stretch.PERCENTILES)
    np.testing.assert_allclose(pixels, np.clip((values - low) * (255 / (high - low)), 0, 255), atol=1.5)


def test_eight_bits_are_not_stretched(world_images: list[Image]) -> None:
    image = grey(world_images[0]) // 4
    np.testing.assert_array_equal(decode_file(file_of(image, ".png"), Stretch()), image)
    np.testing.assert_array_equal(decode_pixels(*encode(scene(), "mono8"), stretch=Stretch()), grey(scene()))


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_image_is_stretched_before_its_colours_are_made(order: str) -> None:
    encoded = encode(scene(), f"bayer_{order}16")
    dark = (np.frombuffer(encoded.data, "<u2") >> 4).astype("<u2")
    image = decode_pixels(*encoded[:4], dark.tobytes(), False, Stretch())
    bright = decode_pixels(*encoded)
    assert np.corrcoef(image.reshape(-1), bright.reshape(-1))[0, 1] > 0.99
    assert image.std() > 0.9 * bright.std()


def test_a_scene_that_stays_keeps_its_brightness(world_images: list[Image]) -> None:
    stretch, image = Stretch(), grey(world_images[0])
    shown = [sent(twelve_bits(image, seed=seed), stretch) for seed in range(20)]
    assert np.ptp([one.mean() for one in shown]) < 2
    # A robot that moves a little sees a little else at the edges.
    moved = [sent(twelve_bits(np.roll(image, shift, axis=1)[:, 20:], seed=shift), stretch) for shift in range(20)]
    assert np.ptp([one.mean() for one in moved]) < 12


@pytest.mark.parametrize("exposure", [0.25, 0.5])
def test_another_exposure_is_followed_without_a_jump(world_images: list[Image], exposure: float) -> None:
    stretch, image = Stretch(), grey(world_images[0])
    before = sent(twelve_bits(image), stretch).mean()
    shown = [sent(twelve_bits(image, exposure, seed), stretch).mean() for seed in range(20)]
    assert abs(shown[0] - before) > 15
    assert all(later >= sooner - 1 for sooner, later in itertools.pairwise(shown))
    assert abs(shown[-1] - before) < 6


def test_noise_alone_is_not_stretched_to_an_image() -> None:
    wall = np.random.default_rng(0).integers(1000, 1005, (120, 160), np.uint16)
    assert sent(wall, Stretch()).std() < Config().min_contrast
    assert not sent(np.full((4, 4), 700, np.uint16), Stretch()).any()


# The files of a folder.


def test_the_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "._a.JPG", "notes.txt", "c.tiff"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [path.name for path in image_paths(tmp_path)] == ["a.JPG", "b.png", "c.tiff"]
    assert image_paths(tmp_path / "nowhere") == []
    assert image_paths(tmp_path / "b.png") == []


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["frame1.jpg"],
        ["frame01.jpg", "frame02.jpg", "frame10.jpg"],
        ["a.png", "b.png"],
        ["1403636579.763555584.png", "1403636579.813555456.png"],
        # Stamps in seconds, without the last zeros.
        ["1403636579.25.png", "1403636579.5.png", "1403636580.0.png"],
        ["cam1.999999999.25.png", "cam1.999999999.5.png"],
    ],
)
def test_where_both_orders_are_one_nothing_is_said(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    paths = [Path("drive", name) for name in names]
    assert in_order(paths[::-1]) == paths
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "names",
    [
        ["frame1.jpg", "frame2.jpg", "frame10.jpg", "frame20.jpg"],
        ["9.png", "10.png"],
        ["run1_9.png", "run1_10.png", "run2_1.png"],
        ["01.png", "1.png", "2.png", "10.png"],
        ["cam1.1.png", "cam1.2.png", "cam1.9.png", "cam1.10.png"],
        ["12345678.9.png", "12345678.10.png"],
        ["000000001.9.png", "000000001.10.png"],  # padded, so not a stamp
        ["1403636579763555584.9.png", "1403636579763555584.10.png"],  # a stamp, but in nanoseconds
        ["frame0.jpg", "frame1.JPG", "frame2.jpg", "frame9.JPG", "frame10.jpg"],
    ],
)
def test_where_numbers_are_the_order_it_is_numeric(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    paths = [Path("drive", name) for name in names]
    assert in_order(sorted(paths)) == in_order(paths[::-1]) == paths
    one, other = capsys.readouterr().err.splitlines()
    assert one == other
    assert one.startswith("drive: images are read in numeric order, ")
    assert "with zeros" in one


def test_where_more_than_numbers_differs_it_is_that_of_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [Path("drive", name) for name in ("hall10.jpg", "hall9.jpg", "yard1.jpg")]
    assert in_order(paths[::-1]) == paths
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "drive: images are read in file-name order, hall10.jpg before hall9.jpg; "
        "pad the numbers in the names with zeros to make both orders the same"
    )
