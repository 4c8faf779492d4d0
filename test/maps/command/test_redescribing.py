# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from recorder import KINDS, Recorder

from binvpr_ros.config import Config
from binvpr_ros.images import Stretch
from binvpr_ros.keyframes import KEPT_FEATURES
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.command import problems
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.maps.identity import Identity
from binvpr_ros.maps.opening import opened
from binvpr_ros.maps.source import OtherClosure
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import hamming
from binvpr_ros.recognizer import PlaceRecognizer, Recognition
from binvpr_ros.recordings.world import Pose, World, drive
from maps.command.written_maps import SECOND, THUMBNAIL, run, write_map
from maps.small_maps import VERSION_3, kept_motions

Image = NDArray[np.uint8]
TOPIC = "/camera/image_raw"
OTHER_MAP = "6f0f3a52-55a5-4f5e-9c3c-0d9c1c9c2f11"


class Drive:
    """Images of the rendered building, each with its pose, at 5 Hz from `start` (seconds) on."""

    def __init__(self, world: World, stops: Iterable[tuple[Pose, float, float]], start: int) -> None:
        self.stops = list(stops)
        self.images = [world.render(*stop) for stop in self.stops]
        self.stamps = [start * SECOND + number * SECOND // 5 for number in range(len(self.images))]

    def through(self, recognizer: PlaceRecognizer) -> list[Recognition]:
        recognitions = [recognizer.process(*one) for one in zip(self.images, self.stamps, strict=True)]
        recognizer.close()
        return recognitions

    def pose(self, stamp: int) -> Pose:
        return self.stops[self.stamps.index(stamp)][0]


@dataclasses.dataclass
class Mapped:
    """Two laps of one loop, their recording, and the map that was made of them with the earlier model and ORB."""

    laps: list[Drive]
    recording: Path
    map: Path

    @property
    def images(self) -> dict[int, Image]:
        """By their stamps."""
        return {stamp: image for lap in self.laps for stamp, image in zip(lap.stamps, lap.images, strict=True)}


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def mapped(world: World, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapped:
    folder, stops = tmp_path_factory.mktemp("mapped"), list(drive())
    laps = [Drive(world, stops[:300:4], 1000), Drive(world, stops[600::4], 2000)]
    with Recorder("mcap", folder / "laps") as recorder:
        for lap in laps:
            for image, stamp in zip(lap.images, lap.stamps, strict=True):
                recorder.image(TOPIC, stamp, stamp, image)
    path = folder / "laps.db"
    matrix = np.array([[208.5, 0, 160], [0, 208.5, 120], [0, 0, 1]])
    for lap in laps:
        config = Config(model=str(model.with_name("binvpr20.tflite")), database=str(path), thumbnails=True)
        recognizer = PlaceRecognizer(config)
        recognizer.camera = Camera((320, 240), matrix, np.zeros(4))
        lap.through(recognizer)
    return Mapped(laps, recorder.path, path)


def rows(path: Path) -> list[dict[str, Any]]:
    """Return all that a map keeps of its keyframes, in their order."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM keyframes ORDER BY id")]


def column(path: Path, name: str) -> list[Any]:
    return [row[name] for row in rows(path)]


def closures(path: Path) -> list[OtherClosure]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [OtherClosure(*row) for row in connection.execute("SELECT * FROM closures ORDER BY keyframe")]


def identity(path: Path) -> Identity:
    with opened(path) as (connection, facts):
        return Identity.of(connection, facts)


def record(path: Path, stamps: Iterable[int], kind: str = "mcap") -> Path:
    with Recorder(kind, path) as recorder:
        for number, stamp in enumerate(stamps):
            recorder.image(TOPIC, stamp, stamp, picture(number))
    return recorder.path


def picture(seed: int) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)


def test_a_map_is_what_it_had_been_with_the_other_model_and_local_features(
    mapped: Mapped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, new = mapped.map.read_bytes(), tmp_path / "new.db"
    arguments = ("redescribe", mapped.map, "--images", mapped.recording, "--local-features", "learned")
    assert run(monkeypatch, *arguments, "--output", new) == 0
    captured = capsys.readouterr()
    count = len(rows(mapped.map))
    assert captured.out == f"{new}: {count} keyframes described anew\n"
    assert "redescribe" in captured.err  # the progress
    assert mapped.map.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]
    assert problems(new) == []
    assert identity(new).uuid == identity(mapped.map).uuid
    assert identity(new).camera is not None
    for name in ("id", "session", "stamp", "closes", "thumbnail"):
        assert column(new, name) == column(mapped.map, name)
    assert sum(closes is not None for closes in column(new, "closes")) >= 5

    # What the node itself makes of the very same keyframes.
    path, keyframes = tmp_path / "of_the_node.db", rows(mapped.map)
    config = Config(database=str(path), local_features="learned", keyframe_source="topic", thumbnails=True)
    recognizer = PlaceRecognizer(config)
    recognizer.camera = identity(mapped.map).camera
    for row in keyframes:
        if row["session"] != recognizer.database.session:
            recognizer.reset()
        recognizer.process(mapped.images[row["stamp"]], row["stamp"])
    recognizer.close()
    for name in ("id", "session", "stamp", "descriptor", "features", "thumbnail"):
        assert column(new, name) == column(path, name)
    motions, expected = kept_motions(new), kept_motions(path)
    assert sum(motion is not None for motion in expected) >= 0.8 * count
    for found, motion in zip(motions, expected, strict=True):
        assert found is motion is None or (found is not None and motion is not None and np.array_equal(found, motion))


def test_one_that_is_told_to_stop_leaves_nothing_behind(mapped: Mapped, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "binvpr_ros.maps.command", "redescribe", str(mapped.map), "--images",
               str(mapped.recording), "--local-features", "learned", "--output", str(tmp_path / "new.db")]  # fmt: skip
    redescribing = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()):
        assert redescribing.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    redescribing.terminate()
    _, errors = redescribing.communicate(timeout=60)
    assert (redescribing.returncode, errors.splitlines()[-1]) == (1, "map: stopped")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("local_features", ["learned", "orb"])
def test_loops_are_closed_to_a_map_that_was_described_anew(
    mapped: Mapped, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_features: str
) -> None:
    new = tmp_path / "new.db"
    arguments = ["redescribe", mapped.map, "--images", mapped.recording, "--output", new]
    anew = [] if local_features == "orb" else ["--local-features", local_features]
    assert run(monkeypatch, *arguments, *anew) == 0
    third = Drive(world, list(drive())[602::4], 3000)
    config = Config(maps=(str(new),), local_features=local_features, verification_time=60.0)
    found = [closure for one in third.through(PlaceRecognizer(config)) for closure in one.verdict.closures]
    assert len({closure.query.id for closure in found if closure.match.session < 2}) >= 15
    for closure in found:
        there = [lap for lap in [*mapped.laps, third] if closure.match.stamp in lap.stamps]
        assert third.pose(closure.query.stamp).same_place(there[0].pose(closure.match.stamp))


def test_what_is_described_by_its_thumbnail_is_found_by_its_image(
    mapped: Mapped, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.db"
    assert run(monkeypatch, "redescribe", mapped.map, "--output", new) == 0
    assert "by their thumbnails, which is coarser than by their images (--images)" in capsys.readouterr().out
    assert problems(new) == []
    for name in ("id", "session", "stamp", "closes", "motion", "features", "thumbnail"):
        assert column(new, name) == column(mapped.map, name)
    network = DescriptorNetwork(model)
    descriptors = np.array([np.frombuffer(blob, "<u8") for blob in column(new, "descriptor")])
    for number, stamp in enumerate(column(new, "stamp")):
        distances = hamming(descriptors, network.describe(mapped.images[stamp]).descriptor)
        assert distances.argmin() == number


@pytest.mark.parametrize("kind", KINDS)
def test_keyframes_without_an_image_are_left_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 12 keyframes, of which one is closed by three others, and one after it has closed one of another map."""
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    write_map(old, 1000)
    write_map(old, 5000)
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("UPDATE keyframes SET closes = NULL")
        for number, closes in ((4, 1), (6, 4), (7, 1), (9, 7), (10, 3), (11, 8)):
            connection.execute("UPDATE keyframes SET closes = ? WHERE id = ?", (closes, number))
        for number in (2, 4):
            connection.execute("INSERT INTO closures VALUES (?, ?, 5)", (number, OTHER_MAP))
    left_out = [1, 4, 8]
    stamps = [stamp + 900_000 for number, stamp in enumerate(column(old, "stamp")) if number not in left_out]
    recordings = [record(tmp_path / "later", stamps[5:], kind), record(tmp_path / "first", stamps[:5], kind)]
    assert run(monkeypatch, "redescribe", old, "--images", *recordings, "--output", new) == 0
    named = "1 (at 1001.000 s), 4 (at 1101.000 s), 8 (at 5002.000 s)"
    sentence = f"{new}: 9 keyframes described anew; 3 left out, which have no image: {named}"
    assert capsys.readouterr().out.strip() == sentence
    assert problems(new) == []
    kept = [row for row in rows(old) if row["id"] not in left_out]
    assert column(new, "id") == [row["id"] for row in kept]
    assert column(new, "features") == [row["features"] for row in kept]
    # 6 is the first of those at the place of 1 that is there, directly or by way of 4; nothing else closes that of 8.
    assert dict(zip(column(new, "id"), column(new, "closes"), strict=True)) == {
        0: None, 2: None, 3: None, 5: None, 6: None, 7: 6, 9: 7, 10: 3, 11: None
    }  # fmt: skip
    assert closures(new) == [OtherClosure(2, OTHER_MAP, 5)]
    motions, before = dict(zip(column(new, "id"), kept_motions(new), strict=True)), kept_motions(old)
    for number, through in ((2, 1), (5, 4)):
        one, other, found = before[through], before[number], motions[number]
        assert one is not None
        assert other is not None
        composed = one @ other
        np.testing.assert_allclose(found, composed / composed[2, 2], rtol=1e-5)
    assert motions[9] is None  # the first of its session


def test_the_motion_since_a_keyframe_that_is_left_out_is_found_anew(
    mapped: Mapped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, keyframes = tmp_path / "new.db", rows(mapped.map)
    with Recorder("mcap", tmp_path / "laps") as recorder:
        for row in keyframes:
            if row["id"] % 5 != 2:
                recorder.image(TOPIC, row["stamp"], row["stamp"], mapped.images[row["stamp"]])
    arguments = ("redescribe", mapped.map, "--images", recorder.path, "--local-features", "orb", "--output", new)
    assert run(monkeypatch, *arguments) == 0
    assert problems(new) == []
    recognizer = PlaceRecognizer(Config(keyframe_source="topic", local_features="orb"))
    recognizer.camera = identity(mapped.map).camera
    expected = []
    for row in keyframes:
        if row["id"] % 5 != 2 and row["session"] == 0:
            keyframe = recognizer.process(mapped.images[row["stamp"]], row["stamp"]).keyframe
            assert keyframe is not None
            expected.append(keyframe.motion)
    known = [number for number, motion in enumerate(expected) if motion is not None]
    assert len(known) >= 5
    found = [np.frombuffer(blob, "<f4").reshape(3, 3) if blob else None for blob in column(new, "motion")]
    for number in known:
        np.testing.assert_array_equal(found[number], expected[number])


def test_an_image_that_was_driven_through_twice_is_that_of_both_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a bag that was played twice."""
    old, new = write_map(tmp_path / "old.db", 1000), tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("UPDATE keyframes SET stamp = stamp - ? WHERE session = 1", (100 * SECOND,))
    bag = record(tmp_path / "bag", column(old, "stamp")[:3])
    assert run(monkeypatch, "redescribe", old, "--images", bag, "--output", new) == 0
    assert column(new, "session") == [0, 0, 0, 1, 1, 1]
    descriptors = column(new, "descriptor")
    assert descriptors[:3] == descriptors[3:]
    assert len(set(descriptors)) == 3


def test_images_of_two_drives_with_the_same_stamps_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of simulations, and of videos, whose stamps begin at 0."""
    old, new = write_map(tmp_path / "old.db", 1000), tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("UPDATE keyframes SET stamp = stamp - ? WHERE session = 1", (100 * SECOND,))
    bags = [record(tmp_path / name, column(old, "stamp")[:3]) for name in ("monday", "tuesday")]
    assert run(monkeypatch, "redescribe", old, "--images", *bags, "--output", new) == 1
    assert "two images have the stamp of keyframe 0" in capsys.readouterr().err
    assert not new.exists()
    assert run(monkeypatch, "redescribe", old, "--images", bags[0], "--output", new) == 0


def test_a_map_of_an_earlier_version_keeps_the_uuid_by_which_others_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new.db"
    with opened(VERSION_3) as (connection, facts):
        earlier = Identity.of(connection, facts)
        stamps = [stamp for (stamp,) in connection.execute("SELECT stamp FROM keyframes ORDER BY id")]
    bag = record(tmp_path / "bag", stamps[:1])  # all are within a millisecond
    assert run(monkeypatch, "redescribe", VERSION_3, "--images", bag, "--output", new) == 0
    assert identity(new) == earlier
    assert column(new, "stamp") == stamps
    assert problems(new) == []


def test_images_of_16_bits_are_stretched_as_in_the_node(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = write_map(tmp_path / "old.db", 1000), tmp_path / "new.db"
    stretch, network = Stretch(), DescriptorNetwork(model)
    expected = []
    with Recorder("mcap", tmp_path / "bag") as recorder:
        for number, stamp in enumerate(column(old, "stamp")):
            for time in (stamp - SECOND // 2, stamp):  # the first of the two is no keyframe
                values = picture(number)[..., 0].astype(np.uint16) * (number + 1)
                recorder.image(TOPIC, time, time, values, "mono16")
                image = stretch.apply(values)
            expected.append(network.describe(image).descriptor.tobytes())
    arguments = ("redescribe", old, "--images", recorder.path, "--stretch-16-bit", "--output", new)
    assert run(monkeypatch, *arguments) == 0
    assert column(new, "descriptor") == expected


def test_the_robot_itself_is_left_out_of_features_that_are_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = write_map(tmp_path / "old.db", 1000), tmp_path / "new.db"
    bag = record(tmp_path / "bag", column(old, "stamp"))
    arguments = ("redescribe", old, "--images", bag, "--output", new)
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments, "--mask", "0 0 .5 1")
    assert run(monkeypatch, *arguments, "--local-features", "orb", "--mask", "0 0 .5 1") == 0
    for blob in column(new, "features"):
        positions = Features.from_bytes(blob).positions
        assert 0 < len(positions) <= KEPT_FEATURES
        assert (positions[:, 0] >= 1 << 15).all()


def test_features_that_are_found_anew_keep_the_depths_of_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = write_map(tmp_path / "old.db", 1000), tmp_path / "new.db"
    bag = record(tmp_path / "bag", column(old, "stamp"))
    positions = np.stack(np.meshgrid(np.arange(0, 1 << 16, 700), np.arange(0, 1 << 16, 700)), axis=-1).reshape(-1, 2)
    count = len(positions)
    everywhere = Features(
        (64, 48), positions.astype(np.uint16), np.zeros(count, np.uint8), np.zeros((count, 32), np.uint8),
        depths=np.full(count, 1500, np.uint16),
    )  # fmt: skip
    with contextlib.closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("UPDATE keyframes SET features = ?", (everywhere.to_bytes(),))
    assert run(monkeypatch, "redescribe", old, "--images", bag, "--output", new, "--local-features", "orb") == 0
    for blob in column(new, "features"):
        depths = Features.from_bytes(blob).depths
        assert depths is not None
        assert len(depths)
        assert (depths == 1500).all()


def test_an_image_that_cannot_be_decoded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = write_map(tmp_path / "old.db", 1000), tmp_path / "new.db"
    with Recorder("mcap", tmp_path / "bag") as recorder:
        for number, stamp in enumerate(column(old, "stamp")):
            encoding = "32FC1" if number == 3 else "rgb8"
            recorder.image(TOPIC, stamp, stamp, picture(number), encoding, cut=100 if number == 5 else 0)
    assert run(monkeypatch, "redescribe", old, "--images", recorder.path, "--output", new) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("2 left out, which have no image: 3 (at 1100.000 s), 5 (at 1102.000 s)\n")
    assert f"left out image 3 on {TOPIC}: its encoding '32FC1' is not one of" in captured.err
    assert f"left out image 5 on {TOPIC}: its message is damaged" in captured.err
    assert column(new, "id") == [0, 1, 2, 4]


def test_a_map_most_of_whose_images_are_missing_is_not_described_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = write_map(tmp_path / "old.db", 1000), tmp_path / "new.db"
    stamps = column(old, "stamp")
    few = record(tmp_path / "few", [*stamps[:2], *(stamp + 1_000_001 for stamp in stamps[2:])])
    assert run(monkeypatch, "redescribe", old, "--images", few, "--output", new) == 1
    sentence = f"map: {old} has 6 keyframes, of which 2 have an image with their stamp; name the recordings that"
    assert sentence in capsys.readouterr().err
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("UPDATE keyframes SET thumbnail = ? WHERE id = 5", (THUMBNAIL[:-40],))
    assert run(monkeypatch, "redescribe", old, "--output", new) == 1
    assert "of which 1 have a thumbnail; name the recordings of its drives with --images" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "old.db"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images", "bag", "--output", "old.db"], "old.db exists; name a new file"),
        (["--images", "none", "--output", "new.db"], "none does not exist; give a folder of images"),
        (["--images", "bag", "--image-topic", "/x", "--output", "new.db"], "bag does not hold the image topic /x"),
        (
            ["--images", "folder", "--output", "new.db"],
            "folder has no stamps, by which keyframes are found",
        ),
        (["--images", "bag", "--model", "none", "--output", "new.db"], "there is no model file none; check"),
        (
            ["--images", "bag", "--local-features", "none", "--output", "new.db"],
            "local_features is 'none', and there",
        ),
        (
            ["--images", "bag", "--local-features", "orb", "--mask", "0 0 1 1", "--output", "new.db"],
            "mask hides the whole image",
        ),
        (["--local-features", "learned", "--output", "new.db"], "thumbnails are too small to find local features in"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = write_map(Path("old.db"), 1000).read_bytes()
    record(Path("bag"), column(Path("old.db"), "stamp"))
    Path("folder").mkdir()
    cv2.imwrite("folder/1000.png", picture(0))
    assert run(monkeypatch, "redescribe", "old.db", *arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"map: {sentence}")
    assert Path("old.db").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "folder", "old.db"]


def test_a_map_that_is_damaged_or_of_the_model_already(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = write_map(tmp_path / "old.db", 1000), tmp_path / "new.db"
    bag = record(tmp_path / "bag", column(old, "stamp"))
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("UPDATE keyframes SET features = x'0000' WHERE id = 4")
    assert run(monkeypatch, "redescribe", old, "--images", bag, "--output", new) == 1
    assert f"{old} is damaged at keyframe 4: its features cannot be read; restore a copy" in capsys.readouterr().err
    network = DescriptorNetwork(model)
    same = tmp_path / "same.db"
    database = KeyframeDatabase(same, network.card.sha256, network.words)
    database.add(database.next_keyframe(SECOND, network.describe(picture(0)).descriptor))
    database.close()
    assert run(monkeypatch, "redescribe", same, "--images", bag, "--output", new) == 1
    assert f"{same} is a map of this model already; name another --model" in capsys.readouterr().err
    assert not new.exists()


def test_a_map_of_another_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    old = write_map(tmp_path / "old.db", 1000)
    for names in ({"database": str(old)}, {"maps": (str(old),)}):
        with pytest.raises(DatabaseError, match="make a map for this model with `map redescribe`"):
            PlaceRecognizer(Config(**names))
