# SPDX-License-Identifier: Apache-2.0
"""`make load`: run the node with a camera far too fast for it, over DDS, while services are called.

The camera runs in its own process and publishes 1920x1080 rgb8 at 60 Hz. The node is bound to one core, and other
programs keep that core busy until the node is as slow as about 10 Hz. Every image becomes a keyframe and is saved. The
exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2
import numpy as np

from binvpr_ros.recordings.world import World, drive
from binvpr_ros.ros.live import (
    EVERY_RESULT,
    Header,
    ImageMessage,
    Listener,
    NodeProcess,
    Trigger,
    create_node,
    message_from_array,
    own_ros,
    publish,
    to_nanoseconds,
)

TOPIC = "/load/image"
SIZE = (1920, 1080)
VIEWS = 15
CAMERA_HZ = 60.0
NODE_HZ = 10.0
WARM_UP = 3.0
"""Seconds in which the node's rate is taken, before and after other programs share its core."""
SERVICES = ("save_database", "reset_database", "reload_database")
SERVICE_INTERVAL = 0.1
"""Seconds from an answer to the next call."""
MOST_ANSWER_MS = 200.0
LONGEST_WAIT = 10.0
"""Seconds after which a service is taken not to answer."""
MOST_FRAME_TIMES = 2.0
"""From an image's stamp to its publication, as a multiple of the time from one processed image to the next."""


def camera(stop: Event, sent: Connection) -> None:
    """Publish views of the rendered building until told to stop, and send how many those were, and the seconds."""
    world = World()
    views = [cv2.resize(world.render(*place), SIZE) for place in drive(VIEWS)]
    messages = [message_from_array(np.asarray(view, np.uint8), "rgb8") for view in views]
    times: list[float] = []

    def note(_: ImageMessage) -> None:
        times.append(time.monotonic())

    endless = itertools.takewhile(lambda _: not stop.is_set(), itertools.cycle(messages))
    with own_ros():
        published = publish(create_node("camera"), TOPIC, endless, CAMERA_HZ, frame_id="camera", before=note)
        sent.send((published, times[-1] - times[0]))


class Load:
    """What surrounds the node: the camera, programs that share its core, and a listener that times what it hears."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.ages_ms: list[float] = []  # from the stamp of each keyframe to its arrival here
        self.answers_ms: list[float] = []
        self.failed = 0  # calls of services
        listener.node.create_subscription(Header, "keyframes", self._on_keyframe, EVERY_RESULT)

    def _on_keyframe(self, header: Header) -> None:
        self.ages_ms.append((time.time_ns() - to_nanoseconds(header.stamp)) / 1e6)

    def count(self, name: str) -> int:
        """Return one of the node's counts, as its newest diagnostics have it."""
        return int(self._listener.diagnostics.get(name, 0))

    def rate(self, seconds: float) -> float:
        """Return how many keyframes a second arrive."""
        before = len(self.ages_ms)
        time.sleep(seconds)
        return (len(self.ages_ms) - before) / seconds

    def call_services(self, seconds: float) -> None:
        """Call one service after the other."""
        clients = [self._listener.node.create_client(Trigger, f"binvpr/{name}") for name in SERVICES]
        deadline = time.monotonic() + seconds
        for client in itertools.cycle(clients):
            if time.monotonic() >= deadline:
                return
            start = time.perf_counter()
            future = client.call_async(Trigger.Request())
            answered = threading.Event()
            future.add_done_callback(lambda _, answered=answered: answered.set())
            in_time = answered.wait(LONGEST_WAIT)
            self.answers_ms.append((time.perf_counter() - start) * 1e3)
            self.failed += not in_time or not future.result().success
            time.sleep(SERVICE_INTERVAL)


@contextlib.contextmanager
def busy_programs(count: int, core: int) -> Iterator[None]:
    """Keep a core busy with so many programs."""
    programs = []
    try:
        for _ in range(count):
            programs.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            os.sched_setaffinity(programs[-1].pid, {core})
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Give the processes that are started meanwhile one core alone."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def main() -> int:
    """Load the node, print what came of it, and return the exit status."""
    parser = argparse.ArgumentParser(prog="load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of the measurement (default %(default)s)")
    choices = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_ros())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        arguments = ["-r", f"image:={TOPIC}", "-p", f"database:={Path(folder, 'map.db')}"]
        arguments += ["-p", "keyframe_distance:=0.0", "-p", "keyframe_min_interval:=0.0"]
        with on_core(core):
            node = stack.enter_context(NodeProcess(*arguments)).process
        listener = stack.enter_context(Listener())
        load = Load(listener)
        stop, (result, sent) = spawn.Event(), spawn.Pipe(duplex=False)
        process = spawn.Process(target=camera, args=(stop, sent), daemon=True)
        process.start()
        sent.close()  # the camera's end is the only one now: to wait for it ends where it dies
        while not load.ages_ms:
            if node.poll() is not None or not process.is_alive():
                print("load: the node or the camera did not start; its messages are above", file=sys.stderr)
                return 1
            time.sleep(0.1)
        alone = load.rate(WARM_UP)
        programs = max(0, round(alone / NODE_HZ) - 1)
        with busy_programs(programs, core):
            load.rate(WARM_UP)
            first, received, start = len(load.ages_ms), load.count("images_received"), time.monotonic()
            load.call_services(choices.seconds)
            seconds = time.monotonic() - start
            ages, received = load.ages_ms[first:], load.count("images_received") - received
            stop.set()
            published, camera_seconds = result.recv()
            process.join()
            settled = listener.wait_until_still()
        values = listener.diagnostics
    if not ages or not settled:
        print("load: the node did not process the images; its messages are above", file=sys.stderr)
        return 1
    unseen = published - int(values["images_received"]) - int(values["messages_lost"])
    print(f"{programs} busy programs share the node's core, where it does {alone:.1f} Hz alone")
    print(f"rate sent             {(published - 1) / camera_seconds:8.1f} Hz, of {CAMERA_HZ:g}")
    print(f"rate received         {received / seconds:8.1f} Hz")
    print(f"rate processed        {len(ages) / seconds:8.1f} Hz")
    print(f"lost on the way       {values['messages_lost']:>8} images")
    print(f"replaced by newer     {unseen:8} images, before the node took them")
    return report(values, ages, load.answers_ms, load.failed, seconds / len(ages) * 1e3)


def report(values: dict[str, str], ages_ms: list[float], answers_ms: list[float], failed: int, frame_ms: float) -> int:
    """Print the figures beside their targets; return 1 where one is missed.

    `values` are the node's diagnostics, and `frame_ms` its time from one processed image to the next.
    """
    received, processed, dropped, unusable = (
        int(values[f"images_{fate}"]) for fate in ("received", "processed", "dropped", "unusable")
    )
    left = received - processed - unusable
    latencies = dict(zip(("median", "p95", "p99", "oldest"), np.percentile(ages_ms, (50, 95, 99, 100)), strict=True))
    most_ms = MOST_FRAME_TIMES * frame_ms
    longest_ms = max(answers_ms)
    targets = [
        *((f"latency, {name}", f"{ms:8.1f} ms ({ms / frame_ms:.2f} frame times)", f"{most_ms:.1f} ms", ms < most_ms)
          for name, ms in latencies.items()),
        ("latency by the node", f"{values['latency_ms_p99']:>8} ms, p99 of its last images", "", True),
        ("dropped", f"{dropped:8} images", f"{left} received and not processed", dropped == left),
        ("unusable", f"{unusable:8} images", "0", unusable == 0),
        ("services, median", f"{np.median(answers_ms):8.1f} ms of {len(answers_ms)} calls", "", True),
        ("services, longest", f"{longest_ms:8.1f} ms", f"{MOST_ANSWER_MS:.0f} ms", longest_ms < MOST_ANSWER_MS),
        ("services, failed", f"{failed:8} calls", "0", failed == 0),
    ]  # fmt: skip
    for name, figure, target, met in targets:
        print(f"{name:21} {figure:34} {target and 'target: ' + target}{'' if met else '  MISSED'}")
    return int(not all(met for *_, met in targets))


if __name__ == "__main__":
    sys.exit(main())
