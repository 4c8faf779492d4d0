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
from binvpr_ros.loop_closure import Refusal
from binvpr_ros.recognizer import Recognition

LEAST_FREE_BYTES = 256 << 20
"""Below which a disk is nearly full: a few minutes of keyframes with their features."""

LEAST_SECONDS = 10
"""Of which the growth of the map is told, however short the node has run."""

RATE_SECONDS = 5
"""Over which the rate of images is measured."""

USUAL_PAUSES = 3
"""After so many pauses as long as the one before without a usable image, the camera is taken for silent."""


class Level(enum.IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


class Health(NamedTuple):
    """How the node is, and a sentence about it."""

    level: Level
    text: str


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
        self.frame_id = ""
        self._kept_bytes = 0
        self.failure = ""
        self._before: Counter[str] = Counter()
        self._clock = clock
        # Pairs of a time and how many images were processed by then: from RATE_SECONDS ago to the latest second.
        self._started = clock()
        self._processed: deque[tuple[float, int]] = deque([(clock(), 0)], maxlen=RATE_SECONDS + 1)
        self.rate_hz = 0.0
        self._pause = self._usual_pause = 0  # seconds without a usable image: up to now, and before the last one

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a count since the start."""
        with self._lock:
            self.counts[name] += amount

    def count_unusable(self, kind: str) -> None:
        """Count an image that was skipped."""
        with self._lock:
            self.counts["images_unusable"] += 1
            self.unusable[kind] += 1

    def count_recognition(
        self, recognition: Recognition, frame_id: str, processing_ms: float, latency_ms: float
    ) -> None:
        """Count an image that was processed."""
        with self._lock:
            self.frame_id = frame_id
            self.counts["images_processed"] += 1
            self.counts["keyframes"] += recognition.keyframe is not None
            self._kept_bytes += recognition.kept_bytes
            self.counts["loop_closures"] += len(recognition.verdict.closures)
            self.refused.update(refused.reason for refused in recognition.verdict.refused)
            self.processing_ms.append(processing_ms)
            self.latency_ms.append(latency_ms)

    def values(self) -> dict[str, str]:
        """Return everything by name, formatted."""
        names = [f"images_{fate}" for fate in ("received", "processed", "dropped", "unusable")]
        names += ["messages_lost", "stamps_received", "stamps_without_image", "keyframes", "loop_closures"]
        with self._lock:
            values = {name: str(self.counts[name]) for name in names}
            values |= {f"unusable_{kind}": str(count) for kind, count in sorted(self.unusable.items())}
            values |= {f"refused_{reason.value}": str(self.refused[reason]) for reason in Refusal}
            hours = max(self._clock() - self._started, LEAST_SECONDS) / 3600
            values["map_mb_per_hour"] = f"{self._kept_bytes / 1e6 / hours:.1f}"
            for name, times in (("processing_ms", self.processing_ms), ("latency_ms", self.latency_ms)):
                for percent, label in ((50, "median"), (95, "p95"), (99, "p99")):
                    values[f"{name}_{label}"] = f"{np.percentile(times, percent):.1f}" if times else "nan"
        return values

    def lately(self) -> Counter[str]:
        """Return what was counted since the last call, a second ago: images by their fate, and `featureless` ones.

        And `stamps_ever`, since the start; `pause` and `usual_pause`, the seconds without a usable image up to now, and
        before the last one. Sets `rate_hz` too, the images processed per second since RATE_SECONDS calls ago.
        """
        with self._lock:
            now = Counter({**self.counts, "featureless": self.refused[Refusal.FEATURELESS]})
            lately = Counter({name: count - self._before[name] for name, count in now.items()})
            self._before = now
            self._processed.append((self._clock(), now["images_processed"]))
            (start, first), (end, last) = self._processed[0], self._processed[-1]
            self.rate_hz = (last - first) / (end - start) if end > start else 0.0
            if lately["images_received"] > lately["images_unusable"]:
                self._pause, self._usual_pause = 0, self._pause
            else:
                self._pause += 1
            lately.update(stamps_ever=now["stamps_received"], pause=self._pause, usual_pause=self._usual_pause)
        return lately


def health(
    lately: Counter[str],
    rate_hz: float,
    config: Config,
    topic: str,
    stamps_topic: str,
    failure: str,
    free_bytes: int | None,
    keyframes: int,
) -> Health:
    """Return how the node is, after a second in which `lately` was counted, with the cause where it is not well.

    `rate_hz` is that of the images processed, `topic` that of the images, `stamps_topic` that of the keyframes' stamps;
    `failure` says why keyframes are not saved, `free_bytes` what the map's disk has left, None where there is none, and
    `keyframes` how many the map holds.
    """
    processed, received, dropped = (lately[f"images_{fate}"] for fate in ("processed", "received", "dropped"))
    stamps = lately["stamps_received"]
    silent = received == lately["images_unusable"] and lately["pause"] >= USUAL_PAUSES * lately["usual_pause"]
    left = (free_bytes or 0) / 2**20
    troubles = (  # the first that holds is told
        (bool(failure), Level.ERROR, f"keyframes are kept in memory alone: {failure}"),
        (silent, Level.WARN, f"no usable image from {topic} in the last second"),
        (
            config.keyframe_source == "topic" and received and not lately["stamps_ever"],
            Level.WARN, f"no stamp of a keyframe has come on {stamps_topic} yet, so nothing is recognised",
        ),
        (
            0 < stamps <= lately["stamps_without_image"],
            Level.WARN, f"there is no image for any of the {stamps} stamps that came on {stamps_topic}",
        ),
        (
            dropped and not processed,
            Level.WARN, f"all {dropped} images of the last second were dropped; give it more threads",
        ),
        (
            processed and lately["featureless"] >= processed,
            Level.WARN, "the images are too dark, or too blank, to show a place (min_contrast)",
        ),
        (
            free_bytes is not None and free_bytes < LEAST_FREE_BYTES,
            Level.WARN, f"{left:.0f} MiB are left on the disk of {config.database}; make room",
        ),
        (
            0 < config.max_keyframes < keyframes,
            Level.WARN,
            f"the map has {keyframes} keyframes, more than max_keyframes: none goes that is the only view of a place",
        ),
    )  # fmt: skip
    well = Health(Level.OK, f"{rate_hz:.1f} images/s")
    return next((Health(level, text) for holds, level, text in troubles if holds), well)


def free_bytes(config: Config) -> int | None:
    """Return what is free on the disk of the map, in bytes; None where there is no map file, or it cannot be told."""
    if not config.database:
        return None
    try:
        return shutil.disk_usage(Path(config.database).resolve().parent).free
    except OSError:
        return None
