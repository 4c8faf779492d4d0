# SPDX-License-Identifier: Apache-2.0
"""`binvpr watch`: show what a running node recognises: closures, outcomes of keyframes, rates and latency."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from binvpr_ros.images import ImageError
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.loop_closure import NOT_VERIFIED
from binvpr_ros.ros.closures import LoopClosureRow, read_loop_closures
from binvpr_ros.ros.diagnostics import Level, duration
from binvpr_ros.ros.messages import image_from_message, to_nanoseconds
from binvpr_ros.ros.node import EVERY_RESULT, status_name

CLOSURES = "/loop_closures"
CLOSURES_TYPE = "sensor_msgs/msg/PointCloud2"
DISCOVERY_SECONDS = 1.0
"""For which other nodes are looked for once the first is found."""
REFRESH_SECONDS = 0.25
STATUS_SECONDS = 10.0
"""Between two lines about the node, where there is no terminal."""
SILENT_SECONDS = 3.0
"""Without diagnostics, which come once a second, the node is taken for stopped."""
MINUTE = 60.0
MOST_CLOSURES = 200
"""Latest closures that are kept, for a tall terminal."""
OTHER_LINES = 20
"""Of a terminal, which are no closures: headings, refusals, what the node says."""
FEWEST_CLOSURES = 5
JPEG_QUALITY = 90
SINCE_EPOCH = 10**9 * NANOSECONDS
"""Stamps from September 2001 on are shown as a time of day; a simulation's are seconds since its start."""
COLUMNS = ("time", "match", "session", "how long ago", "score", "inliers")
UNKNOWN = "-"
CLOSED, UNCLOSED = "keyframes_closed", "unclosed_"
"""The value in the diagnostics that counts keyframes which closed a loop; how those begin that count the others."""
COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.ERROR: "red"}


Spin = Callable[[float], bool]
"""Takes what comes for so many seconds; returns whether to go on."""


class WatchError(Exception):
    """What is asked for cannot be shown or saved; the message says why."""


class Running(NamedTuple):
    """A node that publishes loop closures, in its namespace."""

    namespace: str
    name: str


class Watcher:
    """Collects what a node publishes; the node `listener` subscribes.

    With `folder`, each match image becomes a jpeg file in it; `on_closure` is called with each closure.
    """

    def __init__(
        self,
        listener: Node,
        running: Running,
        folder: Path | None = None,
        on_closure: Callable[[LoopClosureRow], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.running = running
        self.closures: deque[LoopClosureRow] = deque(maxlen=MOST_CLOSURES)
        self.values: Mapping[str, str] = {}
        self.level, self.said = Level.OK, ""
        self.saved = 0
        self._folder, self._on_closure, self._clock = folder, on_closure, clock
        self._keyframes: deque[float] = deque()  # when those of the last minute came
        self._heard = clock()
        self._told: set[str] = set()
        namespace = running.namespace.rstrip("/")
        self._topic = namespace + CLOSURES
        self._status_name = status_name(running.name, running.namespace)
        listener.create_subscription(PointCloud2, self._topic, self._on_closures, EVERY_RESULT)
        listener.create_subscription(Header, f"{namespace}/keyframes", self._on_keyframe, EVERY_RESULT)
        listener.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        if folder is not None:  # else the node need not draw
            listener.create_subscription(
                Image, f"{namespace}/{running.name}/match_image", self._on_match_image, EVERY_RESULT
            )

    def status(self) -> Text:
        """Return a line on how the node is: what it says, rates, and latency."""
        silence = self._clock() - self._heard
        if silence > SILENT_SECONDS:
            return Text(f"no diagnostics for {duration(silence)}: has the node stopped?", COLOURS[Level.ERROR])
        if not self.values:
            return Text("waiting for diagnostics")
        latest = self._keyframes_of_the_last_minute()
        facts = [
            f"{self.values.get('keyframes', '?')} keyframes ({latest} in the last minute)",
            f"latency {_milliseconds(self.values, 'latency_ms')}",
            f"processing {_milliseconds(self.values, 'processing_ms')}",
        ]
        if self._folder is not None:
            facts.append(f"{self.saved} match images saved")
        return Text(f"{self.said}; {', '.join(facts)}", COLOURS[self.level])

    def outcomes(self) -> dict[str, int]:
        """Return what became of how many keyframes since the node's start: closures, then the reasons of the others.

        A reason is that of the keyframe's best match. The most frequent one comes first.
        """
        reasons = {
            key.removeprefix(UNCLOSED).replace("_", " "): int(value)
            for key, value in self.values.items()
            if key.startswith(UNCLOSED) and value != "0"
        }
        closed = {"closed a loop": int(self.values[CLOSED])} if CLOSED in self.values else {}
        return closed | dict(sorted(reasons.items(), key=lambda item: -item[1]))

    def view(self, height: int) -> Group:
        """Return all as tables for a terminal of `height` lines, the latest closure on top."""
        closures = Table(*COLUMNS, title=f"loop closures of {self.running.namespace}", title_justify="left")
        for row in list(self.closures)[-1 : -1 - max(FEWEST_CLOSURES, height - OTHER_LINES) : -1]:
            closures.add_row(*cells(row))
        outcomes = Table("outcome", "keyframes", title_justify="left")
        for outcome, count in self.outcomes().items():
            outcomes.add_row(outcome, str(count))
        return Group(closures, outcomes, self.status())

    def _on_closures(self, message: PointCloud2) -> None:
        try:
            rows = read_loop_closures(message)
        except ValueError as error:
            self._tell_once(f"a message on {self._topic} is skipped: {error}")
            return
        for row in rows:
            self.closures.append(row)
            self._on_closure(row)

    def _on_keyframe(self, _: Header) -> None:
        self._keyframes.append(self._clock())
        self._keyframes_of_the_last_minute()

    def _keyframes_of_the_last_minute(self) -> int:
        """Forget older keyframes, and return how many are left."""
        while self._keyframes and self._clock() - self._keyframes[0] > MINUTE:
            self._keyframes.popleft()
        return len(self._keyframes)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._status_name:
                values = {value.key: value.value for value in status.values}
                strange = {key for key in values if key.startswith((CLOSED, UNCLOSED)) and not values[key].isdecimal()}
                for key in sorted(strange):
                    self._tell_once(f"{key} of {status.name} is skipped: it is not a number; check who publishes it")
                self.values = {key: value for key, value in values.items() if key not in strange}
                self.level, self.said = Level(min(status.level[0], Level.ERROR)), status.message
                self._heard = self._clock()

    def _tell_once(self, sentence: str) -> None:
        """Say what may come with each message of somebody who uses our topics for something else."""
        if sentence not in self._told:
            self._told.add(sentence)
            print(f"watch: {sentence}", file=sys.stderr, flush=True)

    def _on_match_image(self, message: Image) -> None:
        """Save a match image under its stamp, so that the names sort by time."""
        seconds, nanoseconds = divmod(to_nanoseconds(message.header.stamp), NANOSECONDS)
        file = (self._folder or Path()) / f"{seconds:010}.{nanoseconds:09}.jpg"
        try:
            bgr = cv2.cvtColor(image_from_message(message), cv2.COLOR_RGB2BGR)
            file.write_bytes(cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes())
        except (ImageError, OSError) as error:
            raise WatchError(f"{file} cannot be written ({error}); check the disk and its space") from None
        self.saved += 1


def cells(row: LoopClosureRow) -> tuple[str, ...]:
    """Return a closure as texts for COLUMNS."""
    ago = (row.query_stamp - row.match_stamp) / NANOSECONDS
    return (
        _time_of(row.query_stamp),
        f"keyframe {row.match_id}",
        f"{row.match_session} (earlier)" if row.is_relocalisation else str(row.match_session),
        duration(ago) if ago >= 0 else UNKNOWN,  # the other session's clock was another
        f"{row.score:.2f}",
        UNKNOWN if row.inliers == NOT_VERIFIED else str(row.inliers),
    )


def line(row: LoopClosureRow) -> str:
    """Return a closure as a line of text."""
    when, match, session, ago, score, inliers = cells(row)
    facts = [f"closure with {match}", f"session {session}", f"{ago} ago", f"score {score}", f"{inliers} inliers"]
    return f"{when}  {', '.join(fact for fact in facts if not fact.startswith(UNKNOWN))}"


def _time_of(stamp: int) -> str:
    """Return a stamp in nanoseconds as the local time of day, or as seconds where its clock began at zero."""
    if stamp < SINCE_EPOCH:
        return f"{stamp / NANOSECONDS:.1f} s"
    return datetime.fromtimestamp(stamp // NANOSECONDS).astimezone().strftime("%H:%M:%S")


def _milliseconds(values: Mapping[str, str], name: str) -> str:
    median, p95 = (values.get(f"{name}_{part}", "?") for part in ("median", "p95"))
    if median == "nan":  # before the first image
        return UNKNOWN
    return f"{median} ms (95%: {p95} ms)" if p95.replace(".", "").isdigit() else median


def find(listener: Node, namespace: str | None) -> list[Running]:
    """Return the nodes that publish loop closures, in order; only those of `namespace` unless that is None."""
    found = set()
    for topic, types in listener.get_topic_names_and_types():
        if not topic.endswith(CLOSURES) or CLOSURES_TYPE not in types:
            continue
        own = topic.removesuffix(CLOSURES) or "/"
        if namespace in (None, own):
            names = (publisher.node_name for publisher in listener.get_publishers_info_by_topic(topic))
            # ROS's own name for a node of which only the publisher has been discovered yet begins with a _.
            found |= {Running(own, name) for name in names if not name.startswith("_")}
    return sorted(found)


def wait_for_node(listener: Node, spin: Spin, namespace: str | None) -> Running | None:
    """Return the node to watch, once it runs, or None where that is not waited for; raises WatchError for several.

    `namespace` None takes any: launch gives the node one, a bare start does not.
    """
    started, told = time.monotonic(), False
    first_found: float | None = None
    while spin(REFRESH_SECONDS):
        now, found = time.monotonic(), find(listener, namespace)
        if found and first_found is None:
            first_found = now
        if found and first_found is not None and now - first_found >= DISCOVERY_SECONDS:
            if len(found) > 1:
                names = ", ".join(one.namespace for one in found)
                raise WatchError(f"several nodes publish loop closures, in {names}; choose one with --namespace")
            return found[0]
        if not found and not told and now - started > SILENT_SECONDS:
            told = True
            where = "any namespace" if namespace is None else f"the namespace {namespace}"
            print(f"watch: waiting for a node that publishes loop_closures in {where}", file=sys.stderr, flush=True)
    return None


def watch(spin: Spin, watcher: Watcher, console: Console) -> None:
    """Show what comes, as a live table in a terminal."""
    with Live(get_renderable=lambda: watcher.view(console.height), console=console, auto_refresh=False) as live:
        while spin(REFRESH_SECONDS):
            live.refresh()


def report(spin: Spin, watcher: Watcher) -> None:
    """Print a line about the node every STATUS_SECONDS, and when its level changes."""
    shown, level = -STATUS_SECONDS, watcher.level
    while spin(REFRESH_SECONDS):
        now = time.monotonic()
        if watcher.values and (now - shown >= STATUS_SECONDS or watcher.level != level):
            shown, level = now, watcher.level
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in watcher.outcomes().items())
            print(f"{watcher.status()}{f'; keyframes: {outcomes}' if outcomes else ''}", flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="binvpr watch", description=__doc__)
    parser.add_argument(
        "--namespace",
        help="namespace of the node, such as binvpr or robot1/camera, or / for none (default: the running node's)",
    )
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="save each match image as DIR/<stamp>.jpg, about 70 kB each"
    )
    choices = parser.parse_args(arguments)
    if choices.namespace is not None:
        choices.namespace = "/" + choices.namespace.strip("/")
    return choices


def main() -> int:
    """Watch until Ctrl-C; the exit status is 1 where that is not possible."""
    choices = parse(remove_ros_args(sys.argv)[1:])
    # rclpy's own handlers would end the context while rclpy may be waiting with it, which now and then is an error.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        if choices.save is not None:
            choices.save.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"watch: {error.filename} cannot be made ({error.strerror}); name another folder", file=sys.stderr)
        return 1
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    listener, executor, console = rclpy.create_node("binvpr_watch"), SingleThreadedExecutor(), Console()
    executor.add_node(listener)

    def spin(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left)
        return not stop.is_set()

    try:
        running = wait_for_node(listener, spin, choices.namespace)
        if running is not None and console.is_terminal:
            watch(spin, Watcher(listener, running, choices.save), console)
        elif running is not None:
            report(spin, Watcher(listener, running, choices.save, lambda row: print(line(row), flush=True)))
    except WatchError as error:
        print(f"watch: {error}", file=sys.stderr)
        return 1
    except (BrokenPipeError, SystemExit):  # of `| head`, say: nobody reads any more; rich makes it the latter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        listener.destroy_node()
        rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
