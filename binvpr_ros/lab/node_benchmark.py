# SPDX-License-Identifier: Apache-2.0
"""`benchmark --node`: what an image costs from its message to the published closure, part by part and end to end."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from binvpr_ros.config import Config, model_path
from binvpr_ros.images import resize
from binvpr_ros.keyframes import KEPT_FEATURES, NANOSECONDS
from binvpr_ros.lab.machine import disk
from binvpr_ros.lab.search import decide, write_map
from binvpr_ros.lab.timing import Timer, figures_of, measure, timer
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.kinds import LocalFeatures, open_local_features
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import WORD_BITS
from binvpr_ros.recognizer import PlaceRecognizer
from binvpr_ros.recordings.world import World, drive
from binvpr_ros.ros.live import (
    EVERY_RESULT,
    LIKE_A_CAMERA,
    Header,
    Image,
    Listener,
    NodeProcess,
    PointCloud2,
    create_node,
    decode,
    from_nanoseconds,
    message_from_array,
    message_from_closures,
    own_ros,
    to_nanoseconds,
    wait_for_subscriber,
)

SIZES = ((640, 480), (1280, 720))
KEYFRAMES = 10_000
VIEWS = 20
TOPIC = "/benchmark/image"
PER_IMAGE = ("conversion", "resize", "search", "publication")
"""What every image costs beside the network; the rest is for keyframes, and for matches that seem to be closures."""
DAY = 86_400 * NANOSECONDS
FLUSHED = 24_576
"""Bytes that a keyframe adds to the log of the map, with learned features."""
PATIENCE = 0.2
"""Seconds that a closure may take behind its keyframe; and ten times as many images come in that time."""
CAMERA_RATE = 30
"""Images a second of a camera that shows the same all the time."""
LONGEST_WAIT = 30.0
"""Seconds for the node to answer one image."""


class NodeError(RuntimeError):
    """The node did not start, or did not answer."""


def node_figures(config: Config, repeat: int) -> Iterator[dict[str, Any]]:
    """Measure `repeat` images of each size, with a map of 10,000 keyframes, and yield the figures of each size.

    `parts` are timed in this process, by turns; `node` is what a node process says of itself, while images come to it
    over DDS, one after the other. There every image becomes a keyframe, whose features are extracted and saved.
    `outside` is what every image costs outside the network, as a share of the network, and `outside_keyframe` the same
    for a keyframe with a match that is verified.

    Of the node process too, medians: `image_ms` from the stamp of an image that is no keyframe until the node is done
    with it, `keyframe_with_match_ms` from the stamp of one that is until its loop closure has come to this process, and
    `without_fsync_ms` is that less a flush to the `disk` that holds the map, which a closure waits for, and
    `mb_per_hour`, what an hour of two keyframes a second adds to the map. `cpu_percent_at_rest` is what the node takes
    of a core while a camera that shows the same all the time sends CAMERA_RATE images a second, of which a share of
    `received_at_rest` reaches the node.
    """
    network = DescriptorNetwork(model_path(config), config.backend, config.threads, config.untried_runtime)
    local_features = open_local_features(config.local_features, config.threads)
    world = World()
    views = [world.render(*place) for place in drive(VIEWS)]
    with own_ros(), tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = Path(folder, f"{size[0]}.db")
            write_map(path, KEYFRAMES, network.words * WORD_BITS, network.card.sha256)
            messages = [message_from_array(np.asarray(cv2.resize(view, size)), "rgb8") for view in views]
            # First the node, since a map belongs to one process at a time.
            node = _end_to_end(config, path, messages, repeat)
            times = measure(_timers(network, local_features, path, messages[0]), repeat)
            medians = {name: float(np.median(taken)) for name, taken in times.items()}
            others = sum(taken for name, taken in medians.items() if name not in ("network", "fsync"))
            matched = _with_match(config, Path(folder, f"{size[0]}_seen.db"), network, messages, repeat)
            yield {
                "size": f"{size[0]}x{size[1]}",
                **{f"{name}_ms": round(medians[name], 3) for name in ("network", "features", "verification")},
                **matched,
                **_at_rest(config, messages[0], repeat),
                "parts": {name: figures_of(taken) for name, taken in times.items()},
                "node": node,
                "without_fsync_ms": round(matched["keyframe_with_match_ms"] - medians["fsync"], 2),
                "disk": disk(path),
                "outside": round(sum(medians[name] for name in PER_IMAGE) / medians["network"], 2),
                "outside_keyframe": round(others / medians["network"], 2),
            }


def _timers(network: DescriptorNetwork, kind: LocalFeatures, path: Path, message: Image) -> dict[str, Timer]:
    """Return timers of the parts of the pipeline for one image and the map at `path`."""
    image = decode(message)
    height, width = network.card.input_size
    small = resize(image, (width, height))
    features = kind.extract(image)
    kept = features.fewer(KEPT_FEATURES)
    database = KeyframeDatabase(path, network.card.sha256, network.words, grids=network.card.grids)
    query = database.next_keyframe(time.time_ns(), network.describe(image).descriptor, features)
    closures = [LoopClosure(query, database.keyframe(0), 0, 1.0)]

    file = path.with_suffix(".flushed").open("wb", buffering=0)
    node = create_node("benchmark")
    keyframes = node.create_publisher(Header, "keyframes", EVERY_RESULT)
    rows = node.create_publisher(PointCloud2, "loop_closures", EVERY_RESULT)
    for message_type, publisher in ((Header, keyframes), (PointCloud2, rows)):
        node.create_subscription(message_type, publisher.topic_name, lambda _: None, EVERY_RESULT)

    def publish() -> None:
        keyframes.publish(message.header)
        rows.publish(message_from_closures(message.header, closures))

    def flush() -> None:
        file.write(bytes(FLUSHED))
        os.fsync(file.fileno())

    def save() -> None:
        database.add(database.next_keyframe(query.stamp, query.descriptor, kept))

    return {
        "conversion": timer(lambda: decode(message)),
        "resize": timer(lambda: resize(image, (width, height))),
        "network": timer(lambda: network.describe(small)),
        "search": timer(decide(database)),
        "publication": timer(publish),
        "features": timer(lambda: kind.extract(image)),
        "motion": timer(lambda: verify(features, features)),
        "verification": timer(lambda: verify(features, kept)),
        "saving": timer(save),
        "fsync": timer(flush),
    }


def _with_match(
    config: Config, path: Path, network: DescriptorNetwork, messages: list[Image], repeat: int
) -> dict[str, float]:
    """Send each image to a node whose map has seen it the day before; return the times until it was dealt with."""
    recognizer = PlaceRecognizer(config.replace(database=str(path), keyframe_distance=0.0), network)
    start = time.time_ns() - DAY
    for number, message in enumerate(messages):
        recognizer.process(decode(message), start + number * NANOSECONDS)
    recognizer.close()
    grown = path.stat().st_size
    arguments = ["-p", f"database:={path}", "-p", "keyframe_distance:=0.01", "-p", "keyframe_min_interval:=0.0"]
    closed: list[float] = []
    with _node(config, *arguments) as (process, listener, camera):
        for number in range(repeat):
            sent, message = time.time_ns(), messages[number % len(messages)]
            message.header.stamp = from_nanoseconds(sent)
            before = len(listener.closures)
            camera.publish(message)
            _wait(lambda: len(listener.keyframes) > number, process)  # noqa: B023 - called at once
            deadline = time.monotonic() + PATIENCE
            while len(listener.closures) == before and time.monotonic() < deadline:
                time.sleep(0.0005)
            if len(listener.closures) > before:
                closed.append((time.time_ns() - sent) / 1e6)
    keyframes = len(listener.keyframes)
    per_keyframe = (path.stat().st_size - grown) / max(keyframes, 1)
    return {
        "keyframe_with_match_ms": round(float(np.median(closed)), 2) if closed else float("nan"),
        "matched": round(len(closed) / repeat, 3),
        "mb_per_hour": round(per_keyframe * 3600 / Config.keyframe_min_interval / 1e6, 1),
    }


def _at_rest(config: Config, message: Image, repeat: int) -> dict[str, float]:
    """Send one image again and again to a node; return what it takes to see that nothing has changed."""
    with _node(config) as (process, listener, camera):
        started, used = time.monotonic(), _cpu_seconds(process)
        for number in range(repeat):
            message.header.stamp = from_nanoseconds(time.time_ns())
            camera.publish(message)
            time.sleep(max(0.0, started + (number + 1) / CAMERA_RATE - time.monotonic()))
        cpu = (_cpu_seconds(process) - used) / (time.monotonic() - started)
        listener.wait_until_settled(received=repeat)
        values = listener.diagnostics
    return {
        "image_ms": float(values["latency_ms_median"]),
        "cpu_percent_at_rest": round(cpu * 100, 1),
        "received_at_rest": round(int(values["images_received"]) / repeat, 3),
    }


@contextlib.contextmanager
def _node(config: Config, *arguments: str) -> Iterator[tuple[NodeProcess, Listener, Any]]:
    """Run a node with the model of `config`; yield it, a listener, and what publishes its images."""
    names = ("model", "backend", "threads", "local_features")
    parameters = {name: getattr(config, name) for name in names}
    settings = [word for name, value in parameters.items() if value != "" for word in ("-p", f"{name}:={value}")]
    with NodeProcess("-r", f"image:={TOPIC}", *settings, *arguments) as process, Listener() as listener:
        camera = listener.node.create_publisher(Image, TOPIC, LIKE_A_CAMERA)
        if not wait_for_subscriber(camera, LONGEST_WAIT):
            raise NodeError("the node did not start; its messages are above")
        yield process, listener, camera


def _cpu_seconds(process: NodeProcess) -> float:
    """Return the time of a processor that a node has taken so far, in seconds."""
    user, system = (
        Path(f"/proc/{process.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    )
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _wait(condition: Callable[[], bool], process: NodeProcess) -> None:
    deadline = time.monotonic() + LONGEST_WAIT
    while not condition():
        if time.monotonic() > deadline or process.process.poll() is not None:
            raise NodeError("the node did not answer an image; its messages are above")
        time.sleep(0.0005)


def _end_to_end(config: Config, path: Path, messages: list[Image], repeat: int) -> dict[str, float]:
    """Send `repeat` images to a node, each when the one before is published; return the times of its diagnostics."""
    arguments = ["-p", f"database:={path}", "-p", "keyframe_distance:=0.0", "-p", "keyframe_min_interval:=0.0"]
    with _node(config, *arguments) as (process, listener, camera):
        for number in range(repeat):
            message = messages[number % len(messages)]
            stamp = time.time_ns()
            message.header.stamp = from_nanoseconds(stamp)
            camera.publish(message)
            _wait(
                lambda: bool(listener.keyframes) and to_nanoseconds(listener.keyframes[-1].stamp) == stamp,  # noqa: B023
                process,
            )
        listener.wait_until_settled(received=repeat)
        values = listener.diagnostics
    names = (f"{kind}_ms_{percentile}" for kind in ("processing", "latency") for percentile in ("median", "p95", "p99"))
    return {name: float(values[name]) for name in names}
