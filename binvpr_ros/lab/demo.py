# SPDX-License-Identifier: Apache-2.0
"""`make demo`: run the node end to end over DDS, on a rendered building or your own images.

Writes demo.png to the current folder, and ends with
`demo: <images> images, <keyframes> keyframes, <closures> loop closures`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.images import Stretch, from_thumbnail, thumbnail
from binvpr_ros.lab.evaluation.datasets.sequences import Relation
from binvpr_ros.lab.view import CLOSED, View, ViewError
from binvpr_ros.lab.view import add_arguments as add_view_arguments
from binvpr_ros.loop_closure import Refusal
from binvpr_ros.recordings.bags import camera_info_topic
from binvpr_ros.recordings.world import RATE, Pose, World, drive, wall_segments
from binvpr_ros.ros.live import (
    EVERY_RESULT,
    Image,
    ImageMessage,
    Listener,
    NodeProcess,
    PointCloud2,
    Source,
    SourceError,
    decode,
    in_time,
    message_from_array,
    open_source,
    own_ros,
    publish,
    rows_from_message,
    to_nanoseconds,
)

TOPIC = "/demo/image"
PICTURE = Path("demo.png")
PAIRS = 3
THUMBNAIL_SIDE = 320
THUMBNAIL_QUALITY = 80
SECONDS = 1e-9


@dataclass(frozen=True)
class Pair:
    """A published closure: stamps in nanoseconds."""

    query: int
    match: int
    score: float


def pairs_of(message: PointCloud2) -> list[Pair]:
    """Return the closures in a message."""
    query = to_nanoseconds(message.header.stamp)
    return [
        Pair(query, int(row["match_sec"]) * 10**9 + int(row["match_nanosec"]), float(row["score"]))
        for row in rows_from_message(message)
    ]


class Album:
    """A small copy of every published image, by stamp, for the picture."""

    def __init__(self) -> None:
        self._jpegs: dict[int, bytes] = {}
        self._stretch = Stretch()

    def keep(self, message: ImageMessage) -> None:
        """Keep a small copy of `message`; raises ImageError."""
        self._jpegs[to_nanoseconds(message.header.stamp)] = thumbnail(
            decode(message, self._stretch), THUMBNAIL_SIDE, THUMBNAIL_QUALITY
        )

    def __getitem__(self, stamp: int) -> NDArray[np.uint8]:
        image = from_thumbnail(self._jpegs[stamp])
        assert image is not None  # noqa: S101 -- our own jpeg file
        return image

    @property
    def stamps(self) -> list[int]:
        """Stamps of the images, in order of publication."""
        return list(self._jpegs)


class Audience:
    """Tells a view what the node publishes; `poses` are those of the images in order, where they are known."""

    def __init__(self, view: View, listener: Listener, album: Album, poses: list[Pose]) -> None:
        self._view, self._listener, self._album = view, listener, album
        self._poses, self._pose_at = iter(poses), dict[int, Pose]()
        self._closures = 0  # messages that were told of
        self._closed: set[int] = set()  # stamps of the keyframes that closed a loop
        self._counts: dict[str, int] = {}
        self._pictures: list[Image] = []
        listener.node.create_subscription(Image, "binvpr/match_image", self._pictures.append, EVERY_RESULT)

    def image(self, message: ImageMessage) -> None:
        """Keep the image of a message, tell of it, and of what the node has published meanwhile; raises ImageError."""
        self._album.keep(message)
        stamp = to_nanoseconds(message.header.stamp)
        pose = next(self._poses, None)
        if pose is not None:
            self._pose_at[stamp] = pose
        self._view.image(stamp, self._album[stamp], None if pose is None else (pose.x, pose.y))
        self.catch_up()

    def catch_up(self, at_end: bool = False) -> None:
        """Tell of what the node has published since the last call."""
        messages = self._listener.closures[self._closures :]
        self._closures += len(messages)
        for pair in (pair for message in messages for pair in pairs_of(message)):
            self._closed.add(pair.query)
            self._view.closure(pair.query, pair.match, pair.score, self._relation(pair))
        # The newest picture may have come before the closures that it shows.
        while len(self._pictures) > (not at_end):
            message = self._pictures.pop(0)
            stamp = to_nanoseconds(message.header.stamp)
            self._view.picture(stamp, decode(message, Stretch()), stamp in self._closed)
        values = self._listener.diagnostics
        counts = {CLOSED: int(values.get("keyframes_closed", 0))}
        counts |= {reason.value: int(values.get(f"unclosed_{reason.value}", 0)) for reason in Refusal}
        if counts != self._counts and any(counts.values()):
            self._counts = counts
            self._view.outcomes(self._album.stamps[-1], counts)

    def _relation(self, pair: Pair) -> Relation | None:
        """Return what a closure's images really show, where their poses are known."""
        if not self._pose_at:
            return None
        return Relation.SAME if self._pose_at[pair.query].same_place(self._pose_at[pair.match]) else Relation.APART


def main() -> int:
    """Run the demo; the exit status is 1 where the images cannot be read or the node fails."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "images", type=Path, nargs="?", help="folder of images, video, or bag (default: a rendered building)"
    )
    parser.add_argument(
        "--image-topic", "--source-topic", default="", metavar="TOPIC", help="image topic, if a bag has several"
    )
    add_view_arguments(parser)
    choices = parser.parse_args()
    if not os.access(PICTURE.parent, os.W_OK):
        parser.error(f"{PICTURE} cannot be written into {Path.cwd()}; go to a folder that you may write into")
    try:
        with viewing(choices.images, choices.view, choices.record) as view:
            return run(choices.images, choices.image_topic, view)
    except (SourceError, ViewError) as error:
        print(f"demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
    return 1


@contextlib.contextmanager
def viewing(images: Path | None, viewer: bool, file: Path | None) -> Iterator[View | None]:
    """Open a view of the drive in Rerun's viewer and in a file, as far as it is wanted; raises ViewError."""
    if not viewer and file is None:
        yield None
        return
    name, walls, corners = "rendered building", wall_segments(), None
    if images is None:
        ends = np.reshape(walls, (-1, 2))
        corners = (ends[:, 0].min(), ends[:, 1].min()), (ends[:, 0].max(), ends[:, 1].max())
    else:
        name, walls = images.name, []
    with View(name, viewer=viewer, file=file, corners=corners, walls=walls) as view:
        yield view


def run(images: Path | None, topic: str = "", view: View | None = None) -> int:
    """Publish the images to a node of our own, collect its closures, draw them, and count; `view` shows it all."""
    poses: list[Pose] = []
    messages: Iterable[ImageMessage]
    source: Source | None = None
    if images is None:
        messages, poses = rendered_drive()
        total, rate = len(messages), RATE
    else:
        source = open_source(images, topic)
        messages, total, rate = in_time(source.read(stretch=Stretch())), len(source), math.inf
    album = Album()
    arguments = ["-r", f"image:={TOPIC}", "-r", f"camera_info:={camera_info_topic(TOPIC)}"]
    arguments += ["-p", "stretch_16_bit:=true"]  # the images may be a thermal camera's, which would look black without
    arguments += ["-p", "thumbnails:=true"]  # for who looks at ~/match_image meanwhile
    with own_ros(), NodeProcess(*arguments) as node, Listener() as listener:
        audience = None if view is None else Audience(view, listener, album, poses)
        progress = tqdm(messages, total=total, desc="publish", unit="image", file=sys.stderr)
        published = publish(
            listener.node,
            TOPIC,
            progress,
            rate,
            frame_id="demo_camera",
            wait=60.0,
            before=album.keep if audience is None else audience.image,
            camera_info=source.camera_info if source is not None else None,
        )
        settled = listener.wait_until_still()
        if audience is not None and published:
            audience.catch_up(at_end=True)
        died = node.process.poll()
        time.sleep(0.5)
    counts = listener.diagnostics
    if published == 0:
        print("demo: none of the images can be decoded; name others", file=sys.stderr)
        return 1
    if died is not None or int(counts.get("images_processed", 0)) == 0:
        print("demo: the node did not process the images; its messages are above", file=sys.stderr)
        return 1
    if not settled:
        print("demo: the node was still busy with the images when it was stopped", file=sys.stderr)

    pairs = [pair for message in listener.closures for pair in pairs_of(message)]
    true = None
    if poses:
        pose_at = dict(zip(album.stamps, poses, strict=True))
        true = [pose_at[pair.query].same_place(pose_at[pair.match]) for pair in pairs]
        print(f"ground truth: {sum(true)} of {len(pairs)} published closures are true (within 2 m and 30 degrees)")
    draw(PICTURE, album, pairs, true, pose_at if poses else None)
    if source is not None and source.left_out:
        print(source.describe_left_out())
    print(f"processed {counts['images_processed']}, dropped {counts['images_dropped']}, "
          f"lost before the node {published - int(counts['images_received'])}, "
          f"median {counts['processing_ms_median']} ms an image; picture: {PICTURE}")  # fmt: skip
    print(f"demo: {published} images, {len(listener.keyframes)} keyframes, {len(pairs)} loop closures")
    return 0


def rendered_drive() -> tuple[list[ImageMessage], list[Pose]]:
    """Return the images of the drive through the rendered building, and their true poses."""
    world, stops = World(), list(drive())
    messages = [
        message_from_array(world.render(pose, light, warmth), "rgb8")
        for pose, light, warmth in tqdm(stops, desc="render", unit="image", file=sys.stderr)
    ]
    return messages, [pose for pose, _, _ in stops]


def draw(
    picture: Path, album: Album, pairs: list[Pair], true: list[bool] | None, pose_at: dict[int, Pose] | None
) -> None:
    """Draw the route (or the timeline) with its closures, and the best matched pairs side by side."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    subfigures: Any = figure.subfigures(1, 2, width_ratios=[1.7, 1])
    left, right = subfigures
    axes = left.subplots()
    colours = ["tab:blue"] * len(pairs) if true is None else ["tab:green" if good else "tab:red" for good in true]
    if pose_at is None:
        _draw_timeline(axes, album.stamps, pairs, colours)
    else:
        _draw_route(axes, pose_at, pairs, colours)
    shown = list(_best_apart(pairs, PAIRS))
    if shown:
        grid = right.subplots(len(shown), 2, squeeze=False)
        start = album.stamps[0]
        for (query_axes, match_axes), pair in zip(grid, shown, strict=True):
            for panel, stamp, name in ((query_axes, pair.query, "query"), (match_axes, pair.match, "match")):
                panel.imshow(album[stamp], cmap="gray")
                panel.set_axis_off()
                panel.set_title(f"{name}, {(stamp - start) * SECONDS:.1f} s", fontsize=10)
            match_axes.set_title(f"{match_axes.get_title()} (score {pair.score:.2f})", fontsize=10)
    figure.savefig(picture, dpi=100)


def _best_apart(pairs: list[Pair], count: int) -> Iterator[Pair]:
    """Yield the best pair of each of `count` equal stretches of the queries."""
    if not pairs:
        return
    queries = np.array([pair.query for pair in pairs])
    edges = np.linspace(queries.min(), queries.max() + 1, count + 1)
    for start, end in itertools.pairwise(edges):
        stretch = [pair for pair in pairs if start <= pair.query < end]
        if stretch:
            yield max(stretch, key=lambda pair: pair.score)


def _draw_route(axes: Any, pose_at: dict[int, Pose], pairs: list[Pair], colours: list[str]) -> None:
    axes.add_collection(LineCollection(wall_segments(), colors="0.4", linewidths=2))
    axes.plot([pose.x for pose in pose_at.values()], [pose.y for pose in pose_at.values()], color="0.75", linewidth=1.5)
    for pair, colour in zip(pairs, colours, strict=True):
        ends = pose_at[pair.query], pose_at[pair.match]
        axes.plot([pose.x for pose in ends], [pose.y for pose in ends], "o-", color=colour, linewidth=1, markersize=2.5)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set(xlabel="x [m]", ylabel="y [m]", title="Route and loop closures (green: true, red: false)")


def _draw_timeline(axes: Any, stamps: list[int], pairs: list[Pair], colours: list[str]) -> None:
    start, end = stamps[0], stamps[-1]
    axes.scatter(
        [(p.query - start) * SECONDS for p in pairs], [(p.match - start) * SECONDS for p in pairs], s=10, c=colours
    )
    duration = (end - start) * SECONDS
    axes.plot([0, duration], [0, duration], color="0.75", linewidth=1)
    axes.set(xlabel="time of the query [s]", ylabel="time of the matched keyframe [s]", title="Loop closures")


if __name__ == "__main__":
    sys.exit(main())
