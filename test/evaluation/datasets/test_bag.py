# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed")

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from binvpr_ros.evaluation.datasets.bag import PosedBag, is_bag
from binvpr_ros.evaluation.datasets.dataset import DatasetError, Options

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

    def __init__(self, kind: str) -> None:
        self.kind = kind
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

    def compressed(self, stamp: int, data: Any) -> Any:
        return self.new(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(stamp),
            format="png",
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
    assert bag.same_place.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert bag.truth.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


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


def read_one(messages: Messages, folder: Path, kind: str, message: Any) -> Any:
    entries: list[Entry] = []
    for time in TIMES[:2]:
        copy = type(message)(**{**vars(message), "header": messages.header(time)})
        entries.append(("/image", kind, time, copy))
        entries.append(("/pose", POSE_TYPES["PoseStamped"], time,
                        messages.pose("PoseStamped", time, (0.0, 0.0, 0.0), UPRIGHT)))  # fmt: skip
    return PosedBag.read(messages.write(folder / "bag", entries), Options()).queries[1]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "mono8", "8UC1", "mono16"])
def test_raw_encodings(tmp_path: Path, ros2: Messages, pictures: Pictures, encoding: str, padded: bool) -> None:
    picture = pictures[0]
    alpha = np.full((6, 8, 1), 255, np.uint8)
    bgr, grey = picture[..., ::-1], picture[..., 0]
    rows: Any = {
        "rgb8": picture, "bgr8": bgr, "8UC3": bgr,
        "rgba8": np.dstack([picture, alpha]), "bgra8": np.dstack([bgr, alpha]),
        "mono8": grey, "8UC1": grey, "mono16": grey.astype(np.uint16) * 257,
    }[encoding]  # fmt: skip
    rows = np.ascontiguousarray(rows).reshape(6, -1).view(np.uint8)
    if padded:
        rows = np.pad(rows, ((0, 0), (0, 5)), constant_values=99)
    image = read_one(ros2, tmp_path, *encoded(ros2, encoding, rows))
    expected = grey if rows.shape[1] < 24 else picture
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=1 if encoding == "mono16" else 0)


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


def test_images_that_cannot_be_decoded(tmp_path: Path, ros2: Messages, pictures: Pictures) -> None:
    grey = pictures[0][..., 0]
    wrong = {
        "depth": encoded(ros2, "32FC1", grey.astype(np.float32)),
        "unknown": encoded(ros2, "octarine", grey),
        "planar": encoded(ros2, "nv12", np.zeros((9, 8), np.uint8)),
        "short": ("sensor_msgs/msg/Image", ros2.image(0, grey[:, :5], "mono8", 8)),
        "empty": ("sensor_msgs/msg/Image", ros2.image(0, grey, "mono8", 0, step=0)),
        "rubbish": ("sensor_msgs/msg/CompressedImage", ros2.compressed(0, np.arange(9, dtype=np.uint8))),
    }
    wrong["planar"][1].height = 6
    for name, (kind, message) in wrong.items():
        (tmp_path / name).mkdir()
        with pytest.raises(DatasetError, match=r"an image on /image of .* cannot be decoded") as refused:
            read_one(ros2, tmp_path / name, kind, message)
        assert "\n" not in str(refused.value)


def test_one_of_several_topics_is_named(tmp_path: Path, messages: Messages, pictures: Pictures) -> None:
    entries = drive(messages, pictures)
    twice = entries + [(topic + "2", kind, time, message) for topic, kind, time, message in entries]
    path = messages.write(tmp_path / "drive", twice)
    with pytest.raises(DatasetError, match=r"holds several image topics, name one of them .*TOPIC=.*: /image, /image2"):
        PosedBag.read(path, Options(pose_topic="/pose"))
    with pytest.raises(
        DatasetError, match=r"holds several pose topics, name one of them \(--pose-topic\): /pose, /pose2"
    ):
        PosedBag.read(path, Options(image_topic="/image"))
    bag = PosedBag.read(path, Options(image_topic="/image2", pose_topic="/pose2"))
    assert same_images(bag.queries, [pictures[0], pictures[2], pictures[3]])
    with pytest.raises(DatasetError, match="does not hold the image topic /image3; list its topics"):
        PosedBag.read(path, Options(image_topic="/image3"))


def test_bags_without_images_or_poses(tmp_path: Path, ros2: Messages, pictures: Pictures) -> None:
    entries = drive(ros2, pictures)
    with pytest.raises(DatasetError, match="does not hold an image topic"):
        PosedBag.read(ros2.write(tmp_path / "a", entries[4:]), Options())
    with pytest.raises(DatasetError, match="does not hold a pose topic"):
        PosedBag.read(ros2.write(tmp_path / "b", entries[:4]), Options())
    bare = ros2.write(tmp_path / "c", entries[4:], [("/image", "sensor_msgs/msg/Image")])
    with pytest.raises(DatasetError, match="holds no images on /image"):
        PosedBag.read(bare, Options())
    zeros = [(topic, kind, time, ros2.pose("PoseStamped", time, (0, 0, 0), (0, 0, 0, 0)))
             for topic, kind, time, _ in entries[4:]]  # fmt: skip
    with pytest.raises(DatasetError, match="image 0 of d has a pose that is no position and rotation"):
        PosedBag.read(ros2.write(tmp_path / "d", entries[:4] + zeros), Options())


@pytest.mark.skipif(version("rosbags") < "0.11", reason="rosbags before 0.11 reads whole folders alone")
@pytest.mark.parametrize(
    ("defined", "instead"),
    [(b"Point position", b"Point puzition"), (b"int32 sec\n", b"int32 set\n"), (b"Pose pose", b"Pose pore")],
)
def test_a_bag_whose_messages_have_other_fields_than_their_names_say(
    tmp_path: Path, ros2: Messages, pictures: Pictures, defined: bytes, instead: bytes
) -> None:
    (file,) = ros2.write(tmp_path / "drive", drive(ros2, pictures)).glob("*.mcap")
    data = file.read_bytes()
    assert defined in data
    file.write_bytes(data.replace(defined, instead))
    with pytest.raises(DatasetError, match="cannot be read as a bag") as refused:
        PosedBag.read(file, Options())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["b.bag", "b.mcap", "b.db3", "folder", "away.bag"])
def test_what_is_no_bag(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "metadata.yaml").write_text("{ : rubbish")
    if name.startswith("b."):
        (tmp_path / name).write_text("rubbish")
    with pytest.raises(DatasetError, match="cannot be read as a bag") as refused:
        PosedBag.read(tmp_path / name, Options())
    assert "\n" not in str(refused.value)


def test_without_rosbags_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("rosbags"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DatasetError, match="reading bags needs rosbags; run: pip install rosbags"):
        PosedBag.read(tmp_path, Options())


def test_no_ros_is_imported() -> None:
    script = (
        "import sys, binvpr_ros.evaluation.datasets; "
        "assert not {'rclpy', 'sensor_msgs', 'std_msgs', 'rosbags'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
