# SPDX-License-Identifier: Apache-2.0
"""ROS 1 and ROS 2 bags, read without a ROS installation."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from binvpr_ros.installation import how_to_install
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.recordings.errors import RecordingError

TOPIC_TYPES = {
    "image": ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
    "pose": (
        "geometry_msgs/msg/PoseStamped",
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        "geometry_msgs/msg/TransformStamped",
        "nav_msgs/msg/Odometry",
    ),
}
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
    where = "" if shutil.which("ros2") else " where ROS 2 is installed"
    command = f"`ros2 bag reindex {shlex.quote(str(folder))}`{where}"
    packed = [part for part in parts if part.suffix == COMPRESSED_SUFFIX]
    if all(part.with_suffix("").is_file() for part in packed):
        return command
    # It takes only what is decompressed.
    return f"`zstd -d {shlex.quote(str(folder))}/*{COMPRESSED_SUFFIX}` and then {command}"


@contextmanager
def open_bag(path: Path) -> Iterator[Any]:
    """Open a bag as a rosbags AnyReader; raises RecordingError if it is damaged, also while it is read."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise RecordingError(f"reading bags needs rosbags; {how_to_install('rosbags')}") from None
    if not path.exists():
        raise RecordingError(f"{path} does not exist; name a bag")
    if path.suffix == COMPRESSED_SUFFIX:
        command = f"zstd -d {shlex.quote(str(path))} -o {shlex.quote(str(path.with_suffix('')))}"
        folder = "name its folder, or " if (path.parent / "metadata.yaml").is_file() else ""
        raise RecordingError(f"{path} is a compressed part of a bag; {folder}decompress it with `{command}`")
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
    except RecordingError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged bag makes the reader raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RecordingError(f"{path} cannot be read as a bag ({reason}); {_remedy(path, opened)}") from None


def _refuse_unwritten(path: Path) -> None:
    """Raise RecordingError if SQLite keeps some of a bag in a file beside it, which rosbags does not read."""
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
                raise RecordingError(
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
    except RecordingError:
        return False


def choose_topic(reader: Any, path: Path, kind: Literal["image", "pose"], topic: str = "") -> list[Any]:
    """Return the connections of the one topic of this kind, or of `topic` among several; raises RecordingError.

    The connections hold one message or more. A topic of depth images is only taken where `topic` names it.
    """
    found = [c for c in reader.connections if c.msgtype in TOPIC_TYPES[kind] and topic in ("", c.topic)]
    if not found:
        asked = f"the {kind} topic {topic}" if topic else f"{'an' if kind == 'image' else 'a'} {kind} topic"
        topics = sorted({c.topic for c in reader.connections})
        held = ", ".join(topics[:MOST_TOPICS]) + (", ..." if len(topics) > MOST_TOPICS else "")
        raise RecordingError(f"{path} does not hold {asked}; its topics are: {held or 'none, so record it again'}")
    filled = [c for c in found if c.msgcount]
    if not filled:
        raise RecordingError(
            f"{path} has no {kind}s on {_topics(found)}; record the topic again while its publisher runs"
        )
    options = "--image-topic; make demo TOPIC=" if kind == "image" else "--pose-topic"
    if kind == "image" and not topic:
        doubts = {
            name: _depth_doubts(reader, [c for c in filled if c.topic == name]) for name in {c.topic for c in filled}
        }
        least = min(doubts.values())
        filled = [c for c in filled if doubts[c.topic] == least]
        if least == DEPTH_FOR_CERTAIN:
            raise RecordingError(
                f"{path} holds only depth images, on {_topics(filled)}; record a colour or grey camera, or name the "
                f"topic to use it all the same ({options})"
            )
    if len({c.topic for c in filled}) > 1:
        raise RecordingError(f"{path} holds several {kind} topics, name one of them ({options}): {_topics(filled)}")
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
        k, d, model = Camera.of_rectified(self.p, self.k)
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
