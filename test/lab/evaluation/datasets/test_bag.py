# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import builtins
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from binvpr_ros.lab.evaluation.datasets import find_datasets
from binvpr_ros.lab.evaluation.datasets.bag import PosedBag
from binvpr_ros.lab.evaluation.datasets.dataset import Options
from binvpr_ros.recordings.bags import is_bag, open_bag
from binvpr_ros.recordings.errors import RecordingError

from .conftest import Pictures, same_images

SECOND = 10**9
POSE_TYPES = {
    "PoseStamped": "geometry_msgs/msg/PoseStamped",
    "PoseWithCovarianceStamped": "geometry_msgs/msg/PoseWithCovarianceStamped",
    "TransformStamped": "geometry_msgs/msg/TransformStamped",
    "Odometry": "nav_msgs/msg/Odometry",
}
Entry = tuple[str, str, int, Any]
"""Topic, type, time of recording (nanoseconds), message."""


class Messages:
    """Makes messages of ROS 1 or ROS 2, and writes them into a bag."""

    def __init__(self, kind: str, compression: CompressionMode | None = None) -> None:
        self.kind = kind
        self.compression = compression
        self.store = get_typestore(Stores.ROS1_NOETIC if kind == "ros1" else Stores.ROS2_JAZZY)

    def new(self, name: str, **fields: Any) -> Any:
        return self.store.types[name](**fields)

    def header(self, stamp: int) -> Any:
        time = self.new("builtin_interfaces/msg/Time", sec=stamp // SECOND, nanosec=stamp % SECOND)
        return self.new(
            "std_msgs/msg/Header", stamp=time, frame_id="", **({"seq": 0} if self.kind == "ros1" else {})
        )  # fmt: skip

    def image(self, stamp: int, rows: Any, encoding: str, width: int, step: int | None = None) -> Any:
        return self.new(
            "sensor_msgs/msg/Image", header=self.header(stamp), height=len(rows), width=width, encoding=encoding,
            is_bigendian=0, step=rows[0].nbytes if step is None else step, data=rows.reshape(-1).view(np.uint8),
        )  # fmt: skip

    def compressed(self, stamp: int, data: Any, kind: str = "png") -> Any:
        return self.new(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(stamp),
            format=kind,
            data=np.asarray(data).reshape(-1),
        )

    def pose(self, kind: str, stamp: int, position: Any, quaternion: Any) -> Any:
        x, y, z = position
        rotation = dict(zip("xyzw", map(float, quaternion), strict=True))
        header = self.header(stamp)
        if kind == "TransformStamped":
            transform = self.new(
                "geometry_msgs/msg/Transform", translation=self.new("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
                rotation=self.new("geometry_msgs/msg/Quaternion", **rotation),
            )  # fmt: skip
            return self.new(POSE_TYPES[kind], header=header, child_frame_id="", transform=transform)
        pose = self.new(
            "geometry_msgs/msg/Pose", position=self.new("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=self.new("geometry_msgs/msg/Quaternion", **rotation),
        )  # fmt: skip
        if kind == "PoseStamped":
            return self.new(POSE_TYPES[kind], header=header, pose=pose)
        certain = self.new("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36))
        if kind == "PoseWithCovarianceStamped":
            return self.new(POSE_TYPES[kind], header=header, pose=certain)
        still = self.new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = self.new(
            "geometry_msgs/msg/TwistWithCovariance", covariance=np.zeros(36),
            twist=self.new("geometry_msgs/msg/Twist", linear=still, angular=still),
        )  # fmt: skip
        return self.new(POSE_TYPES[kind], header=header, child_frame_id="", pose=certain, twist=twist)

    def write(self, path: Path, entries: list[Entry], topics: list[tuple[str, str]] | None = None) -> Path:
        """Write a bag with these messages, and with further `topics` (name, type) that hold none."""
        if self.kind == "ros1":
            path = path.with_suffix(".bag")
            writer: Any = Writer1(path)
            serialize: Callable[[Any, str], Any] = self.store.serialize_ros1
        else:
            writer = Writer2(path, version=9, storage_plugin=StoragePlugin[self.kind.upper()])
            serialize = self.store.serialize_cdr
            if self.compression is not None:
                writer.set_compression(self.compression, CompressionFormat.ZSTD)
        with writer:
            connections = {
                topic: writer.add_connection(topic, kind, typestore=self.store)
                for topic, kind in dict.fromkeys([(entry[0], entry[1]) for entry in entries] + (topics or []))
            }
            for topic, kind, time, message in entries:
                writer.write(connections[topic], time, serialize(message, kind))
        return path


@pytest.fixture(params=["ros1", "sqlite3", "mcap"])
def messages(request: pytest.FixtureRequest) -> Messages:
    return Messages(request.param)


@pytest.fixture
def ros2() -> Messages:
    return Messages("mcap")


@pytest.fixture
def pictures() -> Pictures:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (6, 8, 3), np.uint8) for _ in range(4)]


TIMES = (100 * SECOND, 120 * SECOND, 140 * SECOND, 160 * SECOND)
UPRIGHT, TURNED = (0, 0, 0, 1), (0, 0, 1, 0)


def drive(messages: Messages, pictures: Pictures, kind: str = "PoseStamped") -> list[Entry]:
    """Four images; the last two stand where the first does, the last of them turned; the second has no pose."""
    images: list[Entry] = [
        # Two are recorded at one time, as when a disk was slow.
        ("/image", "sensor_msgs/msg/Image", max(time, TIMES[1]), messages.image(time, picture, "rgb8", 8))
        for time, picture in zip(TIMES, pictures, strict=True)
    ]
    track = [(TIMES[0] + 40_000_000, UPRIGHT), (TIMES[1] + 60_000_000, UPRIGHT), (TIMES[2] - 40_000_000, UPRIGHT),
             (TIMES[3], TURNED)]  # fmt: skip
    poses: list[Entry] = [
        ("/pose", POSE_TYPES[kind], time, messages.pose(kind, time, (time / SECOND / 100, 2.0, 3.0), turn))
        for time, turn in track
    ]
    return images + poses


@pytest.mark.parametrize("kind", list(POSE_TYPES))
def test_a_bag_with_poses(tmp_path: Path, messages: Messages, pictures: Pictures, kind: str) -> None:
    path = messages.write(tmp_path / "drive", drive(messages, pictures, kind))
    assert is_bag(path)
    assert PosedBag.fits(path)
    bag = PosedBag.read(path, Options())
    assert bag.name == "drive"
    assert same_images(bag.queries, [pictures[0], pictures[2], pictures[3]])
    assert bag.stamps.tolist() == [TIMES[0], TIMES[2], TIMES[3]]
    np.testing.assert_allclose(bag.positions, [(1.0004, 2, 3), (1.3996, 2, 3), (1.6, 2, 3)])
    assert bag.truth.rows(0, 3).tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert bag.left_out == {"without a pose": 1}
    assert not bag.optical
    assert bag.camera is None


def test_two_loops_over_one_bag_at_a_time(tmp_path: Path, messages: Messages, pictures: Pictures) -> None:
    bag = PosedBag.read(messages.write(tmp_path / "drive", drive(messages, pictures)), Options())
    for first, second in zip(bag.queries, bag.references, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.skipif(version("rosbags") < "0.11", reason="rosbags before 0.11 reads whole folders alone")
def test_the_files_of_a_ros_2_bag_will_do(tmp_path: Path, ros2: Messages, pictures: Pictures) -> None:
    (file,) = ros2.write(tmp_path / "drive", drive(ros2, pictures)).glob("*.mcap")
    assert PosedBag.fits(file)
    assert len(PosedBag.read(file, Options()).queries) == 3


def encoded(messages: Messages, encoding: str, rows: Any, width: int = 8) -> Any:
    return "sensor_msgs/msg/Image", messages.image(TIMES[0], np.ascontiguousarray(rows), encoding, width)


def read_one(messages: Messages, folder: Path, kind: str, message: Any, stretched: bool = False) -> Any:
    entries: list[Entry] = []
    for time in TIMES[:2]:
        copy = type(message)(**{**vars(message), "header": messages.header(time)})
        entries.append(("/image", kind, time, copy))
        entries.append(("/pose", POSE_TYPES["PoseStamped"], time,
                        messages.pose("PoseStamped", time, (0.0, 0.0, 0.0), UPRIGHT)))  # fmt: skip
    drive = PosedBag.read(messages.write(folder / "bag", entries), Options())
    return (drive.stretched() if stretched else drive).queries[1]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "mono8", "8UC1"])
def test_raw_encodings(tmp_path: Path, ros2: Messages, pictures: Pictures, encoding: str, padded: bool) -> None:
    picture = pictures[0]
    alpha = np.full((6, 8, 1), 255, np.uint8)
    bgr, grey = picture[..., ::-1], picture[..., 0]
    rows: Any = {
        "rgb8": picture, "bgr8": bgr, "8UC3": bgr,
        "rgba8": np.dstack([picture, alpha]), "bgra8": np.dstack([bgr, alpha]),
        "mono8": grey, "8UC1": grey,
    }[encoding]  # fmt: skip
    rows = np.ascontiguousarray(rows).reshape(6, -1).view(np.uint8)
    if padded:
        rows = np.pad(rows, ((0, 0), (0, 5)), constant_values=99)
    image = read_one(ros2, tmp_path, *encoded(ros2, encoding, rows))
    expected = grey if rows.shape[1] < 24 else picture
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def test_a_thermal_camera_uses_the_8_bits_on_request(tmp_path: Path, ros2: Messages) -> None:
    values = np.linspace(7000, 9000, 48).astype(np.uint16).reshape(6, 8)
    kind, message = encoded(ros2, "16UC1", values)
    plain = read_one(ros2, tmp_path / "plain", kind, message)
    np.testing.assert_array_equal(plain, values >> 8)  # as in the node
    image = read_one(ros2, tmp_path / "stretched", kind, message, stretched=True)
    assert image.dtype == np.uint8
    assert image.min() < 10
    assert image.max() > 245


def test_bayer_is_made_colour(tmp_path: Path, ros2: Messages) -> None:
    red = np.zeros((6, 8), np.uint8)
    red[::2, ::2] = 200
    image = read_one(ros2, tmp_path, *encoded(ros2, "bayer_rggb8", red))
    assert (image[2:4, 2:6] == (200, 0, 0)).all()


def test_compressed_images(tmp_path: Path, messages: Messages, pictures: Pictures) -> None:
    for name, picture in (("colour", pictures[0]), ("grey", pictures[0][..., 0])):
        (tmp_path / name).mkdir()
        data = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1])[1]
        message = messages.compressed(0, data)
        image = read_one(messages, tmp_path / name, "sensor_msgs/msg/CompressedImage", message)
        np.testing.assert_array_equal(image, picture)


def test_a_bayer_mosaic_in_a_jpeg_is_made_colour(tmp_path: Path, messages: Messages) -> None:
    red = np.zeros((32, 32), np.uint8)
    red[::2, ::2] = 200
    data = cv2.imencode(".jpg", red, (cv2.IMWRITE_JPEG_QUALITY, 100))[1]
    message = messages.compressed(0, data, "bayer_rggb8; jpeg compressed ")
    image = read_one(messages, tmp_path, "sensor_msgs/msg/CompressedImage", message)
    np.testing.assert_allclose(image[2:-2, 2:-2], np.broadcast_to((200, 0, 0), (28, 28, 3)), atol=4)


def test_images_of_a_format_that_is_not_known_name_it(tmp_path: Path, ros2: Messages) -> None:
    video = np.frombuffer(b"\0\0\0\1\x67" + bytes(50), np.uint8)
    entries: list[Entry] = []
    for time in TIMES[:2]:
        image = ros2.compressed(time, video, "h264")
        entries.append(("/image", "sensor_msgs/msg/CompressedImage", time, image))
        pose = ros2.pose("PoseStamped", time, (0.0, 0.0, 0.0), UPRIGHT)
        entries.append(("/pose", POSE_TYPES["PoseStamped"], time, pose))
    bag = PosedBag.read(ros2.write(tmp_path / "drive", entries), Options())
    with pytest.raises(RecordingError, match=r"no image of drive can be read: .*\(its format is 'h264'\)"):
        bag.readable()


@pytest.mark.parametrize("kind", ["image", "pose"])
def test_stamps_that_were_never_set_are_named(
    tmp_path: Path, messages: Messages, pictures: Pictures, kind: str
) -> None:
    entries = drive(messages, pictures)
    for topic, _, _, message in entries:
        if topic == f"/{kind}":
            message.header.stamp.sec = message.header.stamp.nanosec = 0
    path = messages.write(tmp_path / "drive", entries)
    with pytest.raises(RecordingError, match=rf"all {kind}s on /{kind} of .* have the stamp 0; record them again"):
        PosedBag.read(path, Options())


def test_images_that_cannot_be_decoded(tmp_path: Path, ros2: Messages, pictures: Pictures) -> None:
    grey = pictures[0][..., 0]
    wrong = {
        "depth": encoded(ros2, "32FC1", grey.astype(np.float32)),
        "unknown": encoded(ros2, "octarine", grey),
        "short": ("sensor_msgs/msg/Image", ros2.image(0, grey[:, :5], "mono8", 8)),
        "empty": ("sensor_msgs/msg/Image", ros2.image(0, grey, "mono8", 0, step=0)),
        "rubbish": ("sensor_msgs/msg/CompressedImage", ros2.compressed(0, np.arange(9, dtype=np.uint8))),
    }
    for name, (kind, message) in wrong.items():
        (tmp_path / name).mkdir()
        with pytest.raises(RecordingError, match=r"an image on /image of .* cannot be decoded") as refused:
            read_one(ros2, tmp_path / name, kind, message)
        assert "\n" not in str(refused.value)


def test_one_of_several_topics_is_named(tmp_path: Path, messages: Messages, pictures: Pictures) -> None:
    entries = drive(messages, pictures)
    twice = entries + [(topic + "2", kind, time, message) for topic, kind, time, message in entries]
    path = messages.write(tmp_path / "drive", twice)
    with pytest.raises(
        RecordingError, match=r"holds several image topics, name one of them .*TOPIC=.*: /image, /image2"
    ):
        PosedBag.read(path, Options(pose_topic="/pose"))
    with pytest.raises(
        RecordingError, match=r"holds several pose topics, name one of them \(--pose-topic\): /pose, /pose2"
    ):
        PosedBag.read(path, Options(image_topic="/image"))
    bag = PosedBag.read(path, Options(image_topic="/image2", pose_topic="/pose2"))
    assert same_images(bag.queries, [pictures[0], pictures[2], pictures[3]])
    with pytest.raises(
        RecordingError, match="does not hold the image topic /image3; its topics are: /image, /image2, /p"
    ):
        PosedBag.read(path, Options(image_topic="/image3"))


def test_bags_without_images_or_poses(tmp_path: Path, ros2: Messages, pictures: Pictures) -> None:
    entries = drive(ros2, pictures)
    with pytest.raises(RecordingError, match="does not hold an image topic"):
        PosedBag.read(ros2.write(tmp_path / "a", entries[4:]), Options())
    with pytest.raises(RecordingError, match="does not hold a pose topic"):
        PosedBag.read(ros2.write(tmp_path / "b", entries[:4]), Options())
    bare = ros2.write(tmp_path / "c", entries[4:], [("/image", "sensor_msgs/msg/Image")])
    with pytest.raises(RecordingError, match="has no images on /image"):
        PosedBag.read(bare, Options())
    empty = ros2.write(tmp_path / "d", [], [])
    with pytest.raises(RecordingError, match="does not hold an image topic; its topics are: none, so record it again"):
        PosedBag.read(empty, Options())


def test_a_topic_without_messages_is_no_choice(tmp_path: Path, messages: Messages, pictures: Pictures) -> None:
    path = messages.write(
        tmp_path / "drive", drive(messages, pictures), [("/image/compressed", "sensor_msgs/msg/CompressedImage")]
    )  # fmt: skip
    assert same_images(PosedBag.read(path, Options()).queries, [pictures[0], pictures[2], pictures[3]])


def test_what_is_no_pose_costs_itself_only(tmp_path: Path, messages: Messages, pictures: Pictures) -> None:
    entries: list[Entry] = []
    poses = [((0, 0, 0), UPRIGHT), ((0, 0, 0), (0, 0, 0, 0)), ((np.nan, 0, 0), UPRIGHT), ((1, 0, 0), UPRIGHT)]
    for time, picture, (position, turn) in zip(TIMES, pictures, poses, strict=True):
        entries.append(("/image", "sensor_msgs/msg/Image", time, messages.image(time, picture, "rgb8", 8)))
        pose = messages.pose("PoseStamped", time, tuple(map(float, position)), turn)
        entries.append(("/pose", POSE_TYPES["PoseStamped"], time, pose))
    # A repeated stamp, and one that goes back.
    for time, stamp in ((TIMES[3] + 1, TIMES[3]), (TIMES[3] + 2, TIMES[0] - 10_000_000)):
        entries.append(("/image", "sensor_msgs/msg/Image", time, messages.image(stamp, pictures[1], "rgb8", 8)))
    bag = PosedBag.read(messages.write(tmp_path / "drive", entries), Options())
    assert bag.stamps.tolist() == [TIMES[0], TIMES[3]]
    assert len(list(bag.queries)) == 2
    assert bag.left_out == {"without a pose": 2, "with a stamp that does not advance": 2}


def damage(path: Path, pattern: bytes, instead: bytes) -> None:
    """Replace what occurs once in the file of a bag."""
    file = path if path.is_file() else next(file for file in path.iterdir() if file.suffix != ".yaml")
    data = file.read_bytes()
    assert data.count(pattern) == 1
    assert len(pattern) == len(instead)
    file.write_bytes(data.replace(pattern, instead))


def test_a_damaged_image_costs_itself_only(tmp_path: Path, messages: Messages, pictures: Pictures) -> None:
    entries: list[Entry] = []
    for number, (time, picture) in enumerate(zip(TIMES, pictures, strict=True)):
        image = messages.image(time, picture, "octarine" if number == 1 else "rgb8", 8)
        if number == 2:
            image.encoding = "damaged"
        entries.append(("/image", "sensor_msgs/msg/Image", time, image))
        pose = messages.pose("PoseStamped", time, (0.0, 0.0, 0.0), UPRIGHT)
        entries.append(("/pose", POSE_TYPES["PoseStamped"], time, pose))
    path = messages.write(tmp_path / "drive", entries)
    damage(path, b"damaged", b"damage\xff")  # which is not UTF-8
    bag = PosedBag.read(path, Options())
    assert bag.left_out == {"unreadable": 1}
    (wrong,) = bag.queries.unreadable().items()
    assert wrong[0] == 1
    assert "an image on /image of " in wrong[1]
    assert "its encoding 'octarine' is not one of" in wrong[1]
    readable = bag.readable()
    assert readable.stamps.tolist() == [TIMES[0], TIMES[3]]
    assert same_images(readable.queries, [pictures[0], pictures[3]])
    with pytest.raises(RecordingError, match="octarine"):
        list(bag.queries)


def test_images_are_taken_in_any_order(tmp_path: Path, messages: Messages, pictures: Pictures) -> None:
    images = PosedBag.read(messages.write(tmp_path / "drive", drive(messages, pictures)), Options()).queries
    assert same_images(images.take([2, 0, 0]), [pictures[3], pictures[0], pictures[0]])
    assert same_images(images.take(np.array([1, 2])).take([1]), [pictures[3]])
    assert same_images(images.take([]), [])


@pytest.mark.parametrize("topic", ["/front/image_raw", "/front/image_rect"])
def test_the_calibration_beside_the_images(tmp_path: Path, messages: Messages, pictures: Pictures, topic: str) -> None:
    entries: list[Entry] = [
        (topic, *entry[1:]) if entry[0] == "/image" else entry for entry in drive(messages, pictures)
    ]
    case = str.upper if messages.kind == "ros1" else str.lower
    region = messages.new(
        "sensor_msgs/msg/RegionOfInterest", x_offset=2, y_offset=1, width=8, height=6, do_rectify=False
    )
    focal = {"d": np.array([0.1, 0.0, 0.0, 0.0]), "k": np.array([9.0, 0, 5, 0, 8, 4, 0, 0, 1]),
             "r": np.eye(3).reshape(-1), "p": np.array([7.0, 0, 6, 0, 0, 7, 5, 0, 0, 0, 1, 0])}  # fmt: skip
    info = messages.new(
        "sensor_msgs/msg/CameraInfo", header=messages.header(0), width=12, height=10, distortion_model="equidistant",
        binning_x=0, binning_y=0, roi=region, **{case(name): values for name, values in focal.items()},
    )  # fmt: skip
    for name, first in (("no_calibration", np.zeros(9)), ("calibration", focal["k"])):
        setattr(info, case("k"), first)
        if topic.endswith("rect"):
            setattr(info, case("p"), focal["p"] if first.any() else np.zeros(12))
        calibration = ("/front/camera_info", "sensor_msgs/msg/CameraInfo", TIMES[0], info)
        camera = PosedBag.read(messages.write(tmp_path / name, [*entries, calibration]), Options()).camera
        if not first.any():
            assert camera is None
            continue
        assert camera is not None
        assert camera.size == (8, 6)
        if topic.endswith("rect"):
            assert camera.matrix.tolist() == [[7, 0, 4], [0, 7, 4], [0, 0, 1]]
            assert not camera.coefficients.size
        else:
            assert camera.matrix.tolist() == [[9, 0, 3], [0, 8, 3], [0, 0, 1]]
            assert camera.fisheye


def test_a_calibration_that_does_not_fit_the_images_is_ignored(
    tmp_path: Path, ros2: Messages, pictures: Pictures, capsys: pytest.CaptureFixture[str]
) -> None:
    region = ros2.new("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    info = ros2.new(
        "sensor_msgs/msg/CameraInfo", header=ros2.header(0), width=640, height=480, distortion_model="plumb_bob",
        d=np.zeros(5), k=np.array([1000.0, 0, 640, 0, 1000, 480, 0, 0, 1]), r=np.eye(3).reshape(-1),
        p=np.eye(3, 4).reshape(-1), binning_x=0, binning_y=0, roi=region,
    )  # fmt: skip
    path = ros2.write(
        tmp_path / "drive",
        [*drive(ros2, pictures), ("/camera_info", "sensor_msgs/msg/CameraInfo", TIMES[0], info)],
    )
    assert PosedBag.read(path, Options()).camera is None
    assert capsys.readouterr().err.startswith(
        "calibration ignored (without a camera, closures of near images stay near): "
        f"/camera_info of {path}: it does not fit images of 640x480 pixels"
    )


@pytest.mark.skipif(version("rosbags") < "0.11", reason="rosbags before 0.11 reads whole folders alone")
@pytest.mark.parametrize(
    ("defined", "instead", "sentence"),
    [
        (b"Point position", b"Point puzition", "no pose on /pose of .* can be read"),
        (b"int32 sec\n", b"int32 set\n", "cannot be read as a bag"),
        (b"Pose pose", b"Pose pore", "no pose on /pose of .* can be read"),
    ],
)
def test_a_bag_whose_messages_have_other_fields_than_their_names_say(
    tmp_path: Path, ros2: Messages, pictures: Pictures, defined: bytes, instead: bytes, sentence: str
) -> None:
    (file,) = ros2.write(tmp_path / "drive", drive(ros2, pictures)).glob("*.mcap")
    data = file.read_bytes()
    assert defined in data
    file.write_bytes(data.replace(defined, instead))
    with pytest.raises(RecordingError, match=sentence) as refused:
        PosedBag.read(file, Options())
    assert "\n" not in str(refused.value)


REPAIRS = {
    "ros1": "repair {name} with `rosbag reindex {file}`",
    "sqlite3": "repair {name} with `sqlite3 {file} .recover | sqlite3 {folder}/drive_repaired.db3`",
    "mcap": "repair {name} with `mcap recover {file} -o {folder}/drive_repaired.mcap`",
}


@pytest.mark.parametrize("share", [0.99, 0.5, 0.0])
@pytest.mark.parametrize("whole", [True, False])
def test_a_bag_that_was_cut_names_its_repair(
    tmp_path: Path, messages: Messages, pictures: Pictures, whole: bool, share: float
) -> None:
    path = messages.write(tmp_path / "drive", drive(messages, pictures))
    file = path if path.is_file() else next(file for file in path.iterdir() if file.suffix != ".yaml")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(RecordingError, match="cannot be read as a bag") as refused:
        PosedBag.read(path if whole else file, Options())
    remedy = REPAIRS[messages.kind] if share else "{name} is empty, so record it again"
    assert f"; {remedy.format(name=file.name, file=file, folder=file.parent)}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_bag_whose_description_is_damaged_is_indexed_anew(tmp_path: Path, ros2: Messages, pictures: Pictures) -> None:
    path = ros2.write(tmp_path / "drive", drive(ros2, pictures))
    for text in ("{ : rubbish", ""):
        (path / "metadata.yaml").write_text(text)
        with pytest.raises(RecordingError, match="cannot be read as a bag") as refused:
            PosedBag.read(path, Options())
        where = "" if shutil.which("ros2") else " where ROS 2 is installed"
        assert str(refused.value).endswith(f"; renew its metadata.yaml with `ros2 bag reindex {path}`{where}")
        assert "\n" not in str(refused.value)
    path = Messages("mcap", CompressionMode.FILE).write(tmp_path / "compressed", drive(ros2, pictures))
    (path / "metadata.yaml").write_text("")
    with pytest.raises(
        RecordingError, match=r"renew its metadata.yaml with `zstd -d .*/\*.zstd` and then `ros2 bag rei"
    ):
        PosedBag.read(path, Options())


@pytest.mark.parametrize("kind", ["sqlite3", "mcap"])
@pytest.mark.parametrize("identifier", ["''", "rosbag2_storage", ""])
def test_a_description_without_the_storage_says_which_to_write(
    tmp_path: Path, pictures: Pictures, kind: str, identifier: str
) -> None:
    messages = Messages(kind)
    path = messages.write(tmp_path / "drive", drive(messages, pictures))
    text = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(re.sub("storage_identifier: .*", f"storage_identifier: {identifier}", text))
    with pytest.raises(RecordingError, match=f"; write `storage_identifier: {kind}` into its metadata.yaml$"):
        PosedBag.read(path, Options())


def interrupted(bag: Path, folder: Path, mode: str) -> Path:
    """Copy a bag of SQLite as it is on disk while its second half is being written."""
    (file,) = bag.glob("*.db3")
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        rows = writer.execute("select topic_id, timestamp, data from messages where id > 4").fetchall()
        writer.execute("delete from messages where id > 4")
        writer.execute(f"pragma journal_mode={mode}")
        writer.execute("pragma wal_autocheckpoint=0")
        writer.execute("pragma cache_size=1")
        writer.execute("begin")
        writer.executemany("insert into messages (topic_id, timestamp, data) values (?, ?, ?)", rows * 99)
        if mode == "wal":
            writer.execute("commit")
        shutil.copytree(bag, folder)
    return folder


@pytest.mark.parametrize(("mode", "ending"), [("wal", "-wal"), ("delete", "-journal")])
@pytest.mark.parametrize("whole", [True, False])
def test_a_log_beside_a_bag_is_merged_first(
    tmp_path: Path, pictures: Pictures, mode: str, ending: str, whole: bool
) -> None:
    messages = Messages("sqlite3")
    path = interrupted(messages.write(tmp_path / "drive", drive(messages, pictures)), tmp_path / "a copy", mode)
    file = path / "drive.db3"
    with pytest.raises(RecordingError) as refused:
        PosedBag.read(path if whole else file, Options())
    command = f"sqlite3 '{file}' \"PRAGMA wal_checkpoint(TRUNCATE);\""
    assert str(refused.value) == (
        f"{file} is incomplete, because its recording was interrupted before drive.db3{ending} was merged into it; "
        f"merge it with `{command}`"
    )
    with closing(sqlite3.connect(file)) as merging:
        merging.execute("PRAGMA wal_checkpoint(TRUNCATE);")
    with open_bag(file) as reader:
        assert sum(c.msgcount for c in reader.connections) == (4 + 4 * 99 if mode == "wal" else 4)


@pytest.mark.parametrize("kind", ["sqlite3", "mcap"])
@pytest.mark.parametrize("damage_part", ["cut", "overwritten"])
def test_a_compressed_part_that_is_damaged_is_named(
    tmp_path: Path, pictures: Pictures, kind: str, damage_part: str
) -> None:
    messages = Messages(kind, CompressionMode.FILE)
    path = messages.write(tmp_path / "drive", drive(messages, pictures))
    (file,) = path.glob("*.zstd")
    whole = file.with_name(f"a_{file.name}")
    data = file.read_bytes()
    whole.write_bytes(data)
    text = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(text.replace(f"- {file.name}", f"- {whole.name}\n  - {file.name}", 1))
    half = len(data) // 2
    file.write_bytes(data[:half] if damage_part == "cut" else data[:9] + b"\xff" * half + data[9 + half :])
    with pytest.raises(
        RecordingError, match=rf"cannot be read as a bag .*; {file.name} is cut or damaged, so copy it "
    ):
        PosedBag.read(path, Options())


def test_a_bag_of_ros_1_whose_recorder_was_killed(tmp_path: Path, pictures: Pictures) -> None:
    ros1 = Messages("ros1")
    path = ros1.write(tmp_path / "drive", drive(ros1, pictures)).rename(tmp_path / "drive.bag.active")
    assert find_datasets(tmp_path) == [path]
    assert same_images(PosedBag.read(path, Options()).queries, [pictures[0], pictures[2], pictures[3]])
    data = path.read_bytes()
    at = data.index(b"index_pos=") + len(b"index_pos=")
    path.write_bytes(data[:at] + bytes(8) + data[at + 8 :])  # as it is until the recorder ends
    with pytest.raises(RecordingError, match=f"; repair drive.bag.active with `rosbag reindex {path}`$"):
        PosedBag.read(path, Options())
    path.write_bytes(b"rubbish")
    with pytest.raises(RecordingError, match=r"drive.bag.active is not a .bag file, so restore it"):
        PosedBag.read(path, Options())


def test_compressed_bags(tmp_path: Path, pictures: Pictures) -> None:
    for mode in (CompressionMode.FILE, CompressionMode.MESSAGE):
        ros2 = Messages("sqlite3", mode)
        path = ros2.write(tmp_path / mode.name, drive(ros2, pictures))
        assert same_images(PosedBag.read(path, Options()).queries, [pictures[0], pictures[2], pictures[3]])
        (file,) = (file for file in path.iterdir() if file.suffix != ".yaml")
        assert is_bag(file)
        with pytest.raises(
            RecordingError, match=r"is a compressed part of a bag; name its folder|name its folder inst"
        ):
            PosedBag.read(file, Options())
        (path / "metadata.yaml").unlink()
        if mode is CompressionMode.FILE:
            with pytest.raises(RecordingError, match="is a compressed part of a bag; decompress it with `zstd -d "):
                PosedBag.read(file, Options())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("b.bag", "b.bag is not a .bag file, so restore it from a copy"),
        ("b.mcap", "b.mcap is not a .mcap file, so restore it from a copy"),
        ("b.db3", "b.db3 is not a .db3 file, so restore it from a copy"),
        ("b.txt", "b.txt is not a bag, so name one (.bag, .db3, .mcap)"),
        ("away.bag", "away.bag does not exist; name a bag"),
    ],
)
def test_what_is_no_bag(tmp_path: Path, name: str, sentence: str) -> None:
    if name.startswith("b."):
        (tmp_path / name).write_text("rubbish")
    with pytest.raises(RecordingError, match=re.escape(sentence)) as refused:
        PosedBag.read(tmp_path / name, Options())
    assert "\n" not in str(refused.value)


def test_without_rosbags_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("rosbags"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecordingError, match=r"reading bags needs rosbags; run: .*pip install rosbags"):
        PosedBag.read(tmp_path, Options())


def test_no_ros_is_imported() -> None:
    script = (
        "import sys, binvpr_ros.lab.evaluation.datasets; "
        "assert not {'rclpy', 'sensor_msgs', 'std_msgs', 'rosbags'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
