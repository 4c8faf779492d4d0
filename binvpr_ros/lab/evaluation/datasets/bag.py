# SPDX-License-Identifier: Apache-2.0
"""ROS 1 and ROS 2 bags, read without a ROS installation, and bags with images and poses as data sets."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.images import Image, ImageError, decode_compressed, decode_pixels
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.cameras import own_camera
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Images, Options, own_stretch, with_more
from binvpr_ros.lab.evaluation.datasets.files import WITHOUT_POSE
from binvpr_ros.lab.evaluation.datasets.sequences import PosedSequence, poses_of_images
from binvpr_ros.local_features.camera import Camera

TOPIC_TYPES = {
    "image": ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
    "pose": (
        "geometry_msgs/msg/PoseStamped",
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        "geometry_msgs/msg/TransformStamped",
        "nav_msgs/msg/Odometry",
    ),
}
POSE_TOLERANCE = 0.05
"""Seconds: odometry often comes at 20 Hz or less."""
DEPTH_NAME = re.compile("depth|disparity", re.IGNORECASE)
DEPTH_ENCODINGS = ("16UC1", "32FC1")
DEPTH_FOR_CERTAIN = 3
"""Of `_depth_doubts`."""
MOST_TOPICS = 20
"""Topics of a bag that an error lists."""


class Storage(NamedTuple):
    """A kind of file that holds messages."""

    start: bytes
    identifier: str
    """Its name in metadata.yaml."""
    repair: str
    """The command that repairs `{file}`, or writes `{repaired}` from it."""


STORAGES = {
    ".bag": Storage(b"#ROSBAG V2.0\n", "", "`rosbag reindex {file}`"),
    ".db3": Storage(
        b"SQLite format 3\0",
        "sqlite3",
        "`sqlite3 {file} .recover | sqlite3 {repaired}`, by the sqlite3 of sqlite.org where Debian's has no .recover",
    ),
    ".mcap": Storage(b"\x89MCAP0\r\n", "mcap", "`mcap recover {file} -o {repaired}`"),
}
BAG_SUFFIXES = tuple(STORAGES)
COMPRESSED_SUFFIX = ".zstd"
UNFINISHED_SUFFIX = ".active"
"""After .bag, while it is recorded, and for good if its recorder was killed."""
LOG_ENDINGS = ("-wal", "-journal")
"""Of the files in which SQLite keeps what is not in the .db3 yet, or not for good."""
COMPRESSED_PART = """\
rosbag2_bagfile_information:
  version: 4
  storage_identifier: {storage}
  relative_file_paths: [part.zstd]
  duration: {{nanoseconds: 0}}
  starting_time: {{nanoseconds_since_epoch: 0}}
  message_count: 0
  topics_with_message_count: []
  compression_format: zstd
  compression_mode: FILE
"""
"""A metadata.yaml with which rosbags opens one compressed file."""

T = TypeVar("T")


def is_bag(path: Path) -> bool:
    """Return whether this is a bag, by its name or by the description in its folder."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file()
    return _plain_suffix(path) in BAG_SUFFIXES and path.is_file()


def _plain_suffix(path: Path) -> str:
    """Return the suffix of a file of a bag before that of its compression, or of an unfinished bag of ROS 1."""
    name = path.name.removesuffix(COMPRESSED_SUFFIX)
    return ".bag" if name.endswith(f".bag{UNFINISHED_SUFFIX}") else Path(name).suffix


def describe_bags(folder: Path, bags: Sequence[Path]) -> str:
    """Return the sentence that `folder` has several bags, which may be the parts of one, and what to do."""
    names = ", ".join(bag.name for bag in bags)
    parts = [bag for bag in bags if bag.is_file() and _plain_suffix(bag) != ".bag"]
    if len(parts) < len(bags):
        return f"{folder} holds {len(bags)} bags; name one of them: {names}"
    return (
        f"{folder} holds {len(bags)} bags, or parts of one without its metadata.yaml; name one of them, or join parts "
        f"with {_reindex(folder, parts)}: {names}"
    )


def _reindex(folder: Path, parts: Sequence[Path]) -> str:
    """Return the commands that write the metadata.yaml of a folder with these parts of a bag."""
    command = f"`ros2 bag reindex {shlex.quote(str(folder))}`"
    packed = [part for part in parts if part.suffix == COMPRESSED_SUFFIX]
    if all(part.with_suffix("").is_file() for part in packed):
        return command
    # It takes only what is decompressed.
    return f"`zstd -d {shlex.quote(str(folder))}/*{COMPRESSED_SUFFIX}` and then {command}"


@contextmanager
def open_bag(path: Path) -> Iterator[Any]:
    """Open a bag as a rosbags AnyReader; raises DatasetError if it is damaged, also while it is read."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise DatasetError("reading bags needs rosbags; run: pip install rosbags") from None
    if not path.exists():
        raise DatasetError(f"{path} does not exist; name a bag")
    if path.suffix == COMPRESSED_SUFFIX:
        command = f"zstd -d {shlex.quote(str(path))} -o {shlex.quote(str(path.with_suffix('')))}"
        folder = "name its folder, or " if (path.parent / "metadata.yaml").is_file() else ""
        raise DatasetError(f"{path} is a compressed part of a bag; {folder}decompress it with `{command}`")
    _refuse_unwritten(path)
    opened = False
    try:
        # Before Iron, ROS 2 bags do not define their types; those of Humble are used then.
        with (
            _known_suffix(path) as named,
            AnyReader([named], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader,
        ):
            opened = True
            yield reader
    except DatasetError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged bag makes the reader raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DatasetError(f"{path} cannot be read as a bag ({reason}); {_remedy(path, opened)}") from None


def _refuse_unwritten(path: Path) -> None:
    """Raise DatasetError if SQLite keeps some of a bag in a file beside it, which rosbags does not read."""
    for file in sorted(path.glob("*.db3")) if path.is_dir() else [path]:
        for ending in LOG_ENDINGS if file.suffix == ".db3" else ():
            log = Path(f"{file.resolve()}{ending}")
            try:
                with log.open("rb") as stream:
                    used = stream.read(1) not in (b"", b"\0")  # a log that was dealt with may stay, with zeros
            except OSError:
                continue
            if used:
                command = f'sqlite3 {shlex.quote(str(file))} "PRAGMA wal_checkpoint(TRUNCATE);"'
                raise DatasetError(
                    f"{file} is incomplete, because its recording was interrupted before {log.name} was merged into "
                    f"it; merge it with `{command}`"
                )


@contextmanager
def _known_suffix(path: Path) -> Iterator[Path]:
    """Yield a path to the bag by whose suffix rosbags knows its kind."""
    if path.suffix != UNFINISHED_SUFFIX or path.is_dir():
        yield path
        return
    with TemporaryDirectory() as folder:
        link = Path(folder, path.stem)
        link.symlink_to(path.absolute())
        yield link


def _remedy(path: Path, opened: bool) -> str:
    """Return what to do about a bag that cannot be opened, or that `opened` but cannot be read to its end."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _plain_suffix(file) in STORAGES)
        damaged = next((file for file in files if opened or not _opens(file)), None)
        return _remedy_of_metadata(path, files) if damaged is None else _remedy_of_file(damaged)
    return _remedy_of_file(path)


def _remedy_of_file(path: Path) -> str:
    """Return what to do about a file of a bag."""
    if path.suffix == COMPRESSED_SUFFIX:
        return f"{path.name} is cut or damaged, so copy it again"
    if _plain_suffix(path) not in STORAGES:
        return f"{path.name} is not a bag, so name one ({', '.join(BAG_SUFFIXES)})"
    storage = STORAGES[_plain_suffix(path)]
    try:
        with path.open("rb") as stream:
            start = stream.read(len(storage.start))
    except OSError as error:
        return f"{path.name} cannot be opened ({error.strerror}), so change its permissions"
    if not start:
        return f"{path.name} is empty, so record it again"
    if start != storage.start:
        return f"{path.name} is not a {_plain_suffix(path)} file, so restore it from a copy"
    file, repaired = (shlex.quote(str(name)) for name in (path, path.with_stem(f"{path.stem}_repaired")))
    return f"repair {path.name} with {storage.repair.format(file=file, repaired=repaired)}"


def _remedy_of_metadata(path: Path, files: Sequence[Path]) -> str:
    """Return what to do about a folder whose files can be opened, so that its metadata.yaml is wrong."""
    try:
        text = (path / "metadata.yaml").read_text("utf-8", errors="replace")
    except OSError as error:
        return f"its metadata.yaml cannot be opened ({error.strerror}), so change its permissions"
    named = re.search(r"^ *storage_identifier: *(\S*)", text, re.MULTILINE)
    identifier = next((STORAGES[_plain_suffix(file)].identifier for file in files), "")
    if named is not None and identifier and named[1].strip("'\"") != identifier:
        return f"write `storage_identifier: {identifier}` into its metadata.yaml"
    return f"renew its metadata.yaml with {_reindex(path, files)}"


def _opens(path: Path) -> bool:
    """Return whether a file of a bag can be opened without the bag's metadata.yaml."""
    try:
        if path.suffix != COMPRESSED_SUFFIX:
            with open_bag(path):
                return True
        with TemporaryDirectory() as folder:
            Path(folder, "part.zstd").symlink_to(path.absolute())
            storage = STORAGES[_plain_suffix(path)].identifier
            Path(folder, "metadata.yaml").write_text(COMPRESSED_PART.format(storage=storage))
            with open_bag(Path(folder)):
                return True
    except DatasetError:
        return False


def choose_topic(reader: Any, path: Path, kind: Literal["image", "pose"], topic: str = "") -> list[Any]:
    """Return the connections of the one topic of this kind, or of `topic` among several; raises DatasetError.

    The connections hold one message or more. A topic of depth images is only taken where `topic` names it.
    """
    found = [c for c in reader.connections if c.msgtype in TOPIC_TYPES[kind] and topic in ("", c.topic)]
    if not found:
        asked = f"the {kind} topic {topic}" if topic else f"{'an' if kind == 'image' else 'a'} {kind} topic"
        topics = sorted({c.topic for c in reader.connections})
        held = ", ".join(topics[:MOST_TOPICS]) + (", ..." if len(topics) > MOST_TOPICS else "")
        raise DatasetError(f"{path} does not hold {asked}; its topics are: {held or 'none, so record it again'}")
    filled = [c for c in found if c.msgcount]
    if not filled:
        raise DatasetError(
            f"{path} has no {kind}s on {_topics(found)}; record the topic again, and check it with `ros2 topic hz`"
        )
    options = "evaluate --image-topic, replay --source-topic, make demo TOPIC=" if kind == "image" else "--pose-topic"
    if kind == "image" and not topic:
        doubts = {
            name: _depth_doubts(reader, [c for c in filled if c.topic == name]) for name in {c.topic for c in filled}
        }
        least = min(doubts.values())
        filled = [c for c in filled if doubts[c.topic] == least]
        if least == DEPTH_FOR_CERTAIN:
            raise DatasetError(
                f"{path} holds only depth images, on {_topics(filled)}; record a colour or grey camera, or name the "
                f"topic to use it all the same ({options})"
            )
    if len({c.topic for c in filled}) > 1:
        raise DatasetError(f"{path} holds several {kind} topics, name one of them ({options}): {_topics(filled)}")
    return filled


def _topics(connections: list[Any]) -> str:
    return ", ".join(sorted({c.topic for c in connections}))


def _depth_doubts(reader: Any, connections: list[Any]) -> int:
    """Return the evidence that a topic holds depth: 1 for its name, 2 for the encoding of its first image, added up.

    Neither is proof: /depth_camera/image_raw is in colour, and thermal cameras have the encodings of depth.
    """
    encoding = next((found for _, found in read_messages(reader, connections, _encoding) if found), "")
    by_encoding = "compressedDepth" in encoding or encoding.startswith(DEPTH_ENCODINGS)
    return 2 * by_encoding + bool(DEPTH_NAME.search(connections[0].topic))


def _encoding(message: Any) -> str:
    return str(message.format if hasattr(message, "format") else message.encoding)


def read_messages(reader: Any, connections: list[Any], convert: Callable[[Any], T]) -> Iterator[tuple[int, T | None]]:
    """Yield when each message was recorded (nanoseconds), and what `convert` makes of it; None if it is unreadable."""
    for connection, time, raw in reader.messages(connections):
        yield time, _converted(reader, connection, raw, convert)


def _converted(reader: Any, connection: Any, raw: bytes, convert: Callable[[Any], T]) -> T | None:
    # The bag itself says which fields its messages have, so that `convert` may miss some.
    try:
        return convert(reader.deserialize(raw, connection.msgtype))
    except Exception:  # noqa: BLE001 - a damaged message makes the deserializer raise anything
        return None


def camera_info_topic(image_topic: str) -> str:
    """Return the topic on which image_transport publishes the calibration of an image topic's camera."""
    beside, slash, _ = image_topic.removesuffix("/compressed").rpartition("/")
    return f"{beside}{slash}camera_info"


class Calibration(NamedTuple):
    """The fields of a sensor_msgs/CameraInfo of ROS 1 or ROS 2."""

    size: tuple[int, int]  # width and height
    model: str
    d: list[float]
    k: list[float]
    r: list[float]
    p: list[float]
    binning: tuple[int, int]  # in x and in y
    region: tuple[int, int, int, int]  # x, y, width, height; zeros for the whole image

    @classmethod
    def from_message(cls, message: Any) -> Calibration:
        """Return the fields of a message of the rosbags library."""
        fields = {name.lower(): value for name, value in vars(message).items()}  # ROS 1 writes D, K, R and P
        d, k, r, p = (np.asarray(fields[name], np.float64).tolist() for name in "dkrp")
        roi = message.roi
        return cls(
            (message.width, message.height), message.distortion_model, d, k, r, p,
            (message.binning_x, message.binning_y), (roi.x_offset, roi.y_offset, roi.width, roi.height),
        )  # fmt: skip

    def rectified(self) -> Calibration:
        """Return the calibration of the images that are rectified by this one."""
        k, d, model = Camera.of_rectified(self.p)
        return self._replace(k=k, d=d, model=model)

    def camera(self) -> Camera:
        """Return the camera; raises CameraError."""
        return Camera.calibrated(self.size, self.k, self.d, self.model, self.region)


def read_calibration(reader: Any, image_topic: str) -> Calibration | None:
    """Return the first readable calibration beside an image topic, for its images; None if the bag has none.

    Images are rectified if their topic has a name that image_proc gives.
    """
    topic = camera_info_topic(image_topic)
    connections = [c for c in reader.connections if c.topic == topic and c.msgtype == "sensor_msgs/msg/CameraInfo"]
    if not connections:  # for the reader that would be all of them
        return None
    found = (calibration for _, calibration in read_messages(reader, connections, Calibration.from_message))
    first = next((calibration for calibration in found if calibration is not None), None)
    return first.rectified() if first is not None and "image_rect" in image_topic else first


class PosedBag(PosedSequence):
    """A bag with a topic of images (raw or compressed) and a topic of poses (a pose, a transform, or odometry).

    An image takes the pose whose header stamp is nearest to its own, within 0.05 s; images without one are left out.
    The pose is taken as the camera's; that of a robot's body will do if the camera is fixed to it.
    """

    layout = "a ROS bag with images and poses"

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Return whether this is a bag; its topics are looked at when it is read."""
        return is_bag(path)

    @classmethod
    def read(cls, path: Path, options: Options) -> PosedBag:
        """Read the stamps and the poses of the bag; images are read when they are needed. Raises DatasetError."""
        with open_bag(path) as reader:
            image_connections = choose_topic(reader, path, "image", options.image_topic)
            pose_connections = choose_topic(reader, path, "pose", options.pose_topic)
            topic = image_connections[0].topic
            entries: list[_Entry] = []
            stamps: list[int] = []
            unreadable = 0
            for entry, connection, raw in _numbered(reader.messages(image_connections)):
                stamp = _converted(reader, connection, raw, _stamp)
                if stamp is None:
                    unreadable += 1
                else:
                    entries.append(entry)
                    stamps.append(stamp)
            poses = [pose for _, pose in read_messages(reader, pose_connections, _stamped_pose) if pose is not None]
            calibration = read_calibration(reader, topic)
        image_stamps = np.array(stamps, np.int64)
        pose_stamps = np.array([stamp for stamp, _ in poses], np.int64)
        for kind, found_stamps, connections in (
            ("image", image_stamps, image_connections),
            ("pose", pose_stamps, pose_connections),
        ):
            if not found_stamps.size:
                raise DatasetError(
                    f"no {kind} on {connections[0].topic} of {path} can be read; if the bag is compressed, name its "
                    "folder instead of its file, else record it again"
                )
            if not found_stamps.any():
                raise DatasetError(
                    f"all {kind}s on {connections[0].topic} of {path} have the stamp 0; record them again with the "
                    "time in their headers"
                )
        name = path.absolute().stem if path.is_file() else path.absolute().name
        found, positions, rotations = poses_of_images(
            name, image_stamps, pose_stamps, np.array([pose for _, pose in poses]), POSE_TOLERANCE
        )
        images = BagImages(path, topic, [entries[at] for at in found])
        camera = calibration and own_camera(options, f"{camera_info_topic(topic)} of {path}", calibration.camera)
        left_out = with_more({}, "unreadable", unreadable)
        return cls.from_poses(
            name, images, image_stamps[found], positions, rotations, options,
            # The frame of the poses may be any.
            optical=False,
            camera=camera,
            left_out=with_more(left_out, WITHOUT_POSE, len(entries) - len(found)),
        )  # fmt: skip


class _Entry(NamedTuple):
    """Where an image is in its bag."""

    time: int  # of recording, in nanoseconds
    number: int  # among the images of that time


def _numbered(messages: Iterator[tuple[Any, int, bytes]]) -> Iterator[tuple[_Entry, Any, bytes]]:
    """Yield the entry, the connection and the bytes of each of a reader's messages of one topic."""
    last = _Entry(-1, 0)
    for connection, time, raw in messages:
        last = _Entry(time, last.number + 1 if last.time == time else 0)
        yield last, connection, raw


@dataclass(frozen=True)
class BagImages(Images):
    """Images of one topic of a bag, none of which is kept in memory; all in order take one pass through the bag."""

    path: Path
    topic: str
    entries: list[_Entry]
    stretch: bool = False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.entries)

    def __getitem__(self, index: int, /) -> Image:
        """Return one image, uint8, [H,W,3] RGB or [H,W] grey; raises DatasetError."""
        return _checked(next(self._read([self.entries[index]])))

    def __iter__(self) -> Iterator[Image]:
        """Yield all images in order; raises DatasetError."""
        return map(_checked, self._read_all())

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> BagImages:
        """Return some of the images, in that order."""
        return replace(self, entries=[self.entries[index] for index in indices])

    def stretched(self) -> BagImages:
        """Return these images, those of 16 bits stretched."""
        return replace(self, stretch=True)

    def unreadable(self) -> dict[int, str]:
        """Return the index of each image that cannot be read, and why."""
        images = tqdm(
            self._read_all(), total=len(self), desc="check images", unit="image", leave=False, file=sys.stderr
        )  # fmt: skip
        return {index: str(image) for index, image in enumerate(images) if isinstance(image, DatasetError)}

    def _read_all(self) -> Iterator[Image | DatasetError]:
        if all(one < other for one, other in itertools.pairwise(self.entries)):
            return self._read(self.entries)
        return (image for entry in self.entries for image in self._read([entry]))

    def _read(self, entries: list[_Entry]) -> Iterator[Image | DatasetError]:
        """Yield each image of ascending entries, or the error if it cannot be decoded.

        Raises DatasetError if the bag is damaged.
        """
        if not entries:
            return
        wanted = set(entries)
        with open_bag(self.path) as reader:
            connections = choose_topic(reader, self.path, "image", self.topic)
            # One nanosecond early: rosbags before 0.11 leaves out the last message of an mcap chunk otherwise.
            messages = reader.messages(connections, entries[0].time - 1, entries[-1].time + 1)
            for entry, connection, raw in _numbered(messages):
                if entry in wanted:
                    wanted.remove(entry)
                    yield self._decode(_converted(reader, connection, raw, lambda message: message))
        if wanted:
            raise DatasetError(f"{self.path} has changed since it was opened; read it again")

    def _decode(self, message: Any) -> Image | DatasetError:
        try:
            if message is None:
                raise ImageError("its message is damaged")
            if hasattr(message, "format"):
                return decode_compressed(message.data, message.format, own_stretch(self.stretch))
            return decode_pixels(
                message.height, message.width, message.encoding, message.step, message.data,
                bool(message.is_bigendian), own_stretch(self.stretch),
            )  # fmt: skip
        except ImageError as error:
            return DatasetError(f"an image on {self.topic} of {self.path} cannot be decoded: {error}")


def _checked(image: Image | DatasetError) -> Image:
    if isinstance(image, DatasetError):
        raise image
    return image


def _stamp(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def _stamped_pose(message: Any) -> tuple[int, tuple[float, ...]]:
    """Return stamp (nanoseconds) and x, y, z and the quaternion x, y, z, w of a message of any of the pose types."""
    if hasattr(message, "transform"):
        position, rotation = message.transform.translation, message.transform.rotation
    else:
        pose = getattr(message.pose, "pose", message.pose)  # with a covariance there is one more level
        position, rotation = pose.position, pose.orientation
    return _stamp(message), (position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w)
