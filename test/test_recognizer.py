# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.images import ImageError, decode_file
from binvpr_ros.keyframes import KEPT_FEATURES, NANOSECONDS
from binvpr_ros.local_features import orb
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import LEARNED, Features
from binvpr_ros.local_features.kinds import open_local_features
from binvpr_ros.loop_closure import NOT_VERIFIED, LoopClosure, Refusal
from binvpr_ros.recognizer import PlaceRecognizer, Recognition
from binvpr_ros.recordings.world import Pose, World, drive
from binvpr_ros.stamps import StampError

Image = NDArray[np.uint8]
RATE = 15
EAGER = Config(keyframe_distance=0.0, keyframe_min_interval=0.0)
"""Each image becomes a keyframe."""


def show(recognizer: PlaceRecognizer, images: list[Image], first: int = 0) -> list[Recognition]:
    """Process `images` at 15 Hz; the stamp of image number n is n / 15 s."""
    return [recognizer.process(image, (first + number) * NANOSECONDS // RATE) for number, image in enumerate(images)]


def closures(recognitions: list[Recognition]) -> list[LoopClosure]:
    return [closure for recognition in recognitions for closure in recognition.verdict.closures]


@pytest.fixture(scope="module")
def redkitchen(shared_data: Path) -> list[Image]:
    files = sorted((shared_data / "loops" / "redkitchen" / "images").iterdir())
    return [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]


@pytest.fixture(scope="module")
def true_pairs(shared_data: Path) -> NDArray[np.bool_]:
    """Return [500,500]: which frames are not apart, which is beyond 1.5 m or 60 degrees between the optical axes."""
    with (shared_data / "loops" / "redkitchen" / "poses.csv").open(encoding="utf-8") as file:
        rows = [[float(row[f"T{i}{j}"]) for i in range(4) for j in range(4)] for row in csv.DictReader(file)]
    poses = np.array(rows).reshape(-1, 4, 4)
    positions, axes = poses[:, :3, 3], poses[:, :3, 2]
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    near: NDArray[np.bool_] = (distances <= 1.5) & (axes @ axes.T >= np.cos(np.deg2rad(60)))
    return near


@pytest.mark.parametrize("backwards", [False, True])
def test_revisits_of_a_real_room_are_closures_and_nothing_else_is(
    redkitchen: list[Image], true_pairs: NDArray[np.bool_], backwards: bool
) -> None:
    images = redkitchen[::-1] if backwards else redkitchen
    found = closures(show(PlaceRecognizer(Config()), images))
    frames = [(round(c.query.stamp * RATE / NANOSECONDS), round(c.match.stamp * RATE / NANOSECONDS)) for c in found]
    assert len({query for query, _ in frames}) >= 15
    assert min(c.inliers for c in found) >= Config().min_inliers
    assert min(c.query.stamp - c.match.stamp for c in found) >= 10 * NANOSECONDS
    places = [(499 - query, 499 - match) if backwards else (query, match) for query, match in frames]
    assert all(true_pairs[place] for place in places)


def test_the_packaged_network_is_matched_shifted(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config())
    (recognition,) = show(recognizer, world_images[:1])
    assert recognition.keyframe is not None
    assert len(recognizer.database.views(recognition.keyframe.descriptor, Config.shift_cells)) == 9


@pytest.mark.parametrize("thumbnails", [False, True])
def test_keyframes_have_thumbnails_where_they_are_asked_for(world_images: list[Image], thumbnails: bool) -> None:
    recognizer = PlaceRecognizer(Config(thumbnails=thumbnails))
    (recognition,) = show(recognizer, world_images[:1])
    assert recognition.keyframe is not None
    kept = recognizer.database.thumbnail(recognition.keyframe)
    if thumbnails:
        assert kept is not None
        shown = decode_file(kept)
        assert shown.shape == (90, 120, 3)
        difference = shown.astype(int) - cv2.resize(world_images[0], (120, 90), interpolation=cv2.INTER_AREA)
        assert np.abs(difference.mean(axis=(0, 1))).max() < 1  # its colours are in order
    else:
        assert kept is None


def test_the_second_lap_of_the_rendered_building_is_recognised() -> None:
    world, stops = World(), list(drive())
    found = closures(show(PlaceRecognizer(Config()), [world.render(*stop) for stop in stops]))
    poses = [stop[0] for stop in stops]
    true = [
        poses[round(c.query.stamp * RATE / NANOSECONDS)].same_place(poses[round(c.match.stamp * RATE / NANOSECONDS)])
        for c in found
    ]
    assert len(found) >= 35
    assert all(true)


def test_no_relative_pose_to_keyframes_of_an_earlier_calibration() -> None:
    world, path = World(), [pose for pose, _, _ in drive()]
    there, elsewhere = path[:60:3], path[300:318:3]
    again = [Pose(pose.x + 0.1, pose.y - 0.05, pose.heading + 0.05) for pose in there[4:10]]
    focal = world.width / 2 / np.tan(world.field_of_view / 2)
    recognizer = PlaceRecognizer(EAGER)

    def see(focal: float, seconds: int, poses: list[Pose]) -> list[Recognition]:
        k = [focal, 0, world.width / 2, 0, focal, world.height / 2, 0, 0, 1]
        recognizer.camera = Camera.calibrated((world.width, world.height), k, [], "plumb_bob")
        return show(recognizer, [world.render(pose) for pose in poses], seconds * RATE)

    see(focal, 0, there)
    see(focal, 10, elsewhere)
    same = [one for one in see(focal, 20, again) if one.verdict.closures]
    assert len(same) >= 3
    assert any(one.constraints() for one in same)
    assert not any(one.of_unsure_calibration for one in same)
    see(1.4 * focal, 30, elsewhere)  # a lens of a narrower view
    other = [one for one in see(1.4 * focal, 40, again) if one.verdict.closures]
    assert other
    for one in other:
        assert one.constraints() == []
        assert one.of_unsure_calibration == len(one.verdict.closures)


def test_depth_that_cannot_be_used_costs_no_keyframe(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(EAGER)
    height, width = world_images[0].shape[:2]
    ramp = np.linspace(1, 5, height * width, dtype=np.float32).reshape(height, width)

    def broken() -> NDArray[np.float32]:
        raise MemoryError("no room")

    cases = [
        (lambda: ramp, ""), (lambda: None, ""), (broken, "an error in the program"),
        (lambda: ramp[30:-30], "another aspect ratio"), (lambda: np.full_like(ramp, 2), "all its depths are equal"),
    ]  # fmt: skip
    for number, (depth, reason) in enumerate(cases):
        found = recognizer.process(world_images[number], number * NANOSECONDS, depth)
        assert found.keyframe is not None
        assert len(recognizer.database) == number + 1
        assert (reason in found.without_depth) if reason else not found.without_depth
        assert (found.depth is not None) == (number == 0)


def test_a_closure_is_told_once_its_keyframe_is_kept(world_images: list[Image], tmp_path: Path) -> None:
    recognizer = PlaceRecognizer(EAGER.replace(database=str(tmp_path / "map.db")))
    kept_before: list[int] = []
    for number, depth in enumerate((None, lambda: None)):
        recognizer.process(
            world_images[number], number * NANOSECONDS, depth, lambda *_: kept_before.append(len(recognizer.database))
        )
    # With depth, which may have to be waited for, it is told first.
    assert kept_before == [1, 1]


def test_each_map_of_a_place_is_matched(redkitchen: list[Image], tmp_path: Path) -> None:
    """Two maps of one place are not rivals of each other: what one map closes, both close."""
    names = [str(tmp_path / name) for name in ("monday.db", "tuesday.db")]
    for name, images in zip(names, (redkitchen[:300:2], redkitchen[1:300:2]), strict=True):
        recognizer = PlaceRecognizer(Config(database=name))
        for number, image in enumerate(images):
            recognizer.process(image, number * 2 * NANOSECONDS // RATE)
        recognizer.close()
    closed = []
    for maps in (names[:1], names[1:], names):
        found = closures(show(PlaceRecognizer(Config(maps=tuple(maps))), redkitchen[300:], first=10_000))
        closed.append({closure.query.stamp for closure in found})
    assert min(map(len, closed)) >= 5
    assert len(closed[2]) >= 0.95 * max(map(len, closed[:2]))


@pytest.mark.parametrize(("earlier", "now"), [("orb", "learned"), ("learned", "orb"), ("another", "learned")])
def test_a_map_with_features_of_another_kind_is_matched(
    redkitchen: list[Image], tmp_path: Path, earlier: str, now: str
) -> None:
    """The query is described in the way of the map, where that is known."""
    kinds = {name: open_local_features(name) for name in ("orb", "learned")} | {"another": Another()}
    path = str(tmp_path / "monday.db")
    recognizer = PlaceRecognizer(Config(database=path), local_features=kinds[earlier])
    for number, image in enumerate(redkitchen[:300]):
        recognizer.process(image, number * NANOSECONDS // RATE)
    recognizer.close()
    recognizer = PlaceRecognizer(Config(maps=(path,)), local_features=kinds[now])
    recognitions = show(recognizer, redkitchen[300:], first=10_000)
    found = [closure for closure in closures(recognitions) if closure.match.session < closure.query.session]
    sentences = {recognition.unmatched for recognition in recognitions}
    if earlier == "another":
        assert not found
        assert any("of another network" in sentence and "name its file" in sentence for sentence in sentences)
    else:
        assert len(found) >= 5
        assert sentences == {""}


class Another:
    """A network that is not the packaged one."""

    tag = (LEARNED, 0)

    def extract(self, image: Image, visible: NDArray[np.uint8] | None = None) -> Features:
        return orb.extract(image, visible)._replace(tag=self.tag)


def test_a_map_keeps_fewer_features_than_a_query_is_matched_with() -> None:
    rng = np.random.default_rng(0)
    recognizer = PlaceRecognizer(EAGER.replace(local_features="orb"))
    images = [rng.integers(0, 256, (48, 64, 3), np.uint8).repeat(10, axis=0).repeat(10, axis=1) for _ in range(2)]
    for keyframe in [recognition.keyframe for recognition in show(recognizer, images)]:
        assert keyframe is not None
        assert keyframe.features is not None
        assert len(keyframe.features.positions) > KEPT_FEATURES
        kept, *_ = recognizer.kept_of(keyframe)
        assert kept is not None
        assert len(kept.positions) == KEPT_FEATURES
        assert len(kept.to_bytes()) <= 20_000


def test_the_motion_of_the_camera_is_kept_and_ends_with_the_session() -> None:
    recognizer = PlaceRecognizer(EAGER)
    world = World()
    images = [world.render(*stop) for stop in list(drive())[:6]]
    show(recognizer, images)
    recognizer.reset()
    show(recognizer, images, first=60)
    recognizer.reload()
    database = recognizer.database
    assert (len(database), database.sessions.tolist()) == (12, [0] * 6 + [1] * 6)
    for first, last in ((0, 5), (6, 11)):
        motion = database.motion(first, last)
        assert motion is not None
        moved = database.motion(first, first + 1)
        assert moved is not None
        assert not np.allclose(moved / moved[2, 2], np.eye(3), atol=1e-3)
    assert database.motion(5, 6) is None


def test_without_verification_nothing_is_verified_and_nothing_kept_for_it(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(EAGER.replace(verify=False, min_score=0.35, exclusion_time=2.0))
    found = closures(show(recognizer, [*world_images, *world_images[:20]]))
    assert {closure.inliers for closure in found} == {NOT_VERIFIED}
    assert recognizer.database.features(recognizer.database.keyframe(0)) is None


def test_images_without_contrast_are_no_keyframes(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config())
    dark = np.random.default_rng(0).integers(0, 6, (60, 240, 320, 3)).astype(np.uint8)
    recognitions = show(recognizer, list(dark))
    assert not any(recognition.keyframe for recognition in recognitions)
    assert {refused.reason for r in recognitions for refused in r.verdict.refused} == {Refusal.FEATURELESS}
    assert show(recognizer, world_images[:1], first=60)[0].keyframe is not None


def test_an_image_too_soon_to_become_a_keyframe_is_not_even_decoded(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config())
    decoded = []

    def show_at(number: int, milliseconds: int) -> Recognition:
        def decode() -> Image:
            decoded.append(milliseconds)
            return world_images[number]

        return recognizer.process(decode, milliseconds * NANOSECONDS // 1000)

    assert show_at(0, 5000).keyframe is not None
    assert not show_at(9, 5100).looked_at
    with pytest.raises(StampError, match="is not later than the last image's"):  # its stamp counts all the same
        show_at(9, 5050)
    assert show_at(0, 5130).looked_at
    assert not show_at(9, 5170).looked_at
    assert show_at(9, 5600).keyframe is not None
    assert decoded == [5000, 5130, 5600]


def test_an_image_that_cannot_be_read_does_not_take_time_ahead_nor_the_place_of_the_next(
    world_images: list[Image],
) -> None:
    recognizer = PlaceRecognizer(Config())
    for milliseconds in (9000, 9010, 9020):
        with pytest.raises(ImageError):
            recognizer.process(lambda: decode_file(b"no image"), milliseconds * NANOSECONDS // 1000)
    assert recognizer.process(world_images[0], 5 * NANOSECONDS).keyframe is not None


def test_where_a_back_end_chooses_every_image_is_looked_at(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config(keyframe_source="topic"))
    assert all(recognizer.process(world_images[0], NANOSECONDS + number).keyframe is not None for number in range(3))


def test_a_stamp_must_advance(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config())
    recognizer.process(world_images[0], 5 * NANOSECONDS)
    for stamp in (5 * NANOSECONDS, 4 * NANOSECONDS):
        with pytest.raises(StampError, match="is not later than the last image's"):
            recognizer.process(world_images[1], stamp)
    assert recognizer.process(world_images[1], 6 * NANOSECONDS).keyframe is not None


def test_a_jump_back_over_the_window_begins_a_session(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config())
    recognizer.process(world_images[0], 60 * NANOSECONDS)
    with pytest.raises(StampError, match=r"its stamp leaps by -59\.000 s"):
        recognizer.process(world_images[0], 1 * NANOSECONDS)
    recognition = recognizer.process(world_images[0], 2 * NANOSECONDS)
    assert recognition.new_session
    assert recognition.keyframe is not None
    assert recognition.keyframe.session == 1


@pytest.mark.parametrize("outlier", [0, 3600])
def test_one_stamp_that_is_far_off_changes_nothing(world_images: list[Image], outlier: int) -> None:
    recognizer = PlaceRecognizer(Config())
    recognizer.process(world_images[0], 60 * NANOSECONDS)
    with pytest.raises(StampError, match="leaps by"):
        recognizer.process(world_images[1], outlier * NANOSECONDS)
    recognition = recognizer.process(world_images[2], 61 * NANOSECONDS)
    assert not recognition.new_session
    assert recognition.keyframe is not None


def test_after_a_pause_of_the_camera_it_goes_on(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config())
    recognizer.process(world_images[0], 60 * NANOSECONDS)
    with pytest.raises(StampError):
        recognizer.process(world_images[1], 100 * NANOSECONDS)
    recognition = recognizer.process(world_images[2], 101 * NANOSECONDS)
    assert not recognition.new_session
    assert recognition.keyframe is not None


def test_a_bag_shorter_than_the_window_that_is_played_in_a_loop_goes_on_after_a_second(
    world_images: list[Image],
) -> None:
    recognizer = PlaceRecognizer(Config(keyframe_distance=0.0))
    fates = []
    for frame in [*range(40), *range(40), *range(40)]:
        try:
            recognition = recognizer.process(world_images[frame % 10], frame * NANOSECONDS // 5)
        except StampError:
            fates.append("skipped")
        else:
            fates.append("begins" if recognition.new_session else "goes on")
    loop = ["skipped"] * 5 + ["begins"] + ["goes on"] * 34
    assert fates == ["goes on"] * 40 + loop + loop
    assert recognizer.database.session == 2


def test_images_that_come_late_are_skipped_and_change_nothing(world_images: list[Image]) -> None:
    """As where two cameras, one of them half a second behind, publish on one topic."""
    recognizer = PlaceRecognizer(Config(keyframe_distance=0.0))
    for number in range(40):
        stamp = 10 * NANOSECONDS + number * NANOSECONDS // 10
        assert not recognizer.process(world_images[0], stamp).new_session
        with pytest.raises(StampError, match="is not later than the last image's"):
            recognizer.process(world_images[1], stamp - NANOSECONDS // 2)
    assert recognizer.database.session == 0


def test_images_may_come_seldom(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config(keyframe_distance=0.0))
    recognizer.process(world_images[0], 0)
    with pytest.raises(StampError, match=r"its stamp leaps by 12\.000 s"):
        recognizer.process(world_images[1], 12 * NANOSECONDS)
    for number in range(2, 8):
        assert recognizer.process(world_images[number], 12 * number * NANOSECONDS).keyframe is not None
    with pytest.raises(StampError, match=r"its stamp leaps by -50\.000 s"):
        recognizer.process(world_images[8], 34 * NANOSECONDS)
    assert recognizer.process(world_images[9], 46 * NANOSECONDS).new_session


def test_after_a_pause_every_keyframe_of_a_back_end_counts(world_images: list[Image]) -> None:
    recognizer = PlaceRecognizer(Config(keyframe_source="topic"))
    for number, second in enumerate((60, 61, 200, 201)):
        assert recognizer.process(world_images[number], second * NANOSECONDS).keyframe is not None
    with pytest.raises(StampError, match="leaps by"):
        recognizer.process(world_images[4], 150 * NANOSECONDS)
    assert recognizer.process(world_images[5], 151 * NANOSECONDS).new_session


def test_without_its_file_it_goes_on_in_memory(world_images: list[Image], tmp_path: Path) -> None:
    recognizer = PlaceRecognizer(EAGER.replace(database=str(tmp_path / "map.db")))
    show(recognizer, world_images[:2])
    (tmp_path / "map.db").unlink()
    recognition = show(recognizer, world_images[2:3], first=2)[0]
    assert recognition.keyframe is not None
    assert recognition.failure == f"{tmp_path / 'map.db'} was removed while in use; restart the node"
    assert len(recognizer.database) == 3


def test_an_earlier_session_is_recognised_from_its_file(world_images: list[Image], tmp_path: Path) -> None:
    config = EAGER.replace(database=str(tmp_path / "map.db"))
    first = PlaceRecognizer(config)
    show(first, world_images[:40])
    first.close()
    second = PlaceRecognizer(config)
    found = closures(show(second, world_images[5:12], first=1000))
    assert found
    assert {(closure.query.session, closure.match.session) for closure in found} == {(1, 0)}


def test_the_robot_knows_where_it_is_in_a_map_of_an_earlier_drive(world_images: list[Image], tmp_path: Path) -> None:
    old, new = str(tmp_path / "monday.db"), str(tmp_path / "tuesday.db")
    first = PlaceRecognizer(EAGER.replace(database=old))
    show(first, world_images[:40])
    first.close()
    second = PlaceRecognizer(EAGER.replace(database=new, maps=(old,)))
    found = closures(show(second, world_images[5:20], first=1000))
    second.close()
    assert len(found) >= 10
    assert min(closure.inliers for closure in found) >= Config().min_inliers
    images = [round(closure.match.stamp * RATE / NANOSECONDS) for closure in found]
    now = [round(closure.query.stamp * RATE / NANOSECONDS) - 1000 + 5 for closure in found]
    assert max(np.abs(np.subtract(images, now))) <= 1
    alone = PlaceRecognizer(Config(database=new)).database
    assert (alone.ids.tolist(), alone.sessions.tolist()) == (list(range(15)), [0] * 15)


def test_a_robot_that_goes_round_and_round_keeps_one_view_of_each_place(tmp_path: Path) -> None:
    """The map stays small, and what it recognises after many rounds is what it recognised in the second one."""
    world = World()
    images = [world.render(*stop) for stop in list(drive())[:60]]
    config = Config(database=str(tmp_path / "map.db"), max_keyframes=40, exclusion_time=2.0)
    recognizer = PlaceRecognizer(config)
    found = []
    for number in range(8):
        lap = show(recognizer, images, first=60 * number)
        found.append(sum(bool(recognition.verdict.closures) for recognition in lap))
        assert recognizer.database.own <= 40
    assert found[0] == 0
    assert min(found[1:]) >= 9
    recognizer.close()
    assert len(PlaceRecognizer(config).database) <= 40


def test_reset_forgets_for_matching_and_reload_brings_back(world_images: list[Image], tmp_path: Path) -> None:
    recognizer = PlaceRecognizer(EAGER.replace(database=str(tmp_path / "map.db")))
    show(recognizer, world_images[:20])
    assert "session 1 begins" in recognizer.reset()
    assert show(recognizer, world_images[:1])[0].verdict.refused[0].reason is Refusal.NO_HISTORY
    assert recognizer.reload() == "21 keyframes are matched"
    assert recognizer.save() == f"21 keyframes in {tmp_path / 'map.db'}"


def test_every_keyframe_gets_a_verdict_and_nothing_else_does(world_images: list[Image]) -> None:
    for recognition in show(PlaceRecognizer(Config()), world_images):
        verdict = recognition.verdict
        assert (recognition.keyframe is not None) == bool(verdict.closures or verdict.refused)
