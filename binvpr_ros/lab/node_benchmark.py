# SPDX-License-Identifier: Apache-2.0
"""`benchmark --node`: what an image costs from its message to the published closure, part by part and end to end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from binvpr_ros.config import Config, model_path
from binvpr_ros.images import resize
from binvpr_ros.lab.search import decide, write_map
from binvpr_ros.lab.timing import Timer, figures_of, measure, timer
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.orb import extract
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import WORD_BITS
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
    """
    network = DescriptorNetwork(model_path(config), config.backend, config.threads, config.untried_runtime)
    world = World()
    views = [world.render(*place) for place in drive(VIEWS)]
    with own_ros(), tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = Path(folder, f"{size[0]}.db")
            write_map(path, KEYFRAMES, network.words * WORD_BITS, network.card.sha256)
            messages = [message_from_array(np.asarray(cv2.resize(view, size)), "rgb8") for view in views]
            # First the node, since a map belongs to one process at a time.
            node = _end_to_end(config, path, messages, repeat)
            times = measure(_timers(network, path, messages[0]), repeat)
            medians = {name: float(np.median(taken)) for name, taken in times.items()}
            others = sum(taken for name, taken in medians.items() if name != "network")
            yield {
                "size": f"{size[0]}x{size[1]}",
                "parts": {name: figures_of(taken) for name, taken in times.items()},
                "node": node,
                "outside": round(sum(medians[name] for name in PER_IMAGE) / medians["network"], 2),
                "outside_keyframe": round(others / medians["network"], 2),
            }


def _timers(network: DescriptorNetwork, path: Path, message: Image) -> dict[str, Timer]:
    """Return timers of the parts of the pipeline for one image and the map at `path`."""
    image = decode(message)
    height, width = network.card.input_size
    small = resize(image, (width, height))
    features = extract(image)
    database = KeyframeDatabase(path, network.card.sha256, network.words, grids=network.card.grids)
    query = database.next_keyframe(time.time_ns(), network.describe(image).descriptor, features)
    closures = [LoopClosure(query, database.keyframe(0), 0, 1.0)]

    node = create_node("benchmark")
    keyframes = node.create_publisher(Header, "keyframes", EVERY_RESULT)
    rows = node.create_publisher(PointCloud2, "loop_closures", EVERY_RESULT)
    for kind, publisher in ((Header, keyframes), (PointCloud2, rows)):
        node.create_subscription(kind, publisher.topic_name, lambda _: None, EVERY_RESULT)

    def publish() -> None:
        keyframes.publish(message.header)
        rows.publish(message_from_closures(message.header, closures))

    def save() -> None:
        database.add(database.next_keyframe(query.stamp, query.descriptor, features))

    return {
        "conversion": timer(lambda: decode(message)),
        "resize": timer(lambda: resize(image, (width, height))),
        "network": timer(lambda: network.describe(small)),
        "search": timer(decide(database)),
        "publication": timer(publish),
        "features": timer(lambda: extract(image)),
        "verification": timer(lambda: verify(features, features)),
        "saving": timer(save),
    }


def _end_to_end(config: Config, path: Path, messages: list[Image], repeat: int) -> dict[str, float]:
    """Send `repeat` images to a node, each when the one before is published; return the times of its diagnostics."""
    parameters = {"model": config.model, "backend": config.backend, "threads": config.threads, "database": path}
    parameters |= {"keyframe_distance": 0.0, "keyframe_min_interval": 0.0}
    arguments = [word for name, value in parameters.items() if value != "" for word in ("-p", f"{name}:={value}")]
    with NodeProcess("-r", f"image:={TOPIC}", *arguments) as process, Listener() as listener:
        camera = listener.node.create_publisher(Image, TOPIC, LIKE_A_CAMERA)
        if not wait_for_subscriber(camera, LONGEST_WAIT):
            raise NodeError("the node did not start; its messages are above")
        for number in range(repeat):
            message = messages[number % len(messages)]
            stamp = time.time_ns()
            message.header.stamp = from_nanoseconds(stamp)
            camera.publish(message)
            deadline = time.monotonic() + LONGEST_WAIT
            while not listener.keyframes or to_nanoseconds(listener.keyframes[-1].stamp) != stamp:
                if time.monotonic() > deadline or process.process.poll() is not None:
                    raise NodeError("the node did not answer an image; its messages are above")
                time.sleep(0.001)
        listener.wait_until_settled(received=repeat)
        values = listener.diagnostics
    names = (f"{kind}_ms_{percentile}" for kind in ("processing", "latency") for percentile in ("median", "p95", "p99"))
    return {name: float(values[name]) for name in names}
