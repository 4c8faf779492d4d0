# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.logging import LoggingSeverity, get_logger

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.loop_closure import LoopClosure, Refusal, Refused, Verdict
from binvpr_ros.recognizer import Recognition
from binvpr_ros.ros.diagnostics import Health, Level, Statistics
from binvpr_ros.ros.voice import (
    CLOSURE_INTERVAL,
    CONVALESCENCE,
    LONGEST_REMINDER_INTERVAL,
    PATIENCE,
    REMINDER_INTERVAL,
    SUMMARY_INTERVAL,
    WARNING_INTERVAL,
    Voice,
    ago,
    closure_sentence,
)

SECOND = 10**9
WELL = Health(Level.OK, "14.6 images/s")
SILENT = Health(Level.WARN, "no usable image from /camera: nothing publishes there", "silence: no_camera")
FULL = Health(Level.WARN, "3 MiB are left on the disk of /maps/monday.db; make room", "disk")
MONDAY, TUESDAY = Path("/maps/monday.db"), Path("/maps/tuesday.db")


class Speaker:
    """A voice with a clock that the test sets, and what it has said through ROS's own logging."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.now = 1000.0
        self._capfd = capfd
        self.voice = Voice(get_logger("speaker"), lambda: self.now)

    def heard(self) -> list[str]:
        """Return the lines since the last call: the level, and the sentence."""
        lines = "".join(self._capfd.readouterr()).splitlines()
        return [f"{line[1:].partition(']')[0]} {line.partition('[speaker]: ')[2]}" for line in lines if line]


@pytest.fixture
def speaker(capfd: pytest.CaptureFixture[str]) -> Speaker:
    return Speaker(capfd)


def keyframe(number: int, session: int = 1, second: float = 0.0) -> Keyframe:
    return Keyframe(number, session, round(second * SECOND), np.zeros(4, np.uint64))


def closing(number: int, match: Keyframe, second: float = 500.0) -> tuple[Keyframe, Verdict]:
    query = keyframe(number, second=second)
    return query, Verdict([LoopClosure(query, match, 100, 0.756, 42)])


def test_warnings_of_one_kind_are_throttled_whatever_their_causes(speaker: Speaker) -> None:
    for number in range(50):
        speaker.voice.warn("image", f"skipped an image: cause {number}")
        speaker.voice.warn("stamp", f"skipped an image: stamp {number}")
        speaker.now += 2 * WARNING_INTERVAL / 50
    assert speaker.heard() == [
        f"WARN skipped an image: {one}" for one in ("cause 0", "stamp 0", "cause 25", "stamp 25")
    ]


def test_what_is_said_once_is_not_said_again(speaker: Speaker) -> None:
    for _ in range(3):
        speaker.voice.once("calibration", "no calibration has come")
        speaker.now += 1e6
    assert speaker.heard() == ["INFO no calibration has come"]


def test_a_robot_that_closes_loops_all_the_time_does_not_flood_its_log(speaker: Speaker) -> None:
    for number in range(100):
        speaker.voice.keyframe(*closing(number, keyframe(3, second=377.0)), lambda _: None)
        speaker.now += 0.02 * CLOSURE_INTERVAL
    said = speaker.heard()
    assert (
        said[0] == "INFO loop closure: keyframe 0 shows the place of keyframe 3, 2.0 min ago (score 0.76, 42 inliers)"
    )
    assert len(said) == 2
    assert said[1].endswith("42 inliers); 49 more since the last line")


def test_the_first_relocalisation_in_each_map_is_always_said(speaker: Speaker) -> None:
    path_of = {1: MONDAY, 2: TUESDAY, 3: None}.get
    for _ in range(3):
        for match in (keyframe(1, 0), keyframe(2, 0), keyframe(3, 0), keyframe(3, 1)):
            speaker.voice.keyframe(*closing(9, match), lambda one: path_of(one.id))
    beside = LoopClosure(keyframe(9, 2), keyframe(1, 0), 100, 0.5, 20)  # an own one is better
    speaker.voice.keyframe(beside.query, Verdict([closing(9, keyframe(3, 2))[1].closures[0], beside]), lambda _: MONDAY)
    said = speaker.heard()
    assert said.pop().startswith("INFO relocalisation: keyframe 9 shows the place of keyframe 1 in session 0 of /maps/")
    assert [line.partition(" (")[0] for line in said] == [
        "INFO relocalisation: keyframe 9 shows the place of keyframe 1 in session 0 of /maps/monday.db, 8.3 min ago",
        "INFO relocalisation: keyframe 9 shows the place of keyframe 2 in session 0 of /maps/tuesday.db, 8.3 min ago",
        "INFO relocalisation: keyframe 9 shows the place of keyframe 3 in session 0, 8.3 min ago",
    ]


def test_each_keyframe_is_for_who_looks_closely(speaker: Speaker) -> None:
    logger = get_logger("speaker")
    refused = Verdict(refused=[Refused(Refusal.FEW_INLIERS, keyframe(3), 0.5), Refused(Refusal.NOT_AMONG_BEST)])
    nothing = Verdict(refused=[Refused(Refusal.NO_HISTORY)])
    for level, said in (
        (LoggingSeverity.DEBUG, [
            "DEBUG keyframe 7: few_inliers; best match 3, score 0.50", "DEBUG keyframe 8: no_history",
            "DEBUG keyframe 9: closes loops with 2",
        ]),
        (LoggingSeverity.INFO, []),
    ):  # fmt: skip
        logger.set_level(level)
        speaker.voice.keyframe(keyframe(7), refused, lambda _: None)
        speaker.voice.keyframe(keyframe(8), nothing, lambda _: None)
        speaker.voice.keyframe(*closing(9, keyframe(2)), lambda _: None)
        assert [line for line in speaker.heard() if not line.startswith("INFO loop closure")] == said


def test_news_of_one_kind_is_throttled_and_a_warning_can_be_told_once(speaker: Speaker) -> None:
    for number in range(20):
        speaker.voice.tell("calibrated", f"calibration {number}")
        speaker.voice.warn("calibrations", f"turn {number}", interval=math.inf)
        speaker.now += 2 * WARNING_INTERVAL / 20
    assert speaker.heard() == ["INFO calibration 0", "WARN turn 0", "INFO calibration 10"]


def test_a_trouble_that_lasts_is_told_ever_more_seldom_and_so_is_its_end(speaker: Speaker) -> None:
    for second in range(4000):
        speaker.voice.health(SILENT)
        speaker.now += 1
        if lines := speaker.heard():
            assert lines == [f"WARN {SILENT.text}"]
            assert second in (4, 34, 94, 214, 454, 934, 1534, 2134, 2734, 3334, 3934)
    for _ in range(2):
        speaker.voice.health(WELL)
    assert speaker.heard() == ["INFO all is well"]
    assert REMINDER_INTERVAL == 30
    assert LONGEST_REMINDER_INTERVAL == 600


def test_a_trouble_that_passes_is_not_told_and_one_that_comes_and_goes_is_no_flood(speaker: Speaker) -> None:
    for _ in range(20):
        for well in (SILENT, SILENT, SILENT, SILENT, WELL):
            speaker.voice.health(well)
            speaker.now += 1
    assert speaker.heard() == []
    for _ in range(100):
        for well in (*[SILENT] * 6, WELL):
            speaker.voice.health(well)
            speaker.now += 1
    assert 2 <= len(speaker.heard()) <= 12
    for well in (*[WELL] * CONVALESCENCE, *[SILENT] * 5):
        speaker.heard()
        speaker.voice.health(well)
        speaker.now += 1
    assert speaker.heard() == [f"WARN {SILENT.text}"]


def test_a_new_kind_of_trouble_is_told_soon_and_new_figures_are_not(speaker: Speaker) -> None:
    def live(seconds: int, troubles: list[Health]) -> list[str]:
        for second in range(seconds):
            speaker.voice.health(troubles[second % len(troubles)])
            speaker.now += 1
        return speaker.heard()

    live(1000, [SILENT])
    assert live(PATIENCE - 1, [FULL]) == []
    other_figures = FULL._replace(text="2 MiB are left on the disk of /maps/monday.db; make room")
    assert live(25, [other_figures]) == [f"WARN {other_figures.text}"]
    assert live(PATIENCE, [SILENT]) == []  # of which there was a reminder lately
    speaker.voice.health(WELL)
    assert speaker.heard() == ["INFO all is well"]
    live(CONVALESCENCE, [WELL])
    taking_turns = live(2 * PATIENCE, [SILENT, FULL])
    assert taking_turns == [f"WARN {SILENT.text}", f"WARN {FULL.text}"]


def test_errors_are_left_to_who_tells_them_as_they_happen(speaker: Speaker) -> None:
    for _ in range(10):
        speaker.voice.health(Health(Level.ERROR, "keyframes are kept in memory only: it is full"))
    speaker.voice.health(WELL)
    assert speaker.heard() == []


def test_summaries_count_keyframes_by_the_reason_of_their_best_match(speaker: Speaker) -> None:
    statistics = Statistics()
    speaker.voice.summary(statistics)

    def see(verdict: Verdict, times: int, seen: Keyframe | None) -> None:
        for _ in range(times):
            statistics.count("images_received")
            statistics.count_recognition(Recognition(seen, verdict), "camera", 5.0, 9.0)

    query, closed = closing(9, keyframe(1))
    candidates = [Refused(Refusal.FEW_INLIERS, keyframe(2)), *[Refused(Refusal.NOT_AMONG_BEST, keyframe(3))] * 5]
    see(closed, 2, query)
    see(Verdict(refused=candidates), 3, query)
    see(Verdict(refused=[Refused(Refusal.NO_HISTORY)]), 4, query)
    see(Verdict(refused=[Refused(Refusal.FEATURELESS)]), 5, None)
    see(Verdict(), 6, None)
    statistics.count("images_received", 7)
    statistics.count("images_dropped", 7)
    speaker.now += SUMMARY_INTERVAL
    speaker.voice.summary(statistics)
    counted = (
        "27 images (7 dropped, 5 featureless), 9 keyframes (2 closed a loop; the others: 4 no_history, 3 few_inliers)"
    )
    assert speaker.heard() == [f"INFO summary of the last 5.0 min: {counted}"]

    speaker.now += SUMMARY_INTERVAL
    speaker.voice.summary(statistics)
    assert speaker.heard() == []  # no image came
    statistics.count("images_received")
    statistics.count_unusable("image", "it is cut")
    speaker.now += SUMMARY_INTERVAL
    speaker.voice.summary(statistics)
    assert speaker.heard() == ["INFO summary of the last 5.0 min: 1 image (1 unusable), 0 keyframes"]
    speaker.voice.farewell(statistics)
    (said,) = speaker.heard()
    assert said.startswith(
        "INFO summary of all 15.0 min: 28 images (7 dropped, 1 unusable, 5 featureless), 9 keyframes"
    )


def test_a_node_that_saw_nothing_says_so(speaker: Speaker) -> None:
    speaker.now += 90
    speaker.voice.farewell(Statistics())
    assert speaker.heard() == ["INFO summary of all 90.0 s: no image came"]


def test_a_closure_that_is_not_verified_or_has_a_stamp_of_another_clock() -> None:
    query = keyframe(9, second=10.0)
    unverified = LoopClosure(query, keyframe(1, second=4.5), 100, 1.0)
    assert closure_sentence(unverified, MONDAY) == (
        "loop closure: keyframe 9 shows the place of keyframe 1, 5.5 s ago (score 1.00, not verified)"
    )
    assert ago(-3 * 86400) == "with a stamp 3.0 days ahead"
    assert ago(3 * 365.25 * 86400) == "3.0 years ago"
