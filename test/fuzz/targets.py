# SPDX-License-Identifier: Apache-2.0
"""What is fed with rubbish: each takes any bytes, and fails by any exception but the one that refuses them."""

from __future__ import annotations

import array
import contextlib
import csv
import hashlib
import io
import json
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import atheris
import cv2
import numpy as np
from lce_delegate.models import Graph
from lce_delegate.reference import Convolution
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from binvpr_ros.config import Config, ConfigError
from binvpr_ros.images import ENCODINGS, ImageError, Stretch, resize
from binvpr_ros.lab.evaluation.datasets.bag import PosedBag
from binvpr_ros.lab.evaluation.datasets.dataset import Options
from binvpr_ros.lab.evaluation.datasets.folders import FolderPair
from binvpr_ros.lab.evaluation.datasets.object_array import load_objects
from binvpr_ros.lab.evaluation.datasets.tables import read_columns, read_rows
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.colours import colours
from binvpr_ros.local_features.features import LEARNED, Features, FeaturesError
from binvpr_ros.local_features.geometry import colours_agree, verify
from binvpr_ros.local_features.orb import extract
from binvpr_ros.local_features.pose import relative_pose
from binvpr_ros.maps import command as maps
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.network.backends import DescriptorError
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.model_card import ModelCard, ModelCardError
from binvpr_ros.recordings.errors import RecordingError
from binvpr_ros.ros.messages import (
    CameraInfoError,
    camera_from_info,
    decode,
    from_nanoseconds,
)

WORDS = 4
MODEL = "a" * 64
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 - of this process alone
GREY = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
QUERY = extract(cv2.resize(GREY, (320, 240)))
COLOURED = QUERY._replace(colours=colours(np.repeat(GREY, 3).reshape(-1, 64, 3)))

CAMERA = Camera.calibrated((320, 240), [[300, 0, 160], [0, 300, 120], [0, 0, 1]], [], "plumb_bob")


def first_features(count: int) -> Features:
    """Return `count` of the features of an image."""
    return Features(QUERY.size, QUERY.positions[:count], QUERY.angles[:count], QUERY.descriptors[:count])


class Target(NamedTuple):
    """Something that reads what others wrote, and examples of what it reads."""

    read: Callable[[bytes], None]
    examples: Callable[[], list[bytes]] = list


def look_at(image: Any) -> None:
    """Do with an image that was decoded what the recognizer does, but for the network."""
    assert image.dtype == np.uint8
    assert image.ndim == 2 or image.shape[2:] == (3,)
    resize(image, (128, 128))
    if image.size < 1 << 16:
        extract(image)


def image(data: bytes) -> None:
    """sensor_msgs/Image: sizes, steps, encodings and byte orders, with as many data as they need, or other."""
    source = atheris.FuzzedDataProvider(data)
    encodings = [*ENCODINGS, "32FC1", "", source.ConsumeUnicodeNoSurrogates(8)]
    encoding = source.PickValueInList(encodings)
    side = 64 if source.ConsumeBool() else 2**32 - 1
    height, width = (source.ConsumeIntInRange(0, side) for _ in range(2))
    step = source.ConsumeIntInRange(0, 2**32 - 1)
    if source.ConsumeProbability() < 0.8:
        step = min(2**32 - 1, width * source.ConsumeIntInRange(1, 8) + source.ConsumeIntInRange(0, 3))
    bigendian = source.ConsumeBool()
    rows = height * 3 // 2 if encoding.startswith("nv") else height
    pixels = source.ConsumeBytes(1 << 16)
    if step * rows < 1 << 22:
        pixels = (pixels + bytes(step * rows))[: step * rows]
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=bigendian, step=step)
    message.data = array.array("B", pixels)
    with contextlib.suppress(ImageError):
        look_at(decode(message, Stretch() if source.ConsumeBool() else None))


def compressed(data: bytes) -> None:
    """The bytes of an image file."""
    for stretch in (None, Stretch()):
        with contextlib.suppress(ImageError):
            look_at(decode(CompressedImage(format="jpeg", data=array.array("B", data)), stretch))


def image_files() -> list[bytes]:
    """Return images in the formats that cameras send, and others that OpenCV reads."""
    coloured = np.dstack([GREY, GREY.T.reshape(GREY.shape), GREY[::-1]])[:16, :16]
    suffixes = (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm")
    deep = cv2.imencode(".png", GREY.astype(np.uint16) * 16)[1].tobytes()
    return [deep, *(cv2.imencode(suffix, coloured)[1].tobytes() for suffix in suffixes)]


def camera_info(data: bytes) -> None:
    """sensor_msgs/CameraInfo, and rays of a camera that was taken for one."""
    source = atheris.FuzzedDataProvider(data)
    message = CameraInfo(width=source.ConsumeIntInRange(0, 2**32 - 1), height=source.ConsumeIntInRange(0, 2**32 - 1))
    plausible = source.ConsumeBool()
    if plausible:
        message.width, message.height = 640, 480
    message.k = [source.ConsumeFloat() for _ in range(9)]
    if plausible:
        message.k[0] = message.k[4] = source.ConsumeFloatInRange(0.0, 6400.0)
        message.k[2], message.k[5] = (source.ConsumeFloatInRange(0.0, float(most)) for most in (640, 480))
    message.p = [source.ConsumeFloat() for _ in range(12)]
    message.d = [source.ConsumeFloat() for _ in range(source.ConsumeIntInRange(0, 14))]
    message.distortion_model = source.PickValueInList(["plumb_bob", "rational_polynomial", "equidistant", "", "lens"])
    message.roi.width, message.roi.height = (source.ConsumeIntInRange(0, 2**32 - 1) for _ in range(2))
    with contextlib.suppress(CameraInfoError):
        camera = camera_from_info(message, rectified=source.ConsumeBool())
        verify(QUERY, QUERY, camera)


def config(data: bytes) -> None:
    """Parameters, each of any value that ROS has."""
    source = atheris.FuzzedDataProvider(data)
    values: dict[str, Any] = {}
    for parameter in Config.parameters():
        kind = source.ConsumeIntInRange(0, 12)
        if kind == 0:
            values[parameter.name] = source.ConsumeInt(8)
        elif kind == 1:
            values[parameter.name] = source.ConsumeFloat()
        elif kind == 2:
            values[parameter.name] = source.ConsumeUnicode(8)
        elif kind == 3:
            values[parameter.name] = source.ConsumeBool()
        elif kind == 4:
            values[parameter.name] = source.PickValueInList([None, b"\0", [1, 2], ["a"], array.array("d", [1.0])])
    with contextlib.suppress(ConfigError):
        Config(**values)


def map_file(data: bytes) -> None:
    """A map: opened, searched, verified against, written to, and looked after by `map`."""
    path, exported, merged = FOLDER / "map.db", FOLDER / "map.csv", FOLDER / "merged.db"
    for file in FOLDER.glob("m*"):
        file.unlink()
    path.write_bytes(data)
    for look in (maps.info, maps.problems, lambda p: maps.export(p, exported), lambda p: maps.merge([p, p], merged)):
        with contextlib.suppress(DatabaseError):
            look(path)
    try:
        database = KeyframeDatabase(path, MODEL, WORDS)
    except DatabaseError:
        return
    descriptor = np.zeros(WORDS, np.uint64)
    database.distances(descriptor)
    for index in range(min(len(database), 4)):
        keyframe = database.keyframe(index)
        from_nanoseconds(keyframe.stamp)
        features = database.features(keyframe)
        if features is not None:
            verify(QUERY, features)
    for write in (lambda: database.add(database.next_keyframe(1, descriptor, QUERY)), database.save):
        with contextlib.suppress(DatabaseError):
            write()
    database.close()


def small_maps() -> list[bytes]:
    """Return a map of three keyframes, with pages as small as SQLite has them."""
    path = FOLDER / "example.db"
    database = KeyframeDatabase(path, MODEL, WORDS)
    for number in range(3):
        database.add(database.next_keyframe(number, np.full(WORDS, number, np.uint64), first_features(8)))
    database.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512", "VACUUM"):
            connection.execute(statement)
    return [path.read_bytes()]


def features(data: bytes) -> None:
    """The features of a keyframe of a map."""
    with contextlib.suppress(FeaturesError):
        found = Features.from_bytes(data)
        verify(QUERY, found)
        colours_agree(COLOURED, found, np.eye(3))


def pose(data: bytes) -> None:
    """The features of a keyframe of a map, to which a closure has a relative pose."""
    try:
        found = Features.from_bytes(data)
    except FeaturesError:
        return
    every = np.arange(min(len(QUERY.positions), len(found.positions), 40))
    result = relative_pose(QUERY, found, CAMERA, CAMERA, (every, every), (every, every))
    if result is not None:
        assert np.isfinite(result.translation).all()
        assert np.linalg.eigvalsh(result.covariance)[0] > -1e-9
        np.testing.assert_allclose(result.rotation @ result.rotation.T, np.eye(3), atol=1e-6)


def some_features() -> list[bytes]:
    """Return features."""
    few = first_features(20)
    wide = few._replace(descriptors=np.repeat(few.descriptors, 2, axis=1), tag=(LEARNED, 3))
    earlier = struct.pack("<HH", *few.size) + few.to_bytes()[10:]  # before there were several kinds
    deep = [some._replace(depths=np.full(len(some.positions), 2000, np.uint16)) for some in (few, COLOURED)]
    return [some.to_bytes() for some in (QUERY, COLOURED, few, wide, *deep)] + [earlier]


def small_model() -> bytes:
    """Return a model that has what the delegate runs: one binary convolution."""
    ones = np.ones(8, np.float32)
    convolution = Convolution(np.zeros((8, 3, 3, 3), bool), multiplier=ones, bias=ones)
    graph = Graph()
    signs = graph.custom("LceQuantize", [graph.input((1, 4, 4, 3), np.float32)], graph.tensor((1, 4, 4, 1), np.int32))
    return graph.serialize(graph.bconv2d(signs, convolution))


def card_of(model: bytes) -> dict[str, Any]:
    """Return a card that fits a model."""
    texts = dict.fromkeys(("name", "network", "recipe", "training_data", "git_revision"), "x")
    checksum = hashlib.sha256(model).hexdigest()
    return {**texts, "input_size": [4, 4], "descriptor_bits": 32, "sha256": checksum}


def model_card(data: bytes) -> None:
    """A model's card."""
    model = FOLDER / "card.tflite"
    model.write_bytes(b"model")
    model.with_suffix(".json").write_bytes(data)
    with contextlib.suppress(ModelCardError):
        ModelCard.read(model)


def small_cards() -> list[bytes]:
    """Return a card that fits, and one of nothing."""
    return [json.dumps(card_of(b"model")).encode(), b"{}"]


def model(data: bytes) -> None:
    """A model whose card fits."""
    path = FOLDER / "model.tflite"
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(card_of(data)), encoding="utf-8")
    with contextlib.suppress(DescriptorError, ModelCardError):
        DescriptorNetwork(path, "delegate").describe(GREY)


def ground_truth(data: bytes) -> None:
    """The tables of data sets."""
    for name in ("queries", "references"):
        folder = FOLDER / name
        if not folder.is_dir():
            folder.mkdir()
            for number in range(3):
                (folder / f"{number}.png").touch()
    path = FOLDER / "ground_truth.csv"
    path.write_bytes(data)
    with contextlib.suppress(RecordingError):
        FolderPair.from_parts(FOLDER / "queries", FOLDER / "references", path)
    with contextlib.suppress(RecordingError):
        rows, columns = read_columns(path, ("query", "references"))
        for row in rows:
            with contextlib.suppress(RecordingError):
                row.numbers(columns)
            with contextlib.suppress(RecordingError):
                row.stamp(columns[0], 10**9)
    with contextlib.suppress(RecordingError):
        read_rows(path)


def small_tables() -> list[bytes]:
    """Return two tables."""
    file = io.StringIO()
    csv.writer(file).writerows([["query", "references"], ["0", "0 1"], ["2", ""], ["1", "2"]])
    return [file.getvalue().encode(), b"# t x y\n1403636579.763555584 4.688 -1.786\n"]


def array_file(data: bytes) -> None:
    """A .npy file, with or without a pickle."""
    path = FOLDER / "array.npy"
    path.write_bytes(data)
    with contextlib.suppress(RecordingError):
        load_objects(path)


def small_arrays() -> list[bytes]:
    """Return an array of numbers and one of lists."""
    objects = np.empty(3, object)
    objects[:] = [[1, 2], [np.arange(2)], []]
    files = []
    for values in (np.arange(4), objects):
        file = io.BytesIO()
        np.save(file, values, allow_pickle=True)
        files.append(file.getvalue())
    return files


def bag(suffix: str) -> Callable[[bytes], None]:
    """A bag with images and poses, of one of its formats."""

    def read(data: bytes) -> None:
        path = FOLDER / f"bag{suffix}"
        path.write_bytes(data)
        with contextlib.suppress(RecordingError):
            for picture in PosedBag.read(path, Options()).queries:
                look_at(picture)

    return read


def small_bag(suffix: str) -> Callable[[], list[bytes]]:
    """A bag of two images and their poses."""

    def write() -> list[bytes]:
        first = suffix == ".bag"
        store = get_typestore(Stores.ROS1_NOETIC if first else Stores.ROS2_HUMBLE)
        new: Callable[..., Any] = lambda name, **fields: store.types[name](**fields)  # noqa: E731
        path = FOLDER / f"example{suffix}"
        plugin = StoragePlugin.SQLITE3 if suffix == ".db3" else StoragePlugin.MCAP
        with Writer1(path) if first else Writer2(path, version=8, storage_plugin=plugin) as writer:
            kinds = {"image": "sensor_msgs/msg/Image", "pose": "geometry_msgs/msg/PoseStamped"}
            topics = {name: writer.add_connection(f"/{name}", kind, typestore=store) for name, kind in kinds.items()}
            for second in (1, 2):
                stamp = new("builtin_interfaces/msg/Time", sec=second, nanosec=0)
                header = new("std_msgs/msg/Header", stamp=stamp, frame_id="", **({"seq": 0} if first else {}))
                picture = new(
                    kinds["image"], header=header, height=2, width=2, encoding="mono8", is_bigendian=0, step=2,
                    data=np.arange(4, dtype=np.uint8),
                )  # fmt: skip
                pose = new(
                    "geometry_msgs/msg/Pose", position=new("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
                    orientation=new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
                )  # fmt: skip
                for name, message in (("image", picture), ("pose", new(kinds["pose"], header=header, pose=pose))):
                    write_one = store.serialize_ros1 if first else store.serialize_cdr
                    writer.write(topics[name], second * 10**9, write_one(message, kinds[name]))
        if first:
            return [path.read_bytes()]
        (file,) = path.glob(f"*{suffix}")
        return [file.read_bytes()]

    return write


TARGETS = {
    "image": Target(image),
    "compressed": Target(compressed, image_files),
    "camera_info": Target(camera_info),
    "config": Target(config),
    "map": Target(map_file, small_maps),
    "features": Target(features, some_features),
    "pose": Target(pose, some_features),
    "model_card": Target(model_card, small_cards),
    "model": Target(model, lambda: [small_model()]),
    "ground_truth": Target(ground_truth, small_tables),
    "array": Target(array_file, small_arrays),
    **{f"bag{suffix}": Target(bag(suffix), small_bag(suffix)) for suffix in (".bag", ".db3", ".mcap")},
}


def clean_up() -> None:
    """Remove what the targets have written."""
    shutil.rmtree(FOLDER, ignore_errors=True)
