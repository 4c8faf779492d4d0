# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from binvpr_ros.config import Config
from binvpr_ros.loop_closure import Refusal, Refused, Verdict
from binvpr_ros.recognizer import Recognition
from binvpr_ros.ros.diagnostics import Health, Level, Silence, Statistics, free_bytes, health, is_silent

CONFIG = Config(database="/maps/office.db")
GOOD = {"images_received": 15, "images_processed": 15}


@pytest.mark.parametrize(
    ("lately", "failure", "free", "expected"),
    [
        (GOOD, "", 1 << 40, Health(Level.OK, "14.6 images/s")),
        (GOOD, "", None, Health(Level.OK, "14.6 images/s")),
        (
            {"images_received": 9, "images_dropped": 9}, "", None,
            Health(
                Level.WARN,
                "all 9 images of the last second were dropped, because the node is always busy; increase threads, "
                "or send smaller images",
                "dropped",
            ),
        ),
        ({**GOOD, "images_dropped": 9}, "", None, Health(Level.OK, "14.6 images/s")),
        (
            {**GOOD, "featureless": 15}, "", None,
            Health(Level.WARN, "the images are too dark, or too blank, to show a place (min_contrast)", "featureless"),
        ),
        (
            {**GOOD, "images_too_soon": 5, "featureless": 10}, "", None,
            Health(Level.WARN, "the images are too dark, or too blank, to show a place (min_contrast)", "featureless"),
        ),
        ({**GOOD, "featureless": 14}, "", None, Health(Level.OK, "14.6 images/s")),
        (GOOD, "", 3 << 20, Health(Level.WARN, "3 MiB are left on the disk of /maps/office.db; make room", "disk")),
        (
            {}, "it is full", 0,
            Health(Level.ERROR, "keyframes are kept in memory only: it is full", "failure"),
        ),
    ],
)  # fmt: skip
def test_how_the_node_is_and_why(lately: dict[str, int], failure: str, free: int | None, expected: Health) -> None:
    assert health(Counter(lately), 14.6, CONFIG, "/camera", "/stamps", failure, free, keyframes=9) == expected


@pytest.mark.parametrize(
    ("lately", "text"),
    [
        ({"images_received": 15}, "no keyframe stamp has arrived on /stamps yet, so nothing is recognised"),
        ({"images_received": 15, "stamps_ever": 4}, ""),
        ({"images_received": 15, "images_processed": 2, "stamps_received": 2, "stamps_ever": 2}, ""),
        (
            {"images_received": 15, "stamps_received": 3, "stamps_without_image": 3, "stamps_ever": 3},
            "no image was found for any of the 3 stamps that came on /stamps",
        ),
        ({"images_received": 15, "stamps_received": 3, "stamps_without_image": 2, "stamps_ever": 3}, ""),
    ],
)
def test_a_back_end_whose_stamps_do_not_fit(lately: dict[str, int], text: str) -> None:
    asked = Config(keyframe_source="topic")
    well = health(Counter(lately), 0.0, asked, "/camera", "/stamps", "", None, keyframes=0)
    assert (well.level, well.text) == ((Level.WARN, text) if text else (Level.OK, well.text))


def test_a_camera_of_an_image_in_two_seconds_is_well_and_one_that_stops_is_not() -> None:
    def silent(seconds: str) -> str:
        """Return for each second whether it is silent (!).

        It has a usable image (x), an unusable one (u), such a one and others that came meanwhile, of which one is still
        in work (m), images that were all dropped (d), or none.
        """
        statistics, silent = Statistics(), ""
        for second in seconds:
            statistics.count("images_received", {"x": 1, "u": 1, "m": 9, "d": 8}.get(second, 0))
            statistics.count("images_dropped", {"m": 7, "d": 8}.get(second, 0))
            if second in "um":
                statistics.count_unusable("image", "it is cut")
            silent += "!" if is_silent(statistics.lately()) else "."
        return silent

    assert silent("x.x.x.x.....")[2:] == ".......!!!"
    assert silent("xxx.x") == "...!."
    assert silent("..xuux") == "!!.!!."
    assert silent("xmmmmd") == ".!!!!!"


@pytest.mark.parametrize(("seen_ever", "yet"), [(0, " yet"), (1, "")])
def test_silence_is_told_with_its_cause(seen_ever: int, yet: str) -> None:
    silence = Silence("no_camera", "nothing publishes there; start the camera")
    lately = Counter(seen_ever=seen_ever)
    well = health(lately, 0.0, CONFIG, "/camera", "/stamps", "", None, 0, silence)
    expected = f"no usable image from /camera{yet}: nothing publishes there; start the camera"
    assert well == Health(Level.WARN, expected, "silence: no_camera")


@pytest.mark.parametrize(
    ("latency_ms", "told"),
    [
        (57 * 365.25 * 86400e3, "the stamps are 57.0 years old; use `ros2 bag play --clock`, and set use_sim_time"),
        (-3.6e6, "the stamps are 60.0 min ahead of the node's clock; check use_sim_time, /clock, and all hosts"),
    ],
)
def test_a_latency_by_another_clock_is_unknown(latency_ms: float, told: str) -> None:
    statistics = Statistics()
    names = [f"latency_ms_{label}" for label in ("median", "p95", "p99")]

    def see(latency_ms: float) -> list[str]:
        statistics.count_recognition(Recognition(None, Verdict()), "camera", 5.0, latency_ms)
        values = statistics.values()
        assert float(values["processing_ms_median"]) == 5.0
        return [values[name] for name in names]

    assert see(9.0) == ["9.0"] * 3
    assert see(latency_ms) == [f"unknown: {told}"] * 3
    assert see(-20.0) == ["-20.0"] * 3


def test_an_image_that_was_not_looked_at_is_processed_and_has_no_times() -> None:
    statistics = Statistics()
    statistics.count_recognition(Recognition(None, Verdict()), "camera", 4.0, 5.0)
    statistics.count_recognition(Recognition(None, Verdict(), looked_at=False), "camera", 0.0, 1.0)
    values = statistics.values()
    assert (values["images_processed"], values["images_too_soon"]) == ("2", "1")
    assert (values["processing_ms_median"], values["latency_ms_median"]) == ("4.0", "5.0")


def test_a_map_that_can_forget_no_more_says_so() -> None:
    full = Config(max_keyframes=8)
    text = "the map has 9 keyframes, more than max_keyframes, because each is the only view of its place"
    well = health(Counter(GOOD), 15.0, full, "/camera", "/stamps", "", None, keyframes=9)
    assert well == Health(Level.WARN, text, "max_keyframes")
    assert health(Counter(GOOD), 15.0, full, "/camera", "/stamps", "", None, keyframes=8).level == Level.OK


def test_what_was_counted_lately() -> None:
    statistics = Statistics()
    statistics.count("images_received", 3)
    dark = Recognition(None, Verdict(refused=[Refused(Refusal.FEATURELESS)]))
    statistics.count_recognition(dark, "camera", 5.0, 9.0)
    lately = statistics.lately()
    assert (lately["images_received"], lately["images_processed"], lately["featureless"]) == (3, 1, 1)
    statistics.count("images_received")
    lately = statistics.lately()
    assert (lately["images_received"], lately["images_processed"], lately["featureless"]) == (1, 0, 0)
    assert statistics.values()["images_received"] == "4"


def test_the_rate_of_a_slow_camera_is_no_count_of_the_last_second() -> None:
    """An image every 1.6 seconds, and diagnostics that come late now and then; the camera stops after the twentieth."""
    now = 100.0
    statistics = Statistics(lambda: now)
    assert statistics.rate_hz == 0.0
    seen, rates = 0, []
    for call in range(45):
        now += 1.25 if call % 2 else 1.0
        for _ in range(min(20, int((now - 100.0) / 1.6)) - seen):
            statistics.count_recognition(Recognition(None, Verdict()), "camera", 5.0, 9.0)
            seen += 1
        statistics.lately()
        rates.append(statistics.rate_hz)
    assert seen == 20
    assert all(0.4 < rate < 0.8 for rate in rates[4:26])  # 0.625 images a second, of which five seconds hold 3 or 4
    assert rates[-10:] == [0.0] * 10


def test_the_rate_is_taken_by_the_clock() -> None:
    now = 0.0
    statistics = Statistics(lambda: now)
    for seconds in (0.5, 2.0, 2.5):
        now += seconds
        for _ in range(round(30 * seconds)):
            statistics.count_recognition(Recognition(None, Verdict()), "camera", 5.0, 9.0)
        statistics.lately()
        assert statistics.rate_hz == 30.0


def test_the_disk_of_a_map(tmp_path: Path) -> None:
    assert free_bytes(Config()) is None
    assert free_bytes(Config(database=str(tmp_path / "gone" / "map.db"))) is None
    free = free_bytes(Config(database=str(tmp_path / "map.db")))
    assert free is not None
    assert free > 0
