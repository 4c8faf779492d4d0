# SPDX-License-Identifier: Apache-2.0
"""`make demo-fleet`: two robots share a map, though one of them is killed on the way, and the server too.

Two nodes drive the two halves of the rendered building's drive at the same time, each with its own camera and map. The
map of their fleet is on an embedded PostgreSQL. Leaves fleet.png in the current folder, and ends with
`demo-fleet: <images> images, <keyframes> keyframes, <closures> closures between robots, <true> of them true`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from binvpr_ros.config import DEFAULT_MODEL, share_directory
from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.lab.embedded_postgres import EmbeddedPostgres
from binvpr_ros.maps.fleet import schema
from binvpr_ros.maps.fleet.server import connected
from binvpr_ros.network.model_card import ModelCard
from binvpr_ros.recordings.world import Pose, World, drive, wall_segments
from binvpr_ros.ros.live import (
    EVERY_RESULT,
    LIKE_A_CAMERA,
    Image,
    Listener,
    NodeProcess,
    PointCloud2,
    from_nanoseconds,
    message_from_array,
    own_ros,
    read_fleet_closures,
    wait_for_subscriber,
)

PICTURE = Path("fleet.png")
ROBOTS = ("alice", "bob")
COLOURS = {"alice": "tab:blue", "bob": "tab:orange"}
RATE = 8.0
"""Images a second of each robot: both nodes share this machine."""
ROBOT_KILLED, SERVER_KILLED = 0.3, 0.6
"""Of the drive's images."""
SERVER_AWAY = 6.0
"""Seconds."""
START_SECONDS = 60.0
CATCH_UP_SECONDS = 120.0


@dataclass
class Robot:
    """A node with its camera, and what is known of it."""

    name: str
    folder: Path
    url: str
    listener: Listener = field(init=False)
    process: NodeProcess = field(init=False)
    pose_at: dict[int, Pose] = field(default_factory=dict)
    closures: list[FleetClosure] = field(default_factory=list)
    lags: list[tuple[float, int]] = field(default_factory=list)  # seconds, and keyframes

    def __post_init__(self) -> None:
        self.listener = Listener(f"/{self.name}")
        self.listener.node.create_subscription(PointCloud2, "fleet_closures", self._on_closures, EVERY_RESULT)
        self._camera = self.listener.node.create_publisher(Image, f"/{self.name}/image", LIKE_A_CAMERA)
        self.start()

    def start(self) -> None:
        """Start the node, also after it was killed."""
        self.process = NodeProcess(
            "-r", f"__ns:=/{self.name}", "-p", f"database:={self.folder / self.name}.db", "-p", f"fleet:={self.url}",
            "-p", "fleet_site:=building",
        )  # fmt: skip

    def ready(self) -> bool:
        """Wait until the node takes images."""
        return bool(wait_for_subscriber(self._camera, START_SECONDS))

    def show(self, image: Any, pose: Pose) -> None:
        """Show the node an image, taken now."""
        message = message_from_array(image, "rgb8")
        stamp = time.time_ns()
        message.header.stamp = from_nanoseconds(stamp)
        self.pose_at[stamp] = pose
        self._camera.publish(message)

    @property
    def lag(self) -> int:
        """Keyframes that the server does not have, or for which no closure was looked for."""
        values = self.listener.diagnostics
        return int(values.get("fleet_lag_keyframes", 0)) + int(values.get("fleet_undecided", 0))

    def in_step(self) -> bool:
        """Tell whether the node has nothing left to send."""
        return self.listener.diagnostics.get("fleet_connected") == "True" and self.lag == 0

    def _on_closures(self, message: PointCloud2) -> None:
        self.closures += [row.closure for row in read_fleet_closures(message)]


def main() -> int:
    """Run the demo; the exit status is 1 where the robots do not find each other, or the server lacks a keyframe."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder, "postgres")) as server, own_ros():
        asyncio.run(_prepare(server))
        robots = [Robot(name, Path(folder), server.url(name)) for name in ROBOTS]
        try:
            return _run(robots, server)
        finally:
            for robot in robots:
                robot.process.stop()
                robot.listener.close()


async def _prepare(server: EmbeddedPostgres) -> None:
    """Do what `binvpr fleet init URL --site building --robot alice bob` does."""
    card = ModelCard.read(share_directory() / "models" / DEFAULT_MODEL)
    async with connected(server.url(), patient=True) as connection:
        await schema.init(connection)
        await schema.add_pgvector(connection)
        await schema.add_realm(connection, "building", card.sha256, card.descriptor_bits // 64, card.grids)
        await schema.add_indexes(connection)
        for name in ROBOTS:
            await schema.add_robot(connection, name)


def _run(robots: Sequence[Robot], server: EmbeddedPostgres) -> int:
    world, stops = World(), list(drive())
    half = len(stops) // 2
    print("rendering the drive", file=sys.stderr)
    images = [world.render(*stop) for stop in stops]
    if not all(robot.ready() for robot in robots):
        print("demo-fleet: a node does not start; its messages are above", file=sys.stderr)
        return 1
    start, events = time.monotonic(), list[tuple[float, str]]()
    for number in range(half):
        _meanwhile(number / half, robots, server, events, start)
        for robot, at in zip(robots, (number, half + number), strict=True):
            robot.show(images[at], stops[at][0])
            robot.lags.append((time.monotonic() - start, robot.lag))
        time.sleep(max(0.0, start + (number + 1) / RATE - time.monotonic()))
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while not all(robot.in_step() for robot in robots) and time.monotonic() < deadline:
        time.sleep(0.2)
        for robot in robots:
            robot.lags.append((time.monotonic() - start, robot.lag))
    time.sleep(2.0)  # what was published last is on its way
    return _report(robots, server, events, 2 * half)


def _meanwhile(
    share: float, robots: Sequence[Robot], server: EmbeddedPostgres, events: list[tuple[float, str]], start: float
) -> None:
    """Kill a robot's node, and later the server, once each."""
    done = [what for _, what in events]
    if share >= ROBOT_KILLED and "bob is killed" not in done:
        events.append((time.monotonic() - start, "bob is killed"))
        print("killing bob's node, and starting it again", file=sys.stderr)
        robots[1].process.process.kill()
        robots[1].process.process.wait()
        robots[1].start()
    if share >= SERVER_KILLED and "the server is killed" not in done:
        events.append((time.monotonic() - start, "the server is killed"))
        print(f"killing the server, and starting it again in {SERVER_AWAY:.0f} s", file=sys.stderr)
        threading.Thread(target=_restart, args=(server,)).start()


def _restart(server: EmbeddedPostgres) -> None:
    server.kill()
    time.sleep(SERVER_AWAY)
    server.start()


def _report(robots: Sequence[Robot], server: EmbeddedPostgres, events: list[tuple[float, str]], images: int) -> int:
    pose_at = {stamp: pose for robot in robots for stamp, pose in robot.pose_at.items()}
    closures = [closure for robot in robots for closure in robot.closures]
    true = [pose_at[one.query_stamp].same_place(pose_at[one.match_stamp]) for one in closures]
    kept = asyncio.run(_stamps(server))
    announced = {robot.name: {_stamp(header) for header in robot.listener.keyframes} for robot in robots}
    missing = sum(len(stamps - kept.get(name, set())) for name, stamps in announced.items())
    draw(PICTURE, robots, closures, true, events)
    print(f"announced keyframes that the server lacks: {missing}; picture: {PICTURE}")
    keyframes = sum(map(len, kept.values()))
    print(
        f"demo-fleet: {images} images, {keyframes} keyframes, {len(closures)} closures between robots, "
        f"{sum(true)} of them true"
    )
    return 0 if any(true) and not missing else 1


def _stamp(header: Any) -> int:
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


async def _stamps(server: EmbeddedPostgres) -> dict[str, set[int]]:
    """Return the stamps of the server's keyframes by robot."""
    found: dict[str, set[int]] = {}
    async with connected(server.url()) as connection:
        for robot, stamp in await connection.fetch(
            "SELECT robot, stamp FROM maps JOIN keyframes USING (realm, map_no)"
        ):
            found.setdefault(robot, set()).add(stamp)
    return found


def draw(
    picture: Path,
    robots: Sequence[Robot],
    closures: Sequence[FleetClosure],
    true: Sequence[bool],
    events: Sequence[tuple[float, str]],
) -> None:
    """Draw both routes with the closures between them, and how far the server was behind each robot."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    axes, lags = figure.subplots(1, 2, width_ratios=[1.5, 1])
    axes.add_collection(LineCollection(wall_segments(), colors="0.4", linewidths=2))
    pose_at = {stamp: pose for robot in robots for stamp, pose in robot.pose_at.items()}
    for robot in robots:
        poses = list(robot.pose_at.values())
        axes.plot([one.x for one in poses], [one.y for one in poses], color=COLOURS[robot.name], label=robot.name)
        lags.plot(*zip(*robot.lags, strict=True), color=COLOURS[robot.name], label=robot.name)
    for closure, good in zip(closures, true, strict=True):
        ends = pose_at[closure.query_stamp], pose_at[closure.match_stamp]
        colour = "tab:green" if good else "tab:red"
        axes.plot([one.x for one in ends], [one.y for one in ends], "o-", color=colour, linewidth=1, markersize=2.5)
    for seconds, what in events:
        lags.axvline(seconds, color="0.5", linestyle=":")
        lags.annotate(what, (seconds, 0.98), xycoords=("data", "axes fraction"), rotation=90, ha="right", va="top")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    axes.set(xlabel="x [m]", ylabel="y [m]", title="Two robots, and closures between them (green: true, red: false)")
    lags.set(xlabel="time [s]", ylabel="keyframes not sent, or not decided", title="Lag", ylim=(0, None))
    lags.legend(loc="center left")
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    sys.exit(main())
