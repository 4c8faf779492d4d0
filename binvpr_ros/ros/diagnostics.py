# SPDX-License-Identifier: Apache-2.0
"""What the node reports of itself: counts, times, and whether it is well."""

from __future__ import annotations

import enum
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from binvpr_ros.config import Config
from binvpr_ros.counted import counted
from binvpr_ros.loop_closure import Refusal, Refused, Verdict
from binvpr_ros.recognizer import Recognition

LEAST_FREE_BYTES = 256 << 20
"""Below which a disk is nearly full: a few minutes of keyframes with their features."""

LEAST_SECONDS = 10
"""Of which the growth of the map is told, however short the node has run."""

RATE_SECONDS = 5
"""Over which the rate of images is measured."""

LONGEST_LATENCY_MS = 60_000.0
"""Beyond which, either way, the stamps are of another clock than the node's."""

USUAL_PAUSES = 3
"""After so many pauses as long as the one before without a usable image, the camera is taken for silent."""


UNITS = ((1, "s"), (60, "min"), (3600, "h"), (86400, "days"), (365.25 * 86400, "years"))
"""Seconds in each unit, and its name."""
FEWEST_OF_A_UNIT = 2
"""From so many of a unit on a time is told in it."""


class Level(enum.IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


class Silence(NamedTuple):
    """Why no usable image comes: the kind of cause, and a sentence about it."""

    kind: str
    text: str


class Health(NamedTuple):
    """How the node is, a sentence about it, and of what kind the trouble is: figures in a sentence make no new one."""

    level: Level
    text: str
    kind: str = ""


class Statistics:
    """What diagnostics report: counts since the start, and times over the latest images. Shared by two threads.

    `clock` gives the time in seconds.
    """

    LATEST = 200

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()
        self.refused: Counter[Refusal] = Counter()
        self.processing_ms: deque[float] = deque(maxlen=self.LATEST)
        self.latency_ms: deque[float] = deque(maxlen=self.LATEST)
        self._foreign_latency_ms: float | None = None  # of the latest image, where its stamp is of another clock
        self.missed: Counter[Refusal] = Counter()  # keyframes that closed no loop, and images without contrast
        self.skipped = "", ""  # of the latest unusable image the kind of trouble, and the reason
        self.frame_id = ""
        self._kept_bytes = 0
        self.failure = ""
        self._before: Counter[str] = Counter()
        self._summed_up: Counter[str] = Counter()
        self._clock = clock
        # Pairs of a time and how many images were processed by then: from RATE_SECONDS ago to the latest second.
        self._started = clock()
        self._processed: deque[tuple[float, int]] = deque([(clock(), 0)], maxlen=RATE_SECONDS + 1)
        self.rate_hz = 0.0
        self._pause = self._usual_pause = 0  # seconds without a usable image: up to now, and before the last one
        self._started_to_see = False

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a count since the start."""
        with self._lock:
            self.counts[name] += amount

    def count_unusable(self, kind: str, reason: str) -> None:
        """Count an image that was skipped."""
        with self._lock:
            self.skipped = kind, reason
            self.counts["images_unusable"] += 1
            self.unusable[kind] += 1

    def count_recognition(
        self, recognition: Recognition, frame_id: str, processing_ms: float, latency_ms: float
    ) -> None:
        """Count an image that was processed, with its times where it was looked at."""
        with self._lock:
            self.frame_id = frame_id
            self.counts["images_processed"] += 1
            if not recognition.looked_at:
                self.counts["images_too_soon"] += 1
                return
            self.counts["keyframes"] += recognition.keyframe is not None
            self.counts["keyframes_closed"] += bool(recognition.verdict.closures)
            if (reason := refusal_of(recognition.verdict)) is not None:
                self.missed[reason] += 1
            self._kept_bytes += recognition.kept_bytes
            self.counts["loop_closures"] += len(recognition.verdict.closures)
            self.refused.update(refused.reason for refused in recognition.verdict.refused)
            self.processing_ms.append(processing_ms)
            if abs(latency_ms) <= LONGEST_LATENCY_MS:
                self._foreign_latency_ms = None
                self.latency_ms.append(latency_ms)
            else:
                self._foreign_latency_ms = latency_ms
                self.latency_ms.clear()

    def values(self) -> dict[str, str]:
        """Return everything by name, formatted."""
        names = [f"images_{fate}" for fate in ("received", "processed", "too_soon", "dropped", "unusable")]
        names += ["messages_lost", "stamps_received", "stamps_without_image"]
        names += ["keyframes", "keyframes_closed", "loop_closures"]
        names += ["constraints_with_scale", "constraints_without_scale", "closures_of_unsure_calibration"]
        with self._lock:
            values = {name: str(self.counts[name]) for name in names}
            values |= {f"unusable_{kind}": str(count) for kind, count in sorted(self.unusable.items())}
            values |= {f"refused_{reason.value}": str(self.refused[reason]) for reason in Refusal}  # matches
            values |= {
                f"unclosed_{reason.value}": str(self.missed[reason])
                for reason in Refusal
                if reason is not Refusal.FEATURELESS  # of images that become no keyframes
            }
            hours = max(self._clock() - self._started, LEAST_SECONDS) / 3600
            values["map_mb_per_hour"] = f"{self._kept_bytes / 1e6 / hours:.1f}"
            for name, times in (("processing_ms", self.processing_ms), ("latency_ms", self.latency_ms)):
                for percent, label in ((50, "median"), (95, "p95"), (99, "p99")):
                    values[f"{name}_{label}"] = f"{np.percentile(times, percent):.1f}" if times else "nan"
            if self._foreign_latency_ms is not None:
                unknown = f"unknown: {foreign_clock(self._foreign_latency_ms / 1e3)}"
                values |= {name: unknown for name in values if name.startswith("latency_ms_")}
        return values

    def summary(self, whole: bool = False) -> str:
        """Return what became of the images since the last call, or, `whole`, since the start; "" where none came."""
        with self._lock:
            now = self.counts + Counter({f"unclosed_{reason.value}": count for reason, count in self.missed.items()})
            counts = now if whole else now - self._summed_up
            self._summed_up = now
        return summary(counts) if counts["images_received"] else ""

    def lately(self) -> Counter[str]:
        """Return what was counted since the last call, a second ago: images by their fate, and `featureless` ones.

        And `stamps_ever`, since the start; `seen_ever`, whether an image was usable since then; `pause` and
        `usual_pause`, the seconds without a usable image up to now, and before the last one. Sets `rate_hz` too, the
        images processed per second since RATE_SECONDS calls ago.
        """
        with self._lock:
            now = Counter({**self.counts, "featureless": self.refused[Refusal.FEATURELESS]})
            lately = Counter({name: count - self._before[name] for name, count in now.items()})
            self._before = now
            self._processed.append((self._clock(), now["images_processed"]))
            (start, first), (end, last) = self._processed[0], self._processed[-1]
            self.rate_hz = (last - first) / (end - start) if end > start else 0.0
            unusable = lately["images_unusable"]
            # In work, of which there is one at most, or kept for a back end.
            undecided = lately["images_received"] - lately["images_dropped"] - unusable
            if lately["images_processed"] or undecided > bool(unusable):
                # That a camera starts late is no pause of its own.
                self._pause, self._usual_pause, self._started_to_see = 0, self._pause * self._started_to_see, True
            else:
                self._pause += 1
            lately.update(stamps_ever=now["stamps_received"], pause=self._pause, usual_pause=self._usual_pause)
            lately["seen_ever"] = int(self._started_to_see)
        return lately


def refusal_of(verdict: Verdict) -> Refusal | None:
    """Return why an image closed no loop: the reason of its best match; None where it did, or nothing was asked."""
    if verdict.closures or not verdict.refused:
        return None
    best = verdict.best
    return best.reason if isinstance(best, Refused) else verdict.refused[0].reason


def summary(counts: Counter[str]) -> str:
    """Return what became of images in a sentence: how many there were, keyframes, and why these closed no loop."""
    missed = Counter({reason.value: counts[f"unclosed_{reason.value}"] for reason in Refusal})
    featureless = missed.pop(Refusal.FEATURELESS.value)
    fates = {"dropped": counts["images_dropped"], "unusable": counts["images_unusable"], "featureless": featureless}
    aside = ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
    reasons = ", ".join(f"{count} {reason}" for reason, count in missed.most_common() if count)
    closed = f"{counts['keyframes_closed']} closed a loop{f'; the others: {reasons}' if reasons else ''}"
    return (
        f"{counted(counts['images_received'], 'image')}{f' ({aside})' if aside else ''}, "
        f"{counted(counts['keyframes'], 'keyframe')}{f' ({closed})' if counts['keyframes'] else ''}"
    )


def duration(seconds: float) -> str:
    """Return a time for people, such as 12.3 s or 4.5 days."""
    size, unit = next((one for one in reversed(UNITS) if seconds >= FEWEST_OF_A_UNIT * one[0]), UNITS[0])
    return f"{seconds / size:.1f} {unit}"


def foreign_clock(behind: float) -> str:
    """Return by how much stamps are behind the node's clock, in seconds, and why that may be."""
    if behind >= 0:
        return f"the stamps are {duration(behind)} old; use `ros2 bag play --clock`, and set use_sim_time"
    return f"the stamps are {duration(-behind)} ahead of the node's clock; check use_sim_time, /clock, and all hosts"


def is_silent(lately: Counter[str]) -> bool:
    """Tell whether no usable image came in the latest second, though by the pauses before one should have."""
    return 0 < lately["pause"] >= USUAL_PAUSES * lately["usual_pause"]


def health(
    lately: Counter[str],
    rate_hz: float,
    config: Config,
    topic: str,
    stamps_topic: str,
    failure: str,
    free_bytes: int | None,
    keyframes: int,
    silence: Silence | None = None,
) -> Health:
    """Return how the node is, after a second in which `lately` was counted, with the cause where it is not well.

    `rate_hz` is that of the images processed, `topic` that of the images, `stamps_topic` that of the keyframes' stamps;
    `failure` says why keyframes are not saved, `free_bytes` what the map's disk has left, None where there is none,
    `keyframes` how many the map holds, and `silence` why no usable image comes, None where one does (`is_silent`).
    """
    processed, received, dropped = (lately[f"images_{fate}"] for fate in ("processed", "received", "dropped"))
    stamps = lately["stamps_received"]
    left = (free_bytes or 0) / 2**20
    kind_of_silence, why = silence or ("", "")
    troubles = (  # the first that holds is told
        (bool(failure), Level.ERROR, "failure", f"keyframes are kept in memory only: {failure}"),
        (
            dropped and not processed and not lately["images_unusable"],
            Level.WARN, "dropped",
            f"all {dropped} images of the last second were dropped, because the node is always busy; increase "
            "threads, or send smaller images",
        ),
        (
            bool(why), Level.WARN, f"silence: {kind_of_silence}",
            f"no usable image from {topic}{'' if lately['seen_ever'] else ' yet'}: {why}",
        ),
        (
            config.keyframe_source == "topic" and received and not lately["stamps_ever"],
            Level.WARN, "no_stamp", f"no keyframe stamp has arrived on {stamps_topic} yet, so nothing is recognised",
        ),
        (
            0 < stamps <= lately["stamps_without_image"],
            Level.WARN, "stamps_without_image",
            f"no image was found for any of the {stamps} stamps that came on {stamps_topic}",
        ),
        (
            lately["featureless"] and lately["featureless"] >= processed - lately["images_too_soon"],
            Level.WARN, "featureless", "the images are too dark, or too blank, to show a place (min_contrast)",
        ),
        (
            free_bytes is not None and free_bytes < LEAST_FREE_BYTES,
            Level.WARN, "disk", f"{left:.0f} MiB are left on the disk of {config.database}; make room",
        ),
        (
            0 < config.max_keyframes < keyframes,
            Level.WARN, "max_keyframes",
            f"the map has {keyframes} keyframes, more than max_keyframes, because each is the only view of its place",
        ),
    )  # fmt: skip
    well = Health(Level.OK, f"{rate_hz:.1f} images/s")
    return next((Health(level, text, kind) for holds, level, kind, text in troubles if holds), well)


def free_bytes(config: Config) -> int | None:
    """Return what is free on the disk of the map, in bytes; None where there is no map file, or it cannot be told."""
    if not config.database:
        return None
    try:
        return shutil.disk_usage(Path(config.database).resolve().parent).free
    except OSError:
        return None
